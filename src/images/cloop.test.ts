/** Compressed loop images as create_compressed_fs makes them and qemu-img reads them. */
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { deflateSync } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import { cloop } from "./cloop.js";
import {
  isDisk,
  isRefused,
  needsQemu,
  numbers,
  opened,
  patched,
  qemuRaw,
  readSome,
  survivesDamage,
  testFolder,
} from "./qemu-test-tools.js";
import { openedImage, register, sha256OfDisk, sharedContainers, unpackShared } from "./shared-test-images.js";

register(cloop);

function content(length: number): Buffer {
  const next = numbers(4);
  return Buffer.from(
    Array.from({ length }, (_, at) => ((at >> 12) % 3 === 0 ? 0 : (at >> 12) % 3 === 1 ? next(256) : at >> 5)),
  );
}

function hasMaker(t: ExecutionContext): boolean {
  // It exits with an error where it only tells how to use it.
  const found = spawnSync("sh", ["-c", "command -v create_compressed_fs"]).status === 0;
  if (!found) t.pass(t.log("skipped: create_compressed_fs (package cloop-utils) is not installed") as undefined);
  return found;
}

for (const blockSize of [512, 65536, 262144])
  test(`blocks of ${blockSize} bytes, as create_compressed_fs makes them`, (t) => {
    if (!needsQemu(t) || !hasMaker(t)) return;
    const path = testFolder(t);
    // The last block is filled up.
    const disk = content(blockSize === 512 ? 100_000 : 1_000_000);
    writeFileSync(path("disk"), disk);
    execFileSync("create_compressed_fs", ["-q", "-B", `${blockSize}`, path("disk"), path("a")], { stdio: "pipe" });
    const expected = qemuRaw(path("a"), "cloop", path("raw"));
    t.true(expected.subarray(0, disk.length).equals(disk));
    isDisk(t, { path: path("a") }, expected, blockSize);
    opened({ path: path("a") }, ({ layers }) => {
      const { pieces, check } = layers[0]!.integrity!;
      t.is(pieces, expected.length / blockSize);
      for (let piece = 0; piece < pieces; piece++) t.deepEqual(check(piece).damages, []);
    });
  });

test("an image that other tools made reads as INDEX.tsv says", (t) => {
  for (const row of sharedContainers(t, "cloop"))
    t.is(sha256OfDisk(openedImage(t, unpackShared(t, row)).disk), row.raw_sha256, row.file);
});

/** An image made here, where create_compressed_fs may not be there. */
function make(disk: Buffer, blockSize: number): Buffer {
  const blocks = Array.from({ length: disk.length / blockSize }, (_, index) =>
    deflateSync(disk.subarray(index * blockSize, (index + 1) * blockSize)),
  );
  const head = Buffer.alloc(136 + (blocks.length + 1) * 8);
  head.write("#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n");
  head.writeUInt32BE(blockSize, 128);
  head.writeUInt32BE(blocks.length, 132);
  let at = head.length;
  for (let index = 0; index <= blocks.length; index++) {
    head.writeBigUInt64BE(BigInt(at), 136 + index * 8);
    at += blocks[index]?.length ?? 0;
  }
  return Buffer.concat([head, ...blocks]);
}

test("sizes and places that can't be are refused; a damaged block costs no other", (t) => {
  const path = testFolder(t);
  const disk = content(64 * 1024);
  writeFileSync(path("a"), make(disk, 4096));
  isDisk(t, { path: path("a") }, disk, 4096);
  const refused = (
    changes: Record<number, readonly number[]>,
    words: string,
    code: "corrupt" | "unsupported" = "corrupt",
  ) => isRefused(t, code, { path: patched(path("a"), changes) }, path("a"), words);
  refused({ 128: [0, 0, 0, 0] }, "blocks of 0 bytes");
  refused({ 131: [1] }, "blocks of 4097 bytes");
  refused({ 128: [1] }, "up to 4194304 are possible", "unsupported");
  refused({ 132: [0xff] }, "tells of 4278190096 blocks");
  refused({ 136: [0x10] }, "block 0");
  refused({ [136 + 8 * 5]: [0, 0, 0, 0, 0, 0, 0, 200] }, "block 4");
  refused({ [136 + 8 * 16]: [0x10] }, "block 15");
  refused({ 130: [0x20] }, "it unpacks to 4096 bytes instead of 8192");
  const image = readFileSync(path("a"));
  const third = Number(image.readBigUInt64BE(136 + 8 * 3));
  const broken = patched(path("a"), { [third + 20]: [image[third + 20]! ^ 1] });
  isRefused(t, "corrupt", { path: broken }, `block 3 at byte ${third}`, "disk bytes 12288 to 16383");
  opened({ path: broken }, ({ disk: found, layers }) => {
    const target = Buffer.alloc(4096);
    t.is(found.read(4 * 4096, target), 4096);
    t.true(target.equals(disk.subarray(4 * 4096, 5 * 4096)));
    const reports = Array.from({ length: 16 }, (_, piece) => layers[0]!.integrity!.check(piece));
    t.deepEqual(
      reports.flatMap(({ damages }) => damages.map(({ position, length }) => [position, length])),
      [[12288, 4096]],
    );
  });
  for (const cut of [image.length - 1, 1000, 137, 130, 30]) {
    writeFileSync(path("cut"), image.subarray(0, cut));
    isRefused(t, "corrupt", { path: path("cut"), format: "cloop" }, path("cut"));
  }
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  survivesDamage(t, make(content(20 * 512), 512), (bytes) => readSome(cloop, bytes));
});
