import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";

/** Why wimlib can't pack things for a test here; undefined where it can. */
export const noWimlib = spawnSync("wimlib-imagex", ["--version"]).error
  ? "wimlib-imagex is not installed (apt install wimtools)"
  : undefined;

/**
 * `data` as wimlib packs it: what a WIM file holds is what WofCompressedData holds, a table of offsets and the chunks.
 * Undefined where wimlib keeps it as it is.
 */
export function packedByWimlib(
  t: ExecutionContext,
  data: Uint8Array,
  method: "LZX" | "XPRESS",
  chunkSize: number,
): Buffer | undefined {
  const folder = mkdtempSync(join(tmpdir(), "spindle-wim-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  execFileSync("mkdir", [join(folder, "tree")]);
  writeFileSync(join(folder, "tree", "file"), data);
  const wim = join(folder, "out.wim");
  const options = [`--compress=${method}:100`, `--chunk-size=${chunkSize}`, "--threads=1"];
  execFileSync("wimlib-imagex", ["capture", join(folder, "tree"), wim, "name", ...options], { stdio: "ignore" });
  const bytes = readFileSync(wim);
  // The header names the table of resources (at 48: size in 7 bytes, flags, position); an entry has 50 bytes.
  const tableSize = bytes.readUIntLE(48, 6);
  const table = Number(bytes.readBigUInt64LE(56));
  for (let at = table; at < table + tableSize; at += 50) {
    const size = bytes.readUIntLE(at, 6);
    const flags = bytes[at + 7]!;
    const position = Number(bytes.readBigUInt64LE(at + 8));
    const unpacked = Number(bytes.readBigUInt64LE(at + 16));
    // 2: metadata, not a file; 4: compressed.
    if ((flags & 2) === 0 && unpacked === data.length)
      return (flags & 4) !== 0 ? bytes.subarray(position, position + size) : undefined;
  }
  throw new Error("the file isn't in the WIM file");
}

/** The chunks of what packedByWimlib gives, with the length that each has unpacked. */
export function chunksOf(packed: Buffer, size: number, chunkSize: number): { chunk: Buffer; size: number }[] {
  const count = Math.ceil(size / chunkSize);
  const offset = (index: number) => (index === 0 ? 0 : packed.readUInt32LE((index - 1) * 4));
  const first = (count - 1) * 4;
  return Array.from({ length: count }, (_, index) => ({
    chunk: packed.subarray(first + offset(index), index + 1 < count ? first + offset(index + 1) : packed.length),
    size: Math.min(chunkSize, size - index * chunkSize),
  }));
}

/** Data of many kinds: text, repetitions near and far, a program with calls, noise, zeros. */
export function variedData(size: number): Buffer {
  const parts: Buffer[] = [];
  let seed = 12345;
  const random = () => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return seed >>> 8;
  };
  const program = readFileSync(process.execPath).subarray(0x100000, 0x400000);
  for (let length = 0; length < size; length += parts.at(-1)!.length) {
    const kind = random() % 6;
    const wanted = 500 + (random() % 30000);
    if (kind === 0) parts.push(Buffer.alloc(wanted));
    else if (kind === 1) parts.push(Buffer.from(Array.from({ length: wanted }, () => random() & 255)));
    else if (kind === 2) parts.push(Buffer.alloc(wanted, `line ${random()} of a text\n`));
    else if (kind === 3) parts.push(Buffer.from(Array.from({ length: wanted }, () => `${random() % 1000} `).join("")));
    else {
      const at = random() % (program.length - wanted);
      parts.push(Buffer.from(program.subarray(at, at + wanted)));
    }
  }
  return Buffer.concat(parts).subarray(0, size);
}
