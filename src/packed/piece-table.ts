/**
 * The pieces of a packed file on disk, in two files that only ever grow:
 *
 *     table   header, 64 bytes | a record of 64 bytes for each piece, in the order of the content
 *     data    for each piece that has one: its window, or what is kept of it, as a zstd frame
 *
 *     record  start, 8 | length, 8 | at, 8 | data at, 8 | data length, 4 | data crc, 4 | content crc, 4 | kind, 1 |
 *             flags, 1 | 0, 2 | note, 8 | mark, 4 | crc of the record, 4                              (little-endian)
 *
 * A record's checksum begins with that of the header, which holds what the packed file was when its pages were read: a
 * record of another file, of an older state of it, or of another version of this program is no record. After whatever
 * ended its writer, a table is good up to the first record that isn't one. The last record of a whole table is an ending.
 */
import { fstatSync, ftruncateSync, readSync, writeSync } from "node:fs";
import { crc32 } from "node:zlib";
import { LRUCache } from "lru-cache";
import { type ErrorCode, system } from "../errors.js";
import { type Piece, PieceKind } from "./packing.js";

export const recordSize = 64;
const magic = Buffer.from("spindle pieces 1");
/** Records of a page that is read at once, and pages that are kept: 1 GiB of content has about one page. */
const pageRecords = 1024;
const pagesKept = 64;

/** The kind of the last record, beside those of pieces: `start` is the size of the content. */
const ENDING = 255;
const HAS_CRC = 1;

export interface StoredPiece extends Piece {
  readonly dataAt: number;
  readonly dataLength: number;
  readonly dataCrc: number;
}

/** How a pass ended: with the whole content, or with what is wrong with the packed file. */
export interface Ending {
  /** Bytes of content. */
  readonly size: number;
  /** The kind of what is wrong; undefined when nothing is. */
  readonly code: ErrorCode | undefined;
  /** What is wrong, or else what should be told of the file, as a sentence; empty for nothing. */
  readonly text: string;
}

/** How far a table is good. */
export interface Survey {
  /** Pieces, bytes of content that they have, and bytes of the data file that are theirs. */
  readonly count: number;
  readonly covered: number;
  readonly dataEnd: number;
  /** Where in the packed file the last packed piece begins, in bytes. */
  readonly packed: number;
  readonly ending: Ending | undefined;
}

const nothing: Survey = { count: 0, covered: 0, dataEnd: 0, packed: 0, ending: undefined };

/** Both files, open. */
export interface PieceFiles {
  readonly table: number;
  readonly data: number;
  /** For messages: the path of the table, or words for files without a name. */
  readonly name: string;
}

function readAt(fd: number, name: string, position: number, target: Uint8Array): number {
  try {
    let filled = 0;
    for (let count = -1; filled < target.length && count !== 0; filled += count)
      count = readSync(fd, target, filled, target.length - filled, position + filled);
    return filled;
  } catch (error) {
    throw system(`reading ${name}`, error);
  }
}

function writeAt(fd: number, name: string, position: number, bytes: Uint8Array): void {
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  } catch (error) {
    throw system(`writing ${name}`, error);
  }
}

/** What makes records of one packed file, in one state, its own. */
function headerOf(key: Uint8Array): Buffer {
  const header = Buffer.alloc(recordSize);
  magic.copy(header);
  header.set(key.subarray(0, 32), 16);
  header.writeUInt32LE(crc32(header.subarray(0, 60)), 60);
  return header;
}

function pieceOf(record: Buffer, number: number): StoredPiece {
  return {
    number,
    start: u64(record, 0),
    length: u64(record, 8),
    at: u64(record, 16),
    dataAt: u64(record, 24),
    dataLength: record.readUInt32LE(32),
    dataCrc: record.readUInt32LE(36),
    crc: record[45]! & HAS_CRC ? record.readUInt32LE(40) : undefined,
    kind: record[44]!,
    note: u64(record, 48),
    mark: record.readUInt32LE(56),
  };
}

const u64 = (bytes: Buffer, at: number) => bytes.readUInt32LE(at + 4) * 2 ** 32 + bytes.readUInt32LE(at);

function setU64(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

/** Reads pieces by number or by position. Every thread has its own. */
export class PieceTable {
  private readonly pages = new LRUCache<number, Buffer>({ max: pagesKept });
  private readonly seed: number;

  constructor(
    readonly files: PieceFiles,
    private readonly key: Uint8Array,
  ) {
    this.seed = crc32(headerOf(key));
  }

  /** Piece `number`, which has been written. */
  piece(number: number): StoredPiece {
    const page = Math.floor(number / pageRecords);
    const at = (number - page * pageRecords) * recordSize;
    let bytes = this.pages.get(page);
    if (bytes === undefined || bytes.length < at + recordSize) {
      const buffer = Buffer.allocUnsafeSlow(pageRecords * recordSize);
      const position = (1 + page * pageRecords) * recordSize;
      bytes = buffer.subarray(0, readAt(this.files.table, this.files.name, position, buffer));
      this.pages.set(page, bytes);
    }
    const record = bytes.subarray(at, at + recordSize);
    if (!this.isRecord(record))
      throw system(
        `reading ${this.files.name}`,
        new Error(`record ${number} is damaged. Remove the file; it is made again`),
      );
    return pieceOf(record, number);
  }

  /** The piece with content byte `position`, of the first `count` pieces, which reach so far. */
  find(position: number, count: number): StoredPiece {
    let low = 0;
    let high = count - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.piece(middle).start <= position) low = middle;
      else high = middle - 1;
    }
    return this.piece(low);
  }

  /** The data of a piece, packed; undefined when it isn't what was written. */
  data({ dataAt, dataLength, dataCrc }: StoredPiece): Uint8Array | undefined {
    const bytes = Buffer.allocUnsafe(dataLength);
    const filled = readAt(this.files.data, this.files.name, dataAt, bytes);
    return filled === dataLength && crc32(bytes) === dataCrc ? bytes : undefined;
  }

  /**
   * What a pass has left: how many pieces are good and follow one another, up to where, how much data they have, and how
   * it ended, if it did. Reads the table from its start, or from where an earlier survey came to.
   */
  survey(from: Survey = nothing): Survey {
    let { count, covered, dataEnd, packed } = from;
    const found = (ending?: Ending): Survey => ({ count, covered, dataEnd, packed, ending });
    const buffer = Buffer.allocUnsafeSlow(pageRecords * recordSize);
    const { table, name } = this.files;
    const header = buffer.subarray(0, readAt(table, name, 0, buffer.subarray(0, recordSize)));
    if (!header.equals(headerOf(this.key))) return nothing;
    const dataSize = fstatSync(this.files.data).size;
    for (;;) {
      const length = readAt(table, name, (1 + count) * recordSize, buffer);
      for (let at = 0; at + recordSize <= length; at += recordSize) {
        const record = buffer.subarray(at, at + recordSize);
        if (!this.isRecord(record)) return found();
        const piece = pieceOf(record, count);
        if (piece.start !== covered || piece.dataAt + piece.dataLength > dataSize) return found();
        if (piece.kind === ENDING) return found(this.endingOf(piece));
        count++;
        covered += piece.length;
        if (piece.kind === PieceKind.packed) packed = Math.floor(piece.at / 8);
        if (piece.dataLength > 0) dataEnd = piece.dataAt + piece.dataLength;
      }
      if (length < buffer.length) return found();
    }
  }

  private endingOf(piece: StoredPiece): Ending | undefined {
    const words = this.data(piece);
    if (!words) return undefined;
    const { code, text } = JSON.parse(Buffer.from(words).toString()) as { code?: ErrorCode; text: string };
    return { size: piece.start, code, text };
  }

  private isRecord(record: Buffer): boolean {
    return record.length === recordSize && crc32(record.subarray(0, 60), this.seed) === record.readUInt32LE(60);
  }
}

/** Appends to both files. One thread of all processes at a time does. */
export class TableWriter {
  private readonly page = Buffer.alloc(pageRecords * recordSize);
  private readonly seed: number;
  /** Records in the page that aren't written yet. */
  private held = 0;
  private dataEnd: number;
  /** Records, those not yet written too. */
  count: number;

  /** Goes on behind what is good; the rest is cut off. */
  constructor(
    private readonly files: PieceFiles,
    key: Uint8Array,
    { count, dataEnd }: Pick<Survey, "count" | "dataEnd">,
  ) {
    const header = headerOf(key);
    this.seed = crc32(header);
    this.count = count;
    // Data beside a table in which nothing was ever written is another table's, of a process that had both open when the names
    // were removed to make room: it stays.
    const isNew = count === 0 && fstatSync(files.table).size === 0;
    this.dataEnd = isNew ? fstatSync(files.data).size : dataEnd;
    if (count === 0) writeAt(files.table, files.name, 0, header);
    ftruncateSync(files.table, (1 + count) * recordSize);
    ftruncateSync(files.data, this.dataEnd);
  }

  /** @param data packed; empty for none. It is written at once, the record with the next flush. */
  append(piece: Omit<Piece, "number">, data: Uint8Array): void {
    if (data.length > 0) writeAt(this.files.data, this.files.name, this.dataEnd, data);
    const record = this.page.subarray(this.held * recordSize, (this.held + 1) * recordSize).fill(0);
    setU64(record, 0, piece.start);
    setU64(record, 8, piece.length);
    setU64(record, 16, piece.at);
    setU64(record, 24, data.length > 0 ? this.dataEnd : 0);
    record.writeUInt32LE(data.length, 32);
    record.writeUInt32LE(crc32(data), 36);
    record.writeUInt32LE(piece.crc ?? 0, 40);
    record[44] = piece.kind;
    record[45] = piece.crc === undefined ? 0 : HAS_CRC;
    setU64(record, 48, piece.note);
    record.writeUInt32LE(piece.mark, 56);
    record.writeUInt32LE(crc32(record.subarray(0, 60), this.seed), 60);
    this.count++;
    this.dataEnd += data.length;
    if (++this.held === pageRecords) this.flush();
  }

  flush(): void {
    if (this.held === 0) return;
    const bytes = this.page.subarray(0, this.held * recordSize);
    writeAt(this.files.table, this.files.name, (1 + this.count - this.held) * recordSize, bytes);
    this.held = 0;
  }

  end({ size, code, text }: Ending): void {
    const words = Buffer.from(JSON.stringify({ code, text }));
    const nothing = { length: 0, at: 0, crc: undefined, note: 0, mark: 0 };
    this.append({ start: size, kind: ENDING, ...nothing }, words);
    this.flush();
  }
}
