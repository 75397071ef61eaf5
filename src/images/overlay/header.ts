/**
 * The file of an overlay: what was written to a disk whose image stays as it is. Version 1; numbers are little-endian.
 *
 *       0  "SPINOVLY"
 *       8  version, u32: 1                12  bytes of a block, u32: 4096
 *      16  bytes of the disk, u64
 *      24  position of the bitmap, u64    32  position of the blocks, u64
 *      40  bytes of the text, u32         44  CRC-32 of the bytes before it and of the text, u32
 *      48  the text: JSON in UTF-8, about the image it belongs to (OverlayText)
 *     ...  bitmap: a bit for each block, lowest first: whether it is here; whole pages of 4096 bytes
 *     ...  the blocks, each at its position on the disk: the file is sparse, and as long as bitmap and disk together
 *
 * What is written when, and why nothing is lost, tells layers/overlay.ts. There is no list of where a block lies, so that
 * a file is read in the disk's order and a block is found without a look-up; the price is a sparse file, which has to be
 * copied as one (cp and rsync -S do), and that a filesystem must allow a file as large as the disk.
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { corrupt, unsupported } from "../../errors.js";
import { bitmapLength, blockSize } from "../../layers/overlay-memory.js";
import { u64le } from "../fields.js";

export const signature = Buffer.from("SPINOVLY");
const version = 1;
const textAt = 48;
/** The text has room to here. */
const bitmapAt = 65536;
const alignment = 1 << 20;

export interface OverlayHeader {
  /** Bytes of the disk. */
  readonly size: number;
  readonly bitmapPosition: number;
  readonly dataPosition: number;
  readonly text: OverlayText;
}

export interface OverlayText {
  /** ISO 8601. */
  readonly created: string;
  /** What made it, with its version. */
  readonly tool: string;
  readonly base: BaseRecord;
}

/** The image that an overlay belongs to. */
export interface BaseRecord {
  /** Absolute, and relative to the overlay's folder. */
  readonly path: string;
  readonly relative: string;
  readonly format: string;
  /** Of a .spin image, which is told by them alone. */
  readonly id?: string;
  readonly contentRoot?: string;
  /** Of any other: bytes of the file, and when it was changed last, in nanoseconds since 1970. */
  readonly fileSize?: number;
  readonly modified?: string;
  /** And of all further files that it and its parents consist of, where there are any: a digest of their sizes and times. */
  readonly beneath?: string;
  /** Of an image within a file (an archive, a packed file) which of it: ` > disk1.vmdk`. */
  readonly within?: string;
  /** The snapshot inside the image that was written over, by name; absent for the image's present state. */
  readonly snapshot?: string;
  /** Of a disk that was decrypted, over whose plain bytes was written: with what, and its bytes as it is stored. */
  readonly encrypted?: { readonly with: string; readonly size: number };
}

/** Where things lie in the overlay of a disk of `size` bytes, and how long its file is. */
export function layout(size: number): { bitmapPosition: number; dataPosition: number; fileSize: number } {
  const dataPosition = Math.ceil((bitmapAt + bitmapLength(size)) / alignment) * alignment;
  return { bitmapPosition: bitmapAt, dataPosition, fileSize: dataPosition + size };
}

/** The first bytes of an overlay's file. */
export function headerBytes(size: number, text: OverlayText): Buffer {
  const json = Buffer.from(JSON.stringify(text));
  if (textAt + json.length > bitmapAt) throw new Error(`${json.length} bytes of text don't fit an overlay's header`);
  const bytes = Buffer.alloc(textAt + json.length);
  const { bitmapPosition, dataPosition } = layout(size);
  signature.copy(bytes);
  bytes.writeUInt32LE(version, 8);
  bytes.writeUInt32LE(blockSize, 12);
  bytes.writeBigUInt64LE(BigInt(size), 16);
  bytes.writeBigUInt64LE(BigInt(bitmapPosition), 24);
  bytes.writeBigUInt64LE(BigInt(dataPosition), 32);
  bytes.writeUInt32LE(json.length, 40);
  json.copy(bytes, textAt);
  bytes.writeUInt32LE(crc32(json, crc32(bytes.subarray(0, 44))), 44);
  return bytes;
}

export function isOverlay(file: ByteSource): boolean {
  if (file.size < textAt) return false;
  return readExactly(file, 0, signature.length, "the signature").equals(signature);
}

/** @throws ImageError `corrupt` or `unsupported` */
export function readOverlayHeader(file: ByteSource): OverlayHeader {
  const { name } = file;
  const fixed = readExactly(file, 0, textAt, "the overlay's header");
  if (fixed.readUInt32LE(8) !== version)
    throw unsupported(
      `${name}: is an overlay of version ${fixed.readUInt32LE(8)}; this Spindle reads version ${version}. A newer Spindle wrote it.`,
    );
  const length = fixed.readUInt32LE(40);
  if (textAt + length > bitmapAt) throw corrupt(`${name}: byte 40 tells a text of ${length} bytes. ${damaged}`);
  const json = readExactly(file, textAt, length, "the overlay's text");
  const checksum = crc32(json, crc32(fixed.subarray(0, 44)));
  if (checksum !== fixed.readUInt32LE(44))
    throw corrupt(`${name}: the checksum at byte 44 is not that of the header. ${damaged}`);
  const size = u64le(fixed, 16);
  const expected = layout(size);
  const bitmapPosition = u64le(fixed, 24);
  const dataPosition = u64le(fixed, 32);
  if (
    !Number.isSafeInteger(expected.fileSize) ||
    size === 0 ||
    fixed.readUInt32LE(12) !== blockSize ||
    bitmapPosition !== expected.bitmapPosition ||
    dataPosition !== expected.dataPosition
  )
    throw corrupt(`${name}: its header tells of a disk of ${size} bytes, and of places that don't fit it. ${damaged}`);
  if (file.size < expected.fileSize)
    throw corrupt(
      `${name}: has ${file.size} bytes, and should have ${expected.fileSize}. It was truncated, or copied without its holes; take another copy.`,
    );
  return { size, bitmapPosition, dataPosition, text: textOf(name, json) };
}

const damaged = "The overlay is damaged; take another copy.";

function textOf(name: string, json: Buffer): OverlayText {
  try {
    const { created, tool, base } = JSON.parse(json.toString("utf8")) as OverlayText;
    const { path, relative, format, id, contentRoot, fileSize, modified, beneath, within, snapshot, encrypted } = base;
    const known = encrypted === undefined || (typeof encrypted.with === "string" && encrypted.size > 0);
    if (known && [path, relative, format].every((value) => typeof value === "string" && !value.includes("\0")))
      return {
        created: String(created),
        tool: String(tool),
        base: { path, relative, format, id, contentRoot, fileSize, modified, beneath, within, snapshot, encrypted },
      };
  } catch {
    // no JSON, or none of ours
  }
  throw corrupt(`${name}: its text from byte ${textAt} on does not tell which image it belongs to. ${damaged}`);
}
