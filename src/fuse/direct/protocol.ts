/**
 * The kernel's FUSE protocol as bytes: where the fields of each structure lie, and a request and a reply made of them.
 * No input or output happens here and no meaning is known; handlers.ts has the meaning, serve.ts the descriptor.
 *
 *   request:  fuse_in_header (40 bytes) | the operation's structure | names, each ended by NUL
 *   reply:    fuse_out_header (16 bytes) | the operation's structure or data; nothing after an error
 *
 * From the kernel's include/uapi/linux/fuse.h, protocol 7.39. Numbers are in the machine's byte order, and every number
 * lies at a multiple of its own size, so both are read through 32-bit words. 64-bit numbers are two words, low one first
 * (x86-64 and arm64 are little-endian): below 2^53 they are exact, and nothing above occurs but in `unique`, which is
 * only ever echoed.
 */
import type { Attributes, FileKind, Time } from "../../filesystems/filesystem.js";

/** Offsets in bytes from each structure's start, under the kernel's names; `size` is sizeof. */
export const structures = {
  fuse_in_header: { size: 40, fields: { len: 0, opcode: 4, unique: 8, nodeid: 16, uid: 24, gid: 28, pid: 32 } },
  fuse_out_header: { size: 16, fields: { len: 0, error: 4, unique: 8 } },
  fuse_interrupt_in: { size: 8, fields: { unique: 0 } },
  fuse_init_in: { size: 64, fields: { major: 0, minor: 4, max_readahead: 8, flags: 12, flags2: 16 } },
  fuse_init_out: {
    size: 64,
    fields: {
      major: 0,
      minor: 4,
      max_readahead: 8,
      flags: 12,
      max_background: 16,
      congestion_threshold: 18,
      max_write: 20,
      time_gran: 24,
      max_pages: 28,
      map_alignment: 30,
      flags2: 32,
    },
  },
  fuse_attr: {
    size: 88,
    fields: {
      ino: 0,
      size: 8,
      blocks: 16,
      atime: 24,
      mtime: 32,
      ctime: 40,
      atimensec: 48,
      mtimensec: 52,
      ctimensec: 56,
      mode: 60,
      nlink: 64,
      uid: 68,
      gid: 72,
      rdev: 76,
      blksize: 80,
      flags: 84,
    },
  },
  fuse_attr_out: { size: 104, fields: { attr_valid: 0, attr_valid_nsec: 8, attr: 16 } },
  fuse_entry_out: {
    size: 128,
    fields: {
      nodeid: 0,
      generation: 8,
      entry_valid: 16,
      attr_valid: 24,
      entry_valid_nsec: 32,
      attr_valid_nsec: 36,
      attr: 40,
    },
  },
  fuse_kstatfs: {
    size: 80,
    fields: { blocks: 0, bfree: 8, bavail: 16, files: 24, ffree: 32, bsize: 40, namelen: 44, frsize: 48 },
  },
  fuse_read_in: { size: 40, fields: { fh: 0, offset: 8, size: 16, read_flags: 20, lock_owner: 24, flags: 32 } },
  fuse_open_in: { size: 8, fields: { flags: 0, open_flags: 4 } },
  fuse_open_out: { size: 16, fields: { fh: 0, open_flags: 8 } },
  fuse_write_in: { size: 40, fields: { fh: 0, offset: 8, size: 16, write_flags: 20, lock_owner: 24, flags: 32 } },
  fuse_write_out: { size: 8, fields: { size: 0 } },
  fuse_fallocate_in: { size: 32, fields: { fh: 0, offset: 8, length: 16, mode: 24 } },
  fuse_setattr_in: { size: 88, fields: { valid: 0, fh: 8, size: 16 } },
  fuse_notify_inval_inode_out: { size: 24, fields: { ino: 0, off: 8, len: 16 } },
  fuse_dirent: { size: 24, fields: { ino: 0, off: 8, namelen: 16, type: 20, name: 24 } },
  fuse_direntplus: { size: 152, fields: { entry_out: 0, dirent: 128 } },
  fuse_getxattr_in: { size: 8, fields: { size: 0 } },
  fuse_getxattr_out: { size: 8, fields: { size: 0 } },
  fuse_lseek_in: { size: 24, fields: { fh: 0, offset: 8, whence: 16 } },
  fuse_lseek_out: { size: 8, fields: { offset: 0 } },
  // 7.39; a fuse_sx_time is seconds (8 bytes), nanoseconds (4), unused (4).
  fuse_statx_out: { size: 288, fields: { attr_valid: 0, attr_valid_nsec: 8, flags: 12, stat: 32 } },
  fuse_statx: {
    size: 256,
    fields: {
      mask: 0,
      blksize: 4,
      attributes: 8,
      nlink: 16,
      uid: 20,
      gid: 24,
      mode: 28,
      ino: 32,
      size: 40,
      blocks: 48,
      attributes_mask: 56,
      atime: 64,
      btime: 80,
      ctime: 96,
      mtime: 112,
      rdev_major: 128,
      rdev_minor: 132,
    },
  },
} as const;

export const opcodes = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  TMPFILE: 51,
  STATX: 52,
} as const;

/** Bits of fuse_init_in.flags and fuse_init_out.flags, as far as Spindle wants them. */
export const initFlags = {
  ASYNC_READ: 1 << 0,
  EXPORT_SUPPORT: 1 << 4,
  BIG_WRITES: 1 << 5,
  DO_READDIRPLUS: 1 << 13,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  NO_OPEN_SUPPORT: 1 << 17,
  PARALLEL_DIROPS: 1 << 18,
  POSIX_ACL: 1 << 20,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  NO_OPENDIR_SUPPORT: 1 << 24,
  INIT_EXT: 1 << 30,
} as const;

/** Bits of flags2, which are there where INIT_EXT is: those above bit 31 in the kernel's list. */
export const initFlags2 = {
  DIRECT_IO_ALLOW_MMAP: 1 << (36 - 32),
} as const;

/** Bits of fuse_open_out.open_flags. */
export const openFlags = {
  DIRECT_IO: 1 << 0,
} as const;

/** The newest protocol that is spoken here, and the oldest kernel's that is understood (Linux 5.4). */
export const protocol = { major: 7, minor: 39, oldestMinor: 31 } as const;

/** Of fuse_read_in.read_flags: set by the kernel on reads that bypass its page cache, and on no others. */
export const READ_LOCKOWNER = 1 << 1;
/** Of fuse_write_in.write_flags: the kernel writes back pages that were changed through a mapping. */
export const WRITE_CACHE = 1 << 0;
/** The same: set by the kernel on writes that bypass its page cache, and on no others. */
export const WRITE_LOCKOWNER = 1 << 1;
/** open(2)'s, on x86-64 and arm64. */
const O_DSYNC = 0o10000;
/** Of fuse_setattr_in.valid. */
export const FATTR_SIZE = 1 << 3;
/** The error field of a message that is no reply: the pages of a file's stretch are to be forgotten. */
export const NOTIFY_INVAL_INODE = 2;
/** nodeid of the mounted root. */
export const ROOT_NODE = 1;
/** What libfuse, too, writes where an inode number is not known. */
export const UNKNOWN_INODE = 0xffffffff;

/** In place of a reply's length: there is none. */
export const NO_REPLY = -65536;
/** The same: the request has to be answered later, what it needs has to be waited for. */
export const LATER = -65537;

const STATX_BASIC_STATS = 0x7ff;
const STATX_BTIME = 0x800;
/** Seconds for which the kernel may keep names and attributes: ten years, for an image does not change. */
export const VALID_SECONDS = 10 * 365 * 86400;
const BLOCK_SIZE = 4096;
const HIGH = 2 ** 32;

/** S_IFMT bits of st_mode; d_type of a directory entry is the same shifted right by 12. */
const typeBits: Record<FileKind, number> = {
  fifo: 0o010000,
  character: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
};

const header = structures.fuse_in_header;
const BODY = header.size;

/** One request, in a buffer that is used again for the next. Offsets given to methods count from after the header. */
export class Request {
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;

  /** @param size bytes; the kernel wants room for its headers and max_write, 8192 at least. */
  constructor(size: number) {
    const memory = new ArrayBuffer(size);
    this.bytes = new Uint8Array(memory);
    this.words = new Uint32Array(memory);
  }

  get length(): number {
    return this.words[header.fields.len >> 2];
  }

  get opcode(): number {
    return this.words[header.fields.opcode >> 2];
  }

  /** The low and the high half of `unique`. */
  get uniqueLow(): number {
    return this.words[header.fields.unique >> 2];
  }

  get uniqueHigh(): number {
    return this.words[(header.fields.unique >> 2) + 1];
  }

  /** The number of the thread that asks; 0 where the server can't know it (another PID namespace, the kernel itself). */
  get asker(): number {
    return this.words[header.fields.pid >> 2];
  }

  /** What a READ or a WRITE moves; 0 of other requests. */
  get bytesToMove(): number {
    const { opcode } = this;
    // The size is in the same place of both.
    if (opcode !== opcodes.READ && opcode !== opcodes.WRITE) return 0;
    return this.words[(header.size + structures.fuse_read_in.fields.size) >> 2];
  }

  /** Whether it is a WRITE of somebody who waits until it is durable (O_DSYNC, which O_SYNC has in it). */
  get isSynchronous(): boolean {
    return this.opcode === opcodes.WRITE && (this.u32(structures.fuse_write_in.fields.flags) & O_DSYNC) !== 0;
  }

  get isRoot(): boolean {
    const at = header.fields.nodeid >> 2;
    return this.words[at] === ROOT_NODE && this.words[at + 1] === 0;
  }

  /** The FileId of a node other than the root: its number less 2. Negative or not a safe integer when no node was meant. */
  get file(): number {
    const at = header.fields.nodeid >> 2;
    return this.words[at + 1] * HIGH + (this.words[at] - 2);
  }

  u32(offset: number): number {
    return this.words[(BODY + offset) >> 2];
  }

  u64(offset: number): number {
    const at = (BODY + offset) >> 2;
    return this.words[at + 1] * HIGH + this.words[at];
  }

  /** `length` bytes from `offset` on, as a view that is valid until the next request. */
  data(offset: number, length: number): Uint8Array {
    return this.bytes.subarray(BODY + offset, BODY + offset + length);
  }

  /** The bytes from `offset` up to a NUL, as a view that is valid until the next request. */
  name(offset: number): Uint8Array {
    const start = BODY + offset;
    const end = this.bytes.indexOf(0, start);
    return this.bytes.subarray(start, end < 0 || end > this.length ? this.length : end);
  }
}

/** The body starts at a page's start, so that the kernel copies whole aligned pages out of it. */
const REPLY_BODY = 4096;
const outHeader = structures.fuse_out_header;
const HEADER_AT = REPLY_BODY - outHeader.size;

const attr = structures.fuse_attr.fields;
const entryOut = structures.fuse_entry_out.fields;
const attrOut = structures.fuse_attr_out.fields;
const dirent = structures.fuse_dirent.fields;
const statx = structures.fuse_statx.fields;
const statxOut = structures.fuse_statx_out.fields;

/** One reply, in a buffer that is used again for the next. Offsets given to methods count from the body's start. */
export class Reply {
  readonly bytes: Uint8Array;
  /** Where in `bytes` the reply starts. */
  readonly start = HEADER_AT;
  readonly body: Uint8Array;
  /** Longest body in bytes. */
  readonly capacity: number;
  /** Seconds for which the kernel may keep attributes. */
  attributesValid = VALID_SECONDS;
  private readonly words: Uint32Array;
  private readonly views: Uint8Array[] = [];

  constructor(capacity: number) {
    const memory = new ArrayBuffer(REPLY_BODY + capacity);
    this.bytes = new Uint8Array(memory);
    this.words = new Uint32Array(memory);
    this.body = new Uint8Array(memory, REPLY_BODY);
    this.capacity = capacity;
  }

  /** The body's first `length` bytes. Whole pages, which nearly all reads ask for, get the same object every time. */
  view(length: number): Uint8Array {
    if (length % 4096 !== 0) return this.body.subarray(0, length);
    this.views[length / 4096] ??= this.body.subarray(0, length);
    return this.views[length / 4096];
  }

  /**
   * Writes the header. `result` is the body's length, or an error number made negative.
   * @returns bytes to send from `start` on.
   */
  finish(uniqueLow: number, uniqueHigh: number, result: number): number {
    const length = outHeader.size + Math.max(result, 0);
    const at = HEADER_AT >> 2;
    this.words[at] = length;
    this.words[at + 1] = Math.min(result, 0);
    this.words[at + 2] = uniqueLow;
    this.words[at + 3] = uniqueHigh;
    return length;
  }

  clear(offset: number, length: number): void {
    this.words.fill(0, (REPLY_BODY + offset) >> 2, (REPLY_BODY + offset + length) >> 2);
  }

  u32(offset: number, value: number): void {
    this.words[(REPLY_BODY + offset) >> 2] = value;
  }

  u16(offset: number, value: number): void {
    this.body[offset] = value;
    this.body[offset + 1] = value >> 8;
  }

  /** Safe integers; negative ones (times before 1970) in two's complement. */
  u64(offset: number, value: number): void {
    const at = (REPLY_BODY + offset) >> 2;
    this.words[at] = value;
    this.words[at + 1] = Math.floor(value / HIGH);
  }

  /** nodeid of a file other than the root: FileId + 2, carried into the high word by hand since it may pass 2^53. */
  private node(offset: number, file: number): void {
    const low = (file % HIGH) + 2;
    this.u32(offset, low);
    this.u32(offset + 4, Math.floor(file / HIGH) + (low >= HIGH ? 1 : 0));
  }

  private attributes(offset: number, a: Attributes): void {
    this.u64(offset + attr.ino, a.inode);
    this.u64(offset + attr.size, a.size);
    this.u64(offset + attr.blocks, Math.ceil(a.allocated / 512));
    this.u64(offset + attr.atime, a.accessed.seconds);
    this.u64(offset + attr.mtime, a.modified.seconds);
    this.u64(offset + attr.ctime, a.changed.seconds);
    this.u32(offset + attr.atimensec, a.accessed.nanoseconds);
    this.u32(offset + attr.mtimensec, a.modified.nanoseconds);
    this.u32(offset + attr.ctimensec, a.changed.nanoseconds);
    this.u32(offset + attr.mode, typeBits[a.kind] | a.mode);
    this.u32(offset + attr.nlink, a.links);
    this.u32(offset + attr.uid, a.owner);
    this.u32(offset + attr.gid, a.group);
    this.u32(offset + attr.rdev, deviceNumber(a.device));
    this.u32(offset + attr.blksize, BLOCK_SIZE);
    this.u32(offset + attr.flags, 0);
  }

  /** struct fuse_attr_out. */
  attrOut(a: Attributes): number {
    this.clear(0, attrOut.attr);
    this.u64(attrOut.attr_valid, this.attributesValid);
    this.attributes(attrOut.attr, a);
    return structures.fuse_attr_out.size;
  }

  /** struct fuse_entry_out of a file that exists; `file` undefined is the root. */
  entryOut(offset: number, file: number | undefined, a: Attributes): number {
    if (file === undefined) this.u64(offset + entryOut.nodeid, ROOT_NODE);
    else this.node(offset + entryOut.nodeid, file);
    this.u64(offset + entryOut.generation, 0);
    this.u64(offset + entryOut.entry_valid, VALID_SECONDS);
    this.u64(offset + entryOut.attr_valid, this.attributesValid);
    this.u64(offset + entryOut.entry_valid_nsec, 0);
    this.attributes(offset + entryOut.attr, a);
    return structures.fuse_entry_out.size;
  }

  /** struct fuse_entry_out that says, for as long as the mount stands, that there is no file of that name. */
  noEntryOut(offset: number): number {
    this.clear(offset, structures.fuse_entry_out.size);
    this.u64(offset + entryOut.entry_valid, VALID_SECONDS);
    return structures.fuse_entry_out.size;
  }

  /** struct fuse_dirent with its name; `next` is the offset at which the listing goes on. */
  dirent(offset: number, inode: number, next: number, kind: FileKind, name: Uint8Array): number {
    this.u64(offset + dirent.ino, inode);
    this.u64(offset + dirent.off, next);
    this.u32(offset + dirent.namelen, name.length);
    this.u32(offset + dirent.type, typeBits[kind] >> 12);
    this.body.set(name, offset + dirent.name);
    const end = dirent.name + name.length;
    const length = direntLength(name);
    this.body.fill(0, offset + end, offset + length);
    return length;
  }

  /** struct fuse_statx_out. */
  statxOut(a: Attributes): number {
    this.clear(0, structures.fuse_statx_out.size);
    this.u64(statxOut.attr_valid, this.attributesValid);
    const at = statxOut.stat;
    this.u32(at + statx.mask, STATX_BASIC_STATS | (a.born ? STATX_BTIME : 0));
    this.u32(at + statx.blksize, BLOCK_SIZE);
    this.u32(at + statx.nlink, a.links);
    this.u32(at + statx.uid, a.owner);
    this.u32(at + statx.gid, a.group);
    this.u16(at + statx.mode, typeBits[a.kind] | a.mode);
    this.u64(at + statx.ino, a.inode);
    this.u64(at + statx.size, a.size);
    this.u64(at + statx.blocks, Math.ceil(a.allocated / 512));
    this.time(at + statx.atime, a.accessed);
    if (a.born) this.time(at + statx.btime, a.born);
    this.time(at + statx.ctime, a.changed);
    this.time(at + statx.mtime, a.modified);
    this.u32(at + statx.rdev_major, a.device?.major ?? 0);
    this.u32(at + statx.rdev_minor, a.device?.minor ?? 0);
    return structures.fuse_statx_out.size;
  }

  private time(offset: number, time: Time): void {
    this.u64(offset, time.seconds);
    this.u32(offset + 8, time.nanoseconds);
  }
}

/** Bytes of a fuse_dirent with its name: records start at multiples of 8. */
export function direntLength(name: Uint8Array): number {
  return (dirent.name + name.length + 7) & ~7;
}

/** The kernel's new_encode_dev: minor bits 0-7, major bits 8-19, minor bits 8-19 at 20. */
function deviceNumber(device: Attributes["device"]): number {
  if (!device) return 0;
  const { major, minor } = device;
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}
