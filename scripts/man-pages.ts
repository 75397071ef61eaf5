/**
 * Makes the manual pages, spindle(1) and one for each command, from the table of commands: part of the build, so that
 * a page never tells of another version. They go to dist/man, from where npm installs them.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { exitCodeWords } from "../src/cli.js";
import {
  type DescribedCommand,
  type DescribedOption,
  describedCommands,
  generalOptions,
} from "../src/commands/described.js";
import { commands } from "../src/commands/index.js";
import { version } from "../src/version.js";

/** Characters a line of the source at most; what is longer is one word. */
const longestLine = 79;

/**
 * All pages: the file's name and its text, for man(7).
 * @param date of the pages, for example `2025-01-31`
 */
export async function manPages(date: string): Promise<Map<string, string>> {
  const all = await describedCommands(commands);
  const pages = new Map([["spindle.1", mainPage(all, date)]]);
  for (const command of all) pages.set(`spindle-${command.name}.1`, commandPage(command, date));
  return pages;
}

function mainPage(all: readonly DescribedCommand[], date: string): string {
  return page("spindle", date, "turns a disk image into a drive", [
    section("SYNOPSIS", `.B spindle\n.I COMMAND\n.RI [ options ]`),
    section(
      "DESCRIPTION",
      prose(
        "Spindle makes compressed images of disks and partitions, keeps later states as small differentials, shows any of them, and the images of other tools, as a mounted folder without unpacking it, and writes them back.",
      ),
    ),
    section("COMMANDS", all.map(({ name, summary }) => item(reference(name), prose(summary))).join("\n")),
    section("OPTIONS", `All commands have these:\n${generalOptions.map((option) => optionItem(option)).join("\n")}`),
    section(
      "EXIT STATUS",
      exitCodeWords
        .map(([code, words]) => item(`.B ${code}`, prose(`${words[0]!.toUpperCase()}${words.slice(1)}.`)))
        .join("\n"),
    ),
    section(
      "FILES",
      [
        item(".I /run/spindle", prose("What root has mounted: a registration, a socket and a log for each mount.")),
        item(
          ".I $XDG_RUNTIME_DIR/spindle",
          prose("The same for a normal user; /tmp/spindle-UID where that isn't set."),
        ),
      ].join("\n"),
    ),
    section("SEE ALSO", references(all.map(({ name }) => `spindle-${name}`).concat("zstd", "mount"))),
  ]);
}

function commandPage(command: DescribedCommand, date: string): string {
  const { name, summary, description, positionals, options, sections: further, examples } = command;
  const shownAs = command.usage.match(/\b[A-Z]+\b/g) ?? [];
  // Words that stand for something else, wherever they are met.
  const words = new Set([
    ...positionals.map(({ key }) => key.toUpperCase()),
    ...options.flatMap(({ value }) => value ?? []),
    ...shownAs,
  ]);
  const text = (sentence: string) => prose(sentence, words);
  const sections = [
    section("SYNOPSIS", `.B spindle ${name}\n.RI [ options ]\n${synopsis(command)}`),
    section("DESCRIPTION", text(description)),
  ];
  if (positionals.length > 0)
    sections.push(
      section(
        "ARGUMENTS",
        positionals
          .map(({ key, describe }, index) =>
            item(`.I ${shownAs[index] ?? key.toUpperCase()}`, text(asSentence(describe))),
          )
          .join("\n"),
      ),
    );
  sections.push(section("OPTIONS", options.map((option) => optionItem(option, text)).join("\n")));
  for (const [title, body] of further) sections.push(section(title, text(body)));
  if (examples.length > 0)
    sections.push(
      section(
        "EXAMPLES",
        examples.map(([line, what]) => `${text(`${what}:`)}\n.PP\n${literally(line)}`).join("\n.PP\n"),
      ),
    );
  sections.push(
    section("EXIT STATUS", prose(`${exitCodeWords.map(([number, words]) => `${number} ${words}`).join(", ")}.`)),
    section("SEE ALSO", references(["spindle"])),
  );
  return page(`spindle-${name}`, date, lowerFirst(summary), sections);
}

/** A page that begins with its title, its name and what it is. */
function page(name: string, date: string, what: string, sections: readonly string[]): string {
  return [
    `.\\" Made by scripts/man-pages.ts.`,
    `.TH ${name.toUpperCase()} 1 ${date} "spindle ${version}" "Spindle"`,
    // No hyphenation, ragged right: options and paths stay whole.
    ".nh",
    ".ad l",
    section("NAME", `${escaped(name)} \\- ${escaped(what)}`),
    ...sections,
    "",
  ].join("\n");
}

const section = (title: string, body: string) => `.SH ${title.includes(" ") ? `"${title}"` : title}\n${body}`;

const item = (title: string, body: string) => `.TP\n${title}\n${body}`;

const reference = (name: string) => `.BR spindle\\-${escaped(name)} (1)`;

function references(names: readonly string[]): string {
  const numbers: Record<string, number> = { mount: 8 };
  return names
    .map((name, index) => `.BR ${escaped(name)} (${numbers[name] ?? 1})${index < names.length - 1 ? " ," : ""}`)
    .join("\n");
}

/** `cp IMAGE PATH... TARGET`: the words after the command, those that stand for something else in italics. */
const synopsis = ({ usage }: DescribedCommand) =>
  usage
    .split(" ")
    .slice(1)
    .map((word) => {
      const [, open, name, rest] = /^(\[?)([A-Z]+)(.*)$/.exec(word) ?? [];
      if (name === undefined) return `.B ${escaped(word)}`;
      return open || rest ? `.RI ${open ? "[" : '""'} ${name} ${escaped(rest!)}\\&` : `.I ${name}`;
    })
    .join("\n");

function optionItem(
  { names, describe, value, optional, usual, repeatable }: DescribedOption,
  text: (sentence: string) => string = prose,
): string {
  const shown = names.map((name) => {
    const bold = `\\fB${escaped(name)}\\fR`;
    if (value === undefined) return bold;
    const italic = `\\fI${escaped(value)}\\fR`;
    if (optional) return `${bold}[=${italic}]`;
    return `${bold}${name.startsWith("--") ? "=" : " "}${italic}`;
  });
  let told = asSentence(describe);
  if (usual !== undefined) told += ` By default ${usual}.`;
  if (repeatable && value !== undefined && !/repeated/.test(told)) told += ` May be repeated.`;
  return item(shown.join(", "), text(told));
}

const asSentence = (words: string) => (words === "" || words.endsWith(".") ? words : `${words}.`);

/**
 * Sentences, in paragraphs with an empty line between them: what stands in backticks, and options, are bold, `words` are
 * italic; the first letter is a capital.
 */
function prose(sentences: string, words: ReadonlySet<string> = new Set()): string {
  const capital = sentences.replace(/^[a-z]/, (letter) => letter.toUpperCase());
  return capital
    .split(/\n{2,}/)
    .map((paragraph) =>
      paragraph.startsWith("    ")
        ? literally(...paragraph.split("\n").map((line) => line.slice(4)))
        : wrapped(paragraph.split("`").map(marked).join("")),
    )
    .join("\n.PP\n");

  function marked(part: string, index: number): string {
    if (index % 2 === 1) return `\\fB${escaped(part)}\\fR`;
    return escaped(part)
      .replace(/\b[A-Z]+\b/g, (word) => (words.has(word) ? `\\fI${word}\\fR` : word))
      .replace(/(?<![\w-])\\-\\-[a-z0-9]+(?:\\-[a-z0-9]+)*/g, "\\fB$&\\fR");
  }
}

/** Lines of an example. */
const literally = (...lines: readonly string[]) => `.RS 4\n.EX\n${lines.map(code).join("\n")}\n.EE\n.RE`;

/** A line of an example. */
const code = (line: string) => escaped(line).replaceAll("'", "\\(aq").replaceAll("`", "\\(ga").replace(/^\./, "\\&.");

/** Text as roff takes it literally, whatever the encoding of its reader. */
const escaped = (text: string) =>
  text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll("~", "\\(ti")
    .replaceAll("^", "\\(ha")
    .replaceAll('"', "\\(dq")
    .replace(
      /[^\x00-\x7f]/gu,
      (character) => `\\[u${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}]`,
    );

/** Lines of the usual length; a point or an apostrophe at its beginning would make one a request. */
function wrapped(text: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && line.length + 1 + word.length > longestLine) {
      lines.push(line);
      line = "";
    }
    line += line === "" ? word.replace(/^[.']/, "\\&$&") : ` ${word}`;
  }
  return [...lines, line].join("\n");
}

const lowerFirst = (text: string) => text.replace(/^[A-Z](?![A-Z])/, (letter) => letter.toLowerCase());

/** The day of the build, or the one that reproducible builds give. */
function today(): string {
  const seconds = Number(process.env.SOURCE_DATE_EPOCH);
  return new Date(seconds > 0 ? seconds * 1000 : Date.now()).toISOString().slice(0, 10);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  // Compiled, this file is dist/scripts/man-pages.js.
  const folder = fileURLToPath(new URL("../man", import.meta.url));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of await manPages(today())) writeFileSync(join(folder, name), text);
}
