/**
 * File entries (ECMA-167, 4/14.9 and 4/14.17): what an ICB, the record of a file, tells. Extended ones, since UDF 2.00, have
 * more fields in between; the offsets of both are in `layouts`.
 */
import type { FileKind, Time } from "../filesystem.js";
import { tags } from "./tag.js";
import { timestamp } from "./times.js";

interface Layout {
  readonly blocksRecorded: number;
  readonly accessed: number;
  readonly modified: number;
  readonly born: number | undefined;
  readonly changed: number;
  readonly streams: number | undefined;
  readonly attributesLength: number;
  readonly allocationLength: number;
  /** Where extended attributes begin; allocation descriptors follow them. */
  readonly end: number;
}

const layouts: Record<number, Layout> = {
  [tags.fileEntry]: {
    blocksRecorded: 64,
    accessed: 72,
    modified: 84,
    born: undefined,
    changed: 96,
    streams: undefined,
    attributesLength: 168,
    allocationLength: 172,
    end: 176,
  },
  [tags.extendedFileEntry]: {
    blocksRecorded: 72,
    accessed: 80,
    modified: 92,
    born: 104,
    changed: 116,
    streams: 152,
    attributesLength: 208,
    allocationLength: 212,
    end: 216,
  },
};

/** Types of ICBs that mean something here (4/14.6.6, UDF 2.60, 2.3.5.2). */
export const fileTypes = {
  unspecified: 0,
  directory: 4,
  file: 5,
  streamDirectory: 13,
  virtualTable: 248,
  realTime: 249,
  metadata: 250,
  metadataMirror: 251,
} as const;

const kinds: Record<number, FileKind> = {
  0: "file",
  4: "directory",
  5: "file",
  6: "block",
  7: "character",
  9: "fifo",
  10: "socket",
  12: "symlink",
  13: "directory",
  249: "file",
};

export type AllocationForm = "short" | "long" | "extended" | "inline";
const forms: readonly AllocationForm[] = ["short", "long", "extended", "inline"];

const SETUID = 0x40;
const SETGID = 0x80;
const STICKY = 0x100;
/** Owners that aren't told; Linux shows them as nobody's. */
const NO_ID = 0xffffffff;
const NOBODY = 65534;

const FILE_TIMES = 5;
const DEVICE = 12;

export interface Address {
  readonly partition: number;
  readonly block: number;
}

/** A long allocation descriptor: its length in bytes without the two bits for its kind. */
export const longAddress = (bytes: Buffer, at: number) => ({
  length: bytes.readUInt32LE(at) & 0x3fffffff,
  block: bytes.readUInt32LE(at + 4),
  partition: bytes.readUInt16LE(at + 8),
});

/** An ICB whose tag was verified. Its `bytes` are a copy, cut where its last field ends. */
export class FileEntry {
  readonly bytes: Buffer;
  private readonly layout: Layout;

  constructor(
    block: Buffer,
    readonly address: Address,
    /** Byte in the volume. */
    readonly position: number,
  ) {
    this.layout = layouts[block.readUInt16LE(0)];
    const { end, attributesLength, allocationLength } = this.layout;
    const used = end + block.readUInt32LE(attributesLength) + block.readUInt32LE(allocationLength);
    this.bytes = Buffer.from(block.subarray(0, used));
    this.isComplete = used <= block.length;
  }

  /** Whether its attributes and allocation descriptors end within its block. */
  readonly isComplete: boolean;

  get type(): number {
    return this.bytes[27];
  }
  /** Undefined for a type that no file has. */
  get kind(): FileKind | undefined {
    return kinds[this.type];
  }
  get strategy(): number {
    return this.bytes.readUInt16LE(20);
  }
  get form(): AllocationForm | undefined {
    return forms[this.flags & 7];
  }
  private get flags(): number {
    return this.bytes.readUInt16LE(34);
  }
  get owner(): number {
    return idOf(this.bytes.readUInt32LE(36));
  }
  get group(): number {
    return idOf(this.bytes.readUInt32LE(40));
  }
  /** Five bits for each of others, group and owner, of which the lower three are those of POSIX. */
  get mode(): number {
    const stored = this.bytes.readUInt32LE(44);
    const { flags } = this;
    return (
      (stored & 0o7) |
      ((stored >>> 2) & 0o70) |
      ((stored >>> 4) & 0o700) |
      (flags & SETUID ? 0o4000 : 0) |
      (flags & SETGID ? 0o2000 : 0) |
      (flags & STICKY ? 0o1000 : 0)
    );
  }
  get links(): number {
    return this.bytes.readUInt16LE(48);
  }
  /** In bytes; not a safe integer when it is damaged. */
  get size(): number {
    return numberAt(this.bytes, 56);
  }
  get blocksRecorded(): number {
    return numberAt(this.bytes, this.layout.blocksRecorded);
  }
  get accessed(): Time {
    return timestamp(this.bytes, this.layout.accessed);
  }
  get modified(): Time {
    return timestamp(this.bytes, this.layout.modified);
  }
  get changed(): Time {
    return timestamp(this.bytes, this.layout.changed);
  }

  /** Of an extended entry, or of the attribute for file times. */
  get born(): Time | undefined {
    if (this.layout.born !== undefined) return timestamp(this.bytes, this.layout.born);
    const times = this.attribute(FILE_TIMES);
    return times && times.length >= 32 && times.readUInt32LE(16) & 1 ? timestamp(times, 20) : undefined;
  }

  get device(): { readonly major: number; readonly minor: number } | undefined {
    const found = this.attribute(DEVICE);
    return found && found.length >= 24 ? { major: found.readUInt32LE(16), minor: found.readUInt32LE(20) } : undefined;
  }

  /** The directory of the file's named streams. */
  get streams(): Address | undefined {
    if (this.layout.streams === undefined) return undefined;
    const { length, block, partition } = longAddress(this.bytes, this.layout.streams);
    return length === 0 ? undefined : { block, partition };
  }

  /** Allocation descriptors, or the file's bytes themselves. */
  get allocation(): Buffer {
    const { end, attributesLength, allocationLength } = this.layout;
    const start = end + this.bytes.readUInt32LE(attributesLength);
    return this.bytes.subarray(start, start + this.bytes.readUInt32LE(allocationLength));
  }

  /** The extended attribute of a type, from its header on. They follow a descriptor of 24 bytes. */
  private attribute(type: number): Buffer | undefined {
    const { end, attributesLength } = this.layout;
    const space = this.bytes.subarray(end, end + this.bytes.readUInt32LE(attributesLength));
    for (let at = 24; at + 12 <= space.length; ) {
      const length = space.readUInt32LE(at + 8);
      if (length < 12 || at + length > space.length) return undefined;
      if (space.readUInt32LE(at) === type) return space.subarray(at, at + length);
      at += length;
    }
    return undefined;
  }
}

const idOf = (stored: number) => (stored === NO_ID ? NOBODY : stored);

const numberAt = (bytes: Buffer, at: number) => bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
