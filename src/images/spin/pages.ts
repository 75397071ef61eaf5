/**
 * The pages of a .spin file as FORMAT.md lays them out: each function packs or unpacks one kind, checks what it unpacks,
 * and knows nothing of the others.
 */
import { crc32 } from "node:zlib";
import type { ByteSource } from "../../bytes/byte-source.js";
import { readExactly } from "../../bytes/byte-source.js";
import { corrupt, unsupported } from "../../errors.js";
import { settings } from "../../settings.js";

/** Chunks a leaf covers, and children a node has (§4, §6). */
export const fanOut = 1024;
export const digestLength = 32;
export const skippableMagic = 0x184d2a5d;
const signature = Buffer.from("SPINDLE\x1a", "latin1");
/** Bytes of a skippable frame before its payload. */
export const frameHeader = 8;
export const headerLength = 48;
export const trailerLength = 240;
export const leafHeader = 32;
export const digestHeader = 24;
export const nodeHeader = 24;
export const entryLength = 32;
/** The longest metadata that is read, in bytes: far beyond what any tool writes, far below what hurts. */
const longestMetadata = 1 << 20;
const deepestLevel = 6;

/** The longest frame of a chunk in bytes (§3): Zstandard's own bound is below it. */
export const longestFrame = (chunkSize: number) => chunkSize + chunkSize / 256 + 128;

export const ChunkKind = { absent: 0, zero: 1, stored: 2 } as const;
export const ChildKind = { absent: 0, zero: 1, page: 2 } as const;

export interface Header {
  readonly id: Buffer;
  readonly chunkSize: number;
  readonly differential: boolean;
}

/** An entry of a node (§6). */
export interface NodeEntry {
  readonly kind: number;
  /** Position of the child's page in the file, and its length. */
  readonly at: number;
  readonly length: number;
  /** Chunks beneath that aren't zero on the whole disk. */
  readonly data: number;
  /** Stored chunks beneath in this layer, where the child is a leaf. */
  readonly stored: number;
}

export interface Trailer extends Header {
  readonly fileSize: number;
  readonly size: number;
  readonly contentRoot: Buffer;
  readonly root: NodeEntry;
  readonly rootLevel: number;
  readonly metadataAt: number;
  readonly metadataLength: number;
  readonly storedChunks: number;
  readonly storedBytes: number;
  readonly base: { readonly id: Buffer; readonly contentRoot: Buffer; readonly size: number } | undefined;
}

function u64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}

function putU64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

/** A skippable frame around `payload`, whose type and CRC are filled in (§1). */
export function frame(type: string, payload: Buffer, id: Buffer | undefined): Buffer {
  payload.write(type, 0, "latin1");
  payload.writeUInt32LE(crc32(payload.subarray(8), id ? crc32(id) : 0), 4);
  const head = Buffer.alloc(frameHeader);
  head.writeUInt32LE(skippableMagic, 0);
  head.writeUInt32LE(payload.length, 4);
  return Buffer.concat([head, payload]);
}

/** Reads one page and checks its type and CRC. */
function page(source: ByteSource, at: number, length: number, type: string, what: string, id: Buffer | undefined) {
  const bytes = readExactly(source, at, length, what);
  if (bytes.toString("latin1", 0, 4) !== type)
    throw corrupt(`${source.name}: ${what} at byte ${at} does not begin with ${type}. The file is damaged.`);
  if (bytes.readUInt32LE(4) !== crc32(bytes.subarray(8), id ? crc32(id) : 0))
    throw corrupt(`${source.name}: ${what} at byte ${at} fails its checksum. The file is damaged.`);
  return bytes;
}

/**
 * Whether `source` begins as a .spin file does (§2), or ends as one: a damaged header must not make a raw disk of it,
 * which could be written over a real one.
 */
export function hasSignature(source: ByteSource): boolean {
  if (source.size < frameHeader + headerLength) return false;
  const start = readExactly(source, 0, 24, "the header");
  if (start.readUInt32LE(0) === skippableMagic && start.subarray(16, 24).equals(signature)) return true;
  return (
    source.size > trailerLength && endsAsTrailer(readExactly(source, source.size - trailerLength, 16, "the trailer"))
  );
}

const endsAsTrailer = (start: Buffer) =>
  start.toString("latin1", 0, 4) === "SPTR" && start.subarray(8, 16).equals(signature);

function checkChunkSize(name: string, chunkSize: number): void {
  if (chunkSize < settings.smallestChunk || chunkSize > settings.largestChunk || (chunkSize & (chunkSize - 1)) !== 0)
    throw corrupt(`${name}: the chunk size ${chunkSize} is not a power of two from 16 KiB to 4 MiB.`);
}

function checkFlags(name: string, flags: number): void {
  if (flags > 1)
    throw unsupported(`${name}: was written by a newer Spindle (flags ${flags}); update Spindle to open it.`);
}

export function packHeader(header: Header): Buffer {
  const bytes = Buffer.alloc(headerLength);
  signature.copy(bytes, 8);
  bytes.writeUInt16LE(1, 16);
  bytes.writeUInt32LE(header.differential ? 1 : 0, 20);
  bytes.writeUInt32LE(header.chunkSize, 24);
  header.id.copy(bytes, 32);
  return frame("SPHD", bytes, undefined);
}

export function readHeader(source: ByteSource): Header {
  const bytes = page(source, frameHeader, headerLength, "SPHD", "the header", undefined);
  const version = bytes.readUInt16LE(16);
  if (version !== 1)
    throw unsupported(`${source.name}: is version ${version} of the .spin format, and this Spindle reads version 1.`);
  const flags = bytes.readUInt32LE(20);
  checkFlags(source.name, flags);
  const chunkSize = bytes.readUInt32LE(24);
  checkChunkSize(source.name, chunkSize);
  return { id: bytes.subarray(32, 48), chunkSize, differential: flags === 1 };
}

export function packEntry(entry: NodeEntry, bytes: Buffer, at: number): void {
  putU64(bytes, entry.at, at);
  bytes.writeUInt32LE(entry.length, at + 8);
  bytes.writeUInt32LE(entry.kind, at + 12);
  putU64(bytes, entry.data, at + 16);
  bytes.writeUInt32LE(entry.stored, at + 24);
}

export function unpackEntry(bytes: Buffer, at: number): NodeEntry {
  return {
    at: u64(bytes, at),
    length: bytes.readUInt32LE(at + 8),
    kind: bytes.readUInt32LE(at + 12),
    data: u64(bytes, at + 16),
    stored: bytes.readUInt32LE(at + 24),
  };
}

export function packTrailer(trailer: Trailer): Buffer {
  const bytes = Buffer.alloc(trailerLength);
  signature.copy(bytes, 8);
  trailer.id.copy(bytes, 16);
  putU64(bytes, trailer.fileSize, 32);
  putU64(bytes, trailer.size, 40);
  bytes.writeUInt32LE(trailer.chunkSize, 48);
  bytes.writeUInt32LE(trailer.differential ? 1 : 0, 52);
  trailer.contentRoot.copy(bytes, 56);
  packEntry(trailer.root, bytes, 88);
  bytes.writeUInt32LE(trailer.rootLevel, 120);
  putU64(bytes, trailer.metadataAt, 128);
  bytes.writeUInt32LE(trailer.metadataLength, 136);
  putU64(bytes, trailer.storedChunks, 144);
  putU64(bytes, trailer.storedBytes, 152);
  if (trailer.base) {
    trailer.base.id.copy(bytes, 160);
    trailer.base.contentRoot.copy(bytes, 176);
    putU64(bytes, trailer.base.size, 208);
  }
  return frame("SPTR", bytes, trailer.id);
}

/** Reads and checks the trailer (§8) against the header. */
export function readTrailer(source: ByteSource, header: Header): Trailer {
  const at = source.size - trailerLength;
  const start = at < frameHeader ? undefined : readExactly(source, at, 16, "the trailer");
  if (!start || !endsAsTrailer(start))
    throw corrupt(
      `${source.name}: has no trailer in its last ${trailerLength} bytes: the file is truncated, was never finished, or has bytes added at its end. Copy it again from where it came from.`,
    );
  const bytes = page(source, at, trailerLength, "SPTR", "the trailer", header.id);
  const fileSize = u64(bytes, 32);
  if (fileSize !== source.size)
    throw corrupt(
      `${source.name}: should be ${fileSize} bytes long and is ${source.size}: bytes were lost or added. Copy it again from where it came from.`,
    );
  const flags = bytes.readUInt32LE(52);
  const size = u64(bytes, 40);
  const chunkSize = bytes.readUInt32LE(48);
  const rootLevel = bytes.readUInt32LE(120);
  const differ = (what: string) => corrupt(`${source.name}: header and trailer disagree about the ${what}.`);
  checkFlags(source.name, flags);
  if (chunkSize !== header.chunkSize) throw differ("chunk size");
  if ((flags === 1) !== header.differential) throw differ("kind of image");
  if (!bytes.subarray(16, 32).equals(header.id)) throw differ("image id");
  if (!Number.isSafeInteger(size)) throw corrupt(`${source.name}: tells an impossible disk size of ${size} bytes.`);
  const leaves = Math.ceil(size / chunkSize / fanOut);
  if (rootLevel !== levelsFor(leaves))
    throw corrupt(`${source.name}: has an index of ${rootLevel} levels where its size asks for ${levelsFor(leaves)}.`);
  return {
    ...header,
    fileSize,
    size,
    contentRoot: bytes.subarray(56, 88),
    root: unpackEntry(bytes, 88),
    rootLevel,
    metadataAt: u64(bytes, 128),
    metadataLength: bytes.readUInt32LE(136),
    storedChunks: u64(bytes, 144),
    storedBytes: u64(bytes, 152),
    base: header.differential
      ? { id: bytes.subarray(160, 176), contentRoot: bytes.subarray(176, 208), size: u64(bytes, 208) }
      : undefined,
  };
}

/** Levels of nodes over `leaves` leaves: the fewest that cover them (§6). */
export function levelsFor(leaves: number): number {
  let level = 0;
  for (let covered = 1; leaves > 0 && (covered < leaves || level === 0); covered *= fanOut) level++;
  return Math.min(level, deepestLevel);
}

export function packMetadata(metadata: unknown, id: Buffer): Buffer {
  return frame("SPMD", Buffer.concat([Buffer.alloc(8), Buffer.from(JSON.stringify(metadata))]), id);
}

export function readMetadata(source: ByteSource, trailer: Trailer): Record<string, unknown> {
  if (trailer.metadataLength < 8 || trailer.metadataLength > longestMetadata)
    throw corrupt(`${source.name}: tells an impossible metadata length of ${trailer.metadataLength} bytes.`);
  const bytes = page(source, trailer.metadataAt, trailer.metadataLength, "SPMD", "the metadata", trailer.id);
  try {
    const value: unknown = JSON.parse(bytes.toString("utf8", 8));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // falls through to the one message
  }
  throw corrupt(`${source.name}: the metadata at byte ${trailer.metadataAt} is not a JSON object.`);
}

/** A leaf as it is used: where each chunk's frame lies, and how far on its kind continues. */
export interface Leaf {
  readonly count: number;
  readonly stored: number;
  readonly kinds: Uint8Array;
  /** Position of each chunk's frame in the file; its length is in `lengths`. */
  readonly positions: Float64Array;
  readonly lengths: Uint32Array;
  /** For each chunk the index after the last neighbour of the same kind. */
  readonly runEnds: Uint16Array;
  /** Position of the digest page in the file. */
  readonly digestsAt: number;
}

export function packLeaf(id: Buffer, firstChunk: number, at: number, entries: Uint32Array, stored: number): Buffer {
  const bytes = Buffer.alloc(leafHeader + 4 * entries.length);
  putU64(bytes, firstChunk, 8);
  putU64(bytes, at, 16);
  bytes.writeUInt32LE(entries.length, 24);
  bytes.writeUInt32LE(stored, 28);
  for (let i = 0; i < entries.length; i++) bytes.writeUInt32LE(entries[i]!, leafHeader + 4 * i);
  return frame("SPLF", bytes, id);
}

/** Reads the leaf that `entry` names, which must cover `count` chunks from `firstChunk` on. */
export function readLeaf(source: ByteSource, id: Buffer, entry: NodeEntry, firstChunk: number, count: number): Leaf {
  const what = `the index page of chunk ${firstChunk}`;
  if (entry.length !== leafHeader + 4 * count)
    throw corrupt(`${source.name}: ${what} at byte ${entry.at} has an impossible length of ${entry.length} bytes.`);
  const bytes = page(source, entry.at, entry.length, "SPLF", what, id);
  if (u64(bytes, 8) !== firstChunk || bytes.readUInt32LE(24) !== count)
    throw corrupt(`${source.name}: ${what} at byte ${entry.at} is that of other chunks.`);
  const kinds = new Uint8Array(count);
  const positions = new Float64Array(count);
  const lengths = new Uint32Array(count);
  const runEnds = new Uint16Array(count);
  let position = u64(bytes, 16);
  let stored = 0;
  for (let i = 0; i < count; i++) {
    const word = bytes.readUInt32LE(leafHeader + 4 * i);
    const kind = word >>> 30;
    if (kind > ChunkKind.stored)
      throw corrupt(`${source.name}: ${what} at byte ${entry.at} holds an unknown kind ${kind}.`);
    kinds[i] = kind;
    positions[i] = position;
    lengths[i] = word & 0x3fffffff;
    position += lengths[i]!;
    if (kind === ChunkKind.stored) stored++;
  }
  if (position > source.size)
    throw corrupt(`${source.name}: ${what} at byte ${entry.at} points beyond the end of the file.`);
  if (stored !== bytes.readUInt32LE(28) || stored !== entry.stored)
    throw corrupt(`${source.name}: ${what} at byte ${entry.at} contradicts itself about its stored chunks.`);
  for (let i = count - 1; i >= 0; i--)
    runEnds[i] = i + 1 < count && kinds[i] === kinds[i + 1] ? runEnds[i + 1]! : i + 1;
  return { count, stored, kinds, positions, lengths, runEnds, digestsAt: entry.at + entry.length + frameHeader };
}

export function packDigests(id: Buffer, firstChunk: number, digests: readonly Uint8Array[]): Buffer {
  const bytes = Buffer.alloc(digestHeader);
  putU64(bytes, firstChunk, 8);
  bytes.writeUInt32LE(digests.length, 16);
  return frame("SPDG", Buffer.concat([bytes, ...digests]), id);
}

/** The digests of a leaf's stored chunks, 32 bytes each, in order. */
export function readDigests(source: ByteSource, id: Buffer, leaf: Leaf, firstChunk: number): Buffer {
  const what = `the digest page of chunk ${firstChunk}`;
  const bytes = page(source, leaf.digestsAt, digestHeader + digestLength * leaf.stored, "SPDG", what, id);
  if (u64(bytes, 8) !== firstChunk || bytes.readUInt32LE(16) !== leaf.stored)
    throw corrupt(`${source.name}: ${what} at byte ${leaf.digestsAt} is that of other chunks.`);
  return bytes.subarray(digestHeader);
}

export function packNode(id: Buffer, firstChunk: number, level: number, entries: Buffer): Buffer {
  const bytes = Buffer.alloc(nodeHeader);
  putU64(bytes, firstChunk, 8);
  bytes.writeUInt32LE(level, 16);
  bytes.writeUInt32LE(entries.length / entryLength, 20);
  return frame("SPND", Buffer.concat([bytes, entries]), id);
}

/** The entries of the node that `entry` names, `count` of them. */
export function readNode(
  source: ByteSource,
  id: Buffer,
  entry: NodeEntry,
  level: number,
  firstChunk: number,
  count: number,
): Buffer {
  const what = `the index node of level ${level} for chunk ${firstChunk}`;
  if (entry.length !== nodeHeader + entryLength * count)
    throw corrupt(`${source.name}: ${what} at byte ${entry.at} has an impossible length of ${entry.length} bytes.`);
  const bytes = page(source, entry.at, entry.length, "SPND", what, id);
  if (u64(bytes, 8) !== firstChunk || bytes.readUInt32LE(16) !== level || bytes.readUInt32LE(20) !== count)
    throw corrupt(`${source.name}: ${what} at byte ${entry.at} is that of other chunks.`);
  return bytes.subarray(nodeHeader);
}
