/**
 * A file's directory entries, 32 bytes each: one File entry with attributes and times, one Stream Extension with size and
 * place, and as many File Name entries as the name needs at 15 characters each (specification, 7.4, 7.6 and 7.7).
 */
import { dosTime } from "../dos-time.js";
import type { Time } from "../filesystem.js";

export const ENTRY = 32;
/** Types of entries. The highest bit tells that one is used; 0x40 that it belongs to the one before; 0x20 that it may be ignored. */
export const END_OF_DIRECTORY = 0;
export const BITMAP = 0x81;
export const UPCASE = 0x82;
export const VOLUME_LABEL = 0x83;
export const FILE = 0x85;
const STREAM = 0xc0;
const NAME = 0xc1;
const NAME_CHARACTERS = 15;
const DIRECTORY = 0x10;
const NO_FAT_CHAIN = 0x02;

export const isUsed = (type: number) => (type & 0x80) !== 0;
export const isSecondary = (type: number) => (type & 0x40) !== 0;

/**
 * How many entries follow a File entry; undefined for a number that can't be. A stream and the longest name make 18; a maker's own
 * may follow.
 */
export const secondaryCount = (file: Uint8Array): number | undefined => (file[1]! >= 2 ? file[1]! : undefined);

/** What a set of entries says of its file. */
export interface FileRecord {
  readonly attributes: number;
  readonly isDirectory: boolean;
  /** In bytes; what lies at and beyond `valid` was never written and reads as zeros. */
  readonly size: number;
  readonly valid: number;
  readonly firstCluster: number;
  /** The clusters are side by side, and the allocation table doesn't tell of them. */
  readonly isContiguous: boolean;
  readonly born: Time;
  readonly modified: Time;
  readonly accessed: Time;
}

/** The name in a set of entries; undefined when the set is none of a file. */
export function nameOf(set: Buffer): string | undefined {
  if (set[ENTRY] !== STREAM) return undefined;
  const length = set[ENTRY + 3]!;
  const entries = Math.ceil(length / NAME_CHARACTERS);
  if (length === 0 || (entries + 2) * ENTRY > set.length) return undefined;
  let name = "";
  for (let index = 0; index < entries; index++) {
    const at = (index + 2) * ENTRY;
    if (set[at] !== NAME) return undefined;
    name += set.toString("utf16le", at + 2, at + ENTRY);
  }
  return name.slice(0, length);
}

/** Whether a set of entries is of a directory. */
export const isDirectory = (set: Buffer) => (set.readUInt16LE(4) & DIRECTORY) !== 0;

export function recordOf(set: Buffer): FileRecord {
  const size = uint64(set, ENTRY + 24);
  return {
    attributes: set.readUInt16LE(4),
    isDirectory: isDirectory(set),
    size,
    valid: Math.min(size, uint64(set, ENTRY + 8)),
    firstCluster: set.readUInt32LE(ENTRY + 20),
    isContiguous: (set[ENTRY + 1]! & NO_FAT_CHAIN) !== 0,
    born: time(set, 8, set[20]!, set[22]!),
    modified: time(set, 12, set[21]!, set[23]!),
    accessed: time(set, 16, 0, set[24]!),
  };
}

/** Exact below 2^53; what is more is no size that can be read, and found so by its caller. */
const uint64 = (bytes: Buffer, at: number) => bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x100000000;

function time(set: Buffer, at: number, hundredths: number, zone: number): Time {
  const { seconds, nanoseconds } = dosTime(set.readUInt16LE(at + 2), set.readUInt16LE(at), hundredths);
  if (!(zone & 0x80)) return { seconds, nanoseconds };
  // Seven bits with a sign, in quarters of an hour that local time is ahead.
  return { seconds: seconds - ((zone << 25) >> 25) * 900, nanoseconds };
}

/** The checksum of a set, without the two bytes that hold it. */
export function setChecksum(set: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < set.length; at++) {
    if (at === 2 || at === 3) continue;
    sum = (((sum << 15) | (sum >>> 1)) + set[at]!) & 0xffff;
  }
  return sum;
}
