/**
 * The table of what is encrypted, of a volume that was encrypted or decrypted while it was used ("encrypt on write"): the
 * volume is cut into regions, each region into chunks, and each chunk has a bit. After dissect.fve's `eow.py`, which tells
 * them as the driver of Windows has them. All numbers are little-endian.
 *
 *     information, two copies     sizes, and where the regions' bitmaps are
 *     bitmap, one for a region    which region, and where in the bitmap two records of it are
 *     record                      the bits; of the two the later one counts
 *
 * Not followed is the log of chunks that were being written when the computer failed: Windows mends those when it next starts.
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { corrupt, ImageError } from "../../errors.js";
import { u64 } from "./entries.js";

/** Bytes of a bitmap with its records at most; a region of 256 MiB takes 1536. */
const largestBitmap = 1 << 16;
/** Of all regions together: 32 TiB in the chunks of 8 MiB that there are. */
const mostChunks = 1 << 22;

/** Bytes from the last stretch's end to `end`. */
export interface Stretch {
  readonly end: number;
  readonly isEncrypted: boolean;
}

export interface Conversion {
  /** From `start` on, in order. */
  readonly stretches: readonly Stretch[];
  /** Where these tables are: read as zeros. */
  readonly reserved: readonly (readonly [start: number, end: number])[];
}

/**
 * @param positions of the information's copies. @param from where the first region begins. @param to at least so far they go
 * @throws ImageError `corrupt` where neither is whole, or the regions don't cover the volume
 */
export function readConversion(
  source: ByteSource,
  positions: readonly number[],
  from: number,
  to: number,
  sectorSize: number,
): Conversion {
  let information: Buffer | undefined;
  const problems: string[] = [];
  for (const position of positions)
    try {
      information ??= readInformation(source, position);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      problems.push(error.message);
    }
  if (!information)
    throw corrupt(
      `${problems[0]} So it isn't known which parts of the volume are encrypted. Let Windows finish encrypting it, and make the image anew.`,
    );
  const room = Math.ceil(information.length / sectorSize) * sectorSize;
  const reserved = [40, 48].map((at): [number, number] => [u64(information, at), u64(information, at) + room]);
  const [chunk, logSize, count] = [20, 24, 32].map((at) => information.readUInt32LE(at)) as [number, number, number];
  const first = information.readUInt16LE(8);
  const stretches: Stretch[] = [{ end: from, isEncrypted: false }];
  if (chunk < sectorSize || chunk % sectorSize !== 0 || first < 56 || first + count * 8 > information.length)
    throw corrupt(
      `${source.name}: BitLocker's table of what is encrypted tells of ${count} regions, chunks of ${chunk}.`,
    );
  let end = from;
  let chunks = 0;
  for (let nth = 0; nth < count; nth++) {
    const position = u64(information, first + nth * 8);
    const bitmap = readBitmap(source, position);
    const [start, size, log] = [20, 28, 36].map((at) => u64(bitmap, at)) as [number, number, number];
    const record = latestRecord(source, position, bitmap);
    chunks += Math.ceil(size / chunk);
    if (start !== end || size === 0 || record.bits < Math.ceil(size / chunk) || chunks > mostChunks)
      throw corrupt(
        `${source.name}: BitLocker's table of what is encrypted, at byte ${position}, is of ${size} bytes at ${start}, where ${end} is next.`,
      );
    for (let at = 0, bit = 0; at < size; at += chunk, bit++) {
      const isEncrypted = (record.bitmap[bit >> 3]! & (1 << (bit & 7))) !== 0;
      if (stretches.length > 1 && stretches.at(-1)!.isEncrypted === isEncrypted) stretches.pop();
      stretches.push({ end: start + Math.min(at + chunk, size), isEncrypted });
    }
    end = start + size;
    reserved.push([position, position + bitmap.length], [log, log + logSize]);
  }
  if (end < to)
    throw corrupt(
      `${source.name}: BitLocker's table of what is encrypted ends at byte ${end}, and the volume at ${to}.`,
    );
  stretches.push({ end: Number.POSITIVE_INFINITY, isEncrypted: false });
  return { stretches, reserved };
}

function readInformation(source: ByteSource, position: number): Buffer {
  const start = readExactly(source, position, 56, "BitLocker's table of what is encrypted");
  const size = start.readUInt16LE(10);
  return checked(source, position, size, 56, "FVE-EOW\0", 36);
}

function readBitmap(source: ByteSource, position: number): Buffer {
  const start = readExactly(source, position, 60, "BitLocker's table of what is encrypted");
  const [size, records] = [start.readUInt32LE(12), start.readUInt32LE(44)];
  if (size < 60 || size > largestBitmap || records > size)
    throw corrupt(`${source.name}: BitLocker's table of what is encrypted, at byte ${position}, has ${size} bytes.`);
  checked(source, position, records, 60, "FVE-EOWBM\0", 56);
  return readExactly(source, position, size, "BitLocker's table of what is encrypted");
}

interface BitmapRecord {
  /** Of two records the one with the higher number counts. */
  readonly sequence: number;
  /** Of how many chunks. */
  readonly bits: number;
  readonly bitmap: Buffer;
}

/** One of the records may be the one that was being written when the computer failed: then neither can be relied on. */
function latestRecord(source: ByteSource, position: number, bitmap: Buffer): BitmapRecord {
  const records = [44, 48].map((field) => {
    const at = bitmap.readUInt32LE(field);
    const size = at + 36 > bitmap.length ? 0 : bitmap.readUInt32LE(at + 12);
    const bytes = bitmap.subarray(at, at + size);
    if (
      size < 36 ||
      bytes.length !== size ||
      !isWhole(bytes, "FVE-EOWBR\0", 32) ||
      bytes.readUInt32LE(16) > (size - 36) * 8
    )
      throw corrupt(
        `${source.name}: BitLocker's table of what is encrypted, at byte ${position}: not both of its records are whole. Let Windows finish encrypting or decrypting it, and make the image anew.`,
      );
    return { sequence: u64(bytes, 20), bits: bytes.readUInt32LE(16), bitmap: bytes.subarray(36) };
  }) as [BitmapRecord, BitmapRecord];
  return records[0].sequence > records[1].sequence ? records[0] : records[1];
}

/** `size` bytes that begin with `signature` and have at `sum` the CRC-32 of all, itself counted as zeros. */
function checked(source: ByteSource, at: number, size: number, least: number, signature: string, sum: number): Buffer {
  const bytes = readExactly(source, at, Math.max(size, least), "BitLocker's table of what is encrypted");
  if (size >= least && isWhole(bytes, signature, sum)) return bytes;
  throw corrupt(
    `${source.name}: BitLocker's table of what is encrypted isn't at byte ${at}, or its checksum is wrong. It is damaged.`,
  );
}

function isWhole(bytes: Buffer, signature: string, sum: number): boolean {
  const told = bytes.readUInt32LE(sum);
  const zeroed = Buffer.from(bytes);
  zeroed.writeUInt32LE(0, sum);
  return bytes.toString("latin1", 0, signature.length) === signature && crc32(zeroed) === told;
}
