/**
 * The volume as metadata readers see it: blocks by number, and where the inode table of each group lies. Blocks of
 * metadata are kept, with a note of which checksum has been verified.
 */
import { LRUCache } from "lru-cache";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { updateCrc32c } from "../../bytes/crc32c.js";
import { corrupt, type ImageError } from "../../errors.js";
import { crc16 } from "./crc16.js";
import { compat, incompat, roCompat } from "./features.js";
import type { Changes } from "./journal/changes.js";
import { keptMetadataBytes } from "./limits.js";
import { type Superblock, superblockPosition } from "./superblock.js";

export interface Block {
  readonly bytes: Buffer;
  /** Byte in the volume. */
  readonly position: number;
  /** What this block was found to be, by the reader that verified it: a number that stands for structure and owner. */
  verified: number;
}

export class Volume {
  readonly name: string;
  private readonly kept: LRUCache<number, Block>;
  private readonly inodeTables = new LRUCache<number, number>({ max: 4096 });

  /** @param changes what fast commits tell, where there are any: it goes before what lies in the volume. */
  constructor(
    readonly source: ByteSource,
    readonly superblock: Superblock,
    readonly changes?: Changes,
  ) {
    this.name = source.name;
    this.kept = new LRUCache({ max: Math.max(16, keptMetadataBytes / superblock.blockSize) });
  }

  /** Whether `count` blocks from `block` on lie where files and their metadata may. */
  holds(block: number, count: number): boolean {
    return block > this.superblock.firstDataBlock && block + count <= this.superblock.blocks;
  }

  /** @throws ImageError `corrupt` where the volume ends before; `what` names the structure. */
  block(number: number, what: string): Block {
    let block = this.kept.get(number);
    if (block === undefined) {
      const { blockSize } = this.superblock;
      const position = number * blockSize;
      block = { bytes: readExactly(this.source, position, blockSize, what), position, verified: 0 };
      this.kept.set(number, block);
    }
    return block;
  }

  corrupt(position: number, what: string): ImageError {
    return corrupt(`${this.name}: byte ${position}: ${what}. Run e2fsck on a copy of the image.`);
  }

  /**
   * Byte of inode `number`'s record.
   * @throws ImageError `corrupt` for a number that this filesystem doesn't have, or a damaged group descriptor.
   */
  inodePosition(number: number): number {
    const { inodes, inodesPerGroup, inodeSize } = this.superblock;
    if (!(number >= 1 && number <= inodes))
      throw corrupt(`${this.name}: there is no inode ${number}: the filesystem has ${inodes}.`);
    const group = Math.floor((number - 1) / inodesPerGroup);
    return this.inodeTable(group) + ((number - 1) % inodesPerGroup) * inodeSize;
  }

  private inodeTable(group: number): number {
    const known = this.inodeTables.get(group);
    if (known !== undefined) return known;
    const { blockSize, inodesPerGroup, inodeSize } = this.superblock;
    const descriptor = this.descriptor(group);
    const first = descriptor.readUInt32LE(8) + (descriptor.length >= 64 ? descriptor.readUInt32LE(40) * 2 ** 32 : 0);
    const position = this.descriptorPosition(group);
    this.verifyDescriptor(descriptor, group, position);
    if (!this.holds(first, Math.ceil((inodesPerGroup * inodeSize) / blockSize)))
      throw this.corrupt(position, `the descriptor of block group ${group} puts its inodes at block ${first}`);
    this.inodeTables.set(group, first * blockSize);
    return first * blockSize;
  }

  /** The bytes of a group descriptor, as they lie in the volume. */
  descriptor(group: number): Buffer {
    const { blockSize, descriptorSize } = this.superblock;
    const position = this.descriptorPosition(group);
    const block = Math.floor(position / blockSize);
    const within = position - block * blockSize;
    return this.block(block, `the descriptors of block group ${group}`).bytes.subarray(within, within + descriptorSize);
  }

  /** With meta_bg, each descriptor block lies in the first group of those that it describes. */
  private descriptorPosition(group: number): number {
    const { blockSize, descriptorSize, firstMetaGroup, firstDataBlock, blocksPerGroup } = this.superblock;
    const perBlock = blockSize / descriptorSize;
    const table = Math.floor(group / perBlock);
    const within = (group % perBlock) * descriptorSize;
    const superblockBlock = Math.floor(superblockPosition / blockSize);
    if (!(this.superblock.incompat & incompat.metaBg) || table < firstMetaGroup)
      return (superblockBlock + 1 + table) * blockSize + within;
    const first = table * perBlock;
    let copies = hasSuperblock(this.superblock, first) ? 1 : 0;
    // With blocks of 1 KiB and a first data block of 0 (bigalloc), the boot block precedes the superblock.
    if (blockSize === 1024 && table === 0 && firstDataBlock === 0) copies++;
    return (firstDataBlock + first * blocksPerGroup + copies) * blockSize + within;
  }

  private verifyDescriptor(descriptor: Buffer, group: number, position: number): void {
    const { checksums, checksumSeed, uuid } = this.superblock;
    const stored = descriptor.readUInt16LE(30);
    const number = Buffer.alloc(4);
    number.writeUInt32LE(group);
    let sum: number;
    if (checksums) {
      sum = updateCrc32c(updateCrc32c(checksumSeed, number), descriptor, 0, 30);
      sum = updateCrc32c(updateCrc32c(sum, new Uint8Array(2)), descriptor, 32) & 0xffff;
    } else if (this.superblock.roCompat & roCompat.gdtChecksum) {
      sum = crc16(crc16(crc16(0xffff, uuid), number), descriptor.subarray(0, 30));
      sum = crc16(sum, descriptor.subarray(32));
    } else return;
    if (sum !== stored)
      throw this.corrupt(position, `the descriptor of block group ${group} does not match its checksum`);
  }
}

/** Whether block group `group` begins with a copy of the superblock. */
export function hasSuperblock(superblock: Superblock, group: number): boolean {
  if (group === 0) return true;
  if (superblock.compat & compat.sparseSuper2)
    return group === superblock.backupGroups[0] || group === superblock.backupGroups[1];
  if (group === 1 || !(superblock.roCompat & roCompat.sparseSuper)) return true;
  return isPower(group, 3) || isPower(group, 5) || isPower(group, 7);
}

function isPower(number: number, base: number): boolean {
  let power = base;
  while (power < number) power *= base;
  return power === number;
}
