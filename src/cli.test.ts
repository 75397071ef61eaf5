import { spawn, spawnSync } from "node:child_process";
import test from "ava";
import { main } from "./cli.js";
import type { Command } from "./commands/command.js";
import { type CommandEntry, commands } from "./commands/index.js";
import { corrupt, type ErrorCode, exitCodes, ImageError } from "./errors.js";

/** A command that answers with what it was given, or does what a test wants. */
function probe(run: Command<never>["run"] = async (given, terminal) => terminal.result(given, JSON.stringify)) {
  const command: Command<never> = {
    syntax: "probe <source> <image>",
    summary: "Look at two files",
    description: "Looks at two files and says what it was given.",
    positionals: { source: { describe: "The first file" }, image: { describe: "The second file" } },
    options: {
      level: { type: "number", default: 3, describe: "How hard to look" },
      label: { describe: "Words" },
      o: { type: "array", string: true, describe: "Options" },
      force: { type: "boolean", describe: "Look again" },
      as: { choices: ["disk", "files"], describe: "What to show" },
    },
    examples: [["spindle probe a b", "Look at a and b"]],
    run,
  };
  const table: CommandEntry[] = [
    { name: "probe", summary: command.summary, load: async () => command },
    {
      name: "other",
      summary: "A command whose file is broken",
      load: async () => {
        throw new Error("the file of a command that nobody asked for was loaded");
      },
    },
  ];
  return table;
}

async function spindle(argv: string[], table: CommandEntry[] = probe()) {
  let stdout = "";
  let stderr = "";
  const code = await main(argv, table, {
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
  });
  return { code, stdout, stderr };
}

const given = async (...argv: string[]) => JSON.parse((await spindle(["probe", ...argv])).stdout);

test("a command gets its positionals and options", async (t) => {
  t.deepEqual(await given("a", "b", "--level", "9", "--label", "x y", "--force"), {
    source: "a",
    image: "b",
    level: 9,
    label: "x y",
    force: true,
  });
});

test("names and labels that look like numbers stay as they are", async (t) => {
  t.like(await given("007", "1e3", "--label", "0x10"), { source: "007", image: "1e3", label: "0x10" });
});

test("a dash is a positional, and after two dashes everything is", async (t) => {
  t.like(await given("-", "b"), { source: "-", image: "b" });
  t.like(await given("--force", "--", "-a", "--json"), { source: "-a", image: "--json", force: true });
});

test("an option with several values takes one word at a time", async (t) => {
  t.like(await given("-o", "ro", "a", "-o", "allow_other,fsname=x", "b"), {
    source: "a",
    image: "b",
    o: ["ro", "allow_other,fsname=x"],
  });
});

test("options may stand before the command", async (t) => {
  const { stdout } = await spindle(["--json", "probe", "a", "b"]);
  t.like(JSON.parse(stdout), { json: true, source: "a" });
});

const mistakes: [string, string[], string][] = [
  ["nothing given", ["probe"], "SOURCE and IMAGE are missing. See: spindle probe --help"],
  ["one file of two", ["probe", "a"], "IMAGE is missing. See: spindle probe --help"],
  ["an empty name", ["probe", "", "b"], "SOURCE is empty. See: spindle probe --help"],
  ["a third file", ["probe", "a", "b", "c"], "one word too many: c. See: spindle probe --help"],
  [
    "an unknown option",
    ["probe", "a", "b", "--no-such=1"],
    "there is no option --no-such=1. See: spindle probe --help",
  ],
  ["an unknown letter", ["probe", "a", "b", "-z"], "there is no option -z. See: spindle probe --help"],
  ["no number", ["probe", "a", "b", "--level", "much"], "--level takes a number. See: spindle probe --help"],
  ["no value", ["probe", "a", "b", "--label"], "--label needs a value. See: spindle probe --help"],
  ["an option as value", ["probe", "a", "b", "--label", "--force"], "--label needs a value. See: spindle probe --help"],
  [
    "an option twice",
    ["probe", "a", "b", "--label=1", "--label=2"],
    "--label is given twice. See: spindle probe --help",
  ],
  [
    "a word not of the choices",
    ["probe", "a", "b", "--as", "x"],
    '--as can\'t be "x"; it is one of "disk", "files". See: spindle probe --help',
  ],
  ["an unknown command", ["prob"], "prob is not a command; the commands are probe, other. See: spindle --help"],
  ["an unknown option alone", ["--nope"], "there is no option --nope. See: spindle --help"],
];
for (const [what, argv, sentence] of mistakes)
  test(`${what}: one sentence, a hint, and exit code 2`, async (t) => {
    t.deepEqual(await spindle(argv), { code: 2, stdout: "", stderr: `spindle: ${sentence}\n` });
  });

test("--help lists the commands without loading one", async (t) => {
  const { code, stdout, stderr } = await spindle(["--help"]);
  t.is(code, 0);
  t.is(stderr, "");
  t.regex(stdout, /spindle probe +Look at two files\n +spindle other +A command whose file is broken\n/);
});

test("without a command the help goes to stderr, and the exit code is 2", async (t) => {
  const { code, stdout, stderr } = await spindle([]);
  t.is(code, 2);
  t.is(stdout, "");
  t.regex(stderr, /spindle probe +Look at two files/);
});

for (const argv of [
  ["probe", "--help"],
  ["probe", "-h"],
  ["help", "probe"],
  ["probe", "a", "b", "c", "--help"],
])
  test(`spindle ${argv.join(" ")} tells all of the command`, async (t) => {
    const { code, stdout } = await spindle(argv);
    t.is(code, 0);
    for (const part of [
      "Looks at two files and says what it was given.",
      "Usage: spindle probe SOURCE IMAGE [options]",
      "The first file",
      "How hard to look",
      "[default: 3]",
      "Look at a and b",
      "Exit codes: 0 done, 2 wrong arguments",
    ])
      t.true(stdout.includes(part), part);
  });

test("--version prints the version, with or without a command", async (t) => {
  const { stdout } = await spindle(["--version"]);
  t.regex(stdout, /^\d+\.\d+\.\d+\n$/);
  t.is((await spindle(["probe", "--version"])).stdout, stdout);
});

for (const code of Object.keys(exitCodes) as ErrorCode[])
  test(`an error of the kind ${code} is one line with exit code ${exitCodes[code]}`, async (t) => {
    const table = probe(async () => {
      throw new ImageError(code, "a.spin: byte 7 is wrong.\nGet it again.");
    });
    t.deepEqual(await spindle(["probe", "a", "b"], table), {
      code: exitCodes[code],
      stdout: "",
      stderr: "spindle: a.spin: byte 7 is wrong. Get it again.\n",
    });
  });

test("with --json the error is also a document on stdout", async (t) => {
  const table = probe(async () => {
    throw corrupt("a.spin: byte 7 is wrong");
  });
  const { code, stdout, stderr } = await spindle(["probe", "a", "b", "--json"], table);
  t.is(code, 5);
  t.deepEqual(JSON.parse(stdout), { error: { code: "corrupt", message: "a.spin: byte 7 is wrong" } });
  t.is(stderr, "spindle: a.spin: byte 7 is wrong\n");
});

test("an error that quotes a hostile name can't steer the terminal", async (t) => {
  const table = probe(async () => {
    throw corrupt("\x1b[2J\x9b1mx\rspindle: all is well \u202eton");
  });
  const { stderr } = await spindle(["probe", "a", "b"], table);
  t.is(stderr, "spindle: \\x1b[2J\\x9b1mx\\x0dspindle: all is well \\u202eton\n");
});

test("any other exception is a bug: the stack, the request to report it, exit code 70", async (t) => {
  const table = probe(async () => {
    throw new TypeError("x is not a function");
  });
  const { code, stdout, stderr } = await spindle(["probe", "a", "b", "--json"], table);
  t.is(code, 70);
  t.is(JSON.parse(stdout).error.code, "bug");
  t.regex(stderr, /^spindle: this is a bug in Spindle, .*report it/);
  t.regex(stderr, /: spindle probe a b --json\nTypeError: x is not a function\n {4}at /);
});

test("a failure that isn't thrown sets the exit code", async (t) => {
  const table = probe(async (_given, terminal) => {
    terminal.note("chunk 7 is damaged");
    terminal.exitCode = 5;
    terminal.result({ damaged: 1 }, () => "1 damaged");
  });
  t.deepEqual(await spindle(["probe", "a", "b"], table), {
    code: 5,
    stdout: "1 damaged\n",
    stderr: "chunk 7 is damaged\n",
  });
});

test("a bar that a failed command left behind doesn't keep the program running", (t) => {
  const run = program(`async (given, terminal) => {
    const bar = terminal.progress("Looking", 100);
    bar.update(1);
    await new Promise((resolve) => setTimeout(resolve, 400));
    bar.update(2);
    throw corrupt("broken");
  }`);
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", run], {
    encoding: "utf8",
    timeout: 30_000,
  });
  t.is(status, 5);
  t.true(stderr.endsWith("spindle: broken\n"));
});

test("a reader that stops early is no error", async (t) => {
  const run = program(`async (given, terminal) => terminal.result("x".repeat(1 << 22), (text) => text)`);
  const child = spawn(process.execPath, ["--input-type=module", "-e", run]);
  let stderr = "";
  child.stderr.on("data", (data) => (stderr += data));
  child.stdout.once("data", () => child.stdout.destroy());
  const code = await new Promise((resolve) => child.on("close", resolve));
  t.is(stderr, "");
  t.is(code, 0);
});

/** A program that runs the command line over a table of one command. */
function program(run: string): string {
  return `
    import { main } from ${JSON.stringify(new URL("./cli.js", import.meta.url).href)};
    import { corrupt } from ${JSON.stringify(new URL("./errors.js", import.meta.url).href)};
    const probe = { syntax: "probe", summary: "", description: "", positionals: {}, options: {}, examples: [], run: ${run} };
    // The bar is drawn even though the test's stderr is a pipe.
    Object.defineProperty(process.stderr, "isTTY", { value: true });
    process.exitCode = await main(["probe"], [{ name: "probe", summary: "", load: async () => probe }]);`;
}

for (const entry of commands)
  test(`the table agrees with the command ${entry.name}`, async (t) => {
    const command = await entry.load();
    t.is(command.syntax.split(" ")[0], entry.name);
    t.is(command.summary, entry.summary);
    t.not(command.description, "");
    t.true(command.examples.some(([line]) => line.includes("spindle ")));
    const words = [...command.syntax.matchAll(/[<[]([^>\].]+)/g)].map(([, word]) => word);
    t.deepEqual(Object.keys(command.positionals), words);
  });

/** A command with options like those of ls or find. */
async function like(command: Partial<Command<never>>, ...argv: string[]) {
  const [entry] = probe();
  const whole = { ...(await entry!.load()), ...command };
  return await spindle(["probe", ...argv], [{ ...entry!, load: async () => whole }]);
}

test("a command may have a -h of its own", async (t) => {
  const options = { human: { type: "boolean", alias: "h" }, long: { type: "boolean", alias: "l" } } as const;
  t.like(JSON.parse((await like({ options }, "a", "b", "-lh")).stdout), { human: true, long: true });
  t.like(JSON.parse((await like({ options }, "a", "b", "-h")).stdout), { human: true });
  t.regex((await like({ options }, "--help")).stdout, /Usage: spindle probe/);
});

test("a command may have options with one dash, and values that begin with one", async (t) => {
  const options = { name: {}, size: { nargs: 1, requiresArg: false }, print0: { type: "boolean" } } as const;
  for (const dash of ["-", "--"]) {
    const words = [`${dash}name`, "x", `${dash}size`, "-1k", `${dash}print0`];
    const { stdout } = await like({ options, singleDash: true }, "a", "b", ...words);
    t.like(JSON.parse(stdout), { name: "x", size: "-1k", print0: true }, words.join(" "));
  }
});

test("words that may be many are shown as such", async (t) => {
  t.regex(
    (await like({ syntax: "probe <source> [image..]" }, "--help")).stdout,
    /Usage: spindle probe SOURCE \[IMAGE\.\.\.\] /,
  );
  t.regex((await like({ usage: "probe IT" }, "--help")).stdout, /Usage: spindle probe IT \[options\]/);
});
