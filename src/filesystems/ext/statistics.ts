/**
 * Sizes as statfs(2) tells them on a mount with the kernel's defaults ("bsddf"): the blocks of the filesystem without
 * those that hold its own structures.
 */
import { ImageError } from "../../errors.js";
import type { Statistics } from "../filesystem.js";
import { compat, incompat, roCompat } from "./features.js";
import { Inode } from "./inode.js";
import type { Superblock } from "./superblock.js";
import { hasSuperblock, type Volume } from "./volume.js";

/** @throws ImageError `corrupt` when the group descriptors can't be read. */
export function statisticsOf(volume: Volume): Statistics {
  const { superblock } = volume;
  let freeClusters = 0;
  let freeFiles = 0;
  for (let group = 0; group < superblock.groups; group++) {
    const descriptor = volume.descriptor(group);
    const wide = descriptor.length >= 64;
    freeClusters += descriptor.readUInt16LE(12) + (wide ? descriptor.readUInt16LE(44) * 0x10000 : 0);
    freeFiles += descriptor.readUInt16LE(14) + (wide ? descriptor.readUInt16LE(46) * 0x10000 : 0);
  }
  const overhead = overheadClusters(volume) * superblock.clusterBlocks;
  const freeBlocks = freeClusters * superblock.clusterBlocks;
  return {
    blockSize: superblock.blockSize,
    blocks: Math.max(0, superblock.blocks - overhead),
    freeBlocks,
    availableBlocks: Math.max(0, freeBlocks - superblock.reservedBlocks - reservedByKernel(superblock)),
    files: superblock.inodes,
    freeFiles,
    nameLength: 255,
  };
}

/** With extents the kernel keeps a fiftieth back, at most 4096 clusters, for what it writes later than it says. */
function reservedByKernel({ incompat: features, blocks, clusterBlocks }: Superblock): number {
  if (!(features & incompat.extents)) return 0;
  return Math.min(4096, Math.floor(Math.floor(blocks / clusterBlocks) / 50)) * clusterBlocks;
}

function overheadClusters(volume: Volume): number {
  const { superblock } = volume;
  const stored = superblock.overheadClusters;
  // With bigalloc the kernel takes what mke2fs wrote, since structures share clusters; else it counts.
  const bigalloc = (superblock.roCompat & roCompat.bigalloc) !== 0;
  if (bigalloc && stored > 0 && stored <= superblock.blocks) return stored;
  let overhead = Math.floor(superblock.firstDataBlock / superblock.clusterBlocks);
  overhead += bigalloc ? sharedClusters(volume) : countedBlocks(superblock);
  if (superblock.compat & compat.hasJournal && superblock.journalInode !== 0)
    overhead += Math.ceil(journalBlocks(volume) / superblock.clusterBlocks);
  return overhead;
}

/** A damaged journal is no reason for not telling sizes: the kernel too counts none then. */
function journalBlocks(volume: Volume): number {
  try {
    return Math.floor(Inode.read(volume, volume.superblock.journalInode).size / volume.superblock.blockSize);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return 0;
  }
}

/** Superblock copies, descriptor tables, two bitmaps and the inode table of every group. */
function countedBlocks(superblock: Superblock): number {
  const { groups, inodesPerGroup, inodeSize, blockSize } = superblock;
  const tables = Math.ceil((inodesPerGroup * inodeSize) / blockSize);
  let count = groups * (tables + 2);
  for (let group = 0; group < groups; group++) {
    count += descriptorBlocks(superblock, group);
    if (hasSuperblock(superblock, group)) count += 1 + superblock.reservedDescriptorBlocks;
  }
  return count;
}

/** Blocks of group descriptors that lie in a group. */
function descriptorBlocks(superblock: Superblock, group: number): number {
  const perBlock = superblock.blockSize / superblock.descriptorSize;
  const metaGroup = Math.floor(group / perBlock);
  const meta = (superblock.incompat & incompat.metaBg) !== 0;
  if (meta && metaGroup >= superblock.firstMetaGroup) {
    const within = group % perBlock;
    return within === 0 || within === 1 || within === perBlock - 1 ? 1 : 0;
  }
  if (!hasSuperblock(superblock, group)) return 0;
  return meta ? superblock.firstMetaGroup : Math.ceil(superblock.groups / perBlock);
}

/** Clusters that hold any structure, each counted once. */
function sharedClusters(volume: Volume): number {
  const { superblock } = volume;
  const { clusterBlocks, inodesPerGroup, inodeSize, blockSize, blocksPerGroup, firstDataBlock } = superblock;
  const tables = Math.ceil((inodesPerGroup * inodeSize) / blockSize);
  const all = Math.ceil((superblock.blocks - firstDataBlock) / clusterBlocks);
  // Stretches, not clusters: descriptors may tell of any number of them.
  const stretches: [first: number, end: number][] = [];
  const add = (block: number, count: number) => {
    const first = Math.max(0, Math.floor((block - firstDataBlock) / clusterBlocks));
    const end = Math.min(all, Math.floor((block - firstDataBlock + count - 1) / clusterBlocks) + 1);
    if (first < end) stretches.push([first, end]);
  };
  for (let group = 0; group < superblock.groups; group++) {
    const descriptor = volume.descriptor(group);
    const high = (at: number) => (descriptor.length >= 64 ? descriptor.readUInt32LE(at) * 0x100000000 : 0);
    const own = (hasSuperblock(superblock, group) ? 1 : 0) + descriptorBlocks(superblock, group);
    if (own > 0) add(firstDataBlock + group * blocksPerGroup, own);
    add(descriptor.readUInt32LE(0) + high(32), 1);
    add(descriptor.readUInt32LE(4) + high(36), 1);
    add(descriptor.readUInt32LE(8) + high(40), tables);
  }
  stretches.sort(([a], [b]) => a - b);
  let clusters = 0;
  let counted = 0;
  for (const [first, end] of stretches) {
    clusters += Math.max(0, end - Math.max(first, counted));
    counted = Math.max(counted, end);
  }
  return clusters;
}
