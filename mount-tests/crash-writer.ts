/**
 * Writes stamped sectors to a file until it fails, in an order that its seed tells, and prints after each fsync how many
 * writes were done before it. `stampedWrites` is also how the reader knows what was to be written.
 */
import { fsyncSync, openSync, writeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";

export const sector = 512;

export interface Stretch {
  /** First byte and length in the file: whole sectors. */
  readonly start: number;
  readonly length: number;
}

export interface Write {
  /** From 1. */
  readonly number: number;
  readonly position: number;
  readonly length: number;
  /** Whether an fsync follows. */
  readonly synchronised: boolean;
}

/** A number from 0 to `below` less 1, always the same for the same seed and turn. */
const chosen = (seed: number, turn: number, below: number) =>
  crc32(Buffer.from(Uint32Array.of(seed, turn).buffer)) % below;

/** The writes of a seed within a stretch, without end: 512 bytes to 64 KiB, an fsync after one to sixteen. */
export function* stampedWrites(seed: number, { start, length }: Stretch): Generator<Write, never> {
  let next = 1;
  for (let number = 1; ; number++) {
    const largest = chosen(seed, number * 4, 4) === 0 ? 128 : 8;
    const sectors = 1 + chosen(seed, number * 4 + 1, largest);
    const first = chosen(seed, number * 4 + 2, length / sector - sectors + 1);
    const synchronised = number === next;
    if (synchronised) next += 1 + chosen(seed, number * 4 + 3, 16);
    yield { number, position: start + first * sector, length: sectors * sector, synchronised };
  }
}

/** A sector's bytes: seed, number of the write and position, repeated over it, and their checksum at its end. */
export function stamp(seed: number, number: number, position: number, target: Uint8Array): void {
  const words = new Uint32Array(target.buffer, target.byteOffset, sector / 4);
  for (let at = 0; at < words.length - 1; at += 1) words[at] = [seed, number, position / sector][at % 3]! ^ (at << 20);
  words[words.length - 1] = crc32(target.subarray(0, sector - 4));
}

/** Whose sector it is; undefined for one that is none, or torn. */
export function readStamp(bytes: Uint8Array): { seed: number; number: number; position: number } | undefined {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, sector / 4);
  if (words.at(-1) !== crc32(bytes.subarray(0, sector - 4))) return undefined;
  return { seed: words[0]!, number: (words[1]! ^ (1 << 20)) >>> 0, position: ((words[2]! ^ (2 << 20)) >>> 0) * sector };
}

function main([path, seed, start, length, base]: string[]): void {
  const fd = openSync(path!, "r+");
  const stretch = { start: Number(start), length: Number(length) };
  for (const { number, position, length: bytes, synchronised } of stampedWrites(Number(seed), stretch)) {
    const all = new Uint8Array(bytes);
    for (let at = 0; at < bytes; at += sector)
      stamp(Number(seed), number, position + at, all.subarray(at, at + sector));
    if (writeSync(fd, all, 0, bytes, position - Number(base)) !== bytes) throw new Error("a short write");
    if (!synchronised) continue;
    fsyncSync(fd);
    writeSync(1, `${number}\n`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main(process.argv.slice(2));
