/**
 * Directory entries (Documentation/filesystems/ext4, "Linear Directories"): inode number, length of the record, length
 * of the name, kind, name. Records fill a block to its end; inode 0 marks one that is unused. The index of a hashed
 * directory hides in such unused records, so that reading all blocks in order finds every entry.
 */
import type { FileKind } from "../filesystem.js";

/** A walk over the records in part of a block. `next` steps; then the fields tell the entry. Nothing is allocated. */
export class EntryCursor {
  inode = 0;
  nameStart = 0;
  nameEnd = 0;
  type = 0;
  /** Where the current record begins. */
  at = 0;
  /** Where a record broke the rules: nothing behind it can be told. -1 while all is well. */
  brokenAt = -1;
  private following: number;

  constructor(
    readonly bytes: Buffer,
    start: number,
    private readonly end: number,
    private readonly typed: boolean,
  ) {
    this.following = start;
  }

  /** Steps to the next entry in use whose name a directory may list; false at the end. */
  next(): boolean {
    const { bytes, end } = this;
    for (;;) {
      const at = this.following;
      if (at >= end) return false;
      const length = at + 8 <= end ? recordLength(bytes.readUInt16LE(at + 4), bytes.length) : 0;
      const nameLength = at + 8 <= end ? bytes[at + 6] : 0;
      if (length < 8 + nameLength || length < 12 || length % 4 !== 0 || at + length > end) {
        this.brokenAt = at;
        this.following = end;
        return false;
      }
      this.following = at + length;
      this.inode = bytes.readUInt32LE(at);
      this.at = at;
      this.nameStart = at + 8;
      this.nameEnd = at + 8 + nameLength;
      this.type = this.typed ? bytes[at + 7] : 0;
      if (this.inode !== 0 && this.listable()) return true;
    }
  }

  /** Not empty, `.` or `..`, and without `/` and NUL, which no name on Linux has. */
  private listable(): boolean {
    const { bytes, nameStart, nameEnd } = this;
    const length = nameEnd - nameStart;
    if (length === 0 || length > 255) return false;
    if (bytes[nameStart] === 0x2e && (length === 1 || (length === 2 && bytes[nameStart + 1] === 0x2e))) return false;
    for (let at = nameStart; at < nameEnd; at++) if (bytes[at] === 0x2f || bytes[at] === 0) return false;
    return true;
  }

  names(name: Uint8Array): boolean {
    const { bytes, nameStart } = this;
    if (this.nameEnd - nameStart !== name.length) return false;
    for (let index = 0; index < name.length; index++) if (bytes[nameStart + index] !== name[index]) return false;
    return true;
  }
}

/** The length of a record in a block of 64 KiB does not fit into 16 bits: the two lowest, which are 0, hold the highest. */
export function recordLength(stored: number, blockSize: number): number {
  if (blockSize < 65536) return stored;
  if (stored === 65535 || stored === 0) return blockSize;
  return (stored & 65532) | ((stored & 3) << 16);
}

/** File kinds by the type byte of an entry. */
export const entryKinds: readonly (FileKind | undefined)[] = [
  undefined,
  "file",
  "directory",
  "character",
  "block",
  "fifo",
  "socket",
  "symlink",
];
