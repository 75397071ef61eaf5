/**
 * Replays a journal in memory: finds which blocks of the filesystem are newer in the journal, and where. The log is a
 * ring of transactions; each is a few descriptor blocks, which name the blocks whose contents follow, perhaps revoke
 * blocks, which name blocks that older transactions must not touch, and a commit block. What has no commit block, or
 * another number than the next, is not part of it any more.
 *
 *     | descriptor: A B C | A' | B' | C' | revoke: D | commit | descriptor: A E | A" | E' | commit | old blocks …
 *
 * Nothing is written: `replay` returns a map from blocks to their places in the journal, the last one counting.
 */
import { updateCrc32c } from "../../../bytes/crc32c.js";
import { corrupt } from "../../../errors.js";
import { crc32be } from "./crc32be.js";
import { type JournalSuperblock, journalMagic } from "./superblock.js";

const descriptor = 1;
const commit = 2;
const revoke = 5;
const tagFlag = { escaped: 1, sameUuid: 2, last: 8 } as const;

/** Reads a block of the journal by its number in it. */
export type ReadJournalBlock = (number: number) => Buffer;

export interface Replayed {
  /** By block of the filesystem: the journal's block with its newest content. */
  readonly blocks: Map<number, JournalCopy>;
  readonly transactions: number;
  /** Sequence number of the transaction that would come next. */
  readonly next: number;
  /** Whether the transaction `next` is there, but its end is damaged, as when it was just being written. */
  readonly cut: boolean;
}

export interface JournalCopy {
  /** Block of the journal. */
  readonly block: number;
  /** The content begins with the journal's own signature, which the copy has zeros for. */
  readonly escaped: boolean;
  /** The copy does not match its checksum: the block can't be known. */
  readonly damaged: boolean;
}

interface Tag {
  readonly target: number;
  readonly block: number;
  readonly flags: number;
  readonly checksum: number;
}

interface Transaction {
  readonly sequence: number;
  readonly tags: Tag[];
  readonly revoked: Set<number>;
}

/** @throws ImageError `corrupt` when a transaction that was committed doesn't match its checksum. */
export function replay(name: string, journal: JournalSuperblock, read: ReadJournalBlock): Replayed {
  const { transactions, cut } = journal.start === 0 ? { transactions: [], cut: false } : committed(name, journal, read);
  /** The newest transaction that revokes a block: it and all before must not write it. */
  const revokedBy = new Map<number, number>();
  for (let index = 0; index < transactions.length; index++)
    for (const block of transactions[index].revoked) revokedBy.set(block, index);
  const blocks = new Map<number, JournalCopy>();
  transactions.forEach((transaction, index) => {
    for (const tag of transaction.tags) {
      if ((revokedBy.get(tag.target) ?? -1) >= index) continue;
      const damaged = journal.checksums !== 0 && !matches(journal, tag, transaction.sequence, read(tag.block));
      blocks.set(tag.target, { block: tag.block, escaped: (tag.flags & tagFlag.escaped) !== 0, damaged });
    }
  });
  return { blocks, transactions: transactions.length, next: (journal.sequence + transactions.length) >>> 0, cut };
}

function committed(
  name: string,
  journal: JournalSuperblock,
  read: ReadJournalBlock,
): { transactions: Transaction[]; cut: boolean } {
  const { first, end, start } = journal;
  const found: Transaction[] = [];
  let sequence = journal.sequence;
  let current: Transaction = { sequence, tags: [], revoked: new Set() };
  let number = start;
  let sum = 0xffffffff;
  let suspect = false;
  let lastTime = 0;
  const step = () => {
    const block = number;
    number = number + 1 >= end ? first : number + 1;
    return block;
  };
  // The log can't be longer than its ring: what comes after one turn is its own beginning.
  for (let left = end - first; left > 0; left--) {
    const bytes = read(step());
    if (bytes.readUInt32BE(0) !== journalMagic || bytes.readUInt32BE(8) !== sequence) break;
    const type = bytes.readUInt32BE(4);
    if (type === descriptor) {
      // Blocks left from an older use of this space can look like ours; the time of their commit gives them away.
      if (!tailMatches(journal, bytes)) suspect = true;
      if (journal.transactionChecksums) sum = crc32be(sum, bytes);
      for (const tag of tagsOf(journal, bytes)) {
        if (--left <= 0) return { transactions: found, cut: false };
        const block = step();
        if (journal.transactionChecksums) sum = crc32be(sum, read(block));
        current.tags.push({ ...tag, block });
      }
    } else if (type === revoke) {
      if (!tailMatches(journal, bytes)) suspect = true;
      else for (const block of revokedBlocks(journal, bytes)) current.revoked.add(block);
    } else if (type === commit) {
      const time = bytes.readUInt32BE(48) * 2 ** 32 + bytes.readUInt32BE(52);
      if (suspect && time >= lastTime)
        throw corrupt(
          `${name}: transaction ${sequence} of the journal does not match its checksum, so that what was written last can't be told. Run e2fsck on a copy of the image.`,
        );
      // Like the kernel: a commit block that is only half there ends the log, since it was just being written.
      if (suspect || !commitMatches(journal, bytes, sum)) return { transactions: found, cut: time >= lastTime };
      found.push(current);
      lastTime = time;
      sum = 0xffffffff;
      sequence = (sequence + 1) >>> 0;
      current = { sequence, tags: [], revoked: new Set() };
    } else break;
  }
  return { transactions: found, cut: false };
}

function* tagsOf(journal: JournalSuperblock, bytes: Buffer): Iterable<Omit<Tag, "block">> {
  const size = journal.checksums === 3 ? 16 : (journal.wide ? 12 : 8) + (journal.checksums === 2 ? 2 : 0);
  const end = bytes.length - (journal.checksums === 0 ? 0 : 4);
  for (let at = 12; at + size <= end; ) {
    const target = bytes.readUInt32BE(at) + (journal.wide ? bytes.readUInt32BE(at + 8) * 2 ** 32 : 0);
    const flags = journal.checksums === 3 ? bytes.readUInt32BE(at + 4) : bytes.readUInt16BE(at + 6);
    yield {
      target,
      flags,
      checksum: journal.checksums === 3 ? bytes.readUInt32BE(at + 12) : bytes.readUInt16BE(at + 4),
    };
    at += size + (flags & tagFlag.sameUuid ? 0 : 16);
    if (flags & tagFlag.last) return;
  }
}

/** Its count is in bytes, with the header of 16. */
function* revokedBlocks(journal: JournalSuperblock, bytes: Buffer): Iterable<number> {
  const size = journal.wide ? 8 : 4;
  const end = Math.min(bytes.readUInt32BE(12), bytes.length - (journal.checksums === 0 ? 0 : 4));
  for (let at = 16; at + size <= end; at += size)
    yield journal.wide ? bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4) : bytes.readUInt32BE(at);
}

const zero4 = new Uint8Array(4);

/** Descriptor and revoke blocks have their sum in the last four bytes. */
function tailMatches(journal: JournalSuperblock, bytes: Buffer): boolean {
  if (journal.checksums === 0) return true;
  const tail = bytes.length - 4;
  return updateCrc32c(updateCrc32c(journal.seed, bytes, 0, tail), zero4) === bytes.readUInt32BE(tail);
}

function commitMatches(journal: JournalSuperblock, bytes: Buffer, sum: number): boolean {
  if (journal.checksums !== 0) {
    const before = updateCrc32c(updateCrc32c(journal.seed, bytes, 0, 16), zero4);
    return updateCrc32c(before, bytes, 20) === bytes.readUInt32BE(16);
  }
  if (!journal.transactionChecksums) return true;
  const stored = bytes.readUInt32BE(16);
  return (bytes[12] === 1 && bytes[13] === 4 && stored === sum) || (bytes[12] === 0 && bytes[13] === 0 && stored === 0);
}

function matches(journal: JournalSuperblock, tag: Tag, sequence: number, bytes: Buffer): boolean {
  const number = Buffer.alloc(4);
  number.writeUInt32BE(sequence);
  const sum = updateCrc32c(updateCrc32c(journal.seed, number), bytes);
  return tag.checksum === (journal.checksums === 3 ? sum : sum & 0xffff);
}
