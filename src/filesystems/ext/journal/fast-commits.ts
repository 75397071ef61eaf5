/**
 * Fast commits: the last changes since the last full transaction, written as short notes ("inode 12 is now so", "name a
 * in directory 2 is inode 12") into the blocks behind the log. Replaying them takes the filesystem's own logic, so that
 * they are only found here, and told: whoever ignored them would show files as they were before their last fsync.
 */
import { updateCrc32c } from "../../../bytes/crc32c.js";
import type { ReadJournalBlock } from "./replay.js";

const tag = { pad: 7, tail: 8, head: 9 } as const;

/** Whether the area holds a complete fast commit on top of the transactions up to `next`. */
export function hasFastCommit(read: ReadJournalBlock, first: number, end: number, next: number): boolean {
  let sum = 0;
  for (let number = first; number < end; number++) {
    const bytes = read(number);
    if (number === first && (bytes.readUInt16LE(0) !== tag.head || bytes.readUInt32LE(8) !== next)) return false;
    for (let at = 0; at + 4 <= bytes.length; ) {
      const kind = bytes.readUInt16LE(at);
      const length = bytes.readUInt16LE(at + 2);
      if (kind === 0 || kind > tag.head || at + 4 + length > bytes.length) return false;
      if (kind === tag.tail) {
        if (length < 8) return false;
        sum = updateCrc32c(sum, bytes, at, at + 8);
        return bytes.readUInt32LE(at + 4) === next && bytes.readUInt32LE(at + 8) === sum;
      }
      sum = updateCrc32c(sum, bytes, at, at + 4 + length);
      at += 4 + length;
      if (kind === tag.pad) break;
    }
  }
  return false;
}
