/** Tests only: VHDX images, laid out from the text of [MS-VHDX]. */
import { crc32c } from "../../bytes/crc32c.js";

const MiB = 1 << 20;

/** A GUID's bytes from its text. */
export function guid(text: string): Buffer {
  const [a, b, c, d, e] = text.split("-").map((part) => Buffer.from(part, "hex"));
  return Buffer.concat([a!.reverse(), b!.reverse(), c!.reverse(), d!, e!]);
}
export const guids = {
  base: "11111111-2222-3333-4444-555555555555",
  middle: "aabbccdd-2222-3333-4444-555555555555",
  top: "99999999-2222-3333-4444-555555555555",
  log: "01020304-0506-0708-090a-0b0c0d0e0f10",
};

export interface VhdxMaking {
  /**
   * Blocks of 1 MiB: a letter fills one, `.` is not present, `0` zero, `u` undefined, `m` unmapped, `~` partly present
   * (sectors 3 to 9 and the last).
   */
  blocks: string;
  size?: number;
  sector?: number;
  id?: string;
  parent?: Record<string, string>;
  reversed?: boolean;
  /** Changes that are only in the log: position in the file and bytes (4 KiB), or a number of zeros. */
  log?: [number, Buffer | number][];
}

export function sum(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(0, 4);
  bytes.writeUInt32LE(crc32c(bytes), 4);
  return bytes;
}

export const logAt = MiB;
export const metadataAt = 2 * MiB;
export const batAt = 3 * MiB;

/** A VHDX, laid out from the text of [MS-VHDX]. */
export function makeVhdx({
  blocks,
  size = blocks.length * MiB,
  sector = 512,
  id = guids.base,
  parent,
  reversed,
  log,
}: VhdxMaking) {
  const ratio = (2 ** 23 * sector) / MiB;
  const letters = [...blocks];
  const stored = letters.map((_, block) => block).filter((block) => /[a-l~]/.test(letters[block]!));
  if (reversed) stored.reverse();
  const file = Buffer.alloc((5 + stored.length) * MiB);
  file.write("vhdxfile");
  for (const nth of [0, 1]) {
    const header = file.subarray(65536 * (nth + 1), 65536 * (nth + 1) + 4096);
    header.write("head");
    header.writeBigUInt64LE(BigInt(nth + 7), 8);
    guid(id).copy(header, 32);
    if (log) guid(guids.log).copy(header, 48);
    header.writeUInt16LE(1, 66);
    header.writeUInt32LE(MiB, 68);
    header.writeBigUInt64LE(BigInt(logAt), 72);
    sum(header);
    const regions = file.subarray(65536 * (nth + 3), 65536 * (nth + 4));
    regions.write("regi");
    regions.writeUInt32LE(2, 8);
    for (const [index, [name, at]] of (
      [
        ["2dc27766-f623-4200-9d64-115e9bfd4a08", batAt],
        ["8b7ca206-4790-4b9a-b8fe-575f050f886e", metadataAt],
      ] as [string, number][]
    ).entries()) {
      guid(name).copy(regions, 16 + index * 32);
      regions.writeBigUInt64LE(BigInt(at), 32 + index * 32);
      regions.writeUInt32LE(MiB, 40 + index * 32);
      regions.writeUInt32LE(1, 44 + index * 32);
    }
    sum(regions);
  }
  const u32 = (...values: number[]) => Buffer.from(new Uint32Array(values).buffer);
  const items: [string, Buffer][] = [
    ["caa16737-fa36-4d43-b3b6-33f0aa44e76b", u32(MiB, parent ? 2 : 0)],
    ["2fa54224-cd1b-4876-b211-5dbed83bf4b8", u32(size, 0)],
    ["beca12ab-b2e6-4523-93ef-c309e000c746", guid(id)],
    ["8141bf1d-a96f-4709-ba47-f233a8faab5f", u32(sector)],
    ["cda348c7-445d-4471-9cc9-e9885251c556", u32(4096)],
  ];
  if (parent) {
    const pairs = Object.entries(parent).map((pair) => pair.map((text) => Buffer.from(text, "utf16le")));
    const head = Buffer.alloc(20 + pairs.length * 12);
    guid("b04aefb7-d19e-4a81-b789-25b8e9445913").copy(head);
    head.writeUInt16LE(pairs.length, 18);
    let at = head.length;
    for (const [nth, [key, value]] of pairs.entries()) {
      head.writeUInt32LE(at, 20 + nth * 12);
      head.writeUInt32LE(at + key!.length, 24 + nth * 12);
      head.writeUInt16LE(key!.length, 28 + nth * 12);
      head.writeUInt16LE(value!.length, 30 + nth * 12);
      at += key!.length + value!.length;
    }
    items.push(["a8d35f2d-b30b-454d-abf7-d3d84834ab0c", Buffer.concat([head, ...pairs.flat()])]);
  }
  const metadata = file.subarray(metadataAt);
  metadata.write("metadata");
  metadata.writeUInt16LE(items.length, 10);
  let offset = 65536;
  for (const [nth, [name, value]] of items.entries()) {
    guid(name).copy(metadata, 32 + nth * 32);
    metadata.writeUInt32LE(offset, 48 + nth * 32);
    metadata.writeUInt32LE(value.length, 52 + nth * 32);
    metadata.writeUInt32LE(6, 56 + nth * 32);
    value.copy(metadata, offset);
    offset += value.length;
  }
  const entry = (index: number, state: number, at: number) =>
    file.writeBigUInt64LE(BigInt(at + state), batAt + index * 8);
  const states: Record<string, number> = { ".": 0, "0": 2, u: 1, m: 3, "~": 7 };
  for (const [block, letter] of letters.entries()) {
    const at = stored.includes(block) ? (5 + stored.indexOf(block)) * MiB : 0;
    entry(block + Math.floor(block / ratio), states[letter] ?? 6, at);
    if (at > 0) file.fill(letter === "~" ? "z" : letter, at, at + MiB);
    if (letter !== "~") continue;
    entry(ratio, 6, 4 * MiB);
    const bits = MiB / sector;
    for (const bit of [3, 4, 5, 6, 7, 8, 9, bits - 1]) {
      const at = 4 * MiB + (block * bits + bit) / 8;
      file[Math.floor(at)]! |= 1 << (bit & 7);
    }
  }
  if (log) file.set(logEntry(log, 5, 0, file.length), logAt);
  return file;
}

/** One entry of a log, which is its own tail unless told otherwise. */
export function logEntry(
  changes: [number, Buffer | number][],
  sequence: number,
  tail: number,
  fileSize: number,
): Buffer {
  const data = changes.map(([, change]) => change).filter((change) => typeof change !== "number");
  const entry = Buffer.alloc(4096 * (1 + data.length));
  entry.write("loge");
  entry.writeUInt32LE(entry.length, 8);
  entry.writeUInt32LE(tail, 12);
  entry.writeBigUInt64LE(BigInt(sequence), 16);
  entry.writeUInt32LE(changes.length, 24);
  guid(guids.log).copy(entry, 32);
  entry.writeBigUInt64LE(BigInt(fileSize), 48);
  entry.writeBigUInt64LE(BigInt(fileSize), 56);
  let at = 4096;
  for (const [nth, [position, change]] of changes.entries()) {
    const descriptor = entry.subarray(64 + nth * 32, 96 + nth * 32);
    descriptor.writeBigUInt64LE(BigInt(position), 16);
    descriptor.writeBigUInt64LE(BigInt(sequence), 24);
    if (typeof change === "number") {
      descriptor.write("zero");
      descriptor.writeBigUInt64LE(BigInt(change), 8);
      continue;
    }
    descriptor.write("desc");
    change.copy(descriptor, 4, 4092);
    change.copy(descriptor, 8, 0, 8);
    const sector = entry.subarray(at, at + 4096);
    change.copy(sector, 8, 8, 4092);
    sector.write("data");
    sector.writeUInt32LE(0, 4);
    sector.writeUInt32LE(sequence, 4092);
    at += 4096;
  }
  return sum(entry);
}

/** Makes the checksums of headers, region tables and a log of one entry right. */
export function crcsOf(file: Buffer): void {
  for (const at of [65536, 131072]) sum(file.subarray(at, at + 4096));
  for (const at of [196608, 262144]) sum(file.subarray(at, at + 65536));
}
