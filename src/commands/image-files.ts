/** What the commands that read files of an image without a mount have in common. */
import { type ByteString, byteStringOfText, escaped, told } from "../browsing/names.js";
import type { Problem } from "../browsing/walk.js";
import { exitCodes, ImageError } from "../errors.js";
import type { FileSystem } from "../filesystems/filesystem.js";
import { openFiles } from "../open.js";
import type { Option, Positional } from "./command.js";
import { type OpeningArguments, opening, openingOptions } from "./opening.js";
import type { Terminal } from "./terminal.js";
import { type ViewingArguments, viewingOf, viewingOptions } from "./viewing.js";

export interface ImageArguments extends OpeningArguments, ViewingArguments {
  image: string;
  volume?: string;
}

export const imagePositional: Positional = { describe: "The image: any format that Spindle reads" };

export const imageOptions = {
  volume: { describe: "Read this filesystem only: a partition's number (2 or p2), or a label" },
  ...openingOptions,
  ...viewingOptions,
} satisfies Record<string, Option>;

/** A sentence for the descriptions. */
export const pathsInWords =
  "Paths begin at the root of the filesystem; where the image has several, it shows them as the folders p1, p3 and so on, by partition number, and --volume takes one of them. " +
  "A name that can't be typed is written as ls shows it: \\377 or \\xff for a byte, \\n for a new line.";

/** Problems kept for `--json`; all are told on stderr. */
const keptProblems = 10_000;

/** Failures of single files: told at once, while the rest goes on, and counted in the exit code. */
export class Problems {
  readonly kept: { path: string; pathBytes?: string; message: string }[] = [];
  count = 0;

  constructor(private readonly terminal: Terminal) {}

  readonly add: Problem = (path, error) => {
    const message = sentence(path, error);
    this.count++;
    if (this.kept.length < keptProblems) this.kept.push({ ...told("path", path), message: error.message });
    this.terminal.note(`spindle: ${message}`);
    const code = exitCodes[error.code];
    // Damage counts for more than a name that isn't there.
    if (this.terminal.exitCode === 0 || error.code === "corrupt") this.terminal.exitCode = code;
  };

  /** What `act` returns; undefined when it failed, which is then a problem of `path`. */
  try<T>(path: ByteString, act: () => T): T | undefined {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.add(path, error);
      return undefined;
    }
  }
}

function sentence(path: ByteString, { message }: ImageError): string {
  const shown = escaped(path);
  return message.startsWith(`${shown}:`) ? message : `${shown}: ${message}`;
}

/** Opens the files of an image for one command. */
export async function withFiles(
  given: ImageArguments,
  terminal: Terminal,
  act: (tree: FileSystem, problems: Problems) => Promise<void>,
): Promise<void> {
  const viewing = viewingOf(given);
  const opened = await opening(given.image, given, (spec) => openFiles({ ...spec, ...viewing, volume: given.volume }));
  try {
    if (given.volume === undefined)
      for (const { name, problem } of opened.found)
        if (problem) terminal.note(`${name} is left out: ${problem.message}`);
    await act(opened.tree, new Problems(terminal));
  } finally {
    opened.close();
  }
}

/** Paths of the command line, or the root. */
export const pathsOf = (words: readonly string[] | undefined): ByteString[] =>
  words && words.length > 0 ? words.map(byteStringOfText) : ["/"];

/** How names are written to stdout: as they are, but escaped for a terminal. */
export const nameWriter = (terminal: Terminal): ((name: ByteString) => ByteString) =>
  terminal.interactive ? (name) => byteStringOfText(escaped(name)) : (name) => name;
