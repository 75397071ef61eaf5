/**
 * ext2, ext3 and ext4, read-only. A volume is groups of blocks; each has a part of the inode table, where every file's
 * record is; directories are files of names and inode numbers, from inode 2 on.
 *
 *     superblock.ts → volume.ts (groups) → inode.ts → extents.ts, indirect.ts → contents.ts → directory.ts, xattrs.ts
 *
 * An image taken while it was mounted has its newest blocks in the journal: journal/ puts them in front of the volume,
 * and everything else reads through that. Checksums are verified as each structure is met; a damaged one is an error of
 * the files that need it. A FileId is an inode number.
 *
 * Left out: encrypted files (their keys aren't in the image) and external journals are refused in words. Names in
 * casefolded directories are served as they are written, and found only so.
 */
import { LRUCache } from "lru-cache";
import type { ByteSource, Extent } from "../../bytes/byte-source.js";
import { ImageError } from "../../errors.js";
import type { Format } from "../../format.js";
import type { Attributes, Entry, FileId, FileSystem, Statistics } from "../filesystem.js";
import { contentsExtent, linkTarget, readContents } from "./contents.js";
import { listDirectory } from "./directory.js";
import { incompat } from "./features.js";
import { Inode } from "./inode.js";
import { Changes } from "./journal/changes.js";
import { recover } from "./journal/recover.js";
import { keptInodes } from "./limits.js";
import { NameIndexes } from "./name-index.js";
import { statisticsOf } from "./statistics.js";
import { hasMagic, readSuperblock } from "./superblock.js";
import { Volume } from "./volume.js";
import { hasAttributes, readAttributes } from "./xattrs.js";

export const ext: Format<FileSystem> = {
  name: "ext",
  recognises: hasMagic,
  open: (source) => ExtFileSystem.open(source),
};

const rootInode = 2;
const noAttributes: ReadonlyMap<string, Uint8Array> = new Map();

class ExtFileSystem implements FileSystem {
  readonly type: string;
  readonly label: string;
  readonly root: FileId = rootInode;
  readonly facts: Record<string, unknown>;
  private readonly inodes: LRUCache<number, Inode>;
  private readonly names = new NameIndexes();
  private counted: Statistics | undefined;

  private constructor(
    private readonly volume: Volume,
    readonly warnings: readonly string[],
  ) {
    const { superblock } = volume;
    this.type = superblock.type;
    this.label = superblock.label;
    this.facts = superblock.facts;
    this.inodes = new LRUCache({ max: keptInodes(superblock.blockSize) });
  }

  /** @throws ImageError also where the root is something else than a directory; where it can't be read, listing it tells */
  static open(source: ByteSource): ExtFileSystem {
    const opened = ExtFileSystem.replayed(source);
    let root: Inode | undefined;
    try {
      root = opened.inode(rootInode);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
    }
    if (root && root.kind !== "directory") throw root.corrupt(`is the root directory, and is a ${root.kind}`);
    return opened;
  }

  private static replayed(source: ByteSource): ExtFileSystem {
    const superblock = readSuperblock(source);
    const volume = new Volume(source, superblock);
    if (!(superblock.incompat & incompat.recover)) return new ExtFileSystem(volume, superblock.warnings);
    const { source: recovered, notes, told } = recover(volume);
    // The journal may hold a newer superblock too.
    const newer = readSuperblock(recovered);
    const warnings = [...newer.warnings, told];
    if (notes.length === 0) return new ExtFileSystem(new Volume(recovered, newer), warnings);
    const changes = new Changes();
    const changed = new Volume(recovered, newer, changes);
    changes.apply(changed, notes);
    return new ExtFileSystem(changed, warnings);
  }

  /** Counted when first asked for: it takes a pass over all group descriptors. */
  get statistics(): Statistics {
    this.counted ??= statisticsOf(this.volume);
    return this.counted;
  }

  attributes(file: FileId): Attributes {
    return this.inode(file).attributes();
  }

  lookup(directory: FileId, name: Uint8Array): FileId | undefined {
    return this.names.find(this.inode(directory), name);
  }

  list(directory: FileId): Iterable<Entry> {
    return listDirectory(this.inode(directory));
  }

  read(file: FileId, position: number, target: Uint8Array): number {
    const inode = this.inode(file);
    if (inode.kind !== "file") throw inode.corrupt(`is a ${inode.kind} and has no content`);
    return readContents(inode, position, target);
  }

  readLink(link: FileId): Uint8Array {
    const inode = this.inode(link);
    if (inode.kind !== "symlink") throw inode.corrupt(`is a ${inode.kind} and not a symbolic link`);
    return linkTarget(inode);
  }

  extentAt(file: FileId, position: number): Extent {
    return contentsExtent(this.inode(file), position);
  }

  extendedAttributes(file: FileId): ReadonlyMap<string, Uint8Array> {
    const inode = this.inode(file);
    return hasAttributes(inode) ? readAttributes(inode) : noAttributes;
  }

  details(file: FileId): Record<string, unknown> {
    return this.inode(file).details();
  }

  private inode(number: FileId): Inode {
    let inode = this.inodes.get(number);
    if (inode === undefined) {
      inode = Inode.read(this.volume, number);
      this.inodes.set(number, inode);
    }
    return inode;
  }
}
