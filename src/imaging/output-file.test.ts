import { readdirSync, readFileSync, statSync } from "node:fs";
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
