/**
 * Tables of chunks: where each chunk of the disk is, and how it is packed. A disk of 1 TiB has 33 million chunks in some
 * 2000 tables: what is kept of a table is where it is, and entries are read through pages when they are needed.
 */

import { adler32 } from "../../bytes/adler32.js";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import type { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt } from "../../errors.js";
import { u64le } from "../fields.js";
import type { Segment } from "./segments.js";

/** How a chunk's bytes are kept: packed; as they are, with or without an Adler-32 behind; or as 8 bytes that repeat. */
export const Kept = { packed: 0, summed: 1, plain: 2, pattern: 3 } as const;

/** Where one chunk is. */
export interface ChunkPlace {
  file: ByteSource;
  /** In the file, in bytes. */
  position: number;
  /** Bytes from there on that may be the chunk's, at least 1. */
  length: number;
  kept: number;
  /** The 8 bytes that repeat. */
  pattern: Buffer | undefined;
}

export interface ChunkTable {
  /** The number of its first chunk. */
  readonly first: number;
  readonly count: number;
  /** Looks up its chunk `index`, counted from `first`. @throws ImageError `corrupt`. */
  place(index: number, target: ChunkPlace): void;
  /** What is wrong with the table's own checksums, as sentences. */
  complaints(): string[];
}

/** Entries a table may have: 256 MiB of them, and far more than any writer puts in one. */
export const mostEntries = 1 << 26;

/** Chunks from `from` to before `to` that no table has. */
export interface Gap {
  readonly from: number;
  readonly to: number;
}

/** All tables of an image, in the order of their chunks. */
export class ChunkTables {
  private readonly tables: ChunkTable[] = [];
  private last: ChunkTable | undefined;

  /** Behind the last chunk. */
  get end(): number {
    const table = this.tables.at(-1);
    return table ? table.first + table.count : 0;
  }

  add(table: ChunkTable): void {
    this.tables.push(table);
  }

  /**
   * Puts tables in the order of their chunks.
   * @throws ImageError `corrupt` where a chunk is in two tables.
   */
  sort(name: string): void {
    this.tables.sort((a, b) => a.first - b.first);
    let end = 0;
    for (const { first, count } of this.tables) {
      if (first < end) throw corrupt(`${name}: has two tables with chunk ${first}. The image is damaged.`);
      end = first + count;
    }
  }

  /** The table with `chunk`; undefined where none has it. */
  with(chunk: number): ChunkTable | undefined {
    const { last } = this;
    if (last && chunk >= last.first && chunk < last.first + last.count) return last;
    const found = this.tables[this.before(chunk)];
    if (!found || chunk >= found.first + found.count) return undefined;
    this.last = found;
    return found;
  }

  /** The gap with `chunk`, which no table has; the last has no end. */
  gapAt(chunk: number): Gap {
    const index = this.before(chunk);
    const table = this.tables[index];
    const from = table ? table.first + table.count : 0;
    return { from, to: this.tables[index + 1]?.first ?? Number.POSITIVE_INFINITY };
  }

  /** The index of the last table that begins at or before `chunk`; -1 where none does. */
  private before(chunk: number): number {
    let low = -1;
    for (let high = this.tables.length - 1; low < high; ) {
      const middle = Math.floor((low + high + 1) / 2);
      if (this.tables[middle]!.first <= chunk) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** Whether the Adler-32 at `position + length` is that of the `length` bytes before it. */
export function sumHolds(file: ByteSource, position: number, length: number): boolean {
  if (position + length + 4 > file.size) return false;
  let sum = 1;
  for (let done = 0; done < length; ) {
    const part = readExactly(file, position + done, Math.min(65536, length - done), "a table");
    sum = adler32(part, sum);
    done += part.length;
  }
  return readExactly(file, position + length, 4, "a table's checksum").readUInt32LE(0) === sum;
}

/** What a table's header tells ("Table header"), and where its entries are. */
export interface TableHeader {
  readonly count: number;
  /** What entries count from, in the file. */
  readonly base: number;
  /** Of the first entry, in the file. */
  readonly entries: number;
}

/** What is true of all tables of an image, once all of it was looked at. */
export interface TableShape {
  /** Whether entries have an Adler-32 behind them: those of SMART and of the original specification have none. */
  readonly summed: boolean;
  /** Bytes that a packed chunk may take. */
  readonly largest: number;
}

/** Where a table of the first version is in its segment. */
export interface TableSection {
  /** Of the section. Chunks are before its start, or from there on to its end. */
  readonly start: number;
  readonly end: number;
  /** What `table` tells, undefined where that is damaged, and `table2`, where there is one. One of them is there. */
  readonly main: TableHeader | undefined;
  readonly copy: TableHeader | undefined;
  /** Whether the section has room for a checksum behind the entries. */
  readonly room: boolean;
}

/** Entries of 32 bits: "Table section" of the EWF specification. */
export class Table1 implements ChunkTable {
  /** The entries that are used: undefined until they were checked, `none` where none are sound. */
  private used: { readonly entries: number; readonly base: number; readonly overflow: number } | "none" | undefined;

  constructor(
    private readonly segment: Segment,
    private readonly pages: MetadataPages,
    private readonly shape: TableShape,
    private readonly section: TableSection,
    readonly first: number,
  ) {}

  get count(): number {
    const { main, copy } = this.section;
    return (main ?? copy)!.count;
  }

  place(index: number, target: ChunkPlace): void {
    this.used ??= this.choose();
    if (this.used === "none") throw this.damaged();
    const { entries, base, overflow } = this.used;
    const { file } = this.segment;
    const { start, end } = this.section;
    const raw = this.entry(entries, index);
    const plain = index >= overflow;
    const offset = plain ? raw : raw & 0x7fffffff;
    const position = base + offset;
    const dataEnd = position < start ? start : Math.min(end, file.size);
    let next = dataEnd;
    if (index + 1 < this.count) {
      const after = this.entry(entries, index + 1);
      const following = base + (index + 1 >= overflow ? after : after & 0x7fffffff);
      if (following > position) next = Math.min(following, dataEnd);
    }
    if (position >= dataEnd)
      throw corrupt(
        `${file.name}: chunk ${this.first + index} should be at byte ${position}, where there is no chunk data. The file is truncated or damaged.`,
      );
    target.file = file;
    target.position = position;
    target.length = Math.min(next - position, this.shape.largest);
    target.kept = !plain && raw > 0x7fffffff ? Kept.packed : Kept.summed;
    target.pattern = undefined;
  }

  complaints(): string[] {
    const { name } = this.segment.file;
    const { start, main, copy } = this.section;
    const wrong: string[] = [];
    if (!this.holds(main))
      wrong.push(`${name}: the table in the section at byte ${start} is damaged: its checksum is wrong.`);
    if (copy && !this.holds(copy))
      wrong.push(`${name}: the second copy of the table at byte ${start} is damaged: its checksum is wrong.`);
    return wrong;
  }

  private entry(entries: number, index: number): number {
    const position = this.segment.start + entries + index * 4;
    return this.pages.bytes(position, 4, "a table of chunks").readUInt32LE(0);
  }

  private holds(header: TableHeader | undefined): boolean {
    if (!header || header.count !== this.count) return false;
    return !this.shape.summed || !this.section.room || sumHolds(this.segment.file, header.entries, header.count * 4);
  }

  /** The first of both copies that is sound. */
  private choose() {
    const { main, copy } = this.section;
    const header = [main, copy].find((one) => this.holds(one));
    return header ? { ...header, overflow: this.overflow(header) } : "none";
  }

  private damaged() {
    const { start, copy } = this.section;
    return corrupt(
      `${this.segment.file.name}: the table in the section at byte ${start}, with chunks ${this.first} to ${this.first + this.count - 1}, is damaged, ${copy ? "and so is its copy" : "and has no copy"}: their checksums are wrong. Restore the file from another copy.`,
    );
  }

  /**
   * The first entry of which all 32 bits are the offset: EnCase 6.7.1 went on beyond 2 GiB so, without compression
   * ("Table entries offset overflow"). Entries rise; where one seems to fall, its highest bit was no flag.
   */
  private overflow({ entries, base, count }: TableHeader): number {
    if (this.section.start - base <= 0x7fffffff) return Number.POSITIVE_INFINITY;
    let before = 0;
    for (let index = 0; index < count; index++) {
      const offset = this.entry(entries, index) & 0x7fffffff;
      if (offset < before) return index;
      before = offset;
    }
    return Number.POSITIVE_INFINITY;
  }
}

/** Flags of "Chunk data flags". */
const Flag = { packed: 1, summed: 2, pattern: 4 } as const;

/** Entries of 16 bytes: "Sector table" of the EWF2 specification. */
export class Table2 implements ChunkTable {
  /** What is wrong with it: undefined until it was checked, empty where nothing is. */
  private complaint: string | undefined;

  /** @param entries position of the first entry in the file; a checksum follows the last. */
  constructor(
    private readonly segment: Segment,
    private readonly pages: MetadataPages,
    readonly first: number,
    readonly count: number,
    private readonly entries: number,
    private readonly shape: TableShape,
  ) {}

  place(index: number, target: ChunkPlace): void {
    this.complaint ??= this.complaints()[0] ?? "";
    if (this.complaint !== "") throw corrupt(`${this.complaint} Restore the file from another copy.`);
    const { file, start } = this.segment;
    const bytes = this.pages.bytes(start + this.entries + index * 16, 16, "a table of chunks");
    const flags = bytes.readUInt32LE(12);
    target.file = file;
    // Without the flag of packed data that of a pattern means nothing.
    if ((flags & Flag.packed) !== 0 && (flags & Flag.pattern) !== 0) {
      target.kept = Kept.pattern;
      target.pattern = Buffer.from(bytes.subarray(0, 8));
      target.position = this.entries + index * 16;
      target.length = 8;
      return;
    }
    target.pattern = undefined;
    target.position = u64le(bytes, 0);
    target.length = bytes.readUInt32LE(8);
    target.kept = (flags & Flag.packed) !== 0 ? Kept.packed : (flags & Flag.summed) !== 0 ? Kept.summed : Kept.plain;
    if (target.length === 0 || target.length > this.shape.largest || target.position + target.length > file.size)
      throw corrupt(
        `${file.name}: chunk ${this.first + index} should take ${target.length} bytes at byte ${target.position}, which can't be. The file is truncated or damaged.`,
      );
  }

  complaints(): string[] {
    const { file } = this.segment;
    if (sumHolds(file, this.entries, this.count * 16)) return [];
    return [
      `${file.name}: the table of chunks ${this.first} to ${this.first + this.count - 1} at byte ${this.entries} is damaged: its checksum is wrong.`,
    ];
  }
}
