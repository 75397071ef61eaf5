import type { Options, PositionalOptions } from "yargs";
import type { Terminal } from "./terminal.js";

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
  readonly positionals: Readonly<Record<string, PositionalOptions>>;
  readonly options: Readonly<Record<string, Options>>;
  /** Command line and what it does. */
  readonly examples: readonly (readonly [string, string])[];
  /** @throws ImageError, which the command line prints as one line and turns into the exit code. */
  run(given: Arguments, terminal: Terminal): Promise<void>;
}
