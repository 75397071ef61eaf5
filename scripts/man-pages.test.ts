import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { describedCommands } from "../src/commands/described.js";
import { commands } from "../src/commands/index.js";
import { manPages } from "./man-pages.js";

const pages = await manPages("2025-01-31");

/** Runs a program over every page; where it isn't installed, the test says so and passes. */
function overPages(t: ExecutionContext, program: string, ...options: string[]): string[] | undefined {
  if (spawnSync(program, ["--version"]).error) {
    t.log(`skipped: ${program} is not installed`);
    t.pass();
    return undefined;
  }
  const folder = mkdtempSync(join(tmpdir(), "spindle-man-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return [...pages].map(([name, text]) => {
    writeFileSync(join(folder, name), text);
    const { stdout, stderr } = spawnSync(program, [...options, name], {
      cwd: folder,
      encoding: "utf8",
      env: { PATH: process.env.PATH, LC_ALL: "C.UTF-8", MANWIDTH: "200" },
    });
    return `${stderr}${stdout}`;
  });
}

test("there is a page for spindle and for each command, and package.json installs them", (t) => {
  const expected = ["spindle.1", ...commands.map(({ name }) => `spindle-${name}.1`)];
  t.deepEqual([...pages.keys()], expected);
  const { man } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { man: string[] };
  t.deepEqual(
    man,
    expected.map((name) => `dist/man/${name}`),
  );
});

test("man shows every argument, option and example of each command", async (t) => {
  const shown = overPages(t, "man", "--no-hyphenation", "-P", "cat", "-l");
  if (!shown) return;
  const all = await describedCommands(commands);
  all.forEach(({ name, summary, usage, options, examples }, index) => {
    const page = shown[index + 1]!;
    // Hyphens and spaces as they come out of a printer's hands.
    const text = page.replace(/\s+/g, " ");
    const has = (part: string) => t.true(text.includes(part.replace(/\s+/g, " ")), `${name}: ${part}`);
    has(`spindle-${name} - ${summary.replace(/^[A-Z](?![A-Z])/, (letter) => letter.toLowerCase())}`);
    has(`spindle ${name} [options] ${usage.slice(name.length + 1)}`);
    for (const { names, describe } of options) {
      for (const word of names) t.regex(page, new RegExp(`^ {7}(.*, )?${word}([ =,[].*)?$`, "m"), `${name} ${word}`);
      has(describe.slice(1));
    }
    for (const [line] of examples) has(line);
    t.true(shown[0]!.includes(`spindle-${name}(1)`), name);
  });
});

for (const [program, ...options] of [
  ["mandoc", "-Tlint", "-Wstyle"],
  ["groff", "-man", "-ww", "-z", "-Tutf8"],
] as const)
  test(`${program} finds nothing to complain of in any page`, (t) => {
    const words = overPages(t, program, ...options);
    if (words) t.is(words.join(""), "");
  });

test("lines of text can't be taken for requests", (t) => {
  for (const [name, text] of pages)
    for (const line of text.split("\n"))
      t.regex(line, /^(\.(TH|SH|PP|TP|B|I|BR|RI|RS|RE|EX|EE|nh|ad)\b|\.\\"|[^.']|$)/, name);
});
