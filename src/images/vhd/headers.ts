/**
 * The structures of a VHD file, with the names of the "Virtual Hard Disk Image Format Specification" (Microsoft, 2006).
 * All numbers are big-endian.
 *
 *   fixed         disk … footer
 *   dynamic       copy of the footer, dynamic header, block allocation table, blocks …, footer
 *   differencing  the same, and the parent's locators somewhere among them
 */
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { corrupt, unsupported } from "../../errors.js";

export const footerSize = 512;
const dynamicHeaderSize = 1024;
/** Before 2004 Virtual PC wrote footers that are one byte shorter: the last byte is reserved. */
const oldFooterSize = 511;
/** Sectors of the largest geometry: larger disks have it too, so it tells nothing of their size. */
const largestGeometry = 65535 * 16 * 255;

export interface Footer {
  readonly type: "fixed" | "dynamic" | "differencing";
  /** Where the dynamic header is. */
  readonly dataOffset: number;
  /** Seconds since 2000-01-01 UTC at which the image was made. */
  readonly timestamp: number;
  readonly creator: string;
  /** Disk size in bytes. */
  readonly size: number;
  readonly id: Buffer;
  /** Bytes of the file before the footer at its end: what a fixed disk may take. */
  readonly dataEnd: number;
}

export interface DynamicHeader {
  readonly tableOffset: number;
  readonly maxTableEntries: number;
  readonly blockSize: number;
  readonly parentId: Buffer;
  /** Seconds since 2000-01-01 UTC; 0 where the writer left it out. */
  readonly parentTimestamp: number;
  readonly parentName: string;
  readonly locators: readonly { readonly code: string; readonly length: number; readonly offset: number }[];
}

/** A structure, and whether its checksum is right. */
export interface Checked<T> {
  readonly value: T;
  /** What is wrong with its checksum or a copy's, as sentences; none when all is right. */
  readonly complaints: readonly string[];
}

/** The one's complement of the sum of all bytes but the checksum's own. */
function checksum(bytes: Uint8Array, field: number): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at++) if (at < field || at >= field + 4) sum += bytes[at]!;
  return ~sum >>> 0;
}

const isFooter = (bytes: Buffer) => bytes.toString("latin1", 0, 8) === "conectix";

/** Where footers may be, the real one at the end before its copy at the start. */
function footerPositions(source: ByteSource): number[] {
  return [source.size - footerSize, source.size - oldFooterSize, 0].filter((position) => position >= 0);
}

export function hasFooter(source: ByteSource): boolean {
  return footerPositions(source).some(
    (position) => source.size >= position + 8 && isFooter(readExactly(source, position, 8, "the footer")),
  );
}

/**
 * The footer, or its copy at the start where the footer is gone or damaged. Where no checksum is right, the first is
 * taken: there are images whose footers were edited, and everything that it says is checked against the file.
 */
export function readFooter(source: ByteSource): Checked<Footer> {
  const found: { position: number; bytes: Buffer }[] = [];
  const complaints: string[] = [];
  for (const position of footerPositions(source)) {
    const bytes = Buffer.alloc(footerSize);
    readExactly(source, position, Math.min(footerSize, source.size - position), "the footer").copy(bytes);
    if (isFooter(bytes)) found.push({ position, bytes });
  }
  for (const { position, bytes } of found)
    if (bytes.readUInt32BE(64) !== checksum(bytes, 64))
      complaints.push(`${source.name}: the footer at byte ${position} fails its checksum.`);
  const used = found.find(({ bytes }) => bytes.readUInt32BE(64) === checksum(bytes, 64)) ?? found[0];
  if (!used)
    throw corrupt(
      `${source.name}: has no VHD footer ("conectix") at its end or start. The file is truncated or damaged.`,
    );
  return { value: parseFooter(source, used.position, used.bytes), complaints };
}

function parseFooter(source: ByteSource, position: number, bytes: Buffer): Footer {
  const version = bytes.readUInt16BE(12);
  if (version !== 1)
    throw unsupported(`${source.name}: is a VHD of version ${version}.${bytes.readUInt16BE(14)}; only 1 is known.`);
  const type = ({ 2: "fixed", 3: "dynamic", 4: "differencing" } as const)[bytes.readUInt32BE(60)];
  if (!type)
    throw unsupported(
      `${source.name}: the footer at byte ${position} tells of disk type ${bytes.readUInt32BE(60)}; known are fixed, dynamic and differencing disks.`,
    );
  const creator = bytes.toString("latin1", 28, 32);
  const size = diskSize(creator, Number(bytes.readBigUInt64BE(48)), bytes);
  if (!Number.isSafeInteger(size) || size === 0 || size % 512 !== 0)
    throw corrupt(`${source.name}: the footer at byte ${position} tells of an impossible disk size of ${size} bytes.`);
  return {
    type,
    dataOffset: Number(bytes.readBigUInt64BE(16)),
    timestamp: bytes.readUInt32BE(24),
    creator: creator.replaceAll("\0", "").trimEnd(),
    size,
    id: Buffer.from(bytes.subarray(68, 84)),
    dataEnd: position === 0 ? source.size : position,
  };
}

/**
 * Virtual PC, and QEMU where it writes in its manner (`qemu`, not `qem2`), mean the geometry; everybody else means the
 * current size, and so does the largest geometry.
 */
function diskSize(creator: string, currentSize: number, bytes: Buffer): number {
  const sectors = bytes.readUInt16BE(56) * bytes[58]! * bytes[59]!;
  const geometryCounts = (creator === "vpc " || creator === "qemu") && sectors !== largestGeometry && sectors > 0;
  return geometryCounts ? sectors * 512 : currentSize;
}

/** @throws ImageError `corrupt` when a number contradicts the file's size or the disk's. */
export function readDynamicHeader(source: ByteSource, footer: Footer): Checked<DynamicHeader> {
  const { name } = source;
  const position = footer.dataOffset;
  const bytes = readExactly(source, position, dynamicHeaderSize, "the dynamic header");
  if (bytes.toString("latin1", 0, 8) !== "cxsparse")
    throw corrupt(`${name}: there is no dynamic header ("cxsparse") at byte ${position}. The file is damaged.`);
  const version = bytes.readUInt16BE(24);
  if (version !== 1) throw unsupported(`${name}: has a dynamic header of version ${version}; only 1 is known.`);
  const wrong = bytes.readUInt32BE(36) !== checksum(bytes, 36);
  const tableOffset = Number(bytes.readBigUInt64BE(16));
  const maxTableEntries = bytes.readUInt32BE(28);
  const blockSize = bytes.readUInt32BE(32);
  if (blockSize < 512 || (blockSize & (blockSize - 1)) !== 0)
    throw corrupt(`${name}: the dynamic header at byte ${position} tells of blocks of ${blockSize} bytes.`);
  if (maxTableEntries < Math.ceil(footer.size / blockSize))
    throw corrupt(
      `${name}: the block allocation table has ${maxTableEntries} entries, where ${footer.size} bytes in blocks of ${blockSize} need ${Math.ceil(footer.size / blockSize)}.`,
    );
  if (tableOffset + maxTableEntries * 4 > source.size)
    throw corrupt(
      `${name}: the block allocation table of ${maxTableEntries} entries at byte ${tableOffset} goes beyond the end, byte ${source.size}. The file is truncated or damaged.`,
    );
  const locators = [];
  for (let at = 576; at < 576 + 8 * 24; at += 24) {
    const code = bytes.toString("latin1", at, at + 4);
    const length = bytes.readUInt32BE(at + 8);
    if (code !== "\0\0\0\0") locators.push({ code, length, offset: Number(bytes.readBigUInt64BE(at + 16)) });
  }
  return {
    value: {
      tableOffset,
      maxTableEntries,
      blockSize,
      parentId: Buffer.from(bytes.subarray(40, 56)),
      parentTimestamp: bytes.readUInt32BE(56),
      parentName: utf16(Buffer.from(bytes.subarray(64, 576)).swap16()),
      locators,
    },
    complaints: wrong ? [`${name}: the dynamic header at byte ${position} fails its checksum.`] : [],
  };
}

/** Little-endian UTF-16 up to the first NUL. */
function utf16(bytes: Buffer): string {
  return bytes.toString("utf16le", 0, bytes.length & ~1).replace(/\0.*$/s, "");
}

/**
 * The paths of the parent as the locators record them, relative ones first. A locator that can't be read is passed:
 * another may lead to the parent, and the parent's id decides.
 */
export function parentPaths(source: ByteSource, header: DynamicHeader): string[] {
  const paths: { rank: number; path: string }[] = [];
  for (const { code, length, offset } of header.locators) {
    if (length === 0 || length > 65536 || offset + length > source.size) continue;
    const bytes = readExactly(source, offset, length, "a parent locator");
    const add = (rank: number, path: string) => paths.push({ rank, path });
    if (code === "W2ru") add(0, utf16(bytes));
    else if (code === "W2ku") add(2, utf16(bytes));
    else if (code === "Wi2r") add(1, bytes.toString("latin1").replace(/\0.*$/s, ""));
    else if (code === "Wi2k") add(3, bytes.toString("latin1").replace(/\0.*$/s, ""));
    else if (code === "MacX") add(1, pathOfUrl(bytes.toString("utf8").replace(/\0.*$/s, "")));
  }
  paths.sort((a, b) => a.rank - b.rank);
  return [...paths.map(({ path }) => path), header.parentName];
}

/** `file://localhost/a%20b` → `/a b`. Blocks of Linux (blktap) hold `file://./base.vhd`: relative. */
function pathOfUrl(url: string): string {
  const rest = url.replace(/^file:\/\/(localhost(?=\/))?/, "");
  try {
    return decodeURIComponent(rest);
  } catch {
    return rest;
  }
}

/** A GUID as VHD writes it: plainly, its bytes in order. */
export function idText(id: Buffer): string {
  return id.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** A time of VHD: seconds since 2000. */
export function timeText(timestamp: number): string {
  return new Date((timestamp + 946684800) * 1000).toISOString();
}
