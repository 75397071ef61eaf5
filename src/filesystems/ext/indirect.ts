/**
 * The block map of ext2 and ext3 (Documentation/filesystems/ext4, "Direct/Indirect Block Addressing"): 12 block numbers
 * in the inode, then one block of numbers, one of such blocks, one of those. 0 is a hole at any level. Three levels are
 * the most there are, so that nothing can go in circles.
 */
import type { Stretch } from "./extents.js";
import type { Inode } from "./inode.js";

const direct = 12;

/**
 * Where logical block `logical` of the file and those behind it are.
 * @throws ImageError `corrupt` when a block number on the way lies outside the filesystem.
 */
export function findInBlockMap(inode: Inode, logical: number): Stretch {
  if (logical < direct) return run(inode, inode.blockArea, inode.position + 40, logical, direct);
  const perBlock = inode.volume.superblock.blockSize / 4;
  let rest = logical - direct;
  let span = perBlock;
  for (let level = 1; level <= 3; level++, span *= perBlock) {
    if (rest < span) return descend(inode, direct + level - 1, level, rest, span);
    rest -= span;
  }
  // Past what three levels can number there is nothing; the size of a file may still reach there.
  return { physical: 0, count: 2 ** 32 };
}

/** `span` blocks are below the number at index `root` of the inode; `rest` is the wanted one of them. */
function descend(inode: Inode, root: number, levels: number, rest: number, span: number): Stretch {
  const { volume } = inode;
  const perBlock = volume.superblock.blockSize / 4;
  let number = inode.blockArea.readUInt32LE(root * 4);
  let position = inode.position + 40 + root * 4;
  let within = rest;
  let below = span;
  for (let level = levels; ; level--) {
    if (number === 0) return { physical: 0, count: below - within };
    if (!volume.holds(number, 1))
      throw volume.corrupt(position, `the block map of inode ${inode.number} goes on at block ${number}`);
    const block = volume.block(number, `the block map of inode ${inode.number}`);
    below /= perBlock;
    const index = Math.floor(within / below);
    if (level === 1) return run(inode, block.bytes, block.position, index, perBlock);
    within -= index * below;
    number = block.bytes.readUInt32LE(index * 4);
    position = block.position + index * 4;
  }
}

/** The numbers from `index` on that continue one another, or the holes. */
function run(inode: Inode, bytes: Buffer, position: number, index: number, end: number): Stretch {
  const physical = bytes.readUInt32LE(index * 4);
  const step = physical === 0 ? 0 : 1;
  let count = 1;
  while (index + count < end && bytes.readUInt32LE((index + count) * 4) === physical + step * count) count++;
  if (physical !== 0 && !inode.volume.holds(physical, count))
    throw inode.volume.corrupt(
      position + index * 4,
      `the block map of inode ${inode.number} names blocks ${physical} to ${physical + count - 1}, outside the filesystem`,
    );
  return { physical, count };
}
