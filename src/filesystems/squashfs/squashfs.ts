/**
 * SquashFS 4, as mksquashfs writes it and Linux reads it.
 *
 * A file's id is its inode's reference (inode.ts); st_ino is the number that the inode has. Times have whole seconds, and there
 * is one for all: that of the last change. Files are data blocks of one size, and an end that is shorter than a block and
 * shares a block, a fragment, with other ends.
 */
import { LRUCache } from "lru-cache";
import type { ByteSource, Extent } from "../../bytes/byte-source.js";
import { corrupt, ImageError, usage } from "../../errors.js";
import type { Format, Surroundings } from "../../format.js";
import { DirectoryIndexes } from "../directory-index.js";
import type { Attributes, Entry, FileId, FileSystem, Statistics } from "../filesystem.js";
import { BlockList } from "./block-list.js";
import { findCompressor } from "./compressors.js";
import { DataBlocks, packedLength } from "./data.js";
import { readDirectory } from "./directory.js";
import { type Inode, NONE, readInode, uint64 } from "./inode.js";
import { MetadataBlocks, MetadataReader } from "./metadata.js";
import { ABSENT, features, readSuperblock, recognisesSquashfs, type Superblock } from "./superblock.js";
import { Table } from "./tables.js";
import { Xattrs } from "./xattrs.js";

/** Files whose block lists are remembered: 24 bytes for every 1024 blocks. */
const MOST_LISTS = 256;
/** Neighbouring blocks that are taken together when one asks for holes. */
const MOST_NEIGHBOURS = 4096;

class SquashFileSystem implements FileSystem {
  readonly type = "squashfs";
  readonly label = "";
  readonly root: FileId;
  readonly facts: Record<string, unknown>;
  readonly warnings: readonly string[];
  readonly statistics: Statistics;
  private readonly superblock: Superblock;
  private readonly blocks: MetadataBlocks;
  private readonly data: DataBlocks;
  private readonly ids: Table;
  private readonly fragments: Table;
  private readonly indexes: DirectoryIndexes;
  private readonly inodes = new LRUCache<FileId, Inode>({ max: 4096 });
  private readonly lists = new LRUCache<FileId, BlockList>({ max: MOST_LISTS });
  private knownXattrs: Xattrs | undefined;

  constructor(
    private readonly source: ByteSource,
    around: Surroundings,
  ) {
    const superblock = readSuperblock(source);
    const { blockSize, size, flags } = superblock;
    const { name, unpack } = findCompressor(superblock.compressor, source.name);
    this.superblock = superblock;
    this.root = superblock.root;
    this.blocks = new MetadataBlocks(source, unpack, size);
    this.data = new DataBlocks(source, unpack, blockSize, Math.min(size, source.size), around.cache);
    this.ids = new Table(this.blocks, superblock.idTable, superblock.ids, 4, "owner id");
    const fragments = superblock.fragmentTable === ABSENT ? 0 : superblock.fragments;
    this.fragments = new Table(this.blocks, superblock.fragmentTable, fragments, 16, "fragment");
    this.indexes = new DirectoryIndexes((directory) => this.entries(directory), {
      encode: (text) => Buffer.from(text, "latin1"),
      decode: (bytes) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1"),
    });
    this.facts = {
      version: superblock.version,
      compressor: name,
      blockSize,
      inodes: superblock.inodes,
      fragments,
      created: new Date(superblock.created * 1000).toISOString(),
      features: features(flags),
    };
    this.statistics = {
      blockSize,
      blocks: Math.ceil(size / blockSize),
      freeBlocks: 0,
      files: superblock.inodes,
      freeFiles: 0,
      nameLength: 256,
    };
    this.warnings =
      source.size < size
        ? [
            `The SquashFS has ${size} bytes and its volume only ${source.size}: it is truncated, and its tables come last.`,
          ]
        : [];
  }

  attributes(file: FileId): Attributes {
    const inode = this.inode(file);
    const { kind, size } = inode;
    const time = { seconds: inode.modified, nanoseconds: 0 };
    const isDevice = kind === "character" || kind === "block";
    return {
      kind,
      mode: inode.mode,
      inode: inode.number,
      links: inode.links,
      owner: this.ids.record(inode.ownerIndex).readUInt32LE(0),
      group: this.ids.record(inode.groupIndex).readUInt32LE(0),
      size,
      // As Linux counts: before packing, without holes, and with the extended attributes.
      allocated: (kind === "file" ? sectors(size - inode.sparse) : 0) + this.xattrSectors(inode),
      device: isDevice ? deviceOf(inode.device) : undefined,
      accessed: time,
      modified: time,
      changed: time,
      born: undefined,
    };
  }

  lookup(directory: FileId, name: Uint8Array): FileId | undefined {
    return this.indexes.lookup(directory, name);
  }

  list(directory: FileId): Iterable<Entry> {
    return this.indexes.list(directory);
  }

  read(file: FileId, position: number, target: Uint8Array): number {
    const inode = this.regular(file);
    const { blockSize } = this.superblock;
    const length = Math.min(target.length, inode.size - position);
    if (length <= 0) return 0;
    const index = Math.floor(position / blockSize);
    const start = index * blockSize;
    const here = Math.min(blockSize, inode.size - start);
    const within = position - start;
    const part = length === target.length ? target : target.subarray(0, length);
    if (index >= this.dataBlocks(inode)) {
      const fragment = this.fragments.record(inode.fragment);
      const end = inode.offset + here;
      if (end > blockSize)
        throw corrupt(
          `${this.source.name}: inode ${inode.number} ends at byte ${end} of fragment ${inode.fragment}, and blocks have ${blockSize} bytes.`,
        );
      return this.data.read(uint64(fragment, 0), fragment.readUInt32LE(8), end, inode.offset + within, part);
    }
    const list = this.blockList(file, inode);
    list.find(index);
    if (packedLength(list.word) > 0) return this.data.read(list.position, list.word, here, within, part);
    const count = Math.min(length, here - within);
    target.fill(0, 0, count);
    return count;
  }

  extentAt(file: FileId, position: number): Extent {
    const inode = this.regular(file);
    const { blockSize } = this.superblock;
    const blocks = this.dataBlocks(inode);
    const first = Math.floor(position / blockSize);
    let index = first;
    let hole = false;
    if (index < blocks) {
      const list = this.blockList(file, inode);
      list.find(index);
      hole = packedLength(list.word) === 0;
      for (index++; index < blocks && index < first + MOST_NEIGHBOURS; index++) {
        list.find(index);
        if ((packedLength(list.word) === 0) !== hole) break;
      }
    }
    // The end in a fragment is data.
    const end = index < blocks || hole ? Math.min(index * blockSize, inode.size) : inode.size;
    return { hole, length: end - position };
  }

  readLink(link: FileId): Uint8Array {
    const { directoryTable } = this.superblock;
    const inode = this.inode(link);
    if (inode.kind !== "symlink") throw usage(`${this.source.name}: inode ${inode.number} is no symbolic link.`);
    if (inode.size === 0) return new Uint8Array(0);
    const { restPosition, restOffset, size } = inode;
    return Uint8Array.from(new MetadataReader(this.blocks, restPosition, restOffset, directoryTable).take(size));
  }

  extendedAttributes(file: FileId): ReadonlyMap<string, Uint8Array> {
    const { xattr } = this.inode(file);
    return xattr === NONE ? new Map() : this.xattrs.read(xattr);
  }

  private get xattrs(): Xattrs {
    this.knownXattrs ??= new Xattrs(this.blocks, this.superblock);
    return this.knownXattrs;
  }

  private xattrSectors({ xattr }: Inode): number {
    if (xattr === NONE) return 0;
    try {
      return sectors(this.xattrs.size(xattr));
    } catch (error) {
      // The file itself can be read; whoever asks for the attributes is told.
      if (error instanceof ImageError) return 0;
      throw error;
    }
  }

  private inode(file: FileId): Inode {
    let inode = this.inodes.get(file);
    if (!inode) {
      inode = readInode(this.blocks, this.superblock, file);
      this.inodes.set(file, inode);
    }
    return inode;
  }

  private regular(file: FileId): Inode {
    const inode = this.inode(file);
    if (inode.kind !== "file")
      throw usage(`${this.source.name}: inode ${inode.number} is a ${inode.kind}, not a file.`);
    return inode;
  }

  private *entries(directory: FileId) {
    const inode = this.inode(directory);
    if (inode.kind !== "directory")
      throw usage(`${this.source.name}: inode ${inode.number} is a ${inode.kind}, not a directory.`);
    yield* readDirectory(this.blocks, this.superblock, inode);
  }

  /** How many blocks a file's list has: without the end that is in a fragment. */
  private dataBlocks({ size, fragment }: Inode): number {
    const { blockSize } = this.superblock;
    return fragment === NONE ? Math.ceil(size / blockSize) : Math.floor(size / blockSize);
  }

  private blockList(file: FileId, inode: Inode): BlockList {
    let list = this.lists.get(file);
    if (!list) {
      list = new BlockList(this.blocks, inode, this.superblock.directoryTable);
      this.lists.set(file, list);
    }
    return list;
  }
}

const sectors = (bytes: number) => Math.ceil(Math.max(0, bytes) / 512) * 512;

/** As Linux packs both in 32 bits: eight of the minor number, twelve of the major, the rest of the minor. */
const deviceOf = (device: number) => ({
  major: (device >>> 8) & 0xfff,
  minor: (device & 0xff) | ((device >>> 12) & 0xfff00),
});

export const squashfs: Format<FileSystem> = {
  name: "squashfs",
  recognises: (source) => recognisesSquashfs(source),
  open: (source, around) => new SquashFileSystem(source, around),
};
