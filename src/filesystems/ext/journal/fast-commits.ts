/**
 * Fast commits (Documentation/filesystems/ext4, "Fast commits"): the last changes since the last full transaction, written
 * as short notes into the blocks behind the log. A note is a tag, a length and a value; several fsyncs follow each other,
 * each ended by a tail with a checksum of all its notes.
 *
 *     | head | inode 12 | blocks of 12 | name in 2 | … | tail, checksum | inode 12 | … | tail, checksum | old bytes …
 *
 * This file finds the notes that count; changes.ts keeps what they say.
 */
import { updateCrc32c } from "../../../bytes/crc32c.js";
import { unsupported } from "../../../errors.js";
import { mostFastCommitBytes } from "../limits.js";
import type { ReadJournalBlock } from "./replay.js";

export const tags = {
  addRange: 1,
  deleteRange: 2,
  create: 3,
  link: 4,
  unlink: 5,
  inode: 6,
  pad: 7,
  tail: 8,
  head: 9,
} as const;

export interface Note {
  readonly tag: number;
  readonly value: Buffer;
}

/**
 * The notes on top of the transactions up to `next`, in order; those after the last tail that is right were just being
 * written. None when the area holds none, or those of an older transaction.
 *
 * @param first block of the area. @param end block behind it.
 * @throws ImageError `unsupported` for features that aren't known.
 */
export function fastCommitNotes(
  name: string,
  read: ReadJournalBlock,
  first: number,
  end: number,
  next: number,
): Note[] {
  const notes: Note[] = [];
  let complete = 0;
  let bytesRead = 0;
  let sum = 0;
  for (let number = first; number < end; number++) {
    const bytes = read(number);
    bytesRead += bytes.length;
    if (bytesRead > mostFastCommitBytes)
      throw unsupported(
        `${name}: the fast commits in its journal take more than ${mostFastCommitBytes} bytes. Mount a copy of the image once on Linux, and use that.`,
      );
    if (number === first && bytes.readUInt16LE(0) !== tags.head) break;
    let goesOn = true;
    for (let at = 0; at + 4 <= bytes.length && goesOn; ) {
      const tag = bytes.readUInt16LE(at);
      const length = bytes.readUInt16LE(at + 2);
      const value = bytes.subarray(at + 4, at + 4 + length);
      if (tag === 0 || tag > tags.head || value.length < length) return notes.slice(0, complete);
      if (tag === tags.tail) {
        // Its checksum covers its own number of the transaction; what fills the block behind it means nothing.
        if (length < 8) return notes.slice(0, complete);
        sum = updateCrc32c(sum, bytes, at, at + 8);
        if (value.readUInt32LE(0) !== next || value.readUInt32LE(4) !== sum) return notes.slice(0, complete);
        complete = notes.length;
        sum = 0;
        goesOn = false;
      } else {
        sum = updateCrc32c(sum, bytes, at, at + 4 + length);
        if (tag === tags.head) {
          if (length < 8 || value.readUInt32LE(4) !== next) return notes.slice(0, complete);
          if (value.readUInt32LE(0) !== 0)
            throw unsupported(
              `${name}: the fast commits in its journal have features (0x${value.readUInt32LE(0).toString(16)}) that Spindle doesn't know. Mount a copy of the image once on Linux, and use that.`,
            );
        } else if (tag !== tags.pad) notes.push({ tag, value: Buffer.from(value) });
        goesOn = tag !== tags.pad;
      }
      at += 4 + length;
    }
  }
  return notes.slice(0, complete);
}
