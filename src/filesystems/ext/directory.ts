/**
 * Directories: listing, and finding a name. A directory of several blocks is searched through an index of its own making
 * (name-index.ts), which serves hashed and linear directories alike.
 */
import { updateCrc32c } from "../../bytes/crc32c.js";
import { ImageError } from "../../errors.js";
import type { Entry, FileKind } from "../filesystem.js";
import { inlineData, refuseEncrypted, stretchAt } from "./contents.js";
import { EntryCursor, entryKinds, recordLength } from "./entries.js";
import { incompat } from "./features.js";
import { Inode } from "./inode.js";
import { mostDamagedBlocks } from "./limits.js";
import { Structure, verifiedAs } from "./verified.js";
import type { Block } from "./volume.js";

/** A piece of a directory: a block, or a part of inline data. */
export interface Piece {
  readonly cursor: EntryCursor;
  /** Byte in the directory that the cursor's byte 0 is. */
  readonly offset: number;
}

/**
 * The pieces of a directory in order. Damaged ones are passed over, and thrown at the end: what can be read is read
 * first, and nobody takes the rest for all.
 * @throws ImageError `corrupt` naming the first damage; `unsupported` for an encrypted directory.
 */
export function* pieces(directory: Inode): Generator<Piece> {
  if (directory.kind !== "directory") throw directory.corrupt("is not a directory");
  refuseEncrypted(directory, "the names in it");
  const damage = new Damage();
  if (directory.inline) yield* inlinePieces(directory, damage);
  else yield* blockPieces(directory, damage);
  if (damage.first) throw damage.first;
}

/** The first thing that was wrong. */
class Damage {
  first: ImageError | undefined;
  count = 0;

  note(error: unknown): void {
    if (!(error instanceof ImageError)) throw error;
    this.first ??= error;
    this.count++;
  }

  /** After a piece was read. */
  check(directory: Inode, position: number, cursor: EntryCursor): void {
    if (cursor.brokenAt >= 0)
      this.note(
        directory.volume.corrupt(
          position + cursor.brokenAt,
          `directory inode ${directory.number} has a damaged entry; names behind it in this block are lost`,
        ),
      );
  }
}

function* blockPieces(directory: Inode, damage: Damage): Generator<Piece> {
  const { volume } = directory;
  const { blockSize } = volume.superblock;
  const typed = isTyped(directory);
  const count = Math.ceil(directory.size / blockSize);
  // A block has one place in one directory: a crafted one that names its blocks again and again would have no end.
  const seen = new Set<number>();
  for (let logical = 0; logical < count; ) {
    let length = 1;
    let physical = 0;
    try {
      const stretch = stretchAt(directory, logical);
      length = Math.min(stretch.count, count - logical);
      physical = stretch.physical;
    } catch (error) {
      damage.note(error);
      // The map is damaged: what lies behind can't be told either, block by block it would only fail again.
      return;
    }
    if (physical !== 0)
      for (let index = 0; index < length; index++) {
        if (seen.has(physical + index))
          throw directory.corrupt(`is a directory that has block ${physical + index} twice`);
        seen.add(physical + index);
        if (damage.count > mostDamagedBlocks) return;
        let block: Block;
        try {
          block = volume.block(physical + index, `directory inode ${directory.number}`);
          verify(directory, block, logical + index);
        } catch (error) {
          damage.note(error);
          continue;
        }
        const cursor = new EntryCursor(block.bytes, 0, blockSize, typed);
        yield { cursor, offset: (logical + index) * blockSize };
        damage.check(directory, block.position, cursor);
      }
    logical += length;
  }
}

/** Four bytes are the parent's number; entries fill the rest of i_block, and then the rest of the inline data. */
function* inlinePieces(directory: Inode, damage: Damage): Generator<Piece> {
  const bytes = inlineData(directory);
  const typed = isTyped(directory);
  const end = Math.min(bytes.length, Math.max(60, directory.size));
  for (const [start, stop] of [
    [4, 60],
    [60, end],
  ]) {
    const cursor = new EntryCursor(bytes, start, stop, typed);
    yield { cursor, offset: 0 };
    damage.check(directory, directory.position, cursor);
  }
}

const isTyped = (directory: Inode) => (directory.volume.superblock.incompat & incompat.filetype) !== 0;

export function* listDirectory(directory: Inode): Generator<Entry> {
  const changed = directory.volume.changes?.directory(directory.number);
  for (const [name, now] of changed?.names ?? [])
    if (now) yield { name: Buffer.from(name, "latin1"), file: now.inode, kind: now.kind };
  if (changed?.fresh) return;
  for (const { cursor } of pieces(directory))
    while (cursor.next()) {
      const { inode: file, bytes, nameStart, nameEnd, type } = cursor;
      if (changed?.names.has(bytes.toString("latin1", nameStart, nameEnd))) continue;
      // A copy: the entry shall not keep its block alive, nor be changed with it. By hand: half the time of any call for it.
      const name = new Uint8Array(nameEnd - nameStart);
      for (let at = nameStart; at < nameEnd; at++) name[at - nameStart] = bytes[at];
      yield { name, file, kind: entryKinds[type] ?? kindOf(directory, file) };
    }
}

/** Without the feature filetype, the kind is in the inode only. A damaged inode tells its damage when it is asked for. */
function kindOf(directory: Inode, file: number): FileKind {
  try {
    return Inode.read(directory.volume, file).kind;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return "file";
  }
}

/** The inode of `name`, searching from the beginning: right for few entries. */
export function findLinearly(directory: Inode, name: Uint8Array): number | undefined {
  for (const { cursor } of pieces(directory)) while (cursor.next()) if (cursor.names(name)) return cursor.inode;
  return undefined;
}

/** The inode of the entry at byte `offset` of the directory if it has this name; undefined if not. */
export function entryAt(directory: Inode, offset: number, name: Uint8Array): number | undefined {
  const { blockSize } = directory.volume.superblock;
  const logical = Math.floor(offset / blockSize);
  const { physical } = stretchAt(directory, logical);
  const { bytes } = directory.volume.block(physical, `directory inode ${directory.number}`);
  const cursor = new EntryCursor(bytes, offset - logical * blockSize, blockSize, isTyped(directory));
  return cursor.next() && cursor.names(name) ? cursor.inode : undefined;
}

/**
 * Verifies a block's checksum once. In a hashed directory the index's blocks have theirs behind the index's entries,
 * all others in a last record that looks unused.
 */
function verify(directory: Inode, block: Block, logical: number): void {
  const { superblock } = directory.volume;
  if (!superblock.checksums) return;
  const mark = verifiedAs(Structure.directory, directory.number, logical === 0 ? 0 : 1);
  if (block.verified === mark) return;
  const { bytes } = block;
  const index = directory.indexed ? indexStart(bytes, logical) : 0;
  let sum: number;
  let stored: number;
  if (index > 0) {
    const most = bytes.readUInt16LE(index);
    const used = bytes.readUInt16LE(index + 2);
    const tail = index + most * 8;
    if (used > most || tail + 8 > bytes.length)
      throw directory.volume.corrupt(block.position, `directory inode ${directory.number} has a damaged index`);
    sum = updateCrc32c(directory.checksumSeed, bytes, 0, index + used * 8);
    sum = updateCrc32c(updateCrc32c(sum, bytes, tail, tail + 4), new Uint8Array(4));
    stored = bytes.readUInt32LE(tail + 4);
  } else {
    const tail = bytes.length - 12;
    if (bytes.readUInt32LE(tail) !== 0 || bytes.readUInt32LE(tail + 4) !== 0xde00000c)
      throw directory.volume.corrupt(block.position, `a block of directory inode ${directory.number} has no checksum`);
    sum = updateCrc32c(directory.checksumSeed, bytes, 0, tail);
    stored = bytes.readUInt32LE(tail + 8);
  }
  if (sum !== stored)
    throw directory.volume.corrupt(
      block.position,
      `a block of directory inode ${directory.number} does not match its checksum; the names in it are lost`,
    );
  block.verified = mark;
}

/** Where a block of the index has its count of entries; 0 for a block of names. */
function indexStart(bytes: Buffer, logical: number): number {
  const first = recordLength(bytes.readUInt16LE(4), bytes.length);
  if (first === bytes.length && bytes.readUInt32LE(0) === 0) return 8;
  if (logical !== 0 || first !== 12) return 0;
  return recordLength(bytes.readUInt16LE(16), bytes.length) === bytes.length - 12 && bytes[29] === 8 ? 32 : 0;
}
