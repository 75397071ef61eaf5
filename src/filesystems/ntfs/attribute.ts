import { u64 } from "./numbers.js";

/*
 * An attribute within a file record. All have the first 16 bytes:
 *
 *    0  type        4  length in the record    8  1: non-resident    9  length of its name in units
 *   10  where the name is    12  flags         14  instance number
 *
 * resident:       16  length of the value   20  where the value is
 * non-resident:   16  first cluster, 24 last cluster (VCNs of the file)   32  where the runs are   34  compression unit
 *                 (the first piece of an attribute only:) 40 allocated   48 size   56 valid size   64 really allocated
 */

export const STANDARD_INFORMATION = 0x10;
export const ATTRIBUTE_LIST = 0x20;
export const FILE_NAME = 0x30;
export const OBJECT_ID = 0x40;
export const SECURITY_DESCRIPTOR = 0x50;
export const VOLUME_NAME = 0x60;
export const VOLUME_INFORMATION = 0x70;
export const DATA = 0x80;
export const INDEX_ROOT = 0x90;
export const INDEX_ALLOCATION = 0xa0;
export const BITMAP = 0xb0;
export const REPARSE_POINT = 0xc0;
export const EA = 0xe0;
const END = 0xffffffff;

export const COMPRESSED = 0x0001;
export const COMPRESSION_MASK = 0x00ff;
export const ENCRYPTED = 0x4000;
export const SPARSE = 0x8000;

interface AttributeHeader {
  readonly type: number;
  readonly name: string;
  readonly flags: number;
  readonly instance: number;
}

export interface Resident extends AttributeHeader {
  readonly resident: true;
  readonly value: Buffer;
  /** Where the value lies in the volume, in bytes. */
  readonly position: number;
}

export interface NonResident extends AttributeHeader {
  readonly resident: false;
  /** Sizes in bytes. Only the first piece (firstCluster 0) has them; 0 in others. */
  readonly allocated: number;
  readonly size: number;
  /** Bytes from here to `size` were never written, and read as zeros. */
  readonly validSize: number;
  /** As `allocated`, without the holes of a sparse or compressed attribute. */
  readonly stored: number;
  /** Clusters of a compression unit are 2 to this power; 0 for no compression. */
  readonly compressionUnit: number;
  readonly firstCluster: number;
  readonly pairs: Buffer;
  /** Where further pieces of the same attribute are: records named by the attribute list, in the order of clusters. */
  further?: readonly Piece[];
}

export type Attribute = Resident | NonResident;

/** One entry of an attribute list. */
export interface Piece {
  readonly type: number;
  readonly name: string;
  readonly firstCluster: number;
  readonly record: number;
  readonly sequence: number;
  readonly instance: number;
}

/**
 * The attributes of a file record whose fixups are applied.
 * @param position of the record in the volume, in bytes.
 * @returns what is wrong, to follow `the record`, where they can't be read.
 */
export function parseAttributes(record: Buffer, position: number): Attribute[] | string {
  const used = record.readUInt32LE(24);
  if (used > record.length) return `says that ${used} of its ${record.length} bytes are used`;
  const attributes: Attribute[] = [];
  let at = record.readUInt16LE(20);
  if (at < 42 || at % 8 !== 0) return `has its first attribute at byte ${at}`;
  while (at + 4 <= used) {
    const type = record.readUInt32LE(at);
    if (type === END) break;
    const wrong = (what: string) => `has a damaged attribute at its byte ${at}: ${what}`;
    if (at + 24 > used) return wrong("it is cut off");
    const length = record.readUInt32LE(at + 4);
    if (length < 24 || length % 8 !== 0 || at + length > used) return wrong(`it has length ${length}`);
    const attribute = parseAttribute(record.subarray(at, at + length), type, position + at);
    if (typeof attribute === "string") return wrong(attribute);
    attributes.push(attribute);
    at += length;
  }
  return attributes;
}

function parseAttribute(bytes: Buffer, type: number, position: number): Attribute | string {
  const nameLength = bytes[9]!;
  const nameAt = bytes.readUInt16LE(10);
  if (nameLength > 0 && nameAt + nameLength * 2 > bytes.length) return "its name goes beyond it";
  const name = nameLength === 0 ? "" : bytes.toString("utf16le", nameAt, nameAt + nameLength * 2);
  const flags = bytes.readUInt16LE(12);
  const instance = bytes.readUInt16LE(14);
  if (bytes[8] === 0) {
    const length = bytes.readUInt32LE(16);
    const at = bytes.readUInt16LE(20);
    if (at + length > bytes.length) return `its value of ${length} bytes at ${at} goes beyond it`;
    const value = bytes.subarray(at, at + length);
    return { resident: true, type, name, flags, instance, value, position: position + at };
  }
  if (bytes.length < 64) return "it is too short for a non-resident one";
  const firstCluster = u64(bytes, 16);
  const pairsAt = bytes.readUInt16LE(32);
  const compressionUnit = bytes[34]!;
  if (pairsAt < 64 || pairsAt > bytes.length) return `its runs are at ${pairsAt}`;
  const first = firstCluster === 0;
  const allocated = first ? u64(bytes, 40) : 0;
  const size = first ? u64(bytes, 48) : 0;
  const validSize = first ? u64(bytes, 56) : 0;
  if (size === Number.POSITIVE_INFINITY || allocated === Number.POSITIVE_INFINITY || firstCluster > 2 ** 53)
    return "its size can't be";
  // The field is there for sparse and compressed attributes, and says so by the runs' place behind it.
  const stored = first && (flags & (COMPRESSION_MASK | SPARSE)) !== 0 && pairsAt >= 72 ? u64(bytes, 64) : allocated;
  return {
    resident: false,
    type,
    name,
    flags,
    instance,
    allocated,
    size,
    validSize: Math.min(validSize, size),
    stored: Math.min(stored, allocated),
    compressionUnit,
    firstCluster,
    pairs: bytes.subarray(pairsAt),
  };
}

/** The entries of an attribute list, in their order; what is wrong where they can't be read. */
export function parseAttributeList(list: Buffer): Piece[] | string {
  const pieces: Piece[] = [];
  for (let at = 0; at + 4 <= list.length; ) {
    const type = list.readUInt32LE(at);
    if (type === END || type === 0) break;
    if (at + 26 > list.length) return "its last entry is cut off";
    const length = list.readUInt16LE(at + 4);
    const nameLength = list[at + 6]!;
    const nameAt = at + list[at + 7]!;
    if (length < 26 || at + length > list.length || (nameLength > 0 && nameAt + nameLength * 2 > at + length))
      return `its entry at byte ${at} has a wrong length`;
    pieces.push({
      type,
      name: nameLength === 0 ? "" : list.toString("utf16le", nameAt, nameAt + nameLength * 2),
      firstCluster: u64(list, at + 8),
      record: list.readUIntLE(at + 16, 6),
      sequence: list.readUInt16LE(at + 22),
      instance: list.readUInt16LE(at + 24),
    });
    at += length;
  }
  return pieces;
}
