/**
 * Inodes: everything about a file but its names (Documentation/filesystems/ext4, "Index Nodes"). The first 128 bytes
 * are as in ext2; a larger inode says in i_extra_isize how many more of its fields are in use, and extended attributes
 * follow behind them.
 */
import { updateCrc32c } from "../../bytes/crc32c.js";
import type { Attributes, FileKind, Time } from "../filesystem.js";
import { flagNames } from "../flag-names.js";
import { incompat, roCompat } from "./features.js";
import type { Volume } from "./volume.js";

const flag = {
  encrypted: 0x800,
  indexed: 0x1000,
  hugeFile: 0x40000,
  extents: 0x80000,
  eaInode: 0x200000,
  inlineData: 0x10000000,
} as const;

const flagWords: Readonly<Record<number, string>> = {
  1: "secure deletion",
  2: "undelete",
  4: "compressed",
  8: "synchronous",
  16: "immutable",
  32: "append only",
  64: "no dump",
  128: "no atime",
  [flag.encrypted]: "encrypted",
  [flag.indexed]: "indexed",
  16384: "journalled data",
  32768: "no tail",
  65536: "synchronous directory",
  131072: "top of directories",
  [flag.hugeFile]: "huge file",
  [flag.extents]: "extents",
  1048576: "verity",
  [flag.eaInode]: "holds an attribute",
  33554432: "DAX",
  [flag.inlineData]: "inline data",
  536870912: "project inherited",
  1073741824: "casefold",
};

const kinds: Record<number, FileKind> = {
  1: "fifo",
  2: "character",
  4: "directory",
  6: "block",
  8: "file",
  10: "symlink",
  12: "socket",
};

const zero4 = new Uint8Array(4);
/** Number and generation of the inode whose checksum is made. */
const seedWords = Buffer.alloc(8);

export class Inode {
  readonly kind: FileKind;
  readonly mode: number;
  readonly flags: number;
  /** In bytes, at most what the blocks of a file can be numbered for. */
  readonly size: number;
  readonly generation: number;
  /** Bytes of fields in use behind the first 128. */
  readonly extraSize: number;
  /** Block of the extended attributes that did not fit into the inode; 0 for none. */
  readonly attributeBlock: number;
  /** What checksums of blocks that belong to this inode begin with. */
  readonly checksumSeed: number;
  /** The last stretch of blocks that was looked up: reading goes on where it stopped. */
  lastLogical = 0;
  lastPhysical = 0;
  lastCount = 0;

  private constructor(
    readonly volume: Volume,
    readonly number: number,
    /** Byte of the record in the volume. */
    readonly position: number,
    /** The whole record. */
    readonly raw: Buffer,
    /** Whether the record is one that a fast commit made, which has no checksum of its own. */
    changed: boolean,
  ) {
    const { superblock } = volume;
    const mode = raw.readUInt16LE(0);
    this.mode = mode & 0o7777;
    this.flags = raw.readUInt32LE(32);
    this.generation = raw.readUInt32LE(100);
    this.extraSize = raw.length > 128 ? raw.readUInt16LE(128) : 0;
    if (this.extraSize > raw.length - 128 || this.extraSize % 4 !== 0)
      throw this.corrupt(`has ${this.extraSize} bytes of further fields`);
    this.checksumSeed = 0;
    if (superblock.checksums) {
      this.checksumSeed = this.seed();
      if (!changed) this.verify();
    }
    const kind = kinds[mode >> 12];
    if (kind === undefined) throw this.corrupt(`is of an unknown kind (mode 0${mode.toString(8)})`);
    this.kind = kind;
    if (raw.readUInt16LE(26) === 0) throw this.corrupt("belongs to a deleted file");
    this.size = raw.readUInt32LE(4);
    if (kind === "file" || superblock.incompat & incompat.largeDir) this.size += raw.readUInt32LE(108) * 0x100000000;
    if (this.size > 2 ** 32 * superblock.blockSize) throw this.corrupt(`has an impossible size of ${this.size} bytes`);
    this.attributeBlock = raw.readUInt32LE(104);
    // In 32 bits the word may mean something else: Hurd keeps bits of the mode there.
    if (superblock.incompat & incompat.sixtyFourBit) this.attributeBlock += raw.readUInt16LE(118) * 0x100000000;
  }

  /** @throws ImageError `corrupt` when there is no such inode, or it is damaged or unused. */
  static read(volume: Volume, number: number): Inode {
    const { blockSize, inodeSize } = volume.superblock;
    const position = volume.inodePosition(number);
    const changed = volume.changes?.inode(number);
    if (changed) return new Inode(volume, number, position, Buffer.from(changed), true);
    const block = Math.floor(position / blockSize);
    const within = position - block * blockSize;
    const { bytes } = volume.block(block, `inode ${number}`);
    return new Inode(volume, number, position, bytes.subarray(within, within + inodeSize), false);
  }

  corrupt(what: string) {
    return this.volume.corrupt(this.position, `inode ${this.number} ${what}`);
  }

  get encrypted(): boolean {
    return (this.flags & flag.encrypted) !== 0;
  }

  get usesExtents(): boolean {
    return (this.flags & flag.extents) !== 0;
  }

  get holdsAttribute(): boolean {
    return (this.flags & flag.eaInode) !== 0;
  }

  /** Whether the data lies in the inode itself, and its rest in an attribute of it. */
  get inline(): boolean {
    return (this.flags & flag.inlineData) !== 0;
  }

  get indexed(): boolean {
    return (this.flags & flag.indexed) !== 0;
  }

  /** i_block: 15 block numbers, the root of an extent tree, a short symlink's target, or inline data. */
  get blockArea(): Buffer {
    return this.raw.subarray(40, 100);
  }

  attributes(): Attributes {
    const { raw } = this;
    const base = {
      kind: this.kind,
      mode: this.mode,
      inode: this.number,
      links: raw.readUInt16LE(26),
      owner: raw.readUInt16LE(2) + raw.readUInt16LE(120) * 0x10000,
      group: raw.readUInt16LE(24) + raw.readUInt16LE(122) * 0x10000,
      size: this.size,
      allocated: this.allocated,
      accessed: this.time(8, 140),
      modified: this.time(16, 136),
      changed: this.time(12, 132),
      born: this.covers(144, 4) ? this.time(144, 148) : undefined,
    };
    if (this.kind === "character" || this.kind === "block") return { ...base, size: 0, device: this.device };
    return base;
  }

  /** Flags by the names that lsattr(1) has for them, and numbers that nothing else shows. */
  details(): Record<string, unknown> {
    const { raw, flags, generation, volume } = this;
    const project = volume.superblock.roCompat & roCompat.project && this.covers(156, 4) ? raw.readUInt32LE(156) : 0;
    return { flags: flagNames(flagWords, flags), generation, ...(project === 0 ? {} : { project }) };
  }

  /**
   * i_blocks counts 512-byte sectors, or blocks in a file that is flagged as huge. A damaged one can count more than a
   * number holds.
   */
  private get allocated(): number {
    const { raw, volume } = this;
    const huge = (volume.superblock.roCompat & roCompat.hugeFile) !== 0;
    const count = raw.readUInt32LE(28) + (huge ? raw.readUInt16LE(116) * 0x100000000 : 0);
    const unit = huge && this.flags & flag.hugeFile ? volume.superblock.blockSize : 512;
    // As the kernel: a file that lies in its inode shall not look like a hole.
    const inline = this.inline && this.kind === "file" && unit === 512 ? Math.ceil(this.size / 512) : 0;
    return Math.min((count + inline) * unit, Number.MAX_SAFE_INTEGER);
  }

  /** The old encoding has 8 bits for each number, the new one in the next word 12 and 20. */
  private get device(): { major: number; minor: number } {
    const old = this.blockArea.readUInt32LE(0);
    if (old !== 0) return { major: (old >>> 8) & 0xff, minor: old & 0xff };
    const device = this.blockArea.readUInt32LE(4);
    return { major: (device >>> 8) & 0xfff, minor: (device & 0xff) | ((device >>> 12) & 0xfff00) };
  }

  /** Whether `length` bytes at `at` are among the fields in use. */
  private covers(at: number, length: number): boolean {
    return at + length <= 128 + this.extraSize && this.raw.length > 128;
  }

  /** Seconds count from 1970 in 32 bits with sign; the extra word has two more bits for them, and nanoseconds. */
  private time(at: number, extraAt: number): Time {
    const low = this.raw.readInt32LE(at);
    if (!this.covers(extraAt, 4)) return { seconds: low, nanoseconds: 0 };
    const extra = this.raw.readUInt32LE(extraAt);
    const seconds = low + (extra & 3) * 0x100000000;
    // 30 bits could hold more than a second has, but only in a damaged inode.
    return { seconds, nanoseconds: Math.min(extra >>> 2, 999_999_999) };
  }

  private seed(): number {
    seedWords.writeUInt32LE(this.number, 0);
    seedWords.writeUInt32LE(this.generation, 4);
    return updateCrc32c(this.volume.superblock.checksumSeed, seedWords);
  }

  private verify(): void {
    const { raw } = this;
    let stored = raw.readUInt16LE(124);
    let sum = updateCrc32c(this.checksumSeed, raw, 0, 124);
    sum = updateCrc32c(sum, zero4, 0, 2);
    sum = updateCrc32c(sum, raw, 126, 128);
    if (raw.length > 128) {
      sum = updateCrc32c(sum, raw, 128, 130);
      if (this.extraSize >= 4) {
        stored += raw.readUInt16LE(130) * 0x10000;
        sum = updateCrc32c(updateCrc32c(sum, zero4, 0, 2), raw, 132);
      } else {
        sum = updateCrc32c(sum, raw, 130);
      }
    }
    if (this.extraSize < 4) sum &= 0xffff;
    if (sum !== stored) throw this.corrupt("does not match its checksum");
  }
}
