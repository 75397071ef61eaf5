/**
 * The command line. yargs reads the arguments of one command, whose file is loaded only when it is asked for; what a
 * command throws becomes one line and an exit code here, and nowhere else.
 */
import yargs from "yargs";
import type { Command } from "./commands/command.js";
import { type Console, createTerminal, type Output, visible } from "./commands/console.js";
import { type CommandEntry, commands } from "./commands/index.js";
import { type PositionalWord, positionalsOf, usageLine } from "./commands/syntax.js";
import { exitCodes, ImageError, usage } from "./errors.js";
import { version } from "./version.js";

/** Exit code of a bug in Spindle: EX_SOFTWARE of sysexits.h. The other codes are in errors.ts. */
export const bugExitCode = 70;

/** Where the command line speaks to; tests give their own. */
export interface Streams {
  readonly stdout: Output;
  readonly stderr: Output;
}

/**
 * Runs `spindle` with the arguments after the program's name and returns its exit code. Never throws.
 * `table` and `streams` are for tests.
 */
export async function main(
  argv: string[],
  table: readonly CommandEntry[] = commands,
  streams: Streams = process,
): Promise<number> {
  if (streams === process) ignoreClosedPipes();
  const json = switches(argv).includes("--json");
  const terminal = createTerminal({ json, stdout: streams.stdout, stderr: streams.stderr });
  try {
    return await dispatch(argv, table, streams, terminal);
  } catch (error) {
    terminal.close();
    return report(error, argv, streams, json);
  } finally {
    terminal.close();
  }
}

/** The words that may be options: what comes after `--` is a name, whatever it looks like. */
const switches = (argv: string[]) => (argv.includes("--") ? argv.slice(0, argv.indexOf("--")) : argv);

async function dispatch(
  argv: string[],
  table: readonly CommandEntry[],
  streams: Streams,
  terminal: Console,
): Promise<number> {
  // The only options before a command are switches, so the first other word is the command.
  const at = argv.findIndex((word) => !word.startsWith("-") || word === "-");
  if (at < 0) return await withoutCommand(argv, table, streams);
  const name = argv[at]!;
  const rest = argv.filter((_, index) => index !== at);
  if (name === "help") return await dispatch([...rest, "--help"], table, streams, terminal);
  const entry = table.find((candidate) => candidate.name === name);
  if (!entry) {
    const names = table.map((candidate) => candidate.name).join(", ");
    throw usage(`${name} is not a command; the commands are ${names}. See: spindle --help`);
  }
  const command = await entry.load();
  const { given, output } = await parse(entry.name, command, rest, streams.stderr.columns);
  if (output) {
    streams.stdout.write(`${output}\n`);
    return 0;
  }
  await command.run(given, terminal);
  return terminal.exitCode;
}

/** `spindle` with nothing but options: its help, its version, or a mistake. */
async function withoutCommand(argv: string[], table: readonly CommandEntry[], streams: Streams): Promise<number> {
  const parser = configured("spindle", streams.stderr.columns)
    .usage("Spindle turns a disk image into a drive.\n\nUsage: spindle COMMAND [options]")
    .epilogue("Help of one command: spindle COMMAND --help");
  for (const { name, summary } of table) parser.command(name, summary);
  const { error, output } = await parsed(parser, argv);
  if (error) throw usage(`${inWords(error, argv)}. See: spindle --help`);
  if (output) {
    streams.stdout.write(`${output}\n`);
    return 0;
  }
  // Called without saying what to do: a mistake in a script, and a person gets the help all the same.
  streams.stderr.write(`${await parser.getHelp()}\n`);
  return exitCodes.usage;
}

/**
 * `--writable` alone as `--writable=`, for options whose value may be left out: yargs would take the next word for it,
 * which is the image.
 */
function withoutValues(argv: readonly string[], command: Command<never>): string[] {
  const end = argv.indexOf("--");
  const mayStandAlone = (name: string) => {
    const option = command.options[name];
    return option?.requiresArg === false && option.nargs === undefined;
  };
  return argv.map((word, index) =>
    (end < 0 || index < end) && word.startsWith("--") && mayStandAlone(word.slice(2)) ? `${word}=` : word,
  );
}

/** The arguments of one command, or the text that `--help` or `--version` asked for. */
async function parse(name: string, command: Command<never>, words: string[], columns: number | undefined) {
  const argv = withoutValues(words, command);
  // A command may have a -h of its own (ls -h); help is then --help only.
  const helpLetter = !Object.entries(command.options).some(([key, { alias }]) => [key, alias].flat().includes("h"));
  const parser = configured(`spindle ${name}`, columns, helpLetter)
    .usage(`${command.description}\n\nUsage: spindle ${usageLine(command)} [options]`)
    .epilogue(exitCodesHelp);
  if (command.singleDash) parser.parserConfiguration({ ...parserSettings, "short-option-groups": false });
  const positionals = positionalsOf(command.syntax);
  for (const [key, options] of Object.entries(command.options)) {
    const typed = { type: "string" as const, ...options };
    parser.option(key, { requiresArg: typed.type !== "boolean" && typed.type !== "count", ...typed });
  }
  if (switches(argv).some((word) => word === "--help" || (helpLetter && word === "-h"))) {
    // yargs is told of the positionals for the help only: it would lose a `-`, and a name after `--`.
    const shown = positionals.map(({ word }) => word).join(" ");
    parser.command(`$0 ${shown}`, false, (yargs) => {
      for (const { key } of positionals) yargs.positional(key, { type: "string", ...command.positionals[key] });
      return yargs;
    });
    for (const [line, what] of command.examples) parser.example(line, what);
    const { output } = await parsed(parser, argv);
    return { given: {} as never, output };
  }

  const { given, error, output } = await parsed(parser, argv);
  if (output && error === undefined) return { given: given as never, output };
  const mistake = error === undefined ? mistakeIn(given, command, positionals) : inWords(error, argv);
  if (mistake) throw usage(`${mistake}. See: spindle ${name} --help`);
  const { _: rest, $0: _name, ...all } = given as Record<string, unknown> & { _: string[] };
  positionals.forEach(({ key, rest: several }, index) => {
    if (several) all[key] = rest.slice(index);
    else if (rest[index] !== undefined) all[key] = rest[index];
  });
  return { given: all as never, output: "" };
}

/** What yargs lets pass; undefined when all is well. */
function mistakeIn(
  given: Readonly<Record<string, unknown>>,
  command: Command<never>,
  positionals: readonly PositionalWord[],
): string | undefined {
  for (const [key, options] of Object.entries(command.options)) {
    const value = given[key];
    if (options.type !== "array" && !options.array && Array.isArray(value)) return `${dashed(key)} is given twice`;
    if (typeof value === "number" && Number.isNaN(value)) return `${dashed(key)} takes a number`;
  }
  const words = given._ as string[];
  const absent = positionals.filter(({ required }, index) => required && words[index] === undefined);
  if (absent.length > 0)
    return `${absent.map(({ key }) => key.toUpperCase()).join(" and ")} ${absent.length > 1 ? "are" : "is"} missing`;
  const empty = positionals.find((_, index) => words[index] === "");
  if (empty) return `${empty.key.toUpperCase()} is empty`;
  const extra = positionals.at(-1)?.rest ? undefined : words[positionals.length];
  return extra === undefined ? undefined : `one word too many: ${extra}`;
}

const parserSettings = {
  // A path may be called 007 or 1e3, and a.b is a name.
  "parse-numbers": false,
  "parse-positional-numbers": false,
  "dot-notation": false,
  // `-o ro IMAGE DIR`: an option takes one word.
  "greedy-arrays": false,
};

/** What all parsers have in common. */
function configured(scriptName: string, columns: number | undefined, helpLetter = true) {
  return yargs()
    .scriptName(scriptName)
    .detectLocale(false)
    .exitProcess(false)
    .alias(helpLetter ? { help: "h" } : {})
    .strictOptions()
    .version(version)
    .option("json", { type: "boolean", describe: "Print the result as JSON" })
    .wrap(Math.min(columns ?? 100, 100))
    .parserConfiguration(parserSettings);
}

type Parser = ReturnType<typeof configured>;

/** Runs yargs without letting it print or exit. */
async function parsed(parser: Parser, argv: string[]) {
  let error: string | undefined;
  let output = "";
  const given: Record<string, unknown> = await parser.parseAsync(argv, {}, (thrown, _given, text) => {
    error = thrown?.message;
    output = text;
  });
  return { given, error, output };
}

/** The mistakes that yargs finds, in Spindle's words. */
function inWords(message: string, argv: readonly string[]): string {
  const unknown = /^Unknown arguments?: (.*)$/s.exec(message);
  if (unknown) {
    // yargs names --no-such also noSuch, its second name for it; what was typed is what helps.
    const keys = unknown[1]!.split(", ");
    const typed = argv.filter((word) => keys.includes(word.replace(/=.*$/s, "").replace(/^--?/, "")));
    return `there is no option ${(typed.length > 0 ? typed : keys.map(dashed)).join(" or ")}`;
  }
  const valueless = /^Not enough arguments following: (.*)$/s.exec(message);
  if (valueless) return `${dashed(valueless[1]!)} needs a value`;
  const choices = /Argument: (.*), Given: (.*), Choices: (.*)$/s.exec(message);
  if (choices) return `${dashed(choices[1]!)} can't be ${choices[2]}; it is one of ${choices[3]}`;
  const required = /^Missing required arguments?: (.*)$/s.exec(message);
  if (required) return `${required[1]!.split(", ").map(dashed).join(" and ")} must be given`;
  return message.replace(/\.$/, "");
}

const dashed = (key: string) => (key.length === 1 ? `-${key}` : `--${key}`);

/** Prints what was thrown and returns the exit code for it. */
function report(error: unknown, argv: readonly string[], { stdout, stderr }: Streams, json: boolean): number {
  const known = error instanceof ImageError;
  const message = error instanceof Error ? error.message : String(error);
  const line = visible(message).replace(/\s*\n\s*/g, " ");
  if (json) stdout.write(`${JSON.stringify({ error: { code: known ? error.code : "bug", message } }, undefined, 2)}\n`);
  if (known) {
    stderr.write(`spindle: ${line}\n`);
    return exitCodes[error.code];
  }
  const stack = error instanceof Error ? (error.stack ?? line) : line;
  stderr.write(
    "spindle: this is a bug in Spindle, not in your image. Please report it with these lines:\n" +
      `spindle ${version}, Node ${process.version}, ${process.platform}: spindle ${visible(argv.join(" "))}\n` +
      `${visible(stack)}\n`,
  );
  return bugExitCode;
}

/** The exit codes in the words of the help and the manual. */
export const exitCodeWords: readonly (readonly [number, string])[] = [
  [0, "done"],
  ...Object.entries({
    usage: "wrong arguments",
    missing: "a file is missing",
    unsupported: "not supported",
    corrupt: "damaged",
    mismatch: "wrong base",
    busy: "in use",
    system: "refused by the system",
    locked: "password missing or wrong",
  } satisfies Record<keyof typeof exitCodes, string>).map(
    ([code, words]) => [exitCodes[code as keyof typeof exitCodes], words] as const,
  ),
  [bugExitCode, "a bug in Spindle"],
];

const exitCodesHelp = `Exit codes: ${exitCodeWords.map(([code, words]) => `${code} ${words}`).join(", ")}`;

/** `spindle info disk.spin | head -1` is no error: who stops reading has what he wants. */
function ignoreClosedPipes(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE") throw error;
    });
}
