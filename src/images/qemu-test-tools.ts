/** Tests only: makes images with qemu-img and qemu-io, and compares what Spindle shows with what they show. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { readFully } from "../bytes/byte-source.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { MemorySource } from "../bytes/memory.js";
import { type ImageSpec, type OpenedLayers, openLayers, reopenLayers } from "../chain.js";
import { type ErrorCode, ImageError } from "../errors.js";
import type { Format } from "../format.js";
import { LayeredDisk } from "../layers/disk.js";
import type { Layer } from "../layers/layer.js";
import { surroundings } from "./shared-test-images.js";

export const haveQemu = spawnSync("qemu-img", ["--version"]).status === 0 && spawnSync("qemu-io", ["-V"]).status === 0;

/** Whether qemu-img is here; the reason is logged where it isn't. */
export function needsQemu(t: ExecutionContext): boolean {
  if (!haveQemu) t.pass(t.log("skipped: qemu-img and qemu-io (package qemu-utils) are not installed") as undefined);
  return haveQemu;
}

/** A folder that goes when the test ends. */
export function testFolder(t: ExecutionContext): (name: string) => string {
  const folder = mkdtempSync(join(tmpdir(), "spindle-images-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return (name) => join(folder, name);
}

export function qemuImg(...words: string[]): string {
  return execFileSync("qemu-img", words, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/**
 * Runs commands of qemu-io, one after another, on `path`, in `folder`: QEMU looks for data files from there. Without a
 * `format`, `path` is QEMU's options for opening the image.
 */
export function qemuIo(
  path: string,
  format: string | undefined,
  commands: readonly string[],
  folder?: string,
  objects: readonly string[] = [],
): void {
  const how = format === undefined ? ["--image-opts"] : ["-f", format];
  const words = commands.flatMap((command) => ["-c", command]);
  const out = execFileSync("qemu-io", [...objects, ...how, ...words, path], {
    encoding: "utf8",
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (/error|failed|Invalid/i.test(out)) throw new Error(out);
}

/** Numbers below `below` that are the same in every run. */
export function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 0x100000000) * below);
  };
}

/** Writes of distinct bytes all over a disk of `size` bytes, in no order, at odd sizes, some of them across edges. */
export function shuffledWrites(seed: number, size: number, count: number, longest = 150_000): string[] {
  const next = numbers(seed);
  return Array.from({ length: count }, (_, index) => {
    const length = Math.min(size, 512 * (1 + next(Math.ceil(longest / 512))));
    const position = 512 * next(Math.floor((size - length) / 512) + 1);
    return `write -P ${1 + ((seed * 31 + index) % 255)} ${position} ${length}`;
  });
}

/** What QEMU reads from the image. `options` are further words of convert. */
export function qemuRaw(path: string, format: string, scratch: string, options: readonly string[] = []): Buffer {
  qemuImg("convert", "-f", format, "-O", "raw", ...options, path, scratch);
  const bytes = readFileSync(scratch);
  rmSync(scratch);
  return bytes;
}

export function opened<Result>(spec: ImageSpec, use: (image: OpenedLayers) => Result): Result {
  const image = openLayers(spec);
  try {
    return use(image);
  } finally {
    image.close();
  }
}

/** All of a disk, in reads of an odd size. */
export function wholeDisk(spec: ImageSpec): Buffer {
  return opened(spec, ({ disk }) => {
    const bytes = Buffer.alloc(disk.size, 0xee);
    const got = readFully(disk, 0, bytes);
    return bytes.subarray(0, got);
  });
}

/** That the disk is `expected`: as a whole, in another thread's hands, at 200 random places, and across every edge of `unit` bytes. */
export function isDisk(t: ExecutionContext, spec: ImageSpec, expected: Buffer, unit = 65536): void {
  opened(spec, ({ disk, data }) => {
    t.is(disk.size, expected.length, `${spec.path}: size`);
    // As a worker has it: over the open files alone.
    const again = Buffer.alloc(expected.length, 0xee);
    readFully(reopenLayers(data, new LocalChunkCache(0)).disk, 0, again);
    t.true(again.equals(expected), `${spec.path}: reopened`);
    const reads: [number, number][] = [[0, expected.length]];
    const next = numbers(7);
    for (let i = 0; i < 200; i++) reads.push([next(expected.length), 1 + next(200_000)]);
    const step = Math.max(unit, Math.floor(expected.length / 512 / unit) * unit);
    for (let edge = step; edge < expected.length; edge += step) reads.push([edge - 3, 7]);
    reads.push([expected.length - 1, 10]);
    for (const [position, length] of reads) {
      const target = Buffer.alloc(length, 0xee);
      const got = readFully(disk, position, target);
      const right = expected.subarray(position, position + length);
      if (got !== right.length || !target.subarray(0, got).equals(right)) {
        let at = 0;
        while (at < right.length && target[at] === right[at]) at++;
        t.fail(
          `${spec.path}: read of ${length} at ${position} gave ${got} bytes and differs from byte ${position + at} on`,
        );
        return;
      }
    }
  });
}

interface MapEntry {
  start: number;
  length: number;
  depth: number;
  zero: boolean;
  data: boolean;
  present?: boolean;
  offset?: number;
}

/**
 * That which layer answers for a byte, and whether it stores it, is what `qemu-img map` tells of the image.
 *
 * @param folder where QEMU runs: it looks for data files from there.
 */
export function isMap(t: ExecutionContext, spec: ImageSpec, format: string, folder?: string): void {
  const words = ["map", "-f", format, "--output=json", spec.path];
  const map = JSON.parse(execFileSync("qemu-img", words, { encoding: "utf8", cwd: folder })) as MapEntry[];
  opened(spec, ({ layers, disk }) => {
    for (const { start, length, depth, data, present, offset } of map) {
      for (let position = start; position < start + length; ) {
        let answer = layers.length;
        let stored = false;
        let at: number | undefined;
        let run = start + length - position;
        for (const [number, layer] of layers.entries()) {
          if (position >= layer.size) break;
          const found = layer.locate(position);
          run = Math.min(run, found.length, layer.size - position);
          if (found.kind === "absent") continue;
          answer = number;
          stored = found.kind === "stored";
          if (found.kind === "stored" && found.source.name === layer.name && layer.format !== "raw") at = found.at;
          break;
        }
        const where = `${spec.path}: byte ${position} of [${start}, +${length}): `;
        // A raw file's holes are told as data by one and as zeros by the other.
        if (layers[answer]?.format !== "raw" && stored !== data) return void t.fail(`${where}stored is ${stored}`);
        if (stored && present !== false && answer !== depth)
          return void t.fail(`${where}layer ${answer}, not ${depth}`);
        if (
          stored &&
          offset !== undefined &&
          at !== undefined &&
          answer === 0 &&
          at !== offset + position - start &&
          layers[0]!.chunkSize === undefined
        )
          return void t.fail(`${where}at ${at}, not ${offset + position - start}`);
        position += run;
      }
    }
    t.is(map.at(-1)!.start + map.at(-1)!.length, disk.size);
  });
}

/** That opening the image, or reading all of it, is refused by a sentence with these words. */
export function isRefused(t: ExecutionContext, code: ErrorCode, spec: ImageSpec, ...words: (string | RegExp)[]): void {
  const error = t.throws(() => wholeDisk(spec), { instanceOf: ImageError });
  if (!error) return;
  t.is((error as ImageError).code, code, error.message);
  for (const word of words)
    t.true(
      typeof word === "string" ? error.message.includes(word) : word.test(error.message),
      `${word} in: ${error.message}`,
    );
}

/**
 * That bytes changed or cut off anywhere in an image's first bytes make it refused or differ, and no more: every change
 * in `interesting` and many at random.
 */
export function survivesDamage(
  t: ExecutionContext,
  image: Buffer,
  tryOne: (bytes: Buffer) => void,
  rounds = 300,
): void {
  const next = numbers(11);
  const attempt = (bytes: Buffer, what: string) => {
    try {
      tryOne(bytes);
    } catch (error) {
      if (!(error instanceof ImageError)) t.fail(`${what}: ${(error as Error).stack}`);
    }
  };
  for (let round = 0; round < rounds; round++) {
    const bytes = Buffer.from(image);
    const changes = 1 + next(3);
    let what = "";
    for (let i = 0; i < changes; i++) {
      // Half of the changes are in the first 512 bytes, where the header is.
      const at = next(2) === 0 ? next(Math.min(512, bytes.length)) : next(bytes.length);
      bytes[at] = [0, 0xff, bytes[at]! ^ (1 << next(8)), next(256)][next(4)]!;
      what += `${at}=${bytes[at]} `;
    }
    attempt(bytes, what);
  }
  for (let round = 0; round < 60; round++) {
    const length = round < 30 ? next(600) : next(image.length);
    attempt(image.subarray(0, length), `cut to ${length}`);
  }
  t.pass();
}

/** Opens an image that is in memory and reads some of it: for images that may be damaged in any way. */
export function readSome(format: Format<Layer>, bytes: Buffer): void {
  const layer = format.open(new MemorySource("/hostile/image", bytes), surroundings("/hostile/image"));
  JSON.stringify(layer.facts);
  const disk = new LayeredDisk(layer.name, [layer]);
  const target = Buffer.alloc(1 << 20);
  for (let position = 0, reads = 0; position < disk.size && reads < 8; reads++) {
    const got = readFully(disk, position, target);
    position += Math.max(got, Math.floor(disk.size / 7));
  }
  disk.extentAt(Math.floor(disk.size / 2));
}

/** A copy of the image `path` with bytes at some places replaced. */
export function patched(path: string, changes: Record<number, readonly number[]>): string {
  const bytes = readFileSync(path);
  for (const [at, values] of Object.entries(changes)) bytes.set(values, Number(at));
  writeFileSync(`${path}.patched`, bytes);
  return `${path}.patched`;
}
