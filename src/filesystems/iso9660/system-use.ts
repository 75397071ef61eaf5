/**
 * The System Use Sharing Protocol (IEEE P1281): entries of a signature of two letters, a length, a version and data, in what
 * a directory record leaves free, and from there on in continuation areas.
 */
import { ImageError } from "../../errors.js";
import type { DirectoryRecord } from "./record.js";
import type { Volume } from "./volume.js";

/** A record's continuation areas: as many as Linux follows, and more bytes than a sensible record has. */
const MOST_AREAS = 32;
const MOST_BYTES = 128 << 10;

export const signature = (letters: string) => (letters.charCodeAt(0) << 8) | letters.charCodeAt(1);
const CE = signature("CE");
const ST = signature("ST");

/** @param entry the whole entry, from its signature on: a view, not to be kept. */
export type Visit = (signature: number, entry: Buffer) => void;

/**
 * Visits the entries of a record in order.
 * @param skip bytes before the first entry, as the volume's SP entry tells.
 * @throws ImageError `corrupt` for a continuation area that can't be.
 */
export function visitSystemUse(volume: Volume, record: DirectoryRecord, skip: number, visit: Visit): void {
  let area = record.systemUse.subarray(skip);
  let areas = 0;
  let bytes = 0;
  for (;;) {
    let next: { readonly position: number; readonly length: number } | undefined;
    for (let at = 0; at + 4 <= area.length; ) {
      const length = area[at + 2];
      // Zeros, or what isn't of this protocol, end the area.
      if (length < 4 || at + length > area.length) break;
      const found = (area[at] << 8) | area[at + 1];
      if (found === ST) break;
      const entry = area.subarray(at, at + length);
      if (found === CE && length >= 28)
        next = {
          position: entry.readUInt32LE(4) * volume.blockSize + entry.readUInt32LE(12),
          length: entry.readUInt32LE(20),
        };
      else visit(found, entry);
      at += length;
    }
    if (!next) return;
    bytes += next.length;
    if (++areas > MOST_AREAS || bytes > MOST_BYTES)
      throw volume.corrupt(record.position, "the directory record's continuation areas are too many or go in a circle");
    area = volume.pages.bytes(next.position, next.length, "a directory record's continuation area");
  }
}

/** What the root directory's own record tells of the extensions in use. */
export interface Extensions {
  readonly rockRidge: boolean;
  /** Bytes to skip in the system use field of every record but the root's own. */
  readonly skip: number;
  /** Those to skip in the root's own record, which tells `skip`. */
  readonly rootSkip: number;
  /** By which id the volume names its extensions. */
  readonly names: readonly string[];
}

const SP = signature("SP");
const ER = signature("ER");
const rockRidgeEntries = new Set(["RR", "PX", "NM"].map(signature));

export const noExtensions: Extensions = { rockRidge: false, skip: 0, rootSkip: 0, names: [] };

/** On media of the CD-ROM XA kind, 14 bytes of its own come first. */
const XA_BYTES = 14;

/** @param root the root directory's own record. */
export function readExtensions(volume: Volume, root: DirectoryRecord): Extensions {
  for (const start of [0, XA_BYTES]) {
    let skip: number | undefined;
    let rockRidge = false;
    const names: string[] = [];
    try {
      visitSystemUse(volume, root, start, (found, entry) => {
        if (found === SP && entry.length >= 7 && entry[4] === 0xbe && entry[5] === 0xef) skip ??= entry[6];
        else if (found === ER && entry.length >= 8) names.push(entry.toString("latin1", 8, 8 + entry[4]));
        else if (rockRidgeEntries.has(found)) rockRidge = true;
      });
    } catch (error) {
      // The names in ER lie in a continuation area: what the record itself tells is enough.
      if (!(error instanceof ImageError)) throw error;
    }
    if (rockRidge || names.some((name) => /^(RRIP_1991A|IEEE_P?1282)/.test(name)))
      return { rockRidge: true, skip: skip ?? start, rootSkip: start, names };
  }
  return noExtensions;
}
