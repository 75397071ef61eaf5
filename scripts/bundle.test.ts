import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import test from "ava";

// Compiled, this file is dist/scripts/bundle.test.js.
const program = fileURLToPath(new URL("../program", import.meta.url));
const spindle = fileURLToPath(new URL("../../bin/spindle.js", import.meta.url));

test("every file that the joined program loads, or starts a thread or a process with, is there", (t) => {
  const starts = new Set<string>();
  for (const file of readdirSync(program)) {
    const text = readFileSync(join(program, file), "utf8");
    for (const [, found] of text.matchAll(/(?:from|import\() ?"(\.[^"]+)"/g))
      t.true(existsSync(join(program, found!)), found);
    for (const [, found] of text.matchAll(/new URL\("([^"]+)", import\.meta\.url\)/g)) {
      t.true(existsSync(join(program, found!)), `${file} starts ${found}`);
      starts.add(found!);
    }
  }
  for (const name of [
    "fuse.background-server",
    "fuse.direct.worker",
    "imaging.create-worker",
    "packed.builder-worker",
    "open",
  ])
    t.true(starts.has(`./${name}.js`), name);
});

test("the joined program makes an image in its threads, checks it, compares and restores it", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "spindle-bundle-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const [raw, image, back] = ["disk.raw", "disk.spin", "back.raw"].map((name) => join(folder, name));
  const bytes = Buffer.alloc(3 << 20);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE((at * 2654435761) >>> 0, at);
  writeFileSync(raw!, bytes);
  const run = (...words: string[]) => execFileSync(process.execPath, [spindle, ...words], { encoding: "utf8" });
  run("create", raw!, image!);
  t.true((JSON.parse(run("verify", image!, "--json")) as { sound: boolean }).sound);
  run("diff", raw!, image!);
  run("restore", image!, back!);
  t.true(readFileSync(back!).equals(bytes));
});
