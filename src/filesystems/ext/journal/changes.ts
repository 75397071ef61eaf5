/**
 * What fast commits change, kept in memory beside the volume: inodes, ranges of blocks, names. As the kernel's replay
 * (fs/ext4/fast_commit.c) leaves them, with three differences where it invents something: a directory keeps the times of
 * its last full transaction, a file the count of blocks that it had, a short symbolic link its target.
 */
import { ImageError } from "../../../errors.js";
import type { FileKind } from "../../filesystem.js";
import type { Stretch } from "../extents.js";
import { Inode } from "../inode.js";
import { mostChangedRanges } from "../limits.js";
import { NameIndexes } from "../name-index.js";
import type { Volume } from "../volume.js";
import { type Note, tags } from "./fast-commits.js";

/** A name that was given or taken away: undefined stands for the latter. */
export type ChangedName = { readonly inode: number; readonly kind: FileKind } | undefined;

export interface ChangedDirectory {
  /** By name, one character a byte. What isn't here is as the directory's blocks have it. */
  readonly names: Map<string, ChangedName>;
  /** Whether it was made by a fast commit, and has no blocks yet. */
  fresh: boolean;
}

const blockArea = { start: 40, end: 100 };
const extentsFlag = 0x80000;
const inlineDataFlag = 0x10000000;
const extentMagic = 0xf30a;
const symlink = 10;

export class Changes {
  private readonly inodes = new Map<number, Buffer>();
  private readonly ranges = new Map<number, ChangedRanges>();
  private readonly directories = new Map<number, ChangedDirectory>();
  private rangeCount = 0;
  private readonly indexes = new NameIndexes();

  /** The record of an inode as it is now; undefined where it is as it lies in its table. */
  inode(number: number): Buffer | undefined {
    return this.inodes.get(number);
  }

  directory(number: number): ChangedDirectory | undefined {
    return this.directories.get(number);
  }

  /** Where block `logical` of a file is, given what `onDisk` tells of it. */
  stretch(inode: number, logical: number, onDisk: () => Stretch): Stretch {
    return this.ranges.get(inode)?.find(logical, onDisk) ?? onDisk();
  }

  /**
   * Applies notes in order. `volume` reads through these changes.
   * @throws ImageError `corrupt` for a range outside the filesystem, or more ranges than can be.
   */
  apply(volume: Volume, notes: readonly Note[]): void {
    for (const { tag, value } of notes) {
      if (tag === tags.inode && value.length >= 4 + 128) this.setInode(volume, value);
      else if (tag === tags.addRange && value.length >= 16) this.addRange(volume, value);
      else if (tag === tags.deleteRange && value.length >= 12) this.deleteRange(volume, value);
      else if (value.length > 8 && (tag === tags.create || tag === tags.link || tag === tags.unlink))
        this.changeName(volume, tag, value);
    }
  }

  /** All fields but the map of blocks, which ranges tell of. */
  private setInode(volume: Volume, value: Buffer): void {
    const number = value.readUInt32LE(0);
    const told = value.subarray(4, 4 + volume.superblock.inodeSize);
    const record = this.record(volume, number);
    if (!record) return;
    const area = Buffer.from(record.subarray(blockArea.start, blockArea.end));
    record.set(told);
    const flags = record.readUInt32LE(32);
    const keepsTold =
      (flags & inlineDataFlag) !== 0 || (record.readUInt16LE(0) >> 12 === symlink && !(flags & extentsFlag));
    if (keepsTold) return;
    if (flags & extentsFlag && area.readUInt16LE(0) !== extentMagic) {
      area.fill(0).writeUInt16LE(extentMagic, 0);
      area.writeUInt16LE(4, 4);
    }
    record.set(area, blockArea.start);
  }

  /** A copy of an inode's record that may be changed; undefined for a number that there isn't. */
  private record(volume: Volume, number: number): Buffer | undefined {
    let record = this.inodes.get(number);
    if (record) return record;
    try {
      const position = volume.inodePosition(number);
      const { blockSize, inodeSize } = volume.superblock;
      const within = position % blockSize;
      const { bytes } = volume.block((position - within) / blockSize, `inode ${number}`);
      record = Buffer.from(bytes.subarray(within, within + inodeSize));
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return undefined;
    }
    this.inodes.set(number, record);
    return record;
  }

  private addRange(volume: Volume, value: Buffer): void {
    const file = this.known(volume, value.readUInt32LE(0));
    if (!file) return;
    const stored = value.readUInt16LE(8);
    const count = stored > 32768 ? stored - 32768 : stored;
    const physical = value.readUInt32LE(12) + value.readUInt16LE(10) * 0x100000000;
    if (count === 0 || !volume.holds(physical, count))
      throw file.corrupt(`gets blocks ${physical} to ${physical + count - 1} by a fast commit, outside the filesystem`);
    // Blocks that were reserved and never written read as zeros.
    this.change(file, value.readUInt32LE(4), count, stored > 32768 ? 0 : physical);
  }

  private deleteRange(volume: Volume, value: Buffer): void {
    const file = this.known(volume, value.readUInt32LE(0));
    const count = value.readUInt32LE(8);
    if (file && count > 0) this.change(file, value.readUInt32LE(4), count, 0);
  }

  private change(file: Inode, logical: number, count: number, physical: number): void {
    if (++this.rangeCount > mostChangedRanges)
      throw file.corrupt(`and others get more than ${mostChangedRanges} ranges of blocks by fast commits`);
    let ranges = this.ranges.get(file.number);
    if (!ranges) {
      ranges = new ChangedRanges();
      this.ranges.set(file.number, ranges);
    }
    ranges.set(logical, count, physical);
  }

  private changeName(volume: Volume, tag: number, value: Buffer): void {
    const parent = this.known(volume, value.readUInt32LE(0));
    const number = value.readUInt32LE(4);
    const file = this.known(volume, number);
    if (parent?.kind !== "directory" || !file) return;
    const bytes = value.subarray(8);
    const name = bytes.toString("latin1");
    const found = this.find(parent, bytes, name);
    if (tag === tags.unlink) {
      // Another file may have the name by now; the link is gone all the same.
      if (found === number) this.names(parent.number).names.set(name, undefined);
      this.countLinks(volume, number, -1);
      return;
    }
    if (tag === tags.create && file.kind === "directory") this.names(number).fresh = true;
    // A directory's block may have reached the disk already.
    if (found === undefined) {
      this.names(parent.number).names.set(name, { inode: number, kind: file.kind });
      if (tag === tags.link) this.countLinks(volume, number, 1);
    }
    if (tag === tags.create) this.record(volume, number)?.writeUInt16LE(1, 26);
  }

  private countLinks(volume: Volume, number: number, by: number): void {
    const record = this.record(volume, number);
    record?.writeUInt16LE(Math.max(0, Math.min(65535, record.readUInt16LE(26) + by)), 26);
  }

  private names(directory: number): ChangedDirectory {
    let changed = this.directories.get(directory);
    if (!changed) {
      changed = { names: new Map(), fresh: false };
      this.directories.set(directory, changed);
    }
    return changed;
  }

  private find(directory: Inode, bytes: Uint8Array, name: string): number | undefined {
    const changed = this.directories.get(directory.number);
    if (changed?.names.has(name)) return changed.names.get(name)?.inode;
    return changed?.fresh ? undefined : this.indexes.findOnDisk(directory, bytes);
  }

  /** As the kernel does it, notes about files that can't be read are passed over. */
  private known(volume: Volume, number: number): Inode | undefined {
    try {
      return Inode.read(volume, number);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return undefined;
    }
  }
}

/** Ranges of one file, which go before what its map of blocks says: sorted, and none across another. */
class ChangedRanges {
  private readonly starts: number[] = [];
  private readonly ends: number[] = [];
  /** First block, or 0 for a hole. */
  private readonly places: number[] = [];

  set(start: number, count: number, place: number): void {
    const { starts, ends, places } = this;
    const end = start + count;
    const first = this.after(start);
    let last = first;
    const before: [number, number, number][] = [];
    for (; last < starts.length && starts[last]! < end; last++) {
      if (starts[last]! < start) before.push([starts[last]!, start, places[last]!]);
      if (ends[last]! > end)
        before.push([end, ends[last]!, places[last]! === 0 ? 0 : places[last]! + end - starts[last]!]);
    }
    const parts = [...before, [start, end, place] as const].sort((one, other) => one[0] - other[0]);
    starts.splice(first, last - first, ...parts.map((part) => part[0]));
    ends.splice(first, last - first, ...parts.map((part) => part[1]));
    places.splice(first, last - first, ...parts.map((part) => part[2]));
  }

  find(logical: number, onDisk: () => Stretch): Stretch {
    const index = this.after(logical);
    const start = this.starts[index];
    if (start === undefined) return onDisk();
    if (start <= logical) {
      const place = this.places[index]!;
      return { physical: place === 0 ? 0 : place + logical - start, count: this.ends[index]! - logical };
    }
    const { physical, count } = onDisk();
    return { physical, count: Math.min(count, start - logical) };
  }

  /** The first range that ends after `logical`. */
  private after(logical: number): number {
    let low = 0;
    let high = this.starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.ends[middle]! > logical) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
