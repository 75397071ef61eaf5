/** Names of FAT: eleven bytes in the code page of the machine that wrote them, or a long name in UTF-16. */
import type { DecodeOem } from "./code-pages.js";

/** Bits of an entry's byte 12, by which Windows NT keeps names that need no long one in lower case. */
const LOWER_BASE = 0x08;
const LOWER_EXTENSION = 0x10;

/** The name of a directory entry of 32 bytes; empty where there is none. */
export function shortName(entry: Uint8Array, decode: DecodeOem): string {
  const raw = Buffer.from(entry.subarray(0, 11));
  // A first byte of 0xe5 would mark the entry deleted, so it is kept as 5.
  if (raw[0] === 0x05) raw[0] = 0xe5;
  const base = part(raw.subarray(0, 8), (entry[12]! & LOWER_BASE) !== 0, decode);
  const extension = part(raw.subarray(8, 11), (entry[12]! & LOWER_EXTENSION) !== 0, decode);
  return extension === "" ? base : `${base}.${extension}`;
}

function part(bytes: Buffer, lower: boolean, decode: DecodeOem): string {
  const nul = bytes.indexOf(0);
  const text = decode(nul < 0 ? bytes : bytes.subarray(0, nul)).replace(/ +$/, "");
  return lower ? text.toLowerCase() : text;
}

/** The checksum of the short name that each entry of a long name repeats. */
export function shortNameChecksum(entry: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < 11; at++) sum = (((sum & 1) << 7) + (sum >>> 1) + entry[at]!) & 0xff;
  return sum;
}

/** The label of a boot sector or of a root entry, without the spaces at its end. */
export const labelText = (bytes: Uint8Array, decode: DecodeOem) => {
  const raw = Buffer.from(bytes);
  if (raw[0] === 0x05) raw[0] = 0xe5;
  return decode(raw).replace(/[ \0]+$/, "");
};

const LAST = 0x40;
/** Entries of a long name: 255 characters, 13 each. */
const MOST_PARTS = 20;
const CHARACTERS = 13;

/**
 * Puts a long name together from the entries before its short one, which come last part first. Parts that are out of
 * order, that miss some or that belong to another short name (an old DOS renamed or deleted that one) count as none.
 */
export class LongName {
  private readonly units = Buffer.alloc(MOST_PARTS * CHARACTERS * 2);
  private parts = 0;
  /** Number of the part that has to come next; 0 when all came, -1 when there is no name. */
  private missing = -1;
  private checksum = 0;

  /** Takes the next entry, which has the attributes of a part of a long name. */
  add(entry: Buffer): void {
    const number = entry[0]! & ~LAST;
    if (entry[0]! & LAST && number >= 1 && number <= MOST_PARTS) {
      this.parts = number;
      this.checksum = entry[13]!;
    } else if (number !== this.missing || number === 0 || entry[13] !== this.checksum) {
      this.missing = -1;
      return;
    }
    const at = (number - 1) * CHARACTERS * 2;
    entry.copy(this.units, at, 1, 11);
    entry.copy(this.units, at + 10, 14, 26);
    entry.copy(this.units, at + 22, 28, 32);
    this.missing = number - 1;
  }

  forget(): void {
    this.missing = -1;
  }

  /** The long name of the short entry that comes now, undefined when it has none; the parts are used up. */
  take(entry: Buffer): string | undefined {
    const complete = this.missing === 0 && this.checksum === shortNameChecksum(entry);
    this.missing = -1;
    if (!complete) return undefined;
    const name = this.units.toString("utf16le", 0, this.parts * CHARACTERS * 2);
    const end = name.indexOf("\0");
    return end < 0 ? name : name.slice(0, end);
  }
}
