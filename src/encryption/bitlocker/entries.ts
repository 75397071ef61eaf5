/**
 * The entries of which BitLocker's metadata and its key files consist (libbde's "BitLocker Drive Encryption (BDE) format",
 * section "FVE metadata entry"): a size, what it is for, what it is, and data, which may be entries again.
 */
import { guidText } from "../../bytes/guid.js";

export interface Entry {
  /** What it is for. */
  readonly role: number;
  /** What it is. */
  readonly type: number;
  readonly data: Buffer;
}

export const Role = { dataKey: 3, startupKey: 6, label: 7, header: 15 } as const;
export const Type = {
  key: 1,
  text: 2,
  stretchedKey: 3,
  sealedKey: 5,
  protector: 8,
  externalKey: 9,
  place: 15,
} as const;

/** Bytes before an entry's data. */
const head = 8;

/** @throws what `damaged` makes of a sentence without a subject, when an entry is longer than what holds it */
export function readEntries(bytes: Buffer, damaged: (what: string) => Error): Entry[] {
  const entries: Entry[] = [];
  for (let at = 0; at + head <= bytes.length; ) {
    const size = bytes.readUInt16LE(at);
    if (size === 0) break;
    if (size < head || at + size > bytes.length)
      throw damaged(`an entry tells of ${size} bytes where ${bytes.length - at} are left`);
    const [role, type] = [bytes.readUInt16LE(at + 2), bytes.readUInt16LE(at + 4)];
    entries.push({ role, type, data: bytes.subarray(at + head, at + size) });
    at += size;
  }
  return entries;
}

/** A 64-bit number, little-endian: exact to 2^53, and beyond that larger than any volume. */
export const u64 = (bytes: Buffer, at: number) => bytes.readUInt32LE(at + 4) * 0x100000000 + bytes.readUInt32LE(at);

/** A protector's GUID in capitals, as Windows shows it and names key files. */
export const protectorId = (bytes: Buffer) => guidText(bytes).toUpperCase();

/** Text with the zero that ends it taken away. */
export const text = (bytes: Buffer) => bytes.toString("utf16le").replace(/\0.*$/s, "");
