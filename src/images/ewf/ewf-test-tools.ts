/**
 * Tests only: writes EWF and EWF2 images from their specifications, as no tool makes them (chunks in no order, holes of
 * gigabytes, tables that differ), and asks the tools of the package ewf-tools what they read.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, ftruncateSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { deflateSync } from "node:zlib";
import type { ExecutionContext } from "ava";
import { numbers } from "../qemu-test-tools.js";

export const haveEwf = spawnSync("ewfexport", ["-h"]).status === 0 && spawnSync("ewfacquire", ["-h"]).status === 0;

/** Whether the tools are here; the reason is logged where they aren't. */
export function needsEwf(t: ExecutionContext): boolean {
  if (!haveEwf) t.pass(t.log("skipped: ewfacquire and ewfexport (package ewf-tools) are not installed") as undefined);
  return haveEwf;
}

export function run(command: string, ...words: string[]): string {
  return execFileSync(command, words, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, TZ: "UTC" },
  });
}

/** What ewfexport reads from the image. */
export function ewfRaw(path: string): Buffer {
  const scratch = `${path}-exported`;
  run("ewfexport", "-u", "-q", "-t", scratch, path);
  const bytes = readFileSync(`${scratch}.raw`);
  for (const end of [".raw", ".raw.info"]) rmSync(`${scratch}${end}`);
  return bytes;
}

/** A disk with zeros, one byte over and over, text, and bytes that don't compress, in stretches of odd lengths. */
export function mixedDisk(size: number, seed = 1): Buffer {
  const next = numbers(seed);
  const disk = Buffer.alloc(size);
  for (let at = 0; at < size; ) {
    const end = Math.min(size, at + 1 + next(90_000));
    const kind = next(4);
    if (kind === 1) disk.fill(1 + next(255), at, end);
    if (kind === 2) disk.fill(`line ${next(1000)} of some text\n`, at, end);
    if (kind === 3) for (let byte = at; byte < end; byte++) disk[byte] = next(256);
    at = end;
  }
  return disk;
}

/** The sum of RFC 1950, a byte at a time. */
export function plainAdler32(bytes: Uint8Array): number {
  let [a, b] = [1, 0];
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return b * 65536 + a;
}

/** Puts the Adler-32 of `length` bytes at `at` right behind them. */
export function resum(bytes: Buffer, at: number, length: number): void {
  bytes.writeUInt32LE(plainAdler32(bytes.subarray(at, at + length)), at + length);
}

const summed = (bytes: Buffer) => {
  const whole = Buffer.concat([bytes, Buffer.alloc(4)]);
  resum(whole, 0, bytes.length);
  return whole;
};

/** A file in the making: parts at positions, so that one with a hole of gigabytes is quickly written. */
export class Parts {
  end = 0;
  private readonly parts: { readonly at: number; readonly bytes: Buffer }[] = [];

  /** Returns where the bytes are. */
  add(bytes: Buffer): number {
    const at = this.end;
    this.parts.push({ at, bytes });
    this.end += bytes.length;
    return at;
  }

  skip(length: number): void {
    this.end += length;
  }

  write(path: string): void {
    const fd = openSync(path, "w");
    for (const { at, bytes } of this.parts) writeSync(fd, bytes, 0, bytes.length, at);
    ftruncateSync(fd, this.end);
    closeSync(fd);
  }

  get bytes(): Buffer {
    const whole = Buffer.alloc(this.end);
    for (const { at, bytes } of this.parts) bytes.copy(whole, at);
    return whole;
  }
}

export interface Making {
  readonly disk: Buffer;
  /** Sectors of 512 bytes a chunk. */
  readonly sectorsPerChunk?: number;
  /** Chunks a segment, and a table. */
  readonly perSegment?: number;
  readonly perTable?: number;
  /** Whether chunk `index` is packed where that makes it shorter; those that aren't have a checksum behind them. */
  readonly packed?: (index: number) => boolean;
  /** The order in which a table's chunks are laid down. */
  readonly order?: (count: number) => number[];
  /** Bytes of nothing before a table's first chunk. */
  readonly hole?: number;
  readonly setId?: Buffer;
  readonly errors?: readonly (readonly [sector: number, count: number])[];
}

/** A table's entries are offsets from `base`; `overflow` writes those beyond 2 GiB in all 32 bits, as EnCase 6.7.1. */
export interface Making1 extends Making {
  /** `E01` with sectors and two tables; `EnCase 1` with chunks behind the table; `S01` so too, with a short volume. */
  readonly kind?: "E01" | "EnCase 1" | "S01";
  readonly base?: boolean;
  readonly overflow?: boolean;
  readonly texts?: Readonly<Record<string, Buffer>>;
}

function* groups(making: Making): Generator<{ segment: number; last: boolean; tables: number[][] }> {
  const { disk, sectorsPerChunk = 64, perSegment = 1e9, perTable = 1e9 } = making;
  const total = Math.ceil(disk.length / 512 / sectorsPerChunk);
  for (let from = 0, segment = 1; from < total; from += perSegment, segment++) {
    const to = Math.min(total, from + perSegment);
    const tables: number[][] = [];
    for (let first = from; first < to; first += perTable)
      tables.push(Array.from({ length: Math.min(perTable, to - first) }, (_, index) => first + index));
    yield { segment, last: to === total, tables };
  }
}

const chunkOf = ({ disk, sectorsPerChunk = 64 }: Making, index: number) =>
  disk.subarray(index * sectorsPerChunk * 512, (index + 1) * sectorsPerChunk * 512);

/** The segments of an EWF image. */
export function makeEwf1(making: Making1): Parts[] {
  const { disk, sectorsPerChunk = 64, kind = "E01", hole = 0, base = false, overflow = false, setId } = making;
  const { packed = () => true, order = (count) => [...Array(count).keys()], texts = {}, errors = [] } = making;
  const total = Math.ceil(disk.length / 512 / sectorsPerChunk);
  const volume = Buffer.alloc(kind === "S01" ? 90 : 1048);
  volume[0] = 1;
  volume.writeUInt32LE(total, 4);
  volume.writeUInt32LE(sectorsPerChunk, 8);
  volume.writeUInt32LE(512, 12);
  volume.writeUInt32LE(disk.length / 512, 16);
  if (kind === "S01") volume.write("SMART", 85);
  else {
    volume[36] = 3;
    setId?.copy(volume, 64);
  }
  return [...groups(making)].map(({ segment, last, tables }) => {
    const file = new Parts();
    const section = (type: string, size: number, toItself = false) => {
      const bytes = Buffer.alloc(72);
      bytes.write(type, "latin1");
      bytes.writeBigUInt64LE(BigInt(file.end + (toItself ? 0 : 76 + size)), 16);
      bytes.writeBigUInt64LE(BigInt(toItself ? 0 : 76 + size), 24);
      file.add(summed(bytes));
    };
    const whole = (type: string, bytes: Buffer) => {
      section(type, bytes.length);
      file.add(bytes);
    };
    const header = Buffer.from("EVF\x09\x0d\x0a\xff\x00\x01\x00\x00\x00\x00", "latin1");
    header.writeUInt16LE(segment, 9);
    file.add(header);
    if (segment === 1) {
      for (const [type, bytes] of Object.entries(texts)) whole(type, bytes);
      whole("volume", summed(volume));
    } else if (kind !== "S01") whole("data", summed(volume));
    for (const chunks of tables) {
      const stored = chunks.map((index) => {
        const data = chunkOf(making, index);
        const small = packed(index) || kind === "S01" ? deflateSync(data) : data;
        return small.length < data.length || kind === "S01"
          ? { flag: true, bytes: small }
          : { flag: false, bytes: summed(data) };
      });
      const length = hole + stored.reduce((sum, { bytes }) => sum + bytes.length, 0);
      const table = 24 + 4 * chunks.length + (kind === "S01" ? 0 : 4);
      const dataAt = kind === "E01" ? file.end + 76 : file.end + 76 + table;
      const from = base ? file.end : 0;
      const positions: number[] = [];
      let at = dataAt + hole;
      for (const nth of order(chunks.length)) {
        positions[nth] = at;
        at += stored[nth]!.bytes.length;
      }
      const head = Buffer.alloc(20);
      head.writeUInt32LE(chunks.length, 0);
      head.writeBigUInt64LE(BigInt(from), 8);
      const entries = Buffer.alloc(4 * chunks.length);
      let beyond = false;
      for (const [nth, position] of positions.entries()) {
        const offset = position - from;
        if (offset > 0x7fffffff && !beyond && !overflow) throw new Error(`offset ${offset} doesn't fit`);
        entries.writeUInt32LE(beyond ? offset : (offset | (stored[nth]!.flag ? 0x80000000 : 0)) >>> 0, nth * 4);
        beyond ||= overflow && offset + stored[nth]!.bytes.length > 0x7fffffff;
      }
      const body = Buffer.concat([summed(head), kind === "S01" ? entries : summed(entries)]);
      const lay = () => {
        file.skip(hole);
        for (const nth of order(chunks.length)) file.add(stored[nth]!.bytes);
      };
      if (kind === "E01") {
        section("sectors", length);
        lay();
        whole("table", body);
        whole("table2", body);
      } else {
        section("table", body.length + length);
        file.add(body);
        lay();
      }
    }
    if (!last) section("next", 0, true);
    else {
      if (errors.length > 0) {
        const head = Buffer.alloc(516);
        head.writeUInt32LE(errors.length, 0);
        const entries = Buffer.alloc(8 * errors.length);
        for (const [nth, [sector, count]] of errors.entries()) {
          entries.writeUInt32LE(sector, nth * 8);
          entries.writeUInt32LE(count, nth * 8 + 4);
        }
        whole("error2", Buffer.concat([summed(head), summed(entries)]));
      }
      const digests = Buffer.alloc(76);
      createHash("md5").update(disk).digest().copy(digests, 0);
      createHash("sha1").update(disk).digest().copy(digests, 16);
      if (kind === "E01") whole("digest", summed(digests));
      whole("hash", summed(Buffer.concat([digests.subarray(0, 16), Buffer.alloc(16)])));
      section("done", 0, true);
    }
    return file;
  });
}

export interface Making2 extends Making {
  /** 1 for zlib, 2 for bzip2. */
  readonly method?: number;
  /** Packs for the method. */
  readonly pack?: (data: Buffer) => Buffer;
  /** Whether chunks of one repeated group of 8 bytes are told by it. */
  readonly patterns?: boolean;
  /** The order in which tables come in their segment. */
  readonly tableOrder?: (count: number) => number[];
  /** A table's number as it is left out: its chunks are in none. */
  readonly without?: number;
  readonly flags?: number;
  readonly sections?: readonly (readonly [type: number, data: Buffer])[];
}

/** The segments of an EWF2 image. */
export function makeEwf2(making: Making2): Parts[] {
  const { disk, sectorsPerChunk = 64, hole = 0, method = 1, pack = deflateSync, patterns = true, flags = 0 } = making;
  const { packed = () => true, order = (count) => [...Array(count).keys()], tableOrder = order } = making;
  const { errors = [], sections = [], setId = Buffer.alloc(16, 7), without } = making;
  const text = (lines: string[][]) =>
    pack(Buffer.from(`\ufeff1\nmain\n${lines.map((line) => line.join("\t")).join("\n")}\n\n`, "utf16le"));
  const device = text([
    ["sn", "md", "lb", "ts", "dt", "bp", "ph"],
    ["S\x03N", "", "", `${disk.length / 512}`, "f", "512", "1"],
  ]);
  const chunkCount = Math.ceil(disk.length / 512 / sectorsPerChunk);
  const caseData = text([
    ["nm", "cn", "en", "ex", "nt", "av", "os", "tt", "at", "tb", "cp", "sb"],
    [
      "Ünïcode",
      "case 7",
      "",
      "Ann",
      "two\x01lines",
      "1.0",
      "Linux",
      "1000000000",
      "",
      `${chunkCount}`,
      "1",
      `${sectorsPerChunk}`,
    ],
  ]);
  const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((16 - (bytes.length % 16)) % 16)]);
  let tableNumber = -1;
  return [...groups(making)].map(({ segment, last, tables }) => {
    const file = new Parts();
    let before = 0;
    /** Describes `size` bytes of data that were added. */
    const describe = (type: number, size: number) => {
      const bytes = Buffer.alloc(60);
      bytes.writeUInt32LE(type, 0);
      bytes.writeUInt32LE(flags, 4);
      bytes.writeBigUInt64LE(BigInt(before), 8);
      bytes.writeBigUInt64LE(BigInt(size), 16);
      bytes.writeUInt32LE(64, 24);
      before = file.add(summed(bytes));
    };
    const whole = (type: number, bytes: Buffer) => {
      const data = padded(bytes);
      file.add(data);
      describe(type, data.length);
    };
    const header = Buffer.from("EVF2\x0d\x0a\x81\x00\x02\x01", "latin1");
    const rest = Buffer.alloc(6);
    rest.writeUInt16LE(method, 0);
    rest.writeUInt32LE(segment, 2);
    file.add(Buffer.concat([header, rest, setId]));
    whole(1, device);
    whole(2, caseData);
    for (const [type, data] of sections) whole(type, data);
    for (const nthTable of tableOrder(tables.length)) {
      const chunks = tables[nthTable]!;
      tableNumber++;
      const stored = chunks.map((index) => {
        const data = chunkOf(making, index);
        const pattern = data.subarray(0, 8);
        if (patterns && data.equals(Buffer.alloc(data.length, pattern)))
          return { flag: 5, bytes: Buffer.alloc(0), pattern };
        const small = packed(index) ? pack(data) : data;
        return small.length < data.length ? { flag: 1, bytes: small } : { flag: 2, bytes: summed(data) };
      });
      const start = file.end;
      file.skip(hole);
      const entries = Buffer.alloc(16 * chunks.length);
      for (const nth of order(chunks.length)) {
        const { flag, bytes, pattern } = stored[nth]!;
        if (pattern) pattern.copy(entries, nth * 16);
        else entries.writeBigUInt64LE(BigInt(file.add(padded(bytes))), nth * 16);
        entries.writeUInt32LE(bytes.length, nth * 16 + 8);
        entries.writeUInt32LE(flag, nth * 16 + 12);
      }
      describe(3, file.end - start);
      const head = Buffer.alloc(16);
      head.writeBigUInt64LE(BigInt(chunks[0]!), 0);
      head.writeUInt32LE(chunks.length, 8);
      if (tableNumber !== without) whole(4, Buffer.concat([padded(summed(head)), padded(summed(entries))]));
    }
    if (last) {
      if (errors.length > 0) {
        const head = Buffer.alloc(16);
        head.writeUInt32LE(errors.length, 0);
        const entries = Buffer.alloc(16 * errors.length);
        for (const [nth, [sector, count]] of errors.entries()) {
          entries.writeBigUInt64LE(BigInt(sector), nth * 16);
          entries.writeUInt32LE(count, nth * 16 + 8);
        }
        whole(5, Buffer.concat([padded(summed(head)), padded(summed(entries))]));
      }
      whole(8, summed(createHash("md5").update(disk).digest()));
      whole(9, summed(createHash("sha1").update(disk).digest()));
    }
    describe(last ? 15 : 13, 0);
    return file;
  });
}
