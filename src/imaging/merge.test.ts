import { spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import test from "ava";
import { contentRootOfBytes, readSecondly } from "../images/spin/second-test-reader.js";
import { zstdMissing, zstdUnpacks } from "../images/spin/spin-test-tools.js";
import type { CreateOptions } from "./create.js";
import { beside, contentOf, create, ended, noise, spindle, verify, workspace, write } from "./imaging-test-tools.js";

const KiB = 1024;
const MiB = 1024 * KiB;

const merge = (source: string, image: string, more: Partial<CreateOptions> = {}) =>
  create(source, image, { threads: 2, goesOn: { frames: true }, ...more });

/** Words, so that a level of compression makes a difference. */
const words = (size: number, seed: number) => Buffer.from(noise(size / 2, seed).toString("hex"), "latin1");

/** Four states of a disk: changed here and there, zeroed in the middle, grown, and cut. */
function states(): [Buffer, Buffer, Buffer, Buffer] {
  const first = Buffer.concat([words(3 * MiB, 1), Buffer.alloc(2 * MiB), noise(MiB + 700, 2)]);
  const second = Buffer.from(first);
  noise(200 * KiB, 3).copy(second, 100 * KiB);
  second.fill(0, MiB, MiB + 300 * KiB);
  const third = Buffer.concat([second, noise(500 * KiB, 4)]);
  noise(64 * KiB, 5).copy(third, 4 * MiB);
  return [first, second, third, Buffer.from(third.subarray(0, 5 * MiB + 300))];
}

async function chain(path: (name: string) => string): Promise<[Buffer, Buffer, Buffer, Buffer]> {
  const disks = states();
  for (const [index, disk] of disks.entries()) write(path(`disk${index}`), disk);
  const label = { label: "the label", comment: "the comment" };
  await create(path("disk0"), path("0.spin"), { level: 12 });
  await create(path("disk1"), path("1.spin"), { base: path("0.spin"), level: 1 });
  await create(path("disk2"), path("2.spin"), { base: path("1.spin"), level: 1 });
  await create(path("disk3"), path("3.spin"), { base: path("2.spin"), level: 1, ...label });
  return disks;
}

test("a chain becomes one full image of the same disk, which zstd -d reads", async (t) => {
  const path = workspace(t);
  const disks = await chain(path);
  for (const index of [0, 1, 2, 3]) {
    const made = await merge(path(`${index}.spin`), path(`full${index}`));
    const file = readFileSync(path(`full${index}`));
    t.deepEqual(made.contentRoot, contentRootOfBytes(disks[index]!, 64 * KiB));
    t.false(readSecondly(file).differential);
    t.true((await contentOf(path(`full${index}`))).equals(disks[index]!));
    t.true((await verify(path(`full${index}`))).layers.every(({ damages }) => damages.length === 0));
    if (zstdMissing) t.log(`zstd -d is not compared: ${zstdMissing}`);
    else t.true(zstdUnpacks(file).equals(disks[index]!));
  }
});

test("frames are taken as they are, at the level at which they were packed, unless another is given", async (t) => {
  const path = workspace(t);
  await chain(path);
  await merge(path("0.spin"), path("copy"));
  const [old, copied] = ["0.spin", "copy"].map((name) => readSecondly(readFileSync(path(name))));
  t.deepEqual(copied!.chunks, old!.chunks);
  t.is(copied!.metadata.level, 12);
  await merge(path("0.spin"), path("anew"), { goesOn: { frames: false }, level: 1 });
  t.notDeepEqual(readSecondly(readFileSync(path("anew"))).chunks, old!.chunks);
  t.true((await contentOf(path("anew"))).equals(await contentOf(path("0.spin"))));
});

test("a differential against an ancestor has the disk of the newest, and needs none between", async (t) => {
  const path = workspace(t);
  const disks = await chain(path);
  const made = await merge(path("3.spin"), path("week.spin"), { base: path("0.spin") });
  t.deepEqual(made.contentRoot, contentRootOfBytes(disks[3], 64 * KiB));
  t.true((await contentOf(path("week.spin"))).equals(disks[3]));
  t.true((await verify(path("week.spin"))).layers.every(({ damages }) => damages.length === 0));
  // What a differential of the raw disks has stored is what this one has.
  const direct = await create(path("disk3"), path("direct.spin"), { base: path("0.spin"), level: 1 });
  t.is(made.storedChunks, direct.storedChunks);
  t.true(made.storedChunks < 20);
});

/** Spoils the frame of a stored chunk. */
function spoil(image: string, chunk: number): void {
  const { chunks } = readSecondly(readFileSync(image));
  const { at } = chunks[chunk] as { at: number };
  const fd = openSync(image, "r+");
  writeSync(fd, Buffer.alloc(4, 0xee), 0, 4, at + 20);
  closeSync(fd);
}

test("a damaged chunk is told, and nothing is left of the image", async (t) => {
  const path = workspace(t);
  await chain(path);
  spoil(path("0.spin"), 40);
  await t.throwsAsync(merge(path("3.spin"), path("out")), { code: "corrupt", message: /0\.spin: chunk 40 .*damaged/ });
  t.false(beside(path("out")).some((name) => name.includes("out")));
});

test("what the base has is not read again: damage in it is no obstacle", async (t) => {
  const path = workspace(t);
  await chain(path);
  spoil(path("0.spin"), 40);
  await t.notThrowsAsync(merge(path("3.spin"), path("week.spin"), { base: path("0.spin") }));
});

test("the words of the newest image are kept, and others may be given", async (t) => {
  const path = workspace(t);
  await chain(path);
  await merge(path("3.spin"), path("kept"));
  t.like(readSecondly(readFileSync(path("kept"))).metadata, {
    label: "the label",
    comment: "the comment",
    source: { path: path("disk3"), kind: "file" },
  });
  await merge(path("3.spin"), path("other"), { label: "another" });
  t.like(readSecondly(readFileSync(path("other"))).metadata, { label: "another", comment: "the comment" });
});

test("another chunk size packs anew; the base's is taken where none is given", async (t) => {
  const path = workspace(t);
  const disks = await chain(path);
  const made = await merge(path("3.spin"), path("small"), { chunkSize: 16 * KiB });
  t.deepEqual(made.contentRoot, contentRootOfBytes(disks[3], 16 * KiB));
  await create(path("disk0"), path("base"), { chunkSize: 16 * KiB });
  const differential = await merge(path("3.spin"), path("on-base"), { base: path("base") });
  t.is(differential.chunkSize, 16 * KiB);
  t.true((await contentOf(path("on-base"))).equals(disks[3]));
});

test("a qcow2 image with a backing file becomes one .spin image", async (t) => {
  const path = workspace(t);
  const qemu = (...parameters: string[]) => spawnSync("qemu-img", parameters).status;
  if (qemu("--version") !== 0) {
    t.log("skipped: qemu-img is not installed");
    return t.pass();
  }
  const disk = Buffer.alloc(4 * MiB);
  noise(MiB, 1).copy(disk, MiB);
  write(path("raw"), disk);
  qemu("convert", "-O", "qcow2", path("raw"), path("base.qcow2"));
  qemu("create", "-f", "qcow2", "-b", path("base.qcow2"), "-F", "qcow2", path("top.qcow2"));
  spawnSync("qemu-io", ["-c", "write -P 7 3M 64k", path("top.qcow2")]);
  disk.fill(7, 3 * MiB, 3 * MiB + 64 * KiB);
  const made = await merge(path("top.qcow2"), path("out"));
  t.deepEqual(made.contentRoot, contentRootOfBytes(disk, 64 * KiB));
  await create(path("raw"), path("first.spin"));
  const { storedChunks } = await merge(path("top.qcow2"), path("d.spin"), { base: path("first.spin") });
  t.is(storedChunks, 1);
  return undefined;
});

test("an image can't take the place of what it is made from", async (t) => {
  const path = workspace(t);
  await chain(path);
  for (const [source, image, base] of [
    ["3.spin", "0.spin", undefined],
    ["3.spin", "3.spin", undefined],
    ["3.spin", "0.spin", "0.spin"],
  ] as const)
    await t.throwsAsync(merge(path(source), path(image), { force: true, base: base && path(base) }), {
      code: "usage",
      message: /itself/,
    });
});

test("spindle merge tells what it made", async (t) => {
  const path = workspace(t);
  const disks = await chain(path);
  const done = await ended(spindle("merge", path("2.spin"), path("out.spin"), "--json"));
  t.is(done.code, 0, done.stderr);
  t.like(JSON.parse(done.stdout), { kind: "full", size: disks[2].length, image: path("out.spin") });
  const again = await ended(spindle("merge", path("2.spin"), path("out.spin")));
  t.is(again.code, 2);
  t.regex(again.stderr, /--force/);
});
