/** Sizes where structures share clusters, against the count that mke2fs wrote into the superblock. */
import { readFileSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import { MemorySource } from "../../bytes/memory.js";
import { hasTools, run, scratchFolder, sparseFile } from "../image-test-tools.js";
import { testSurroundings } from "../shared-test-images.js";
import { ext } from "./ext.js";

/** Of the superblock, and of the second group's descriptor behind it, where blocks have 1 KiB. */
const At = { overhead: 1024 + 0x248, inodeTableHigh: 2048 + 64 + 40 };

function bigalloc(t: ExecutionContext): Buffer | undefined {
  if (!hasTools(t, "e2fsprogs", "mke2fs")) return undefined;
  const path = sparseFile(scratchFolder(t), "image", 40 * 2 ** 20);
  run("mke2fs", [
    "-q",
    "-F",
    "-t",
    "ext4",
    "-b",
    "1024",
    "-C",
    "2048",
    "-O",
    "bigalloc,64bit,^metadata_csum,^has_journal,^resize_inode",
    path,
  ]);
  return readFileSync(path);
}

const blocksOf = (bytes: Buffer) => ext.open(new MemorySource("m", bytes), testSurroundings()).statistics.blocks;

test("clusters that structures share are counted once, as mke2fs counts them", (t) => {
  const bytes = bigalloc(t);
  if (!bytes) return;
  t.not(bytes.readUInt32LE(At.overhead), 0);
  const told = blocksOf(bytes);
  bytes.writeUInt32LE(0, At.overhead);
  t.is(blocksOf(bytes), told);
});

test("a descriptor that tells of an inode table beyond all that can be counted costs no time", (t) => {
  const bytes = bigalloc(t);
  if (!bytes) return;
  bytes.writeUInt32LE(0, At.overhead);
  const sound = blocksOf(bytes);
  for (const high of [1, 0x10000, 0xffffffff]) {
    bytes.writeUInt32LE(high, At.inodeTableHigh);
    // What lies nowhere isn't counted.
    t.true(blocksOf(bytes) > sound, `${high}`);
  }
});
