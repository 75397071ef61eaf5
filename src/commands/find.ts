import { attributesTold } from "../browsing/attributes.js";
import { glob } from "../browsing/glob.js";
import { kindLetters } from "../browsing/modes.js";
import { type ByteString, textOf, told } from "../browsing/names.js";
import { findPath } from "../browsing/paths.js";
import { type Visit, walk } from "../browsing/walk.js";
import { usage } from "../errors.js";
import type { Attributes, FileKind, FileSystem } from "../filesystems/filesystem.js";
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
import { parseSize } from "./sizes.js";

export interface FindArguments extends ImageArguments {
  under?: string[];
  name?: string;
  iname?: string;
  path?: string;
  type?: string;
  size?: string[];
  mtime?: string[];
  newer?: string;
  older?: string;
  maxdepth?: string;
  print0?: boolean;
}

/** Values may begin with a minus. */
const word = { nargs: 1, requiresArg: false } as const;

export const find: Command<FindArguments> = {
  syntax: "find <image> [under..]",
  usage: "find IMAGE [PATH...]",
  singleDash: true,
  summary: "Find files of an image",
  description:
    "Writes the path of every file beneath PATH that fits all the options, in the order in which folders have them. Patterns are the shell's: * ? [a-z]. Options may have one dash, as those of find(1), or two. " +
    `Sizes are exact bytes, not rounded up to units as find(1) does. ${pathsInWords}`,
  positionals: {
    image: imagePositional,
    under: { completes: "nothing", describe: "Where to begin; the root by default", array: true },
  },
  options: {
    name: { ...word, value: "PATTERN", describe: "The name fits this pattern" },
    iname: { ...word, value: "PATTERN", describe: "The same, whatever the case" },
    path: {
      ...word,
      value: "PATTERN",
      describe: "The whole path, as it is written, fits this pattern; * takes slashes too",
    },
    type: {
      ...word,
      value: "KINDS",
      describe: "One of these kinds: f file, d folder, l link, c b devices, p fifo, s socket; f,l is both",
    },
    size: { ...word, array: true, type: "string", describe: "Larger than +10M, smaller than -1k, or exactly 512" },
    mtime: {
      ...word,
      array: true,
      type: "string",
      value: "DAYS",
      describe: "Changed more than +N, less than -N, or N days ago",
    },
    newer: { ...word, value: "TIME", describe: "Changed after this time, for example 2024-01-31 or 2024-01-31T12:00Z" },
    older: { ...word, value: "TIME", describe: "Changed before this time" },
    maxdepth: { ...word, value: "N", alias: "max-depth", describe: "Levels beneath PATH; 0 is PATH itself" },
    print0: { type: "boolean", describe: "A zero byte behind each path, not a new line: for xargs -0" },
    ...imageOptions,
  },
  examples: [
    ["spindle find disk.spin /home -iname '*.jpg' -size +5M", "Large pictures"],
    ["spindle find disk.spin -type f -newer 2024-06-01 -print0", "For a script that takes any name"],
  ],

  async run(given, terminal) {
    const matches = predicates(given);
    const maxDepth = wholeNumber(given.maxdepth, "--maxdepth", 0, Number.MAX_SAFE_INTEGER);
    await withFiles(given, terminal, async (tree, problems) => {
      const found = findFiles(tree, given, matches, maxDepth, problems);
      if (terminal.json)
        await writeJson(terminal, "files", inJson(tree, found, problems), () => ({ problems: problems.kept }));
      else {
        const shown = given.print0 ? (name: ByteString) => name : nameWriter(terminal);
        await writeParts(terminal, inLines(found, shown, given.print0 ? "\0" : "\n"));
      }
    });
  },
};

/** What is asked of a file: the cheap questions first, `attributes` only where a question needs them. */
type Predicate = (visit: Visit, attributes: () => Attributes) => boolean;

/** @throws ImageError `usage` for a value that can't be meant */
function predicates(given: FindArguments): Predicate[] {
  const all: Predicate[] = [];
  if (given.type !== undefined) {
    const kinds = kindsOf(given.type);
    all.push(({ kind }) => kinds.has(kind));
  }
  const named: [string | undefined, string, boolean][] = [
    [given.name, "--name", false],
    [given.iname, "--iname", true],
  ];
  for (const [pattern, option, ignoreCase] of named) {
    if (pattern === undefined) continue;
    const fits = glob(pattern, option, ignoreCase);
    all.push(({ name }) => fits(textOf(name)));
  }
  if (given.path !== undefined) {
    const fits = glob(given.path, "--path");
    all.push(({ path }) => fits(textOf(path)));
  }
  for (const text of given.size ?? []) {
    const fits = comparison(text, (number) => parseSize(number, "--size"));
    all.push((_, attributes) => fits(attributes().size));
  }
  const now = Date.now() / 1000;
  for (const text of given.mtime ?? []) {
    const fits = comparison(text, (number) => wholeNumber(number, "--mtime", 0, Number.MAX_SAFE_INTEGER)!);
    all.push((_, attributes) => fits(Math.floor((now - attributes().modified.seconds) / 86_400)));
  }
  if (given.newer !== undefined) {
    const than = moment(given.newer, "--newer");
    all.push((_, attributes) => milliseconds(attributes()) > than);
  }
  if (given.older !== undefined) {
    const than = moment(given.older, "--older");
    all.push((_, attributes) => milliseconds(attributes()) < than);
  }
  return all;
}

const milliseconds = ({ modified }: Attributes) => modified.seconds * 1000 + modified.nanoseconds / 1e6;

function kindsOf(text: string): Set<FileKind> {
  const letters: Record<string, FileKind> = { f: "file" };
  for (const [kind, letter] of Object.entries(kindLetters)) if (letter !== "-") letters[letter] = kind as FileKind;
  const kinds = text.split(",").map((letter) => letters[letter]);
  if (kinds.some((kind) => kind === undefined))
    throw usage(`--type ${text}: kinds are f, d, l, c, b, p and s; several are written f,l.`);
  return new Set(kinds as FileKind[]);
}

/** `+5` is more, `-5` is less, `5` or `=5` is exactly this. */
function comparison(text: string, parse: (number: string) => number): (value: number) => boolean {
  const limit = parse(text.replace(/^[+=-]/, ""));
  if (text.startsWith("+")) return (value) => value > limit;
  if (text.startsWith("-")) return (value) => value < limit;
  return (value) => value === limit;
}

/** In milliseconds since 1970. A day without a time begins at midnight of this machine's own time. */
function moment(text: string, option: string): number {
  const seconds = /^@(-?\d+(?:\.\d+)?)$/.exec(text);
  const parsed = seconds
    ? Number(seconds[1]) * 1000
    : /^\d{4}-\d\d/.test(text)
      ? Date.parse(/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T00:00` : text)
      : Number.NaN;
  if (Number.isNaN(parsed))
    throw usage(`${option} ${text}: write a day as 2024-01-31, a time as 2024-01-31T12:00, or seconds as @1706702400.`);
  return parsed;
}

function* findFiles(
  tree: FileSystem,
  given: FindArguments,
  all: readonly Predicate[],
  maxDepth: number | undefined,
  problems: Problems,
): Generator<Visit> {
  for (const path of pathsOf(given.under)) {
    const start = problems.try(path, () => {
      const { file, name } = findPath(tree, path, { follow: false });
      return { file, name: name || "/", kind: tree.attributes(file).kind };
    });
    if (!start) continue;
    for (const visit of walk(tree, start, path, { problem: problems.add, maxDepth })) {
      if (visit.after) continue;
      let attributes: Attributes | undefined;
      const known = () => {
        attributes ??= tree.attributes(visit.file);
        return attributes;
      };
      if (problems.try(visit.path, () => all.every((one) => one(visit, known)))) yield visit;
    }
  }
}

function* inLines(found: Iterable<Visit>, shown: (name: ByteString) => ByteString, end: string): Generator<ByteString> {
  for (const { path } of found) yield shown(path) + end;
}

function* inJson(tree: FileSystem, found: Iterable<Visit>, problems: Problems): Generator<unknown> {
  for (const { path, file, kind } of found) {
    const attributes = problems.try(path, () => tree.attributes(file));
    yield { ...told("path", path), ...(attributes ? attributesTold(attributes) : { kind }) };
  }
}
