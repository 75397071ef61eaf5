/**
 * Tests only: a writer of UDIF images, made from descriptions of the format alone. Whether what it writes is right is for
 * other readers to say (7zz, qemu-img).
 */
import { execFileSync } from "node:child_process";
import { crc32, deflateSync } from "node:zlib";
import { packLzfse } from "../../bytes/lzfse-test-tools.js";

const sector = 512;

export const kinds = {
  zero: 0,
  raw: 1,
  unused: 2,
  adc: 0x80000004,
  zlib: 0x80000005,
  bzip2: 0x80000006,
  lzfse: 0x80000007,
  xz: 0x80000008,
  comment: 0x7ffffffe,
} as const;

export type Kind = keyof typeof kinds;

export interface TableSpec {
  readonly name: string;
  /** Sector of the disk. */
  readonly first: number;
  /** Kind and sectors of each run. */
  readonly runs: readonly (readonly [Kind, number])[];
}

export interface DmgOptions {
  /** Tables go into a resource fork; there is no property list. */
  readonly fork?: boolean;
  /** The trailer goes first. */
  readonly front?: boolean;
  /** Packed runs are stored in reverse. */
  readonly reverse?: boolean;
  /** Bytes of data in each segment. */
  readonly segmentLength?: number;
  /** Sectors that the trailer tells. */
  readonly sectors?: number;
  readonly packLzfse?: typeof packLzfse;
}

/** An image of `disk`, or its parts. */
export function makeDmg(disk: Buffer, tables: readonly TableSpec[], options: DmgOptions = {}): Buffer[] {
  const data = packRuns(disk, tables, options);
  const made = tables.map((table, index) => blockTable(disk, table, index, data));
  const master = crc32(Buffer.concat(made.map(({ checksum }) => u32(checksum))));
  const list = options.fork
    ? resourceFork(
        tables,
        made.map(({ bytes }) => bytes),
      )
    : Buffer.from(
        propertyList(
          tables,
          made.map(({ bytes }) => bytes),
        ),
      );
  const segmentLength = options.segmentLength ?? Math.max(1, data.bytes.length);
  const count = Math.max(1, Math.ceil(data.bytes.length / segmentLength));
  return Array.from({ length: count }, (_, index) => {
    const part = data.bytes.subarray(index * segmentLength, (index + 1) * segmentLength);
    const start = options.front ? sector : 0;
    const listed = index === 0 ? list : Buffer.alloc(0);
    const trailer = Buffer.alloc(sector);
    trailer.write("koly");
    trailer.writeUInt32BE(4, 4);
    trailer.writeUInt32BE(sector, 8);
    trailer.writeUInt32BE(1, 12);
    const u64 = (value: number, at: number) => trailer.writeBigUInt64BE(BigInt(value), at);
    u64(index * segmentLength, 16);
    u64(start, 24);
    u64(part.length, 32);
    const at = options.fork ? 40 : 216;
    u64(start + part.length, at);
    u64(listed.length, at + 8);
    trailer.writeUInt32BE(index + 1, 56);
    trailer.writeUInt32BE(count, 60);
    trailer.fill(7, 64, 80);
    if (count === 1) checksum(trailer, 80, crc32(part));
    checksum(trailer, 352, master);
    trailer.writeUInt32BE(1, 488);
    u64(options.sectors ?? disk.length / sector, 492);
    return Buffer.concat(options.front ? [trailer, part, listed] : [part, listed, trailer]);
  });
}

function checksum(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32BE(2, at);
  bytes.writeUInt32BE(32, at + 4);
  bytes.writeUInt32BE(value, at + 8);
}

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

interface PackedData {
  readonly bytes: Buffer;
  /** Of each run, by table and number. */
  readonly places: Map<string, { at: number; length: number }>;
}

function packRuns(disk: Buffer, tables: readonly TableSpec[], options: DmgOptions): PackedData {
  const packed: { key: string; bytes: Buffer }[] = [];
  for (const [table, { first, runs }] of tables.entries()) {
    let position = first * sector;
    for (const [number, [kind, sectors]] of runs.entries()) {
      const input = disk.subarray(position, position + sectors * sector);
      position += input.length;
      const bytes = pack(kind, input, options.packLzfse ?? packLzfse);
      if (bytes) packed.push({ key: `${table} ${number}`, bytes });
    }
  }
  if (options.reverse) packed.reverse();
  const places = new Map<string, { at: number; length: number }>();
  const parts: Buffer[] = [];
  let at = 0;
  for (const { key, bytes } of packed) {
    const gap = Buffer.alloc(at % 3, 0xcc);
    parts.push(gap, bytes);
    places.set(key, { at: at + gap.length, length: bytes.length });
    at += gap.length + bytes.length;
  }
  return { bytes: Buffer.concat(parts), places };
}

function pack(kind: Kind, input: Buffer, lzfse: typeof packLzfse): Buffer | undefined {
  switch (kind) {
    case "raw":
      return input;
    case "zlib":
      return deflateSync(input);
    case "bzip2":
      return execFileSync("bzip2", ["-c"], { input });
    case "xz":
      return execFileSync("xz", ["-c", "-1"], { input });
    case "lzfse":
      return lzfse(input, ["bvx2", "bvxn"]); // 7zz 26 knows no bvx1, and doesn't read bvx-
    case "adc":
      return packAdc(input);
    default:
      return undefined;
  }
}

/** Repetitions of four bytes that were seen before, and literals. */
export function packAdc(input: Buffer): Buffer {
  const out: Buffer[] = [];
  const seen = new Map<number, number>();
  let start = 0;
  const flush = (end: number) => {
    for (; start < end; start += 128) {
      const part = input.subarray(start, Math.min(end, start + 128));
      out.push(Buffer.of(0x7f + part.length), part);
    }
    start = end;
  };
  for (let at = 0; at < input.length; ) {
    const key = at + 4 <= input.length ? input.readUInt32LE(at) : undefined;
    const before = key === undefined ? undefined : seen.get(key);
    if (key !== undefined) seen.set(key, at);
    if (before === undefined || at - before > 65536) {
      at++;
      continue;
    }
    flush(at);
    let length = 4;
    const distance = at - before - 1;
    const short = distance < 1024 && length % 3 !== 0;
    while (length < (short ? 18 : 67) && at + length < input.length && input[before + length] === input[at + length])
      length++;
    if (distance < 1024 && length <= 18) out.push(Buffer.of(((length - 3) << 2) | (distance >>> 8), distance & 255));
    else out.push(Buffer.of(0x40 | (length - 4), distance >>> 8, distance & 255));
    at += length;
    start = at;
  }
  flush(input.length);
  return Buffer.concat(out);
}

/** A table with a comment before its runs and one behind them, as some of Apple's have it. */
function blockTable(disk: Buffer, { first, runs }: TableSpec, index: number, data: PackedData) {
  // Every other table counts its data from a place of its own.
  const dataAt =
    index % 2 === 1 ? Math.min(...runs.map((_, number) => data.places.get(`${index} ${number}`)?.at ?? 1e9), 11) : 0;
  const entries: [kind: number, comment: string, start: number, sectors: number, at: number, length: number][] = [];
  let start = 0;
  let crc = 0;
  entries.push([kinds.comment, "+beg", 0, 0, 0, 0]);
  for (const [number, [kind, sectors]] of runs.entries()) {
    const place = data.places.get(`${index} ${number}`);
    entries.push([kinds[kind], "", start, sectors, place ? place.at - dataAt : 0, place?.length ?? 0]);
    const from = (first + start) * sector;
    if (kind !== "unused") crc = crc32(disk.subarray(from, from + sectors * sector), crc);
    start += sectors;
  }
  entries.push([kinds.comment, "+end", start, 0, 0, 0], [0xffffffff, "", start, 0, 0, 0]);
  const bytes = Buffer.alloc(204 + entries.length * 40);
  const u64 = (value: number, at: number) => bytes.writeBigUInt64BE(BigInt(value), at);
  bytes.write("mish");
  bytes.writeUInt32BE(1, 4);
  u64(first, 8);
  u64(start, 16);
  u64(dataAt, 24);
  bytes.writeUInt32BE(0x808, 32);
  bytes.writeInt32BE(index - 1, 36);
  checksum(bytes, 64, crc);
  bytes.writeUInt32BE(entries.length, 200);
  for (const [number, [kind, comment, from, sectors, at, length]] of entries.entries()) {
    const place = 204 + number * 40;
    bytes.writeUInt32BE(kind, place);
    bytes.write(comment, place + 4);
    u64(from, place + 8);
    u64(sectors, place + 16);
    u64(at, place + 24);
    u64(length, place + 32);
  }
  return { bytes, checksum: crc };
}

const escaped = (text: string) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

export function propertyList(tables: readonly { readonly name: string }[], data: readonly Buffer[]): string {
  const entries = data.map((bytes, index) => {
    const lines = bytes.toString("base64").replace(/.{1,52}/g, "\t\t\t\t$&\n");
    return `\t\t\t<dict>
\t\t\t\t<key>Attributes</key>
\t\t\t\t<string>0x0050</string>
\t\t\t\t<key>CFName</key>
\t\t\t\t<string>${escaped(tables[index]!.name)}</string>
\t\t\t\t<key>Data</key>
\t\t\t\t<data>
${lines}\t\t\t\t</data>
\t\t\t\t<key>ID</key>
\t\t\t\t<string>${index - 1}</string>
\t\t\t\t<key>Name</key>
\t\t\t\t<string>${escaped(tables[index]!.name)}</string>
\t\t\t</dict>
`;
  });
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
\t<key>resource-fork</key>
\t<dict>
\t\t<key>blkx</key>
\t\t<array>
${entries.join("")}\t\t</array>
\t\t<key>plst</key>
\t\t<array>
\t\t\t<dict><key>Data</key><data>AAAA</data><key>ID</key><string>0</string><key>Name</key><string></string></dict>
\t\t</array>
\t</dict>
</dict>
</plist>
`;
}

/** "Inside Macintosh: More Macintosh Toolbox", figure 1-12 and on: a fork with an icon before the tables. */
function resourceFork(tables: readonly TableSpec[], data: readonly Buffer[]): Buffer {
  const resources = [Buffer.from("icon"), ...data];
  const places: number[] = [];
  let length = 0;
  for (const resource of resources) {
    places.push(length);
    length += 4 + resource.length;
  }
  const names = Buffer.concat(tables.flatMap(({ name }) => [Buffer.of(name.length), Buffer.from(name, "latin1")]));
  let nameAt = 0;
  const nameAts = tables.map(({ name }) => {
    nameAt += 1 + name.length;
    return nameAt - 1 - name.length;
  });
  const listsAt = 28 + 2 + 2 * 8;
  const namesAt = listsAt + resources.length * 12;
  const map = Buffer.alloc(namesAt);
  map.writeUInt16BE(28, 24);
  map.writeUInt16BE(namesAt, 26);
  map.writeUInt16BE(1, 28);
  map.write("ICN#", 30);
  map.writeUInt16BE(0, 34);
  map.writeUInt16BE(listsAt - 28, 36);
  map.write("blkx", 38);
  map.writeUInt16BE(data.length - 1, 42);
  map.writeUInt16BE(listsAt + 12 - 28, 44);
  for (const [index, place] of places.entries()) {
    const at = listsAt + index * 12;
    map.writeInt16BE(index - 2, at);
    map.writeUInt16BE(index === 0 ? 0xffff : nameAts[index - 1]!, at + 2);
    map.writeUInt32BE(place, at + 4);
    map[at + 4] = 0x50;
  }
  const header = Buffer.alloc(256);
  header.writeUInt32BE(256, 0);
  header.writeUInt32BE(256 + length, 4);
  header.writeUInt32BE(length, 8);
  header.writeUInt32BE(map.length + names.length, 12);
  header.copy(map, 0, 0, 16);
  return Buffer.concat([header, ...resources.flatMap((resource) => [u32(resource.length), resource]), map, names]);
}
