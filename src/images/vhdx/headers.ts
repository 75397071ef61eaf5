/**
 * The structures of a VHDX file, with the names of [MS-VHDX] ("Virtual Hard Disk v2 File Format"). All numbers are
 * little-endian.
 *
 *       0  file type identifier      64 KiB  header 1     128 KiB  header 2     192 KiB  region table     256 KiB  its copy
 *   1 MiB  and beyond, in any order: log, metadata, block allocation table (BAT), payload blocks, sector bitmap blocks
 */
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { updateCrc32c } from "../../bytes/crc32c.js";
import { guidText } from "../../bytes/guid.js";
import { corrupt, unsupported } from "../../errors.js";
import { u64le } from "../fields.js";

const KiB = 1024;
const MiB = 1024 * KiB;
const headerPositions = [64 * KiB, 128 * KiB];
const headerSize = 4 * KiB;
const regionTablePositions = [192 * KiB, 256 * KiB];
const tableSize = 64 * KiB;
/** Bytes of the largest disk that the format allows. */
const largestSize = 64 * 2 ** 40;
/** Far beyond what paths take. */
const longestLocator = 1 << 20;

export interface Header {
  readonly position: number;
  readonly sequence: number;
  readonly dataWriteGuid: string;
  /** Undefined where the log is empty. */
  readonly logGuid: Buffer | undefined;
  readonly logOffset: number;
  readonly logLength: number;
}

export interface Region {
  readonly position: number;
  readonly length: number;
}

export interface Metadata {
  readonly blockSize: number;
  readonly leaveAllocated: boolean;
  readonly hasParent: boolean;
  /** Disk size in bytes. */
  readonly size: number;
  readonly diskId: string;
  readonly logicalSectorSize: number;
  readonly physicalSectorSize: number;
  /** The entries of the parent locator, by key. */
  readonly locator: ReadonlyMap<string, string>;
}

export function hasSignature(source: ByteSource): boolean {
  return source.size >= 8 && readExactly(source, 0, 8, "the signature").toString("latin1") === "vhdxfile";
}

/** `bytes` with a CRC-32C at byte 4 that is counted as zeros. */
export function checksumIsRight(bytes: Buffer): boolean {
  let sum = updateCrc32c(0xffffffff, bytes, 0, 4);
  sum = updateCrc32c(sum, Buffer.alloc(4));
  sum = updateCrc32c(sum, bytes, 8, bytes.length);
  return (sum ^ 0xffffffff) >>> 0 === bytes.readUInt32LE(4);
}

/** Both headers that are whole, the current one (of the higher sequence number) first, and complaints about the others. */
export function readHeader(source: ByteSource): { header: Header; complaints: string[] } {
  const complaints: string[] = [];
  let header: Header | undefined;
  for (const position of headerPositions) {
    const bytes = readExactly(source, position, headerSize, "a header");
    if (bytes.toString("latin1", 0, 4) !== "head" || !checksumIsRight(bytes)) {
      // A new file has one header, and a crash leaves one: that is what the second is for.
      if (bytes.some((byte) => byte !== 0))
        complaints.push(`${source.name}: the header at byte ${position} fails its checksum.`);
      continue;
    }
    const sequence = u64le(bytes, 8);
    if (header && header.sequence >= sequence) continue;
    header = parseHeader(source.name, position, sequence, bytes);
  }
  if (!header)
    throw corrupt(
      `${source.name}: neither of the headers at bytes ${headerPositions.join(" and ")} is whole. The file is damaged: restore it from another copy.`,
    );
  return { header, complaints };
}

function parseHeader(name: string, position: number, sequence: number, bytes: Buffer): Header {
  const version = bytes.readUInt16LE(66);
  if (version !== 1) throw unsupported(`${name}: is a VHDX of version ${version}; only 1 is known.`);
  const logGuid = Buffer.from(bytes.subarray(48, 64));
  const hasLog = logGuid.some((byte) => byte !== 0);
  if (hasLog && bytes.readUInt16LE(64) !== 0)
    throw unsupported(`${name}: has a log of version ${bytes.readUInt16LE(64)}; only 0 is known.`);
  return {
    position,
    sequence,
    dataWriteGuid: guidText(bytes.subarray(32, 48)),
    logGuid: hasLog ? logGuid : undefined,
    logLength: bytes.readUInt32LE(68),
    logOffset: u64le(bytes, 72),
  };
}

const batGuid = "2dc27766-f623-4200-9d64-115e9bfd4a08";
const metadataGuid = "8b7ca206-4790-4b9a-b8fe-575f050f886e";

/** The regions, from the first of the two tables that is whole. `source` has the log's changes in it. */
export function readRegions(source: ByteSource): { bat: Region; metadata: Region; complaints: string[] } {
  const { name } = source;
  const complaints: string[] = [];
  for (const position of regionTablePositions) {
    const bytes = readExactly(source, position, tableSize, "a region table");
    if (bytes.toString("latin1", 0, 4) !== "regi" || !checksumIsRight(bytes)) {
      complaints.push(`${name}: the region table at byte ${position} fails its checksum.`);
      continue;
    }
    const count = bytes.readUInt32LE(8);
    if (count > 2047) throw corrupt(`${name}: the region table at byte ${position} tells of ${count} regions.`);
    const regions = new Map<string, Region>();
    for (let at = 16; at < 16 + count * 32; at += 32) {
      const guid = guidText(bytes.subarray(at, at + 16));
      const region = { position: u64le(bytes, at + 16), length: bytes.readUInt32LE(at + 24) };
      const known = guid === batGuid || guid === metadataGuid;
      if (!known && (bytes.readUInt32LE(at + 28) & 1) !== 0)
        throw unsupported(`${name}: requires a region ${guid} that isn't known.`);
      if (!known) continue;
      if (regions.has(guid)) throw corrupt(`${name}: the region table at byte ${position} has ${guid} twice.`);
      if (region.position < MiB || region.position % MiB !== 0 || region.position + region.length > source.size)
        throw corrupt(
          `${name}: the ${guid === batGuid ? "block allocation table" : "metadata"} should take ${region.length} bytes at byte ${region.position}, where the file has ${source.size}. The file is truncated or damaged.`,
        );
      regions.set(guid, region);
    }
    const [bat, metadata] = [regions.get(batGuid), regions.get(metadataGuid)];
    if (!bat || !metadata)
      throw corrupt(
        `${name}: the region table at byte ${position} has no ${bat ? "metadata" : "block allocation table"}.`,
      );
    return { bat, metadata, complaints };
  }
  throw corrupt(`${name}: neither of its region tables is whole. The file is damaged: restore it from another copy.`);
}

const items = {
  fileParameters: "caa16737-fa36-4d43-b3b6-33f0aa44e76b",
  size: "2fa54224-cd1b-4876-b211-5dbed83bf4b8",
  diskId: "beca12ab-b2e6-4523-93ef-c309e000c746",
  logicalSectorSize: "8141bf1d-a96f-4709-ba47-f233a8faab5f",
  physicalSectorSize: "cda348c7-445d-4471-9cc9-e9885251c556",
  locator: "a8d35f2d-b30b-454d-abf7-d3d84834ab0c",
};

export function readMetadata(source: ByteSource, region: Region): Metadata {
  const { name } = source;
  const where = `the metadata at byte ${region.position}`;
  const table = readExactly(source, region.position, tableSize, "the metadata table");
  if (table.toString("latin1", 0, 8) !== "metadata")
    throw corrupt(`${name}: ${where} does not begin with "metadata". The file is damaged.`);
  const count = table.readUInt16LE(10);
  if (count > 2047) throw corrupt(`${name}: ${where} tells of ${count} items.`);
  const found = new Map<string, { offset: number; length: number }>();
  for (let at = 32; at < 32 + count * 32; at += 32) {
    const guid = guidText(table.subarray(at, at + 16));
    const flags = table.readUInt32LE(at + 24);
    if (Object.values(items).includes(guid) && (flags & 1) === 0)
      found.set(guid, { offset: table.readUInt32LE(at + 16), length: table.readUInt32LE(at + 20) });
    else if ((flags & 4) !== 0) throw unsupported(`${name}: requires a metadata item ${guid} that isn't known.`);
  }
  const item = (key: keyof typeof items, least: number, most = least): Buffer => {
    const { offset, length } = found.get(items[key]) ?? { offset: 0, length: 0 };
    if (length < least || offset < tableSize || offset + length > region.length)
      throw corrupt(
        `${name}: ${where} has no usable item ${key} (offset ${offset}, ${length} bytes of ${region.length}). The file is damaged.`,
      );
    return readExactly(source, region.position + offset, Math.min(length, most), `the metadata item ${key}`);
  };
  const parameters = item("fileParameters", 8);
  const flags = parameters.readUInt32LE(4);
  const hasParent = (flags & 2) !== 0;
  const metadata = {
    blockSize: parameters.readUInt32LE(0),
    leaveAllocated: (flags & 1) !== 0,
    hasParent,
    size: u64le(item("size", 8), 0),
    diskId: guidText(item("diskId", 16)),
    logicalSectorSize: item("logicalSectorSize", 4).readUInt32LE(0),
    physicalSectorSize: item("physicalSectorSize", 4).readUInt32LE(0),
    locator: hasParent ? readLocator(name, item("locator", 20, longestLocator)) : new Map<string, string>(),
  };
  const { blockSize, size, logicalSectorSize } = metadata;
  if (blockSize < MiB || blockSize > 256 * MiB || (blockSize & (blockSize - 1)) !== 0)
    throw corrupt(`${name}: ${where} tells of blocks of ${blockSize} bytes; 1 to 256 MiB are possible.`);
  if (logicalSectorSize !== 512 && logicalSectorSize !== 4096)
    throw corrupt(`${name}: ${where} tells of sectors of ${logicalSectorSize} bytes; 512 and 4096 are possible.`);
  if (size === 0 || size > largestSize || size % logicalSectorSize !== 0)
    throw corrupt(`${name}: ${where} tells of an impossible disk size of ${size} bytes.`);
  return metadata;
}

const locatorType = "b04aefb7-d19e-4a81-b789-25b8e9445913";

function readLocator(name: string, bytes: Buffer): Map<string, string> {
  const type = guidText(bytes.subarray(0, 16));
  if (type !== locatorType) throw unsupported(`${name}: names its parent in an unknown manner (${type}).`);
  const count = bytes.readUInt16LE(18);
  const entries = new Map<string, string>();
  for (let at = 20; at < 20 + count * 12; at += 12) {
    if (at + 12 > bytes.length) throw corrupt(`${name}: its parent locator is cut off. The file is damaged.`);
    const text = (offset: number, length: number) => {
      if (offset + length > bytes.length) throw corrupt(`${name}: its parent locator is damaged.`);
      return bytes.toString("utf16le", offset, offset + length).replace(/\0.*$/s, "");
    };
    const key = text(bytes.readUInt32LE(at), bytes.readUInt16LE(at + 8));
    entries.set(key, text(bytes.readUInt32LE(at + 4), bytes.readUInt16LE(at + 10)));
  }
  return entries;
}
