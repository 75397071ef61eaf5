import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { corrupt, usage } from "../errors.js";

/** What all threads that write an overlay are given (workerData): plain data, shared when cloned. */
export interface OverlayMemory {
  /** A bit for each block of the disk, lowest first: whether the overlay has it. As in the file, byte by byte. */
  readonly present: SharedArrayBuffer;
  /** A byte of flags for each page of `present`. */
  readonly pages: SharedArrayBuffer;
  /** Int32: locks, whether flushing has failed, and which flush was the last (overlay.ts). */
  readonly locks: SharedArrayBuffer;
  /** Int32, one for each thread: the page in which it is setting bits, + 1; 0 for none. */
  readonly setting: SharedArrayBuffer;
  /**
   * Float64, a row for each thread: blocks it made present, when it wrote last (milliseconds since 1970), how often it wrote,
   * how many bytes; and how many all threads had written before the last flush of this one that succeeded.
   */
  readonly counts: SharedArrayBuffer;
  /** Bytes of the disk. */
  readonly size: number;
  /** Threads are numbered from 0 to this less 1, which is the main thread's. */
  readonly owners: number;
  /** Blocks that were present when the overlay was opened. */
  readonly presentAtFirst: number;
}

/** Bytes of the disk that are kept or left to the base as one: what guests write at once, and a page of memory. */
export const blockSize = 4096;
/** Bytes of the bitmap that are written at once. */
export const pageSize = 4096;
/** Blocks that a page of the bitmap tells of. */
export const blocksPerPage = pageSize * 8;

/** The largest disk: its bitmap takes 2 GiB of address space, and of memory what is written to. */
export const largestDisk = 2 ** 46;

/** Bytes of a row of `counts`: a cache line. */
export const countRow = 64;

/** Bytes of the bitmap of a disk of `size` bytes: whole pages. */
export const bitmapLength = (size: number) => Math.ceil(Math.ceil(size / blockSize) / blocksPerPage) * pageSize;

/** Stretches of the disk that are locked apart from each other, and of what length each is: within a page of the bitmap. */
export const zones = 256;
export const zoneSize = 1 << 20;

/** Flags of a page of the bitmap: it has a bit set; it changed since it was written; it is being written. */
export const USED = 1;
export const DIRTY = 2;
export const FLUSHING = 4;

/**
 * @param owners threads that will write or flush
 * @param saved the bitmap as it was written; only what is data of it is read. Undefined for a new overlay
 * @throws ImageError `usage` for a disk over 64 TiB
 */
export function createOverlayMemory(size: number, owners: number, saved?: ByteSource): OverlayMemory {
  if (size > largestDisk)
    throw usage(
      `a disk of ${size} bytes is too large to be written to; the largest is ${largestDisk} bytes (64 TiB). Mount it without --writable.`,
    );
  const length = bitmapLength(size);
  const present = new SharedArrayBuffer(length);
  const pages = new SharedArrayBuffer(length / pageSize);
  return {
    present,
    pages,
    locks: new SharedArrayBuffer((zones + 4) * 4),
    setting: new SharedArrayBuffer(owners * 4),
    counts: new SharedArrayBuffer(owners * countRow),
    size,
    owners,
    presentAtFirst: saved ? load(saved, new Uint8Array(present), new Uint8Array(pages), size) : 0,
  };
}

/** Reads what was saved. @returns how many blocks are present */
function load(saved: ByteSource, bits: Uint8Array, pages: Uint8Array, size: number): number {
  let count = 0;
  for (let at = 0; at < bits.length; ) {
    const extent = saved.extentAt?.(at) ?? { hole: false, length: bits.length - at };
    const end = Math.min(bits.length, at + extent.length);
    if (extent.hole) at = end;
    for (; at < end; at = Math.min(end, (Math.floor(at / pageSize) + 1) * pageSize)) {
      const part = bits.subarray(at, Math.min(end, (Math.floor(at / pageSize) + 1) * pageSize));
      if (readFully(saved, at, part) < part.length)
        throw corrupt(
          `${saved.name}: its bitmap ends at byte ${at}. The overlay is truncated; nothing can be told from it.`,
        );
      let found = 0;
      for (const byte of part) found += bitsIn(byte);
      if (found > 0) pages[Math.floor(at / pageSize)]! |= USED;
      count += found;
    }
  }
  const blocks = Math.ceil(size / blockSize);
  for (let block = blocks; block < bits.length * 8; block++)
    if (bits[Math.floor(block / 8)]! & (1 << (block % 8)))
      throw corrupt(
        `${saved.name}: its bitmap tells of block ${block}, but the disk has ${blocks}. The overlay is damaged.`,
      );
  return count;
}

const counted = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);

/** How many bits of a byte are set. */
export const bitsIn = (byte: number) => counted[byte]!;
