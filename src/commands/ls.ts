import { attributesTold } from "../browsing/attributes.js";
import { type ByteString, byteString, joined, told } from "../browsing/names.js";
import { findPath, type Place } from "../browsing/paths.js";
import { Entered, type Listed, type Problem, sortedEntries } from "../browsing/walk.js";
import type { Attributes, FileSystem } from "../filesystems/filesystem.js";
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
import { longLine, longWidths, totalLine } from "./long-listing.js";
import { writeJson, writeParts } from "./long-results.js";

export interface LsArguments extends ImageArguments {
  path?: string[];
  long?: boolean;
  all?: boolean;
  recursive?: boolean;
  human?: boolean;
  directory?: boolean;
  inode?: boolean;
}

export const ls: Command<LsArguments> = {
  syntax: "ls <image> [path..]",
  summary: "List files of an image",
  description:
    "Lists folders of an image, sorted by the bytes of their names, one name a line. Symbolic links are not followed at the end of a path, except with a slash behind them. " +
    `Names are written as they are, but on a terminal control characters and bytes that are no UTF-8 are escaped as ls -b does. ${pathsInWords}`,
  positionals: {
    image: imagePositional,
    path: { completes: "nothing", describe: "What to list; the root by default", array: true },
  },
  options: {
    long: { type: "boolean", alias: "l", describe: "Mode, links, owner, group, size, time of change and link targets" },
    all: { type: "boolean", alias: "a", describe: "Names that begin with a point, too" },
    recursive: { type: "boolean", alias: "R", describe: "Folders within folders, too" },
    human: { type: "boolean", alias: "h", describe: "Sizes for people, for example 1.5M" },
    directory: { type: "boolean", alias: "d", describe: "Folders themselves, not what is in them" },
    inode: { type: "boolean", alias: "i", describe: "The number of each file" },
    ...imageOptions,
  },
  examples: [
    ["spindle ls disk.spin /etc", "The names in /etc"],
    ["spindle ls -la --volume 2 disk.spin", "The root of partition 2, in full"],
    ["spindle ls --json disk.spin /home | jq '.entries[].name'", "For a script"],
  ],

  async run(given, terminal) {
    await withFiles(given, terminal, async (tree, problems) => {
      if (terminal.json)
        await writeJson(terminal, "entries", entriesTold(tree, given, problems), () => ({ problems: problems.kept }));
      else await writeParts(terminal, listing(tree, given, problems, nameWriter(terminal)));
    });
  },
};

/** Something to list: one file, or the entries of a folder. */
interface Subject {
  readonly path: ByteString;
  readonly entry: Listed;
  readonly folders: Place["folders"];
}

function subjectsOf(
  tree: FileSystem,
  given: LsArguments,
  problems: Problems,
): { files: Subject[]; folders: Subject[] } {
  const files: Subject[] = [];
  const folders: Subject[] = [];
  for (const path of pathsOf(given.path)) {
    const subject = problems.try(path, (): Subject => {
      const { file, folders } = findPath(tree, path, { follow: false });
      return { path, folders, entry: { name: path, file, kind: tree.attributes(file).kind, inode: undefined } };
    });
    if (subject) (subject.entry.kind === "directory" && !given.directory ? folders : files).push(subject);
  }
  const byPath = (a: Subject, b: Subject) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0);
  return { files: files.sort(byPath), folders: folders.sort(byPath) };
}

/** The folders to list, each with its entries, in the order of `ls -R`. */
function* foldersOf(
  tree: FileSystem,
  given: LsArguments,
  subjects: readonly Subject[],
  problem: Problem,
): Generator<{ path: ByteString; entries: Listed[] }> {
  for (const { path, entry, folders } of subjects) {
    const entered = new Entered();
    entered.admit(entry.file, path, 0, problem);
    // Last in, first out: what is next is at the end.
    const open = [{ path, file: entry.file, parent: folders.at(-1)!, depth: 0 }];
    for (let folder = open.pop(); folder; folder = open.pop()) {
      const { path, file, parent, depth } = folder;
      const entries: Listed[] = [];
      if (given.all)
        for (const [name, id] of [[".", file] as const, ["..", parent] as const])
          entries.push({ name, file: id, kind: "directory", inode: undefined });
      for (const one of sortedEntries(tree, file, path, problem))
        if (given.all || !one.name.startsWith(".")) entries.push(one);
      // `.` and `..` are sorted like any name: `!x` is before them.
      if (given.all) entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
      if (given.recursive)
        for (let index = entries.length - 1; index >= 0; index--) {
          const { kind, name, file: id } = entries[index]!;
          const below = joined(path, name);
          if (kind === "directory" && name !== "." && name !== ".." && entered.admit(id, below, depth + 1, problem))
            open.push({ path: below, file: id, parent: file, depth: depth + 1 });
        }
      yield { path, entries };
    }
  }
}

/** The listing as `ls` writes it. */
export function* listing(
  tree: FileSystem,
  given: LsArguments,
  problems: Problems,
  shown: (name: ByteString) => ByteString,
): Generator<ByteString> {
  const { files, folders } = subjectsOf(tree, given, problems);
  const fileEntries = files.map(({ entry }) => entry);
  yield* lines(tree, given, fileEntries, undefined, problems, shown);
  const titles = folders.length + files.length > 1 || given.recursive || (given.path?.length ?? 0) > 1;
  let first = files.length === 0;
  for (const { path, entries } of foldersOf(tree, given, folders, problems.add)) {
    if (titles) yield `${first ? "" : "\n"}${shown(path)}:\n`;
    first = false;
    yield* lines(tree, given, entries, path, problems, shown);
  }
}

/** Attributes kept between the pass that finds the widths of the columns and the one that writes them. */
const keptAttributes = 1 << 16;

/** @param folder where the entries are; undefined when their names are paths. */
function* lines(
  tree: FileSystem,
  given: LsArguments,
  entries: readonly Listed[],
  folder: ByteString | undefined,
  problems: Problems,
  shown: (name: ByteString) => ByteString,
): Generator<ByteString> {
  const pathOf = ({ name }: Listed) => (folder === undefined ? name : joined(folder, name));
  if (!given.long) {
    const inodeOf = (entry: Listed) =>
      entry.inode ?? problems.try(pathOf(entry), () => tree.attributes(entry.file).inode) ?? "?";
    if (!given.inode) for (const entry of entries) yield `${shown(entry.name)}\n`;
    else {
      const inodes = entries.map((entry) => String(inodeOf(entry)));
      const width = inodes.reduce((most, inode) => Math.max(most, inode.length), 0);
      for (const [index, entry] of entries.entries()) yield `${inodes[index]!.padStart(width)} ${shown(entry.name)}\n`;
    }
    return;
  }
  const kept: (Attributes | undefined)[] = [];
  const widths = longWidths(given.human ?? false);
  for (const [index, entry] of entries.entries()) {
    const attributes = problems.try(pathOf(entry), () => tree.attributes(entry.file));
    if (index < keptAttributes) kept.push(attributes);
    if (attributes) widths.add(attributes, hasAcl(tree, entry));
  }
  if (folder !== undefined) yield `${totalLine(widths)}\n`;
  for (const [index, entry] of entries.entries()) {
    // What can't be read was told in the first pass.
    const attributes = index < keptAttributes ? kept[index] : quietly(() => tree.attributes(entry.file));
    const target =
      attributes?.kind === "symlink"
        ? problems.try(pathOf(entry), () => byteString(tree.readLink(entry.file)))
        : undefined;
    const arrow = target === undefined ? "" : ` -> ${shown(target)}`;
    const inode = given.inode ? `${String(attributes?.inode ?? "?").padStart(widths.inode)} ` : "";
    yield `${inode}${longLine(attributes, hasAcl(tree, entry), widths)} ${shown(entry.name)}${arrow}\n`;
  }
}

function quietly<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch {
    return undefined;
  }
}

/** Whether more than the mode decides who may do what, which `ls -l` shows as a plus. */
function hasAcl(tree: FileSystem, { file, kind }: Listed): boolean {
  if (kind === "symlink") return false;
  const names = quietly(() => tree.extendedAttributes?.(file));
  return names !== undefined && (names.has("system.posix_acl_access") || names.has("system.posix_acl_default"));
}

function* entriesTold(tree: FileSystem, given: LsArguments, problems: Problems): Generator<unknown> {
  const { files, folders } = subjectsOf(tree, given, problems);
  const one = (entry: Listed, path: ByteString) => {
    const attributes = problems.try(path, () => tree.attributes(entry.file));
    const target =
      attributes?.kind === "symlink" ? problems.try(path, () => byteString(tree.readLink(entry.file))) : undefined;
    // Not spread into one literal: for 200,000 entries that took longer than reading them.
    return Object.assign(
      told("path", path),
      told("name", entry.name),
      attributes ? attributesTold(attributes) : { kind: entry.kind },
      target === undefined ? {} : told("target", target),
    );
  };
  for (const { entry, path } of files) yield one(entry, path);
  for (const { path, entries } of foldersOf(tree, given, folders, problems.add))
    for (const entry of entries) yield one(entry, joined(path, entry.name));
}
