import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { main } from "../cli.js";
import { describedCommands } from "./described.js";
import { commands } from "./index.js";

const described = await describedCommands(commands);

const scripts: Record<string, string> = {};
for (const shell of ["bash", "zsh", "fish"]) {
  scripts[shell] = "";
  const stdout = { write: (text: string) => (scripts[shell] += text) };
  await main(["completion", shell], commands, { stdout, stderr: process.stderr });
}

/** Whether `programs` are there; where one isn't, the test says so and passes. */
function has(t: ExecutionContext, ...programs: string[]): boolean {
  const absent = programs.find((program) => spawnSync(program, ["--version"]).error);
  if (absent) {
    t.log(`skipped: ${absent} is not installed`);
    t.pass();
  }
  return absent === undefined;
}

/** A folder with an image, a folder, and names that a shell must quote. */
function workspace(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), "spindle-completion-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  for (const name of ["disk.img", "my disk.img", "other.log"]) writeFileSync(join(folder, name), "");
  mkdirSync(join(folder, "dir mount"));
  for (const shell of ["bash", "zsh", "fish"]) writeFileSync(join(folder, `.completion.${shell}`), scripts[shell]!);
  return folder;
}

/** What is typed, a `\t` for the key, and the words that the shell makes of it. */
const typed: readonly (readonly [string, readonly string[]])[] = [
  ["unm\t x", ["unmount", "x"]],
  ["mount --fore\t x", ["mount", "--foreground", "x"]],
  ["mount --as d\t x", ["mount", "--as", "disk", "x"]],
  ["mount --as=d\t x", ["mount", "--as=disk", "x"]],
  ["mount --driver fu\t x", ["mount", "--driver", "fuse-native", "x"]],
  ["mount disk\t x", ["mount", "disk.img", "x"]],
  ["mount my\t x", ["mount", "my disk.img", "x"]],
  ["mount a di\t x", ["mount", "a", "dir mount/", "x"]],
  ["mount --parent ot\t x", ["mount", "--parent", "other.log", "x"]],
  ["mount --parent=ot\t x", ["mount", "--parent=other.log", "x"]],
  ["--json mount --as d\t x", ["--json", "mount", "--as", "disk", "x"]],
  ["mount --log log a di\t x", ["mount", "--log", "log", "a", "dir mount/", "x"]],
  ["mount --volume ot\t x", ["mount", "--volume", "ot", "x"]],
  ["create --label ot\t x", ["create", "--label", "ot", "x"]],
  ["ls --al\t -l x", ["ls", "--all", "-l", "x"]],
  ["find x -ina\t x", ["find", "x", "-iname", "x"]],
  ["find x --max-\t x", ["find", "x", "--max-depth", "x"]],
  ["hash --algorithm bl\t x", ["hash", "--algorithm", "blake2b512", "x"]],
  ["clone --no-v\t x", ["clone", "--no-verify", "x"]],
  ["completion f\t x", ["completion", "fish", "x"]],
  ["help ver\t x", ["help", "verify", "x"]],
  ["create disk.i\t x", ["create", "disk.img", "x"]],
  ["cp a b ot\t x", ["cp", "a", "b", "other.log", "x"]],
];

/** An interactive shell on a terminal of its own: what it writes after each line, as it is asked for the next. */
async function session(folder: string, shell: string, lines: readonly string[]): Promise<string[]> {
  const { start, file, text: setUp } = settings[shell]!;
  writeFileSync(join(folder, file), setUp);
  const child = spawn("script", ["-qec", `stty cols 400 rows 500; exec ${start}`, "/dev/null"], {
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: folder, ZDOTDIR: folder, TERM: "dumb", LC_ALL: "C.UTF-8" },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const answers: string[] = [];
  let text = "";
  let next = 0;
  child.stdout.on("data", (data: Buffer) => {
    text += data.toString();
    // A list that is offered has the prompt beneath it again: only what follows the command's own end is the next one.
    if (!text.endsWith("READY>") || (next > 0 && !/^DONE\r?$/m.test(text))) return;
    answers.push(text);
    text = "";
    child.stdin.write(next < lines.length ? `${lines[next++]}\r` : "exit\r");
  });
  await new Promise((done) => child.on("close", done));
  return answers.slice(1);
}

const spoken = "PS1='READY>'\nspindle() { printf '[%s]' \"$@\"; echo; echo DONE; }\n";
const settings: Record<string, { start: string; file: string; text: string }> = {
  bash: {
    start: "bash --noprofile --rcfile .bashrc -i",
    file: ".bashrc",
    text: `source .completion.bash\n${spoken}`,
  },
  zsh: {
    start: "zsh -d -i",
    file: ".zshrc",
    text: `autoload -Uz compinit\ncompinit -u -D\nsource .completion.zsh\nunset zle_bracketed_paste\nLISTMAX=9999\n${spoken}`,
  },
};

for (const shell of ["bash", "zsh"])
  test(`${shell} makes whole words of what is begun`, async (t) => {
    if (!has(t, shell, "script")) return;
    const lines = typed.map(([line]) => `spindle ${line}`);
    const answers = await session(workspace(t), shell, lines);
    typed.forEach(([line, words], index) => {
      const found = /^\[(.*)\]\r?$/m.exec(answers[index] ?? "")?.[1]?.split("][");
      // zsh takes back the slash behind a folder when a space follows.
      t.deepEqual(
        found?.map((word) => word.replace(/\/$/, "")),
        words.map((word) => word.replace(/\/$/, "")),
        line,
      );
    });
  });

test("bash offers every command, and every option of each", (t) => {
  if (!has(t, "bash")) return;
  const asked = [[""], ...described.map(({ name }) => [name, "-"])];
  const lines = asked.map(
    (words) =>
      `COMP_WORDS=(spindle ${words.map((word) => `'${word}'`).join(" ")}) COMP_CWORD=${words.length}; _spindle; echo "\${COMPREPLY[*]}"`,
  );
  const { stdout, stderr } = spawnSync("bash", ["-c", [scripts.bash, ...lines].join("\n")], { encoding: "utf8" });
  t.is(stderr, "");
  const offered = stdout.trimEnd().split("\n");
  t.is(offered[0], [...described.map(({ name }) => name), "help"].join(" "));
  described.forEach(({ name, options }, index) => {
    t.is(offered[index + 1], options.flatMap(({ names }) => names).join(" "), name);
  });
});

test("zsh offers every command, and every option of each", async (t) => {
  if (!has(t, "zsh", "script")) return;
  const asked = ["", ...described.map(({ name }) => `${name} --`), ...described.map(({ name }) => `${name} -`)];
  const lines = asked.map((line) => `spindle ${line}\t`);
  const answers = await session(workspace(t), "zsh", lines);
  const offered = (answer: string | undefined) => new Set((answer ?? "").split(/\s+/));
  for (const { name } of described) t.true(offered(answers[0]).has(name), name);
  described.forEach(({ name, options }, index) => {
    const words = offered(`${answers[index + 1]} ${answers[described.length + index + 1]}`);
    for (const word of options.flatMap(({ names }) => names)) t.true(words.has(word), `${name} ${word}`);
  });
});

/** What fish offers for each line. */
function fishOffers(folder: string, lines: readonly string[]): string[][] {
  const script = ["source .completion.fish", ...lines.map((line) => `complete -C 'spindle ${line}'; echo ==`)];
  const { stdout, stderr } = spawnSync("fish", ["--no-config", "-c", script.join("\n")], {
    cwd: folder,
    encoding: "utf8",
    env: { PATH: process.env.PATH, HOME: folder, LC_ALL: "C.UTF-8" },
  });
  if (stderr) throw new Error(stderr);
  return stdout.split("==\n").map((part) =>
    part
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => line.split("\t")[0]!),
  );
}

test("fish offers every command, and every option of each", (t) => {
  if (!has(t, "fish")) return;
  const asked = ["", ...described.flatMap(({ name }) => [`${name} -`, `${name} --`])];
  const offered = fishOffers(workspace(t), asked);
  t.deepEqual(offered[0], [...described.map(({ name }) => name), "help"].sort());
  described.forEach(({ name, options }, index) => {
    const words = new Set([...offered[2 * index + 1]!, ...offered[2 * index + 2]!]);
    t.deepEqual([...words].sort(), options.flatMap(({ names }) => names).sort(), name);
  });
});

test("fish completes what is begun", (t) => {
  if (!has(t, "fish")) return;
  const offered = fishOffers(
    workspace(t),
    typed.map(([line]) => line.slice(0, line.indexOf("\t"))),
  );
  typed.forEach(([line, words], index) => {
    const begun = line.slice(0, line.indexOf("\t")).split(" ").at(-1)!;
    const expected = words.find((word) => word.startsWith(begun) && word !== begun);
    t.deepEqual(offered[index], expected === undefined ? [] : [expected], line);
  });
});

test("a shell that isn't known is refused in words", async (t) => {
  let words = "";
  const stderr = { write: (text: string) => (words += text) };
  t.is(await main(["completion", "csh"], commands, { stdout: stderr, stderr }), 2);
  t.is(words, "spindle: csh: is no shell that Spindle knows; it is one of bash, zsh, fish.\n");
});
