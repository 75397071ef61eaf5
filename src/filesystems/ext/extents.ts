/**
 * The extent tree of a file (Documentation/filesystems/ext4, "Extent Tree"): its root lies in the inode, further nodes
 * in blocks. A node is a header of 12 bytes and entries of 12 bytes, sorted by the first logical block of each. The
 * depth that each header tells falls by one with every step, so that a tree can't lead back to itself.
 */
import { updateCrc32c } from "../../bytes/crc32c.js";
import type { Inode } from "./inode.js";
import { Structure, verifiedAs } from "./verified.js";

const headerSize = 12;
const entrySize = 12;
const magic = 0xf30a;
const deepest = 5;
const lastLogical = 2 ** 32;
/** Extents longer than this are allocated, but were never written: they read as zeros, but for a directory's. */
const longest = 32768;

/** `count` blocks from `physical` on, or a hole where that is 0. */
export interface Stretch {
  readonly physical: number;
  readonly count: number;
}

/**
 * Where logical block `logical` of the file and those behind it are.
 * @throws ImageError `corrupt` when a node of the tree on the way is damaged.
 */
export function findInExtents(inode: Inode, logical: number): Stretch {
  let bytes = inode.blockArea;
  let position = inode.position + 40;
  let end = lastLogical;
  let start = 0;
  let depth = bytes.readUInt16LE(6);
  checkNode(inode, bytes, position, depth, start, end);
  for (; depth > 0; depth--) {
    const entry = lastNotAfter(bytes, logical);
    if (entry === 0) return { physical: 0, count: firstLogical(bytes, headerSize) - logical };
    const next = entry + entrySize;
    if (next < headerSize + bytes.readUInt16LE(2) * entrySize) end = firstLogical(bytes, next);
    start = firstLogical(bytes, entry);
    const number = bytes.readUInt32LE(entry + 4) + bytes.readUInt16LE(entry + 8) * 0x100000000;
    const block = inode.volume.block(number, `the extent tree of inode ${inode.number}`);
    bytes = block.bytes;
    position = block.position;
    const mark = verifiedAs(Structure.extents, inode.number, depth);
    if (block.verified !== mark) {
      checkNode(inode, bytes, position, depth - 1, start, end);
      block.verified = mark;
    }
  }
  return findInLeaf(inode, bytes, logical, end);
}

function findInLeaf(inode: Inode, bytes: Buffer, logical: number, end: number): Stretch {
  const entry = lastNotAfter(bytes, logical);
  const next = entry === 0 ? headerSize : entry + entrySize;
  const nextLogical = next < headerSize + bytes.readUInt16LE(2) * entrySize ? firstLogical(bytes, next) : end;
  if (entry !== 0) {
    const stored = bytes.readUInt16LE(entry + 4);
    const length = stored > longest ? stored - longest : stored;
    const into = logical - firstLogical(bytes, entry);
    if (into < length) {
      // The kernel takes a directory's blocks as they are: to leave them out would lose its names without a word.
      const written = stored <= longest || inode.kind === "directory";
      return { physical: written ? firstPhysical(bytes, entry) + into : 0, count: length - into };
    }
  }
  return { physical: 0, count: nextLogical - logical };
}

const firstLogical = (bytes: Buffer, entry: number) => bytes.readUInt32LE(entry);
const firstPhysical = (bytes: Buffer, entry: number) =>
  bytes.readUInt32LE(entry + 8) + bytes.readUInt16LE(entry + 6) * 0x100000000;

/** Where in a node the last entry lies that begins at or before `logical`; 0 if all begin later. */
function lastNotAfter(bytes: Buffer, logical: number): number {
  let low = 0;
  let high = bytes.readUInt16LE(2);
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (firstLogical(bytes, headerSize + middle * entrySize) <= logical) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? 0 : headerSize + (low - 1) * entrySize;
}

/** Checks a whole node once, as it is met: entries between `start` and `end`, in order, in the filesystem. */
function checkNode(inode: Inode, bytes: Buffer, position: number, depth: number, start: number, end: number): void {
  const { volume } = inode;
  const wrong = (what: string) => volume.corrupt(position, `the extent tree of inode ${inode.number} ${what}`);
  if (bytes.readUInt16LE(0) !== magic) throw wrong("has a node without its signature");
  const entries = bytes.readUInt16LE(2);
  const most = bytes.readUInt16LE(4);
  const after = headerSize + most * entrySize;
  if (entries > most || after > bytes.length) throw wrong(`has a node of ${entries} entries with room for ${most}`);
  if (depth > deepest || bytes.readUInt16LE(6) !== depth) throw wrong(`has a node of depth ${bytes.readUInt16LE(6)}`);
  if (entries === 0 && depth > 0) throw wrong("has an empty inner node");
  // The root is covered by the inode's own checksum.
  if (volume.superblock.checksums && bytes.length > 60) {
    if (after + 4 > bytes.length) throw wrong("has a node without room for its checksum");
    if (updateCrc32c(inode.checksumSeed, bytes, 0, after) !== bytes.readUInt32LE(after))
      throw wrong("has a node that does not match its checksum");
  }
  let from = start;
  for (let index = 0; index < entries; index++) {
    const entry = headerSize + index * entrySize;
    const logical = firstLogical(bytes, entry);
    if (logical < from || logical >= end) throw wrong(`is out of order at logical block ${logical}`);
    if (depth > 0) {
      const child = bytes.readUInt32LE(entry + 4) + bytes.readUInt16LE(entry + 8) * 0x100000000;
      if (!volume.holds(child, 1)) throw wrong(`goes on at block ${child}, where nothing can be`);
      from = logical + 1;
    } else {
      const stored = bytes.readUInt16LE(entry + 4);
      const length = stored > longest ? stored - longest : stored;
      const physical = firstPhysical(bytes, entry);
      if (length === 0 || logical + length > end)
        throw wrong(`has an extent of ${length} blocks at logical ${logical}`);
      if (!volume.holds(physical, length))
        throw wrong(`has an extent at blocks ${physical} to ${physical + length - 1}, outside the filesystem`);
      from = logical + length;
    }
  }
}
