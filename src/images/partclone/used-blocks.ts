/**
 * Which blocks of the filesystem are in the image, and which of them is the how manieth: the image keeps them in order and
 * tells no positions. For every page of the bitmap the used blocks before it are counted, once and no further than is asked
 * for, since a large bitmap takes its time; of the pages themselves some are kept.
 */
import { LRUCache } from "lru-cache";
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { corrupt } from "../../errors.js";
import { bitmapSize, checksumOf, type Header } from "./header.js";

/** Blocks a page: 8 KiB of bits. */
const pageBlocks = 65536;
/** Pages kept: 1 MiB with their counts. */
const keptPages = 96;
/** Bits of which a page has a count each. */
const countedBits = 256;
/** Bytes of the bitmap that are read at once to count. */
const readAtOnce = 1 << 20;

interface Page {
  readonly bits: Uint8Array;
  /** The used blocks of the page before each `countedBits` of it. */
  readonly counts: Uint16Array;
}

/** How many bits of a byte are set. */
const setBits = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);

export class UsedBlocks {
  private readonly pages = new LRUCache<number, Page>({ max: keptPages });
  /** Used blocks before each page, as far as they were counted. */
  private readonly before: Float64Array;
  /** Pages that were counted. */
  private counted = 0;

  constructor(
    private readonly source: ByteSource,
    private readonly header: Header,
  ) {
    this.before = new Float64Array(Math.ceil(header.blocks / pageBlocks) + 1);
    if (header.bitmap.kind === "bytes") this.checkMark();
  }

  /** All used blocks. The whole bitmap is read for it, once. */
  get count(): number {
    if (this.header.bitmap.kind === "none") return this.header.blocks;
    this.countTo(this.before.length - 1);
    return this.before.at(-1)!;
  }

  /** Whether `block` is used, and how many from it on are like it, as far as its page of the bitmap goes. */
  stretch(block: number): { used: boolean; blocks: number } {
    const { blocks, bitmap } = this.header;
    if (bitmap.kind === "none") return { used: true, blocks: blocks - block };
    const index = Math.floor(block / pageBlocks);
    const { bits } = this.page(index);
    const first = block - index * pageBlocks;
    const end = Math.min(pageBlocks, blocks - index * pageBlocks);
    const used = bitOf(bits, first);
    const same = used ? 0xff : 0;
    let next = first + 1;
    while (next < end) {
      if ((next & 7) === 0 && bits[next >> 3] === same) next += 8;
      else if (bitOf(bits, next) === used) next++;
      else break;
    }
    return { used, blocks: Math.min(next, end) - first };
  }

  /** How many used blocks come before `block`. */
  rank(block: number): number {
    if (this.header.bitmap.kind === "none") return block;
    const index = Math.floor(block / pageBlocks);
    this.countTo(index);
    const { bits, counts } = this.page(index);
    const within = block - index * pageBlocks;
    const counter = Math.floor(within / countedBits);
    let rank = this.before[index]! + counts[counter]!;
    for (let at = (counter * countedBits) >> 3; at < within >> 3; at++) rank += setBits[bits[at]!]!;
    return rank + setBits[bits[within >> 3]! & ((1 << (within & 7)) - 1)]!;
  }

  /** The block that is used and has `rank` used ones before it; `rank` < `count`. */
  select(rank: number): number {
    if (this.header.bitmap.kind === "none") return rank;
    let low = 0;
    for (let high = this.before.length - 2; low < high; ) {
      const middle = (low + high + 1) >> 1;
      this.countTo(middle);
      if (this.before[middle]! <= rank) low = middle;
      else high = middle - 1;
    }
    const { bits } = this.page(low);
    let left = rank - this.before[low]!;
    let at = 0;
    while (at < bits.length - 1 && left >= setBits[bits[at]!]!) left -= setBits[bits[at++]!]!;
    let bit = 0;
    for (; bit < 8; bit++) if ((bits[at]! >> bit) & 1 && left-- === 0) break;
    return low * pageBlocks + at * 8 + bit;
  }

  /**
   * Reads the whole bitmap and compares it with its checksum, where it has one.
   * @returns what is wrong with it
   */
  damage(): string | undefined {
    const { bitmap, blocks } = this.header;
    if (bitmap.kind !== "bits") return undefined;
    const end = bitmap.position + Math.ceil(blocks / 8);
    const buffer = Buffer.allocUnsafe(readAtOnce);
    let sum = 0xffffffff;
    for (let at = bitmap.position; at < end; ) {
      const part = buffer.subarray(0, Math.min(buffer.length, end - at));
      this.read(at, part);
      sum = checksumOf(part, sum);
      at += part.length;
    }
    const told = Buffer.alloc(4);
    this.read(end, told);
    return told.readUInt32LE(0) === sum
      ? undefined
      : `${this.source.name}: its bitmap, from byte ${bitmap.position} to ${end}, does not have its recorded checksum: which block is where can't be told. Restore the file from another copy.`;
  }

  /** Counts the pages before `index`. */
  private countTo(index: number): void {
    if (this.counted >= index) return;
    const { kind, position } = this.header.bitmap;
    const pageBytes = kind === "bits" ? pageBlocks / 8 : pageBlocks;
    const buffer = Buffer.alloc(readAtOnce);
    while (this.counted < index) {
      const pages = Math.min(Math.floor(readAtOnce / pageBytes), this.before.length - 1 - this.counted);
      const from = this.counted * pageBytes;
      const all = bitmapSize(this.header) - (kind === "bits" ? 4 : 8);
      const bytes = buffer.subarray(0, Math.min(pages * pageBytes, all - from));
      if (this.isHole(position + from, bytes.length)) bytes.fill(0);
      else this.read(position + from, bytes);
      for (let nth = 0; nth < pages; nth++) {
        const part = bytes.subarray(nth * pageBytes, (nth + 1) * pageBytes);
        const used = kind === "bits" ? this.countBits(part, this.counted) : countOnes(part);
        this.before[this.counted + 1] = this.before[this.counted]! + used;
        this.counted++;
      }
    }
  }

  private countBits(bytes: Uint8Array, index: number): number {
    let used = 0;
    for (let at = 0; at < bytes.length; at++) used += setBits[bytes[at]!]!;
    // Bits behind the last block count for nothing.
    const behind = (index + 1) * pageBlocks - this.header.blocks;
    if (behind > 0 && (this.header.blocks & 7) !== 0)
      used -= setBits[bytes.at(-1)! & (0xff << (this.header.blocks & 7)) & 0xff]!;
    return used;
  }

  private isHole(position: number, length: number): boolean {
    const extent = this.source.extentAt?.(position);
    return extent?.hole === true && extent.length >= length;
  }

  private page(index: number): Page {
    const kept = this.pages.get(index);
    if (kept) return kept;
    const blocks = Math.min(pageBlocks, this.header.blocks - index * pageBlocks);
    const bits = new Uint8Array(Math.ceil(blocks / 8));
    const { kind, position } = this.header.bitmap;
    if (kind === "bits") this.read(position + (index * pageBlocks) / 8, bits);
    else {
      const bytes = new Uint8Array(blocks);
      this.read(position + index * pageBlocks, bytes);
      for (let at = 0; at < blocks; at++) if (bytes[at] === 1) bits[at >> 3]! |= 1 << (at & 7);
    }
    const counts = new Uint16Array(Math.ceil(blocks / countedBits));
    for (let counter = 0, used = 0; counter < counts.length; counter++) {
      counts[counter] = used;
      for (let at = counter * 32; at < Math.min((counter + 1) * 32, bits.length); at++) used += setBits[bits[at]!]!;
    }
    const page = { bits, counts };
    this.pages.set(index, page);
    return page;
  }

  /** A bitmap of bytes has its signature behind it. */
  private checkMark(): void {
    const position = this.header.bitmap.position + this.header.blocks;
    const mark = Buffer.alloc(8);
    this.read(position, mark);
    if (mark.toString("latin1") !== "BiTmAgIc")
      throw corrupt(
        `${this.source.name}: its bitmap should end with BiTmAgIc at byte ${position}, and does not. The file is damaged.`,
      );
  }

  private read(position: number, target: Uint8Array): void {
    if (readFully(this.source, position, target) < target.length)
      throw corrupt(`${this.source.name}: its bitmap ends before byte ${position + target.length}. It is truncated.`);
  }
}

const bitOf = (bits: Uint8Array, at: number) => ((bits[at >> 3]! >> (at & 7)) & 1) === 1;

/** Anything but 1 means a block that isn't in the image. */
function countOnes(bytes: Uint8Array): number {
  let used = 0;
  for (let at = 0; at < bytes.length; at++) if (bytes[at] === 1) used++;
  return used;
}
