import { type ByteString, byteString, byteStringOfText, joined, told } from "../browsing/names.js";
import { findPath } from "../browsing/paths.js";
import { Entered, type Listed, sortedEntries } from "../browsing/walk.js";
import type { FileId, FileSystem } from "../filesystems/filesystem.js";
import type { Command } from "./command.js";
import {
  type ImageArguments,
  imageOptions,
  imagePositional,
  nameWriter,
  type Problems,
  pathsInWords,
  pathsOf,
  withFiles,
} from "./image-files.js";
import { writeJson, writeParts } from "./long-results.js";
import { wholeNumber } from "./numbers.js";

export interface TreeArguments extends ImageArguments {
  path?: string[];
  all?: boolean;
  folders?: boolean;
  depth?: string;
}

export const tree: Command<TreeArguments> = {
  syntax: "tree <image> [path..]",
  summary: "Draw the folders of an image",
  description: `Draws folders and all that is in them as a tree, and counts them. Symbolic links are shown with their target and not followed. ${pathsInWords}`,
  positionals: {
    image: imagePositional,
    path: { completes: "nothing", describe: "Where to begin; the root by default", array: true },
  },
  options: {
    all: { type: "boolean", alias: "a", describe: "Names that begin with a point, too" },
    folders: { type: "boolean", alias: "d", describe: "Folders only" },
    depth: { alias: "L", value: "N", describe: "Levels to show, for example 2" },
    ...imageOptions,
  },
  examples: [
    ["spindle tree -L 2 disk.spin", "Two levels"],
    ["spindle tree disk.spin /etc/apt", "One folder"],
  ],

  async run(given, terminal) {
    const depth = wholeNumber(given.depth, "--depth", 1, Number.MAX_SAFE_INTEGER) ?? Number.POSITIVE_INFINITY;
    await withFiles(given, terminal, async (files, problems) => {
      const nodes = nodesOf(files, given, depth, problems);
      const counts = { directories: 0, files: 0 };
      if (terminal.json)
        await writeJson(terminal, "entries", nodesTold(nodes, counts), () => ({ ...counts, problems: problems.kept }));
      else await writeParts(terminal, drawing(nodes, counts, nameWriter(terminal)));
    });
  },
};

interface Node {
  readonly entry: Listed;
  readonly path: ByteString;
  /** 0 for a path of the command line. */
  readonly depth: number;
  /** For each level above, and for this one, whether it is the last of its folder. */
  readonly last: readonly boolean[];
  readonly target: ByteString | undefined;
}

/** Everything to show, each folder before what is in it. `last` is one array that changes as the walk goes on. */
function* nodesOf(files: FileSystem, given: TreeArguments, depth: number, problems: Problems): Generator<Node> {
  const wanted = ({ name, kind }: Listed) =>
    (given.all || !name.startsWith(".")) && (!given.folders || kind === "directory");
  function* entriesOf(folder: FileId, path: ByteString): Generator<Listed> {
    for (const entry of sortedEntries(files, folder, path, problems.add)) if (wanted(entry)) yield entry;
  }
  for (const path of pathsOf(given.path)) {
    const start = problems.try(path, (): Listed => {
      const { file } = findPath(files, path, { follow: false });
      return { name: path, file, kind: files.attributes(file).kind, inode: undefined };
    });
    if (!start) continue;
    const last: boolean[] = [];
    const targetOf = ({ kind, file }: Listed, path: ByteString) =>
      kind === "symlink" ? problems.try(path, () => byteString(files.readLink(file))) : undefined;
    yield { entry: start, path, depth: 0, last, target: targetOf(start, path) };
    if (start.kind !== "directory") continue;
    const entered = new Entered();
    entered.admit(start.file, path, 0, problems.add);
    const open = [{ path, children: ahead(entriesOf(start.file, path)) }];
    for (let folder = open.at(-1); folder; folder = open.at(-1)) {
      const next = folder.children.next();
      if (next.done) {
        open.pop();
        last.pop();
        continue;
      }
      const { value: entry, isLast } = next.value;
      const path = joined(folder.path, entry.name);
      last[open.length - 1] = isLast;
      yield { entry, path, depth: open.length, last, target: targetOf(entry, path) };
      if (
        entry.kind === "directory" &&
        open.length < depth &&
        entered.admit(entry.file, path, open.length, problems.add)
      )
        open.push({ path, children: ahead(entriesOf(entry.file, path)) });
    }
  }
}

/** Tells of each item whether it is the last. */
function* ahead<T>(items: Iterable<T>): Generator<{ value: T; isLast: boolean }> {
  let held: { value: T } | undefined;
  for (const value of items) {
    if (held) yield { value: held.value, isLast: false };
    held = { value };
  }
  if (held) yield { value: held.value, isLast: true };
}

interface Counts {
  directories: number;
  files: number;
}

/** What is beneath the starts is counted, not the starts. */
function count(counts: Counts, { entry, depth }: Node): void {
  if (depth === 0) return;
  if (entry.kind === "directory") counts.directories++;
  else counts.files++;
}

const branch = byteStringOfText("├── ");
const lastBranch = byteStringOfText("└── ");
const trunk = byteStringOfText("│   ");

function* drawing(
  nodes: Iterable<Node>,
  counts: Counts,
  shown: (name: ByteString) => ByteString,
): Generator<ByteString> {
  for (const node of nodes) {
    const { entry, depth, last, target } = node;
    count(counts, node);
    for (let level = 0; level < depth - 1; level++) yield last[level] ? "    " : trunk;
    const mark = depth === 0 ? "" : last[depth - 1] ? lastBranch : branch;
    yield `${mark}${shown(entry.name)}${target === undefined ? "" : ` -> ${shown(target)}`}\n`;
  }
  const { directories, files } = counts;
  yield `\n${directories} ${directories === 1 ? "folder" : "folders"}, ${files} ${files === 1 ? "file" : "files"}\n`;
}

function* nodesTold(nodes: Iterable<Node>, counts: Counts): Generator<unknown> {
  for (const node of nodes) {
    const { entry, path, depth, target } = node;
    count(counts, node);
    yield { ...told("path", path), kind: entry.kind, depth, ...(target === undefined ? {} : told("target", target)) };
  }
}
