/** A command as those see it that describe all commands: the manual pages and the shells' completion. */
import type { Command, Completion, Option } from "./command.js";
import type { CommandEntry } from "./index.js";
import { positionalsOf, usageLine } from "./syntax.js";

export interface DescribedPositional {
  /** `image`. */
  readonly key: string;
  readonly describe: string;
  /** Whether it takes all words that are left. */
  readonly rest: boolean;
  readonly choices: readonly string[];
  readonly completes: Completion;
}

export interface DescribedOption {
  /** As they are typed, the option's main name first: `--long`, `-l`. */
  readonly names: readonly string[];
  readonly describe: string;
  /** What stands for its value: `FILE`. Undefined for a switch. */
  readonly value: string | undefined;
  /** Whether the value may be left out: `--name` or `--name=VALUE`. */
  readonly optional: boolean;
  readonly repeatable: boolean;
  readonly choices: readonly string[];
  readonly completes: Completion;
  /** What holds where the option isn't given, where that is one word. */
  readonly usual: string | undefined;
}

export interface DescribedCommand {
  readonly name: string;
  readonly summary: string;
  readonly description: string;
  /** `create SOURCE IMAGE`. */
  readonly usage: string;
  readonly positionals: readonly DescribedPositional[];
  /** With those that all commands have, which come last. */
  readonly options: readonly DescribedOption[];
  readonly sections: readonly (readonly [string, string])[];
  readonly examples: readonly (readonly [string, string])[];
  /** As in Command. */
  readonly singleDash: boolean;
}

/** All commands of a table, loaded. */
export async function describedCommands(table: readonly CommandEntry[]): Promise<DescribedCommand[]> {
  return await Promise.all(table.map(async ({ name, load }) => described(name, await load())));
}

export function described(name: string, command: Command<never>): DescribedCommand {
  const singleDash = command.singleDash ?? false;
  const options = Object.entries(command.options)
    .filter(([, option]) => !option.hidden)
    .map(([key, option]) => describedOption(key, option, singleDash));
  const taken = new Set(options.flatMap(({ names }) => names));
  const general = generalOptions.map((option) => ({
    ...option,
    names: option.names.filter((word) => !taken.has(word)),
  }));
  return {
    name,
    summary: command.summary,
    description: command.description,
    usage: usageLine(command),
    positionals: positionalsOf(command.syntax).map(({ key, rest }) => {
      const { describe = "", desc, choices, completes } = command.positionals[key] ?? {};
      return {
        key,
        describe: describe || desc || "",
        rest,
        choices: (choices ?? []).map(String),
        completes: completes ?? "file",
      };
    }),
    options: [...options, ...general],
    sections: command.sections ?? [],
    examples: command.examples,
    singleDash,
  };
}

const plain = { value: undefined, optional: false, repeatable: false, choices: [], usual: undefined } as const;

/** What cli.ts gives to every command. */
export const generalOptions: readonly DescribedOption[] = [
  { ...plain, names: ["--json"], describe: "Print the result as JSON", completes: "nothing" },
  { ...plain, names: ["--help", "-h"], describe: "Show the help", completes: "nothing" },
  { ...plain, names: ["--version"], describe: "Show the version", completes: "nothing" },
];

function describedOption(key: string, option: Option, singleDash: boolean): DescribedOption {
  const isSwitch = option.type === "boolean" || option.type === "count" || option.boolean === true;
  const { choices = [], completes = "nothing", alias = [], default: usual } = option;
  const keys = [key, ...[alias].flat()];
  // A switch that is on is there to be turned off.
  if (isSwitch && usual === true) keys.push(`no-${key}`);
  const byCompletion = { file: "FILE", folder: "FOLDER", mount: "MOUNTPOINT", nothing: key.toUpperCase() };
  return {
    names: keys.flatMap((word) =>
      word.length === 1 ? [`-${word}`] : singleDash ? [`--${word}`, `-${word}`] : [`--${word}`],
    ),
    describe: String(option.describe ?? option.desc ?? option.description ?? ""),
    value: isSwitch ? undefined : (option.value ?? (choices.join("|") || byCompletion[completes])),
    optional: !isSwitch && option.requiresArg === false && option.nargs === undefined,
    repeatable: option.array === true || option.type === "array" || option.type === "count",
    choices: choices.map(String),
    completes,
    usual: isSwitch || usual === undefined ? undefined : String(usual),
  };
}
