import type { Options, PositionalOptions } from "yargs";
import type { Terminal } from "./terminal.js";

/** What a shell offers for a word: names of files, of folders, places where Spindle has mounted something. */
export type Completion = "file" | "folder" | "mount" | "nothing";

/** A positional as yargs takes it, and what a shell completes it with: files unless it says otherwise. */
export interface Positional extends PositionalOptions {
  readonly completes?: Completion;
}

/** An option as yargs takes it, and what the manual and the shells tell of its value. */
export interface Option extends Options {
  /** What stands for the value: `SIZE`. By default its choices, `FILE` or `FOLDER` where it completes one, else the option's name. */
  readonly value?: string;
  /** Nothing unless it says otherwise; choices are always offered. */
  readonly completes?: Completion;
}

/** One command of `spindle`: everything its help, its manual page and its run need. One file per command. */
export interface Command<Arguments = Record<string, unknown>> {
  /** As yargs takes it: `create <source> <image>`. */
  readonly syntax: string;
  /** How help shows the syntax, where that isn't told by the names in it: `cp IMAGE PATH... TARGET`. */
  readonly usage?: string;
  /** Whether `-name` means `--name` rather than `-n -a -m -e`, as find(1) has it. */
  readonly singleDash?: boolean;
  /** One line for the list of commands. */
  readonly summary: string;
  /** A paragraph or more for `--help` and the manual. */
  readonly description: string;
  readonly positionals: Readonly<Record<string, Positional>>;
  readonly options: Readonly<Record<string, Option>>;
  /**
   * Further sections of the manual page, each with its title: paragraphs with an empty line between them; one that is
   * indented by four spaces is shown as it is.
   */
  readonly sections?: readonly (readonly [string, string])[];
  /** Command line and what it does. */
  readonly examples: readonly (readonly [string, string])[];
  /** @throws ImageError, which the command line prints as one line and turns into the exit code. */
  run(given: Arguments, terminal: Terminal): Promise<void>;
}
