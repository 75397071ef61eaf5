/**
 * The header of a partclone image (IMAGE_FORMATS.md of partclone), which holds one filesystem: its used blocks, and a bitmap
 * that tells which they are.
 *
 *   format 0001   header 4160   bitmap, a byte a block   "BiTmAgIc"   used blocks, each with a checksum of 4 bytes
 *   format 0002   header 110    bitmap, a bit a block    CRC-32 4     strips of some used blocks, each with a checksum
 *
 * All numbers are little-endian; a marker tells of images from other machines. Checksums are CRC-32 without the inversion at
 * its end; those of strips may be XXH64 or XXH128 as well (checksum.c of partclone), which Clonezilla has asked for since 2026.
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import { corrupt, unsupported } from "../../errors.js";
import { largestDisk, u64le } from "../fields.js";

const signature = "partclone-image";

/** Of a bitmap: how it is kept, and how it ends. */
export type BitmapKind = "none" | "bits" | "bytes";

export interface Header {
  /** 1 or 2. */
  readonly version: number;
  /** The program that wrote it; undefined where that isn't told. */
  readonly writer: string | undefined;
  /** As partclone names it: `EXTFS`, `NTFS`, `raw`. */
  readonly filesystem: string;
  /** Of the partition, in bytes. */
  readonly size: number;
  readonly blockSize: number;
  readonly blocks: number;
  /** As the header tells it. The bitmap is what counts. */
  readonly usedBlocks: number;
  readonly bitmap: { readonly kind: BitmapKind; readonly position: number };
  readonly checksum: Checksum;
}

/** Of each strip of used blocks. */
export interface Checksum {
  /** `first byte`: of format 0001, in which a mistake lets only the first byte of a block count, as often as it has bytes. */
  readonly kind: "none" | "crc32" | "xxh64" | "xxh128" | "first byte";
  /** In bytes, as the image tells it: what is between two strips. */
  readonly size: number;
  /** Used blocks a strip; 0 where there are no checksums. */
  readonly blocks: number;
  /** Whether each begins anew; otherwise it goes on from the one before. */
  readonly reseeded: boolean;
}

/** Far more than any filesystem that partclone knows counts: 64 TiB in blocks of 4 KiB. */
const mostBlocks = 2 ** 34;
const largestBlock = 2 ** 28;

export function isPartclone(source: ByteSource): boolean {
  const mark = Buffer.alloc(signature.length);
  return readFully(source, 0, mark) === mark.length && mark.toString("latin1") === signature;
}

/** @throws ImageError `corrupt` or `unsupported` */
export function readHeader(source: ByteSource): Header {
  const { name } = source;
  const bytes = readExactly(source, 0, 110, "the header of partclone");
  const version = bytes.toString("latin1", 30, 34);
  const read = { "0001": readFirst, "0002": readSecond }[version];
  if (!read)
    throw unsupported(
      `${name}: is a partclone image of format "${printable(version)}"; formats 0001 and 0002 are read. Restore it with the partclone that made it.`,
    );
  const header = read(name, bytes);
  const { blockSize, blocks } = header;
  if (blockSize === 0 || blockSize > largestBlock || blocks === 0)
    throw corrupt(`${name}: tells of ${blocks} blocks of ${blockSize} bytes. The header is damaged.`);
  if (blocks > mostBlocks)
    throw unsupported(`${name}: tells of ${blocks} blocks, and ${mostBlocks} are the most that Spindle reads.`);
  if (blocks * blockSize > largestDisk || header.size > largestDisk)
    throw corrupt(
      `${name}: tells of ${blocks} blocks of ${blockSize} bytes, which no disk has. The header is damaged.`,
    );
  const bitmapEnd = header.bitmap.position + bitmapSize(header);
  if (bitmapEnd > source.size)
    throw corrupt(
      `${name}: its bitmap of ${blocks} blocks should reach to byte ${bitmapEnd}, but the file has ${source.size} bytes. It is truncated or damaged.`,
    );
  return header;
}

/** Bytes of the bitmap, what marks its end included. */
export function bitmapSize({ bitmap: { kind }, blocks }: Pick<Header, "bitmap" | "blocks">): number {
  return kind === "none" ? 0 : kind === "bits" ? Math.ceil(blocks / 8) + 4 : blocks + 8;
}

function readFirst(_: string, bytes: Buffer): Header {
  const blockSize = bytes.readUInt32LE(36);
  const blocks = u64le(bytes, 48);
  return {
    version: 1,
    writer: undefined,
    filesystem: text(bytes, 15, 15),
    // The size at byte 40 was written wrongly by some versions; partclone itself goes by the blocks.
    size: blocks * blockSize,
    blockSize,
    blocks,
    usedBlocks: u64le(bytes, 56),
    bitmap: { kind: "bytes", position: 4160 },
    checksum: { kind: "first byte", size: 4, blocks: 1, reseeded: false },
  };
}

function readSecond(name: string, bytes: Buffer): Header {
  const told = bytes.readUInt32LE(106);
  const sum = checksumOf(bytes.subarray(0, 106));
  if (sum !== told)
    throw corrupt(
      `${name}: the checksum of its first 106 bytes is ${sum.toString(16)}, and it tells ${told.toString(16)}. The header is damaged: restore the file from another copy.`,
    );
  if (bytes.readUInt16LE(34) !== 0xc0de)
    throw unsupported(`${name}: was made on a machine of another byte order. Restore it with partclone on such a one.`);
  const featureSize = bytes.readUInt32LE(88);
  if (featureSize !== 18 || bytes.readUInt16LE(92) !== 2)
    throw unsupported(`${name}: has features that Spindle doesn't know (${featureSize} bytes of them at byte 88).`);
  const bitmap = ({ 0: "none", 1: "bits", 8: "bytes" } as const)[bytes[105]!];
  if (bitmap === undefined)
    throw unsupported(`${name}: keeps its bitmap in an unknown way, ${bytes[105]} at byte 105.`);
  const blockSize = bytes.readUInt32LE(84);
  const blocks = u64le(bytes, 60);
  const size = u64le(bytes, 52);
  return {
    version: 2,
    writer: text(bytes, 16, 14),
    filesystem: text(bytes, 36, 16),
    // A partition may end within its last block, or go on behind it.
    size: size > (blocks - 1) * blockSize ? size : blocks * blockSize,
    blockSize,
    blocks,
    usedBlocks: u64le(bytes, 76),
    bitmap: { kind: bitmap, position: 110 },
    checksum: readChecksum(name, bytes),
  };
}

function readChecksum(name: string, bytes: Buffer): Checksum {
  const mode = bytes.readUInt16LE(96);
  const size = bytes.readUInt16LE(98);
  const blocks = bytes.readUInt32LE(100);
  const none: Checksum = { kind: "none", size: 0, blocks: 0, reseeded: true };
  if (mode === 0 || blocks === 0) return none;
  const kind = ({ 32: "crc32", 48: "xxh64", 49: "xxh128" } as const)[mode];
  if (kind === undefined) throw unsupported(`${name}: has checksums of an unknown kind, ${mode} at byte 96.`);
  if (size !== { crc32: 4, xxh64: 8, xxh128: 16 }[kind])
    throw corrupt(`${name}: byte 98 tells of checksums (${kind}) of ${size} bytes. The header is damaged.`);
  return { kind, size, blocks, reseeded: bytes[104] !== 0 };
}

/** CRC-32 as partclone has it, without the inversion at its end. */
export const checksumOf = (bytes: Uint8Array, before = 0xffffffff) => ~crc32(bytes, ~before >>> 0) >>> 0;

const text = (bytes: Buffer, at: number, length: number) =>
  printable(bytes.toString("latin1", at, at + length).replace(/\0.*$/s, ""));

const printable = (value: string) => value.replace(/[^ -~]/g, "?");
