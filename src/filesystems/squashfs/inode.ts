/**
 * Inodes: a header that all have, and a rest for each of fourteen types: seven kinds of files, basic and extended. A file's id
 * is the reference by which SquashFS itself names an inode: where its metadata block begins in the inode table, times 65536,
 * plus the byte in the unpacked block. That is 48 bits.
 */
import { corrupt } from "../../errors.js";
import type { FileId, FileKind } from "../filesystem.js";
import { type MetadataBlocks, MetadataReader } from "./metadata.js";
import type { Superblock } from "./superblock.js";

/** No fragment, no extended attributes. */
export const NONE = 0xffffffff;

const kinds: readonly FileKind[] = ["directory", "file", "symlink", "block", "character", "fifo", "socket"];
/** As the kernel has it: a page. */
const LONGEST_LINK = 4096;

/** The kind that a type number of an inode or of a directory entry means; undefined for one that there isn't. */
export const kindOf = (type: number): FileKind | undefined => kinds[(type - 1) % 7];
export const isType = (type: number) => type >= 1 && type <= 14;

export interface Inode {
  readonly kind: FileKind;
  readonly mode: number;
  /** Indexes in the table of ids. */
  readonly ownerIndex: number;
  readonly groupIndex: number;
  /** Seconds since 1970. */
  readonly modified: number;
  readonly number: number;
  readonly links: number;
  readonly size: number;
  /** Bytes of the file that are in holes. */
  readonly sparse: number;
  /** Index in the table of extended attributes, or NONE. */
  readonly xattr: number;
  /** Of a device, as Linux packs it. */
  readonly device: number;
  /** Of a file: position of the first data block. Of a directory: its block, from the start of the directory table. */
  readonly start: number;
  /** Of a directory: byte in the unpacked block. Of a file: byte of its end in the unpacked fragment. */
  readonly offset: number;
  /** Of a file: index in the fragment table, or NONE. */
  readonly fragment: number;
  /** Where the inode goes on: sizes of the data blocks, or the text of a link. */
  readonly restPosition: number;
  readonly restOffset: number;
}

export function readInode(blocks: MetadataBlocks, superblock: Superblock, file: FileId): Inode {
  const { inodeTable, directoryTable } = superblock;
  const reader = new MetadataReader(blocks, inodeTable + Math.floor(file / 65536), file % 65536, directoryTable);
  const wrong = (what: string) =>
    corrupt(
      `${blocks.source.name}: the inode at byte ${file % 65536} of the SquashFS metadata block at byte ${inodeTable + Math.floor(file / 65536)} ${what}.`,
    );
  const head = reader.take(16);
  const type = head.readUInt16LE(0);
  if (!isType(type)) throw wrong(`has type ${type}, which there isn't`);
  const kind = kindOf(type)!;
  const isExtended = type > 7;
  let links = 1;
  let size = 0;
  let sparse = 0;
  let xattr = NONE;
  let device = 0;
  let start = 0;
  let offset = 0;
  let fragment = NONE;
  switch (kind) {
    case "directory": {
      const body = reader.take(isExtended ? 24 : 16);
      // Basic: start, links, size (16 bits), offset, parent. Extended: links, size, start, parent, indexes, offset, xattr.
      links = body.readUInt32LE(isExtended ? 0 : 4);
      size = isExtended ? body.readUInt32LE(4) : body.readUInt16LE(8);
      start = body.readUInt32LE(isExtended ? 8 : 0);
      offset = body.readUInt16LE(isExtended ? 18 : 10);
      if (isExtended) xattr = body.readUInt32LE(20);
      break;
    }
    case "file": {
      const body = reader.take(isExtended ? 40 : 16);
      if (isExtended) {
        start = uint64(body, 0);
        size = uint64(body, 8);
        sparse = uint64(body, 16);
        links = body.readUInt32LE(24);
        fragment = body.readUInt32LE(28);
        offset = body.readUInt32LE(32);
        xattr = body.readUInt32LE(36);
        if (!Number.isSafeInteger(size)) throw wrong(`is of a file of ${size} bytes, which can't be`);
      } else {
        start = body.readUInt32LE(0);
        fragment = body.readUInt32LE(4);
        offset = body.readUInt32LE(8);
        size = body.readUInt32LE(12);
      }
      break;
    }
    case "symlink": {
      const body = reader.take(8);
      links = body.readUInt32LE(0);
      size = body.readUInt32LE(4);
      if (size > LONGEST_LINK) throw wrong(`is of a symbolic link of ${size} bytes`);
      break;
    }
    case "block":
    case "character": {
      const body = reader.take(isExtended ? 12 : 8);
      links = body.readUInt32LE(0);
      device = body.readUInt32LE(4);
      if (isExtended) xattr = body.readUInt32LE(8);
      break;
    }
    default: {
      const body = reader.take(isExtended ? 8 : 4);
      links = body.readUInt32LE(0);
      if (isExtended) xattr = body.readUInt32LE(4);
    }
  }
  const { position: restPosition, offset: restOffset } = reader;
  if (kind === "symlink" && isExtended) {
    reader.skip(size);
    xattr = reader.take(4).readUInt32LE(0);
  }
  return {
    kind,
    mode: head.readUInt16LE(2) & 0o7777,
    ownerIndex: head.readUInt16LE(4),
    groupIndex: head.readUInt16LE(6),
    modified: head.readUInt32LE(8),
    number: head.readUInt32LE(12),
    links,
    size,
    sparse,
    xattr,
    device,
    start,
    offset,
    fragment,
    restPosition,
    restOffset,
  };
}

/** Exact below 2^53. */
export const uint64 = (bytes: Buffer, at: number) => bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x100000000;
