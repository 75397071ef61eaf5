/** Tests only: a disk with every kind of content, and what other programs pack it into. The cache folder is the tests' own. */
import { execFileSync } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";

const cache = mkdtempSync(join(tmpdir(), "spindle-cache-"));
process.env.XDG_CACHE_HOME = cache;
process.on("exit", () => rmSync(cache, { recursive: true, force: true }));

/** Where these tests' piece tables are. */
export const cacheFolderOfTests = join(cache, "spindle", "packed");

/** Bytes that don't pack, the same in every run. */
export function noise(length: number, seed = 1): Buffer {
  return createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16)).update(Buffer.alloc(length));
}

/** Bytes that pack well, and differ everywhere. */
export function words(length: number, seed = 7): Buffer {
  const random = noise(4096, seed);
  const all: string[] = [];
  for (let at = 0, made = 0; made < length; at++) {
    const word = `${at} w${random.readUInt16LE((at * 2) % 4096) % 999}\n`;
    all.push(word);
    made += word.length;
  }
  return Buffer.from(all.join("")).subarray(0, length);
}

/** Text, noise, zeros over several pieces, one byte over more than a piece, and an odd end. */
export const disk = Buffer.concat([
  words(1_200_000),
  noise(100_000),
  Buffer.alloc(2_300_000),
  Buffer.alloc(1_200_000, "A"),
  words(200_001, 9),
  Buffer.alloc(50_000),
  Buffer.from("the end"),
]);

/** A folder that goes when the test ends, with `disk` in it. */
export function packingFolder(t: ExecutionContext, content: Uint8Array = disk): (name: string) => string {
  const folder = mkdtempSync(join(tmpdir(), "spindle-packed-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "disk"), content);
  return (name) => join(folder, name);
}

/** Runs a shell command in the folder; false, with the reason logged, where its program isn't installed. */
export function packs(t: ExecutionContext, path: (name: string) => string, command: string): boolean {
  // Programs are the first words of commands; what is quoted holds none.
  for (const [, program] of command.replace(/'[^']*'/g, "''").matchAll(/(?:^|[;(|]|&&)\s*([\w-]+)/g)) {
    if (isThere(program!)) continue;
    t.log(`skipped: ${program} is not installed (Debian: ${packages[program!] ?? program})`);
    t.pass();
    return false;
  }
  execFileSync("bash", ["-o", "pipefail", "-c", command], { cwd: path("."), stdio: ["ignore", "pipe", "pipe"] });
  return true;
}

const packages: Record<string, string> = {
  "qemu-img": "qemu-utils",
  mke2fs: "e2fsprogs",
  bgzip: "tabix",
  pzstd: "zstd",
  "7zz": "7zip",
  xz: "xz-utils",
};
const found = new Map<string, boolean>();

export function isThere(program: string): boolean {
  const known = found.get(program);
  if (known !== undefined) return known;
  let there = true;
  try {
    execFileSync("bash", ["-c", `command -v ${program}`], { stdio: "ignore" });
  } catch {
    there = false;
  }
  found.set(program, there);
  return there;
}
