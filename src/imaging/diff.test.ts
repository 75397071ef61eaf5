import { spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import test from "ava";
import { openLayers } from "../chain.js";
import { readSecondly } from "../images/spin/second-test-reader.js";
import { diffDisks } from "./diff.js";
import { Differences } from "./differences.js";
import { create, noise, workspace, write } from "./imaging-test-tools.js";

const KiB = 1024;
const MiB = 1024 * KiB;

async function ranges(a: string, b: string, more: { a?: object; b?: object } = {}) {
  const one = openLayers({ path: a, ...more.a });
  const other = openLayers({ path: b, ...more.b });
  try {
    return [...(await diffDisks(one, other, { threads: 2 }))].map(({ position, length }) => [position, length]);
  } finally {
    one.close();
    other.close();
  }
}

/** Sectors in which two buffers differ, one after the other: what a diff must find. */
function expected(a: Buffer, b: Buffer): number[][] {
  const found: number[][] = [];
  const end = Math.min(a.length, b.length);
  const add = (position: number, length: number) => {
    const last = found.at(-1);
    if (last && last[0]! + last[1]! === position) last[1]! += length;
    else found.push([position, length]);
  };
  for (let at = 0; at < end; at += 512) {
    const to = Math.min(end, at + 512);
    if (!a.subarray(at, to).equals(b.subarray(at, to))) add(at, to - at);
  }
  if (a.length !== b.length) add(end, Math.max(a.length, b.length) - end);
  return found;
}

/** A disk, and one that differs from it at its begin, across edges of chunks and jobs, in zeros, and at its end. */
function twoDisks(): [Buffer, Buffer] {
  const a = Buffer.concat([noise(6 * MiB, 1), Buffer.alloc(4 * MiB), noise(MiB + 300, 2)]);
  const b = Buffer.from(a);
  for (const [at, length] of [
    [0, 1],
    [64 * KiB - 1, 2],
    [4 * MiB - 700, 1400],
    [7 * MiB, 5],
    [a.length - 1, 1],
  ] as const)
    for (let i = at; i < at + length; i++) b[i]! ^= 0x55;
  b.fill(0, 2 * MiB, 2 * MiB + 200 * KiB);
  return [a, b];
}

test("raw disks differ where their bytes do, to the sector", async (t) => {
  const path = workspace(t);
  const [a, b] = twoDisks();
  write(path("a"), a);
  write(path("b"), b);
  t.deepEqual(await ranges(path("a"), path("b")), expected(a, b));
  t.deepEqual(await ranges(path("b"), path("a")), expected(a, b));
  t.deepEqual(await ranges(path("a"), path("a")), []);
});

test("so do .spin images, of one chain or of none, and of other chunk sizes", async (t) => {
  const path = workspace(t);
  const [a, b] = twoDisks();
  write(path("a"), a);
  write(path("b"), b);
  await create(path("a"), path("a.spin"));
  await create(path("b"), path("b.spin"), { base: path("a.spin") });
  await create(path("b"), path("full.spin"));
  await create(path("b"), path("small.spin"), { chunkSize: 16 * KiB });
  for (const one of ["a", "a.spin"])
    for (const other of ["b", "b.spin", "full.spin", "small.spin"])
      t.deepEqual(await ranges(path(one), path(other)), expected(a, b), `${one} and ${other}`);
  for (const other of ["b", "b.spin", "full.spin"]) t.deepEqual(await ranges(path("small.spin"), path(other)), []);
});

for (const more of [1, 512, 70 * KiB, 5 * MiB])
  test(`what a longer disk has beyond the other's end differs: ${more} bytes`, async (t) => {
    const path = workspace(t);
    const [a, b] = twoDisks();
    const longer = Buffer.concat([b, Buffer.alloc(more)]);
    write(path("a"), a);
    write(path("b"), longer);
    await create(path("a"), path("a.spin"));
    await create(path("b"), path("b.spin"), { base: path("a.spin") });
    t.deepEqual(await ranges(path("a"), path("b")), expected(a, longer));
    t.deepEqual(await ranges(path("a.spin"), path("b.spin")), expected(a, longer));
  });

/** Spoils the frames of all stored chunks but those in `keep`. */
function spoil(image: string, keep: readonly number[]): void {
  const { chunks } = readSecondly(readFileSync(image));
  const fd = openSync(image, "r+");
  for (const [number, chunk] of chunks.entries())
    if (chunk.kind === "stored" && !keep.includes(number)) writeSync(fd, Buffer.alloc(4, 0xee), 0, 4, chunk.at + 20);
  closeSync(fd);
}

test("what is known to be equal is not read: damage in it is not met", async (t) => {
  const path = workspace(t);
  const a = noise(8 * MiB, 1);
  const b = Buffer.from(a);
  b.fill(1, 3 * MiB, 3 * MiB + 10);
  write(path("a"), a);
  write(path("b"), b);
  await create(path("a"), path("a.spin"));
  await create(path("b"), path("b.spin"), { base: path("a.spin") });
  await create(path("b"), path("full.spin"));
  // The one chunk that differs is number 48.
  for (const name of ["a.spin", "full.spin"]) spoil(path(name), [48]);
  t.deepEqual(await ranges(path("a.spin"), path("b.spin")), expected(a, b));
  t.deepEqual(await ranges(path("a.spin"), path("full.spin")), expected(a, b));
  spoil(path("a.spin"), []);
  await t.throwsAsync(ranges(path("a.spin"), path("b.spin")), { code: "corrupt", message: /chunk 48/ });
  // Two images of one content need not be read at all.
  t.deepEqual(await ranges(path("b.spin"), path("full.spin")), []);
});

test("qcow2 images over one backing file differ in what they have of their own", async (t) => {
  const path = workspace(t);
  const qemu = (...parameters: string[]) => spawnSync("qemu-img", parameters).status;
  if (qemu("--version") !== 0) {
    t.log("skipped: qemu-img is not installed");
    return t.pass();
  }
  write(path("raw"), noise(4 * MiB, 1));
  qemu("convert", "-O", "qcow2", path("raw"), path("base.qcow2"));
  for (const name of ["a", "b"])
    qemu("create", "-f", "qcow2", "-b", path("base.qcow2"), "-F", "qcow2", path(`${name}.qcow2`));
  spawnSync("qemu-io", ["-c", "write -P 7 1M 64k", "-c", "write -P 8 2M 64k", path("a.qcow2")]);
  spawnSync("qemu-io", ["-c", "write -P 7 1M 64k", "-c", "write -P 9 2M 4k", path("b.qcow2")]);
  const raw = ["a", "b"].map((name) => {
    qemu("convert", "-O", "raw", path(`${name}.qcow2`), path(`${name}.raw`));
    return readFileSync(path(`${name}.raw`));
  });
  t.deepEqual(await ranges(path("a.qcow2"), path("b.qcow2")), expected(raw[0]!, raw[1]!));
  t.deepEqual(await ranges(path("a.qcow2"), path("b.raw")), expected(raw[0]!, raw[1]!));
  // A state kept inside a file isn't the file's present one.
  qemu("snapshot", "-c", "before", path("b.qcow2"));
  spawnSync("qemu-io", ["-c", "write -P 3 0 4k", path("b.qcow2")]);
  t.deepEqual(await ranges(path("b.qcow2"), path("b.qcow2"), { a: { snapshot: "before" } }), [[0, 4096]]);
  return undefined;
});

test("disks of 8 TiB without data take no time and no memory to speak of", async (t) => {
  const path = workspace(t);
  for (const name of ["a", "b"]) {
    const fd = openSync(path(name), "w");
    writeSync(fd, Buffer.from(name), 0, 1, 8 * 2 ** 40 - 1);
    closeSync(fd);
  }
  t.deepEqual(await ranges(path("a"), path("b")), [[8 * 2 ** 40 - 512, 512]]);
});

test("stretches that touch are one, and what is within them is found", (t) => {
  const differences = new Differences(1000);
  differences.add(10, 5);
  differences.add(15, 5);
  differences.add(40, 2);
  t.deepEqual(
    [...differences],
    [
      { position: 10, length: 10 },
      { position: 40, length: 2 },
    ],
  );
  t.is(differences.bytes, 12);
  for (const [position, length, touches] of [
    [0, 10, false],
    [0, 11, true],
    [19, 1, true],
    [20, 20, false],
    [20, 21, true],
    [41, 100, true],
    [42, 900, false],
  ] as const)
    t.is(differences.touches(position, length), touches, `${position} ${length}`);
});

test("stretches without end take a bounded memory, and none is lost", (t) => {
  const differences = new Differences(1e10);
  for (let i = 0; i < 1_200_000; i++) differences.add(i * 1000, 10);
  t.true(differences.isCut);
  t.is(differences.found, 1_200_000);
  t.is(differences.bytes, 12_000_000);
  t.true(differences.touches(1_150_000_005, 1));
  t.is([...differences].length, 1_000_000);
});
