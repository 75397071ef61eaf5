import { LRUCache } from "lru-cache";
import { readExactly } from "../../bytes/byte-source.js";
import { corrupt, unsupported } from "../../errors.js";
import { largestDisk, u64be } from "../fields.js";
import { mostUnpacked, packings, RunKind } from "./packing.js";
import type { Resource } from "./resources.js";
import { type Checksum, readChecksum } from "./trailer.js";

/*
 * A block table ("mish"): what one stretch of the disk is made of, most often a partition or the space before one.
 *
 *   0    "mish", version (4), first sector (8), sectors (8), where its data begins in the data fork (8), …
 *   64   checksum of its unpacked bytes; those of the kind "unused" are left out of it
 *   200  number of runs (4)
 *   204  the runs, 40 bytes each: kind (4), a comment (4), first sector in the table (8), sectors (8), where in the data fork
 *        (8), bytes there (8)
 */

const sector = 512;
const headerLength = 204;
const runLength = 40;

/** One run: bytes of the disk that are kept in one way. */
export interface TableRun {
  readonly kind: number;
  /** On the disk, in bytes. */
  readonly start: number;
  /** Of disk, in bytes. */
  readonly length: number;
  /** In the data fork. */
  readonly at: number;
  /** Bytes there. */
  readonly packed: number;
}

/** The runs of a page. Numbers are in bytes; comments and the end are runs of length 0. */
interface Page {
  readonly count: number;
  readonly kinds: Uint32Array;
  /** One more than there are runs. */
  readonly starts: Float64Array;
  readonly ats: Float64Array;
  readonly packed: Float64Array;
}

/** Runs of all tables of an image. At 256 KiB a run, these are 4 TiB. */
const mostRuns = 2 ** 24;
const runsPerPage = 512;
/** Pages that are kept decoded, of all tables of an image: 14 KiB each. */
const pagesKept = 64;

export type RunPages = LRUCache<string, Page>;
export const runPages = (): RunPages => new LRUCache({ max: pagesKept });

/**
 * The runs of a block table. They follow each other without gap or overlap, which is checked when the table is opened; of
 * each page of runs only the start is kept then, and a bounded number of pages is kept decoded.
 */
export class BlockTable {
  readonly name: string;
  /** Of its stretch of the disk, in bytes. */
  readonly start: number;
  readonly size: number;
  readonly runs: number;
  readonly checksum: Checksum;
  /** Kinds of runs that there are. */
  readonly kinds = new Set<number>();
  /** Bytes of disk in the largest run that is packed and can be unpacked. */
  readonly largestPacked: number;
  private readonly dataAt: number;
  /** Where each page starts on the disk. */
  private readonly pageStarts: number[] = [];

  /**
   * @param image for messages.
   * @param number of the table in the image; @param firstRun number of its first run in the image.
   * @throws ImageError `corrupt`, or `unsupported` for an absurd number of runs.
   */
  constructor(
    readonly image: string,
    private readonly resource: Resource,
    private readonly number: number,
    readonly firstRun: number,
    private readonly pages: RunPages,
  ) {
    this.name = resource.name;
    const header = readExactly(resource.data, 0, headerLength, `the header of ${this.words}`);
    if (header.toString("latin1", 0, 4) !== "mish" || header.readUInt32BE(4) !== 1)
      throw corrupt(`${image}: ${this.words} doesn't begin as one. The file is damaged.`);
    this.start = u64be(header, 8) * sector;
    this.size = u64be(header, 16) * sector;
    this.dataAt = u64be(header, 24);
    this.checksum = readChecksum(header, 64);
    this.runs = header.readUInt32BE(200);
    if (this.start + this.size > largestDisk)
      throw corrupt(`${image}: ${this.words} tells of sectors beyond any disk. The file is damaged.`);
    if (headerLength + this.runs * runLength > resource.data.size)
      throw corrupt(
        `${image}: ${this.words} tells of ${this.runs} runs, but has only ${resource.data.size} bytes. The file is damaged.`,
      );
    if (firstRun + this.runs > mostRuns)
      throw unsupported(`${image}: has more than ${mostRuns} runs, which is more than this Spindle takes.`);
    let position = this.start;
    let largest = 0;
    for (let first = 0; first < this.runs; first += runsPerPage) {
      this.pageStarts.push(position);
      const page = this.decode(first / runsPerPage);
      for (let index = 0; index < page.count; index++) {
        const kind = page.kinds[index]!;
        const length = page.starts[index + 1]! - page.starts[index]!;
        if (length === 0) continue;
        this.kinds.add(kind);
        if (packings.has(kind) && length > largest && length <= mostUnpacked) largest = length;
      }
      position = page.starts[page.count]!;
    }
    this.largestPacked = largest;
    if (position !== this.start + this.size)
      throw corrupt(
        `${image}: ${this.words} is of ${this.size / sector} sectors, but its runs are of ${(position - this.start) / sector}. The file is damaged.`,
      );
  }

  /** For messages. */
  get words(): string {
    return `block table ${this.number} ("${this.name.slice(0, 80)}")`;
  }

  get end(): number {
    return this.start + this.size;
  }

  /** Number of the run with disk byte `position`, which is in the table. */
  find(position: number): number {
    const number = lastNotAfter(this.pageStarts, this.pageStarts.length, position);
    const { starts, count } = this.page(number);
    return number * runsPerPage + lastNotAfter(starts, count, position);
  }

  run(number: number): TableRun {
    const { kinds, starts, ats, packed } = this.page(Math.floor(number / runsPerPage));
    const index = number % runsPerPage;
    const start = starts[index]!;
    return {
      kind: kinds[index]!,
      start,
      length: starts[index + 1]! - start,
      at: ats[index]!,
      packed: packed[index]!,
    };
  }

  private page(number: number): Page {
    const key = `${this.number} ${number}`;
    let page = this.pages.get(key);
    if (!page) {
      page = this.decode(number);
      this.pages.set(key, page);
    }
    return page;
  }

  private decode(number: number): Page {
    const first = number * runsPerPage;
    const count = Math.min(runsPerPage, this.runs - first);
    const bytes = readExactly(
      this.resource.data,
      headerLength + first * runLength,
      count * runLength,
      `the runs of ${this.words}`,
    );
    const page: Page = {
      count,
      kinds: new Uint32Array(count),
      starts: new Float64Array(count + 1),
      ats: new Float64Array(count),
      packed: new Float64Array(count),
    };
    let position = this.pageStarts[number]!;
    for (let index = 0; index < count; index++) {
      const at = index * runLength;
      const kind = bytes.readUInt32BE(at);
      page.kinds[index] = kind;
      page.starts[index] = position;
      page.ats[index] = this.dataAt + u64be(bytes, at + 24);
      page.packed[index] = u64be(bytes, at + 32);
      if (kind === RunKind.comment || kind === RunKind.end) continue;
      const start = this.start + u64be(bytes, at + 8) * sector;
      if (start !== position)
        throw corrupt(
          `${this.image}: ${this.words} has run ${first + index} at disk byte ${start}, where the one before ends at ${position}. The file is damaged.`,
        );
      position += u64be(bytes, at + 16) * sector;
      if (position > this.end)
        throw corrupt(`${this.image}: run ${first + index} of ${this.words} goes beyond its end. The file is damaged.`);
    }
    page.starts[count] = position;
    return page;
  }
}

/** Index of the last of the first `count` values, in ascending order, that isn't above `value`. */
export function lastNotAfter(values: ArrayLike<number>, count: number, value: number): number {
  let low = 0;
  for (let high = count - 1; low < high; ) {
    const middle = (low + high + 1) >> 1;
    if (values[middle]! <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}
