import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import test from "ava";
import { noise, workspace, write } from "./imaging-test-tools.js";
import { OutputFile } from "./output-file.js";

const MiB = 1 << 20;
const descriptors = () => readdirSync("/proc/self/fd").length;

test.serial("a file appears with all its bytes when it is committed, and not before", async (t) => {
  const path = workspace(t);
  const file = new OutputFile(path("out"), false);
  const parts = [noise(10), noise(MiB - 5, 2), noise(3 * MiB, 3), noise(1, 4), noise(MiB, 5), noise(MiB - 1, 6)];
  for (const part of parts) file.write(part);
  const expected = Buffer.concat(parts);
  t.is(file.size, expected.length);
  t.regex(readdirSync(path("")).join(), /^\.out\.[0-9a-f]{8}\.partial$/);
  await file.commit();
  t.true(readFileSync(path("out")).equals(expected));
  t.deepEqual(readdirSync(path("")), ["out"]);
  file.abandon();
  t.deepEqual(readdirSync(path("")), ["out"]);
});

test.serial("a flush under way is waited for by the commit, and outlives an abandoned file", async (t) => {
  const path = workspace(t);
  const before = descriptors();
  const bytes = noise(MiB);
  const files = ["kept", "left"].map((name) => new OutputFile(path(name), false));
  for (const file of files) for (let i = 0; i < 65; i++) file.write(bytes); // flushes begin at 64 MiB
  files[1]!.abandon();
  await files[0]!.commit();
  t.is(statSync(path("kept")).size, 65 * MiB);
  t.deepEqual(readdirSync(path("")), ["kept"]);
  while (descriptors() > before) await new Promise((resolve) => setTimeout(resolve, 10));
  t.is(descriptors(), before);
});

test.serial("a file in place of an existing one needs force, and replaces it at once and whole", async (t) => {
  const path = workspace(t);
  write(path("out"), Buffer.from("old"));
  t.throws(() => new OutputFile(path("out"), false), { message: /exists already/ });
  const file = new OutputFile(path("out"), true);
  file.write(Buffer.from("new"));
  t.is(readFileSync(path("out"), "utf8"), "old");
  await file.commit();
  t.is(readFileSync(path("out"), "utf8"), "new");
});

test.serial(
  "what a killed process left is removed when the next file of that name is begun, and nothing else",
  async (t) => {
    const path = workspace(t);
    const left = [".out.01234567.partial", ".out.89abcdef.partial"];
    const others = [".out.0123.partial", ".other.01234567.partial", "out.01234567.partial", ".out.x.01234567.partial"];
    for (const name of [...left, ...others]) write(path(name), Buffer.from("half"));
    mkdirSync(path(".out.00000000.partial"));
    symlinkSync(path("elsewhere"), path(".out.11111111.partial"));
    const kept = [...others, ".out.00000000.partial", ".out.11111111.partial"];
    const file = new OutputFile(path("out"), false);
    t.deepEqual(
      readdirSync(path("")).filter((name) => left.includes(name)),
      [],
    );
    t.is(readdirSync(path("")).length, kept.length + 1);
    file.abandon();
    t.deepEqual(readdirSync(path("")).sort(), kept.sort());
  },
);

test.serial(
  "a file that is being written is left alone by another of its name, in this process and from others",
  async (t) => {
    const path = workspace(t);
    const first = new OutputFile(path("out"), true);
    first.write(Buffer.from("first"));
    const begin = `import(${JSON.stringify(new URL("./output-file.js", import.meta.url).href)})
    .then(async ({ OutputFile }) => { const f = new OutputFile(process.argv[1], true); f.write(Buffer.from("second")); await f.commit(); });`;
    const { status, stderr } = spawnSync(process.execPath, ["-e", begin, "--", path("out")], { encoding: "utf8" });
    t.is(status, 0, stderr);
    t.is(readFileSync(path("out"), "utf8"), "second");
    new OutputFile(path("out"), true).abandon();
    await first.commit();
    t.is(readFileSync(path("out"), "utf8"), "first");
    t.deepEqual(readdirSync(path("")), ["out"]);
  },
);

test.serial("a name as long as the filesystem allows is no hindrance", async (t) => {
  const path = workspace(t);
  for (const name of ["n".repeat(255), `${"\u00e4".repeat(127)}n`]) {
    const file = new OutputFile(path(name), false);
    file.write(Buffer.from("bytes"));
    await file.commit();
    t.is(readFileSync(path(name), "utf8"), "bytes");
  }
});

test.serial("a link to nothing is neither followed nor replaced", (t) => {
  const path = workspace(t);
  symlinkSync(path("nothing"), path("out"));
  for (const force of [false, true])
    t.throws(() => new OutputFile(path("out"), force), { message: /out: is a link to nothing/ });
  t.deepEqual(readdirSync(path("")), ["out"]);
});
