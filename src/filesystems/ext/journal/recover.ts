import type { ByteSource } from "../../../bytes/byte-source.js";
import { readExactly } from "../../../bytes/byte-source.js";
import { unsupported } from "../../../errors.js";
import { stretchAt } from "../contents.js";
import { Inode } from "../inode.js";
import { mostJournalPieces } from "../limits.js";
import type { Volume } from "../volume.js";
import { fastCommitNotes, type Note } from "./fast-commits.js";
import { replay } from "./replay.js";
import { type Moved, ReplayedSource } from "./replayed-source.js";
import { readJournalSuperblock } from "./superblock.js";

export interface Recovery {
  readonly source: ByteSource;
  /** What fast commits change on top; `apply` them to the volume over `source`. */
  readonly notes: readonly Note[];
  /** What was done, in a sentence. */
  readonly told: string;
}

/**
 * The volume as the kernel would see it after replaying the journal at mount.
 * @throws ImageError when the journal can't be read: without it, files would be shown half old and half new.
 */
export function recover(volume: Volume): Recovery {
  const { superblock, name, source } = volume;
  const { blockSize } = superblock;
  if (superblock.journalInode === 0)
    throw unsupported(
      `${name}: the filesystem was taken while it was mounted, and its journal is on another device (UUID ${superblock.journalUuid}). Mount a copy of both once on Linux to replay it.`,
    );
  const file = Inode.read(volume, superblock.journalInode);
  const position = (number: number): number => {
    const { physical } = stretchAt(file, number);
    if (physical === 0) throw file.corrupt(`is the journal, and has no block ${number}`);
    return physical * blockSize;
  };
  checkPieces(file);
  const read = (number: number) => readExactly(source, position(number), blockSize, `block ${number} of the journal`);
  const journal = readJournalSuperblock(name, read(0), Math.floor(file.size / blockSize));
  const { blocks, transactions, next, cut } = replay(name, journal, read);
  const end = Math.floor(file.size / blockSize);
  const notes =
    journal.start !== 0 && journal.fastCommits > 0 ? fastCommitNotes(name, read, journal.fastCommits, end, next) : [];
  const moved = new Map<number, Moved>();
  for (const [block, copy] of blocks)
    if (block < superblock.blocks) moved.set(block, { ...copy, position: position(copy.block) });
  const count =
    transactions === 1 ? "1 transaction of its journal is" : `${transactions} transactions of its journal are`;
  const told = `The filesystem was taken while it was mounted: ${count} applied in memory (${moved.size} blocks).`;
  const further = notes.length > 0 ? ` Fast commits of later changes (${notes.length} notes) are applied too.` : "";
  return {
    source: new ReplayedSource(source, blockSize, moved),
    notes,
    told: cut ? `${told} One more was incomplete or damaged and is left out.` : told + further,
  };
}

/**
 * A crafted journal could consist of the same few blocks a million times, and would be read a million times: its pieces
 * must not overlap.
 * @throws ImageError `corrupt`
 */
function checkPieces(file: Inode): void {
  const count = Math.floor(file.size / file.volume.superblock.blockSize);
  const pieces: { readonly physical: number; readonly count: number }[] = [];
  for (let number = 0; number < count; ) {
    const piece = stretchAt(file, number);
    if (piece.physical !== 0) pieces.push({ physical: piece.physical, count: Math.min(piece.count, count - number) });
    if (pieces.length > mostJournalPieces) throw file.corrupt(`is the journal, in over ${mostJournalPieces} pieces`);
    number += piece.count;
  }
  pieces.sort((one, other) => one.physical - other.physical);
  for (let index = 1; index < pieces.length; index++)
    if (pieces[index - 1].physical + pieces[index - 1].count > pieces[index].physical)
      throw file.corrupt(`is the journal, and has block ${pieces[index].physical} twice`);
}
