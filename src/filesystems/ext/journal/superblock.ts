/**
 * The journal's own superblock, in the first block of its file (Documentation/filesystems/ext4, "Journal (jbd2)").
 * Everything in a journal is big-endian.
 */
import { updateCrc32c } from "../../../bytes/crc32c.js";
import { corrupt, unsupported } from "../../../errors.js";

export const journalMagic = 0xc03b3998;
const known = { revoke: 1, sixtyFourBit: 2, asyncCommit: 4, csumV2: 8, csumV3: 16, fastCommit: 32 } as const;

export interface JournalSuperblock {
  /** Blocks from here on are the log, up to `end`. */
  readonly first: number;
  readonly end: number;
  /** Where the log begins that has to be replayed; 0 when there is nothing to do. */
  readonly start: number;
  readonly sequence: number;
  readonly wide: boolean;
  /** Version of the checksums of single blocks, or 0. */
  readonly checksums: 0 | 2 | 3;
  /** Checksums of whole transactions, of before. */
  readonly transactionChecksums: boolean;
  /** Where fast commits begin, behind the log; 0 for none. */
  readonly fastCommits: number;
  readonly seed: number;
}

/** @param name of the volume, for messages. @param blocks of the journal's file. */
export function readJournalSuperblock(name: string, bytes: Buffer, blocks: number): JournalSuperblock {
  const wrong = (what: string) => corrupt(`${name}: the journal ${what}. Run e2fsck on a copy of the image.`);
  const type = bytes.readUInt32BE(4);
  if (bytes.readUInt32BE(0) !== journalMagic || (type !== 3 && type !== 4)) throw wrong("has no signature");
  const extended = type === 4;
  const incompat = extended ? bytes.readUInt32BE(40) : 0;
  const unknown = incompat & ~Object.values(known).reduce((sum, bit) => sum | bit, 0);
  if (unknown !== 0)
    throw unsupported(
      `${name}: its journal uses a feature (0x${unknown.toString(16)}) that Spindle doesn't know. Mount a copy of the image once on Linux to empty the journal.`,
    );
  const checksums = incompat & known.csumV3 ? 3 : incompat & known.csumV2 ? 2 : 0;
  if (checksums !== 0) {
    const sum = updateCrc32c(updateCrc32c(0xffffffff, bytes, 0, 252), new Uint8Array(4));
    if (bytes[80] !== 4) throw wrong(`has checksums of the unknown type ${bytes[80]}`);
    if (updateCrc32c(sum, bytes, 256, 1024) !== bytes.readUInt32BE(252)) throw wrong("does not match its checksum");
  }
  if (bytes.readUInt32BE(12) !== bytes.length) throw wrong(`has blocks of ${bytes.readUInt32BE(12)} bytes`);
  const length = bytes.readUInt32BE(16);
  const first = bytes.readUInt32BE(20);
  const start = bytes.readUInt32BE(28);
  if (length > blocks) throw wrong(`should have ${length} blocks, but its file has ${blocks}`);
  const fastCommits = incompat & known.fastCommit ? bytes.readUInt32BE(84) || 256 : 0;
  const end = length - fastCommits;
  if (first === 0 || first >= end) throw wrong(`begins at block ${first} of ${end}`);
  if (start !== 0 && (start < first || start >= end)) throw wrong(`is to be replayed from block ${start} of ${end}`);
  return {
    first,
    end,
    start,
    sequence: bytes.readUInt32BE(24),
    wide: (incompat & known.sixtyFourBit) !== 0,
    checksums,
    transactionChecksums: extended && checksums === 0 && (bytes.readUInt32BE(36) & 1) !== 0,
    fastCommits: fastCommits === 0 ? 0 : end + 1,
    seed: updateCrc32c(0xffffffff, bytes, 48, 64),
  };
}
