/**
 * The superblock of SquashFS 4 and what all readers of the volume share (the kernel's fs/squashfs/squashfs_fs.h; "Squashfs
 * Binary Format" of squashfs-tools-ng). All numbers are little-endian.
 *
 *     superblock, 96 | compressor's options | data and fragments | inodes | directories | fragment table | export table |
 *     ids | xattrs
 */
import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import { corrupt, unsupported } from "../../errors.js";

const MAGIC = 0x73717368;
/** The same, written by a big-endian machine, which versions before 4 allowed. */
const SWAPPED_MAGIC = 0x68737173;
const SIZE = 96;
/** A table that isn't there. */
export const ABSENT = -1;

/** Positions in bytes from the volume's start. */
export interface Superblock {
  readonly inodes: number;
  readonly created: number;
  readonly blockSize: number;
  readonly fragments: number;
  readonly compressor: number;
  readonly flags: number;
  readonly ids: number;
  readonly version: string;
  /** The id of the root directory: see inode.ts. */
  readonly root: number;
  /** Of the filesystem: the volume may be larger. */
  readonly size: number;
  readonly idTable: number;
  readonly xattrTable: number;
  readonly inodeTable: number;
  readonly directoryTable: number;
  readonly fragmentTable: number;
  readonly exportTable: number;
}

export function recognisesSquashfs(source: ByteSource): boolean {
  const head = Buffer.alloc(4);
  if (readFully(source, 0, head) < 4) return false;
  const magic = head.readUInt32LE(0);
  return magic === MAGIC || magic === SWAPPED_MAGIC;
}

/** @throws ImageError `unsupported` for versions 1 to 3, `corrupt` for values that can't be. */
export function readSuperblock(source: ByteSource): Superblock {
  const bytes = readExactly(source, 0, SIZE, "the SquashFS superblock");
  const swapped = bytes.readUInt32LE(0) === SWAPPED_MAGIC;
  const major = swapped ? bytes.readUInt16BE(28) : bytes.readUInt16LE(28);
  const minor = swapped ? bytes.readUInt16BE(30) : bytes.readUInt16LE(30);
  if (swapped || major !== 4)
    throw unsupported(
      `${source.name}: this is SquashFS ${major}.${minor}${swapped ? ", big-endian" : ""}, and only version 4 can be read. Linux dropped the older ones in 2009; unsquashfs of squashfs-tools unpacks them.`,
    );
  const wrong = (what: string) => corrupt(`${source.name}: the SquashFS superblock at byte 0 ${what}. It is damaged.`);
  const position = (at: number) => {
    const value = bytes.readBigUInt64LE(at);
    return value === 0xffffffffffffffffn ? ABSENT : Number(value);
  };
  const blockSize = bytes.readUInt32LE(12);
  const blockLog = bytes.readUInt16LE(22);
  if (blockLog < 12 || blockLog > 20 || blockSize !== 2 ** blockLog)
    throw wrong(`has blocks of ${blockSize} bytes and a logarithm of ${blockLog}`);
  const size = position(40);
  if (size < SIZE || size > 2 ** 46) throw wrong(`tells a size of ${size} bytes`);
  const tables = {
    idTable: position(48),
    xattrTable: position(56),
    inodeTable: position(64),
    directoryTable: position(72),
    fragmentTable: position(80),
    exportTable: position(88),
  };
  for (const [name, at] of Object.entries(tables)) {
    const mayMiss = name === "xattrTable" || name === "exportTable" || name === "fragmentTable";
    if ((at === ABSENT && !mayMiss) || at > size || (at >= 0 && at < SIZE))
      throw wrong(`puts its ${name} at byte ${at} of ${size}`);
  }
  if (tables.inodeTable >= tables.directoryTable) throw wrong("puts the directories before the inodes");
  const root = bytes.readBigUInt64LE(32);
  if (root > 0xffffffffffffn) throw wrong(`puts the root inode at reference ${root}`);
  return {
    inodes: bytes.readUInt32LE(4),
    created: bytes.readUInt32LE(8),
    blockSize,
    fragments: bytes.readUInt32LE(16),
    compressor: bytes.readUInt16LE(20),
    flags: bytes.readUInt16LE(24),
    ids: bytes.readUInt16LE(26),
    version: `${major}.${minor}`,
    root: Number(root),
    size,
    ...tables,
  };
}

/** What the flags mean to a person. */
export function features(flags: number): string[] {
  const names: [number, string][] = [
    [0x0001, "uncompressed inodes"],
    [0x0002, "uncompressed data"],
    [0x0008, "uncompressed fragments"],
    [0x0010, "no fragments"],
    [0x0020, "always fragments"],
    [0x0040, "deduplicated"],
    [0x0080, "exportable"],
    [0x0100, "uncompressed xattrs"],
    [0x0200, "no xattrs"],
    [0x0400, "compressor options"],
    [0x0800, "uncompressed ids"],
  ];
  return names.filter(([bit]) => flags & bit).map(([, name]) => name);
}
