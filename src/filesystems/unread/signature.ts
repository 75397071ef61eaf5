/**
 * How a thing that Spindle doesn't read is recognised: some bytes at a place of their own, and what stands around them.
 */
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { guidText } from "../../bytes/guid.js";

/** A row of the tables in this folder. All positions and lengths are in bytes. */
export interface Signature {
  /** As blkid(8) calls it, for example `xfs` or `crypto_LUKS`. */
  readonly type: string;
  /** In words, to follow "is": `an XFS filesystem`. */
  readonly what: string;
  /**
   * Where its structure may begin, how far behind that the signature stands, and the
   * signature, in Latin-1. Tried in this order.
   */
  readonly at: readonly (readonly [start: number, offset: number, signature: string])[];
  /** Whether the rest fits too, for signatures that other bytes may have by chance. */
  readonly fits?: Reading<boolean>;
  readonly label?: Reading<string>;
  /** Written as blkid writes it; empty where there is none. */
  readonly uuid?: Reading<string>;
}

/** Something that is read of the structure beginning at `start`. */
export type Reading<T> = (volume: Glance, start: number) => T;

/** A volume's bytes for looking at a few of them: what lies outside of it is zero. */
export class Glance {
  readonly size: number;

  constructor(private readonly source: ByteSource) {
    this.size = source.size;
  }

  /** @throws ImageError when the image is damaged there */
  bytes(position: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    if (position >= 0 && position < this.size) readFully(this.source, position, bytes);
    return bytes;
  }

  has(position: number, signature: string): boolean {
    if (position < 0 || position + signature.length > this.size) return false;
    return this.bytes(position, signature.length).equals(Buffer.from(signature, "latin1"));
  }

  u16 = (position: number) => this.bytes(position, 2).readUInt16LE();
  u32 = (position: number) => this.bytes(position, 4).readUInt32LE();
  u64 = (position: number) => this.bytes(position, 8).readBigUInt64LE();
  u16be = (position: number) => this.bytes(position, 2).readUInt16BE();
  u32be = (position: number) => this.bytes(position, 4).readUInt32BE();
  u64be = (position: number) => this.bytes(position, 8).readBigUInt64BE();
}

/** Text of up to `length` bytes that a NUL ends, without white space at its end. */
export const text =
  (offset: number, length: number, encoding: BufferEncoding = "utf8"): Reading<string> =>
  (volume, start) =>
    volume
      .bytes(start + offset, length)
      .toString(encoding)
      .replace(/\0.*/s, "")
      .trimEnd();

/** Sixteen bytes in hexadecimal with hyphens; none when all are zero. */
export const uuid =
  (offset: number): Reading<string> =>
  (volume, start) =>
    hyphened(volume.bytes(start + offset, 16));

export function hyphened(bytes: Uint8Array): string {
  if (bytes.every((byte) => byte === 0)) return "";
  return Buffer.from(bytes)
    .toString("hex")
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** The same of a GUID as Microsoft stores it. */
export const guid = (bytes: Uint8Array): string => (bytes.every((byte) => byte === 0) ? "" : guidText(bytes));
