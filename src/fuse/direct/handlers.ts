/**
 * What each FUSE operation means for a tree. A handler reads its request, writes the reply's body and returns its length;
 * or a negative error number; or NO_REPLY. A new operation is a new row of `operations`. Those that write are in handlers-writing.ts.
 */
import { NotYet } from "../../bytes/byte-source.js";
import type { SharedChunkCache } from "../../bytes/shared-cache.js";
import { corrupt } from "../../errors.js";
import type { Entry, FileId, FileSystem } from "../../filesystems/filesystem.js";
import { errno, type FailureLog } from "../errno.js";
import { allocate, open, release, setAttributes, synchronise, type Writing, write } from "./handlers-writing.js";
import { Listings } from "./listings.js";
import {
  direntLength,
  LATER,
  NO_REPLY,
  opcodes,
  READ_LOCKOWNER,
  type Reply,
  type Request,
  structures,
  UNKNOWN_INODE,
} from "./protocol.js";

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
/** Extents that one LSEEK looks at: some hundred milliseconds. Past them the rest of the file is called data. */
const MOST_EXTENTS = 1 << 20;
/** Longest target of a link: PATH_MAX with its NUL is a page. */
const LONGEST_LINK = 4095;
/** XATTR_SIZE_MAX and XATTR_LIST_MAX of the kernel. */
const LONGEST_ATTRIBUTE = 65536;

const dot = Uint8Array.of(0x2e);
const dotDot = Uint8Array.of(0x2e, 0x2e);

const stale = new Error("no node has this number");

export type Handler = (session: Session, request: Request, reply: Reply) => number;

/** One worker's tree and what it remembers between requests. */
export class Session {
  readonly listings: Listings;
  /** Whether the kernel fills what a reply to a read of its page cache lacks with zeros (init.ts). */
  fillsZeros = false;
  /** The chunks, of which those that the next requests will want are unpacked where nobody waits for it. */
  chunks: Pick<SharedChunkCache, "isKept" | "afterRequest"> | undefined;
  /** What the last request answered with LATER waits for. */
  awaited = 0;
  /** Is told of a request whose reply isn't waited for any more, unless it was answered meanwhile. */
  interrupted: (unique: bigint) => void = () => {};
  /** Of a mount that is written to: which files are open, and who has the kernel forget what others changed. */
  writing: Writing | undefined;

  constructor(
    readonly tree: FileSystem,
    readonly log: FailureLog,
  ) {
    this.listings = new Listings(tree);
  }

  /**
   * Answers a request. Never throws: whatever the tree throws is an input/output error and a line in the log, but for
   * what has to be waited for.
   */
  answer(request: Request, reply: Reply): number {
    const handler = operations[request.opcode];
    if (handler === undefined) return -errno.ENOSYS;
    try {
      return handler(this, request, reply);
    } catch (error) {
      if (error === stale) return -errno.ESTALE;
      if (error instanceof NotYet) {
        this.awaited = error.position;
        return LATER;
      }
      this.log.add(error);
      return -errno.EIO;
    }
  }

  /**
   * The file that a request is about.
   * @throws stale for a number that no node has: NFS clients keep them, and may make them up
   */
  file(request: Request): FileId {
    if (request.isRoot) return this.tree.root;
    const { file } = request;
    if (!Number.isSafeInteger(file) || file < 0) throw stale;
    return file;
  }
}

function lookup(session: Session, request: Request, reply: Reply): number {
  const { tree } = session;
  const directory = session.file(request);
  const name = request.name(0);
  // `.` and `..` come from NFS, which holds a node that the kernel has forgotten (EXPORT_SUPPORT).
  const isDot = name.length === 1 && name[0] === 0x2e;
  const file = isDot ? directory : tree.lookup(directory, name);
  if (file === undefined) return reply.noEntryOut(0);
  return reply.entryOut(0, file === tree.root ? undefined : file, tree.attributes(file));
}

const attributes: Handler = (session, request, reply) => reply.attrOut(session.tree.attributes(session.file(request)));

const extendedStat: Handler = (session, request, reply) =>
  reply.statxOut(session.tree.attributes(session.file(request)));

function readLink(session: Session, request: Request, reply: Reply): number {
  const target = session.tree.readLink(session.file(request));
  if (target.length > LONGEST_LINK) return -errno.ENAMETOOLONG;
  reply.body.set(target);
  return target.length;
}

function statistics(session: Session, _request: Request, reply: Reply): number {
  const { size, fields } = structures.fuse_kstatfs;
  const s = session.tree.statistics;
  reply.clear(0, size);
  reply.u64(fields.blocks, s.blocks);
  reply.u64(fields.bfree, s.freeBlocks);
  reply.u64(fields.bavail, s.availableBlocks ?? s.freeBlocks);
  reply.u64(fields.files, s.files);
  reply.u64(fields.ffree, s.freeFiles);
  reply.u32(fields.bsize, s.blockSize);
  reply.u32(fields.namelen, s.nameLength);
  reply.u32(fields.frsize, s.blockSize);
  return size;
}

/**
 * What a reply lacks the kernel takes for zeros, or for the file's end, which would cut its size for every reader. So
 * within the size all bytes are returned or none: none where all are zeros and the kernel fills them, and an error where
 * one of them is damaged: the kernel, after a failed readahead, asks again page by page, which leaves the neighbours of
 * damaged bytes readable. Reads past the page cache may be short.
 */
function read(session: Session, request: Request, reply: Reply): number {
  const { fields } = structures.fuse_read_in;
  const { tree } = session;
  const file = session.file(request);
  const position = request.u64(fields.offset);
  const length = request.u32(fields.size);
  const cached = (request.u32(fields.read_flags) & READ_LOCKOWNER) === 0;
  if (cached && session.fillsZeros && tree.zerosAt && tree.zerosAt(file, position) >= length) return 0;
  if (length > reply.capacity) throw new Error(`the kernel asked for ${length} bytes, more than was agreed on`);
  if (session.chunks) session.chunks.isKept = cached;
  if (cached) session.writing?.open.hasPages(file);
  let filled = 0;
  try {
    while (filled < length) {
      const target = filled === 0 ? reply.view(length) : reply.body.subarray(filled, length);
      const count = tree.read(file, position + filled, target);
      if (!(count > 0)) break;
      filled += count;
    }
  } catch (error) {
    if (filled === 0 || cached || error instanceof NotYet) throw error;
    session.log.add(error);
    return filled;
  }
  if (filled < length) {
    const { size } = tree.attributes(file);
    if (position + filled < size)
      throw corrupt(
        `${tree.type} file ${file}: its bytes end at ${position + filled}, though its size is ${size}. The filesystem is damaged there.`,
      );
  }
  return filled;
}

/** Offset behind the last entry of a directory. Programs of 32 bits refuse any beyond 31. */
const END = 0x7fffffff;

/**
 * Index 0 is `.`, 1 is `..`, and the listing's entries follow; the offset of a request is the next index. The kernel asks
 * on until it gets nothing: the last entry's offset says that nothing follows, so that no worker looks into the directory
 * for that.
 */
function listing(plus: boolean): Handler {
  const { entry_out, dirent } = structures.fuse_direntplus.fields;
  const before = plus ? dirent : entry_out;
  return (session, request, reply) => {
    const directory = session.file(request);
    const { fields } = structures.fuse_read_in;
    const room = Math.min(request.u32(fields.size), reply.capacity);
    let index = request.u64(fields.offset);
    if (index === END) return 0;
    let at = 0;
    let last = 0;
    try {
      const entries = session.listings.at(directory, Math.max(0, index - 2));
      for (; ; index++) {
        const entry = index < 2 ? undefined : entries.entry(index - 2);
        if (index >= 2 && entry === undefined) {
          if (at > 0) reply.u64(last + structures.fuse_dirent.fields.off, END);
          return at;
        }
        const name = entry?.name ?? (index === 0 ? dot : dotDot);
        if (at + before + direntLength(name) > room) return at > 0 ? at : -errno.EINVAL;
        let inode: number;
        if (entry !== undefined) inode = listed(session, reply, at, entry, plus);
        else {
          if (plus) reply.noEntryOut(at);
          inode = index === 0 || directory === session.tree.root ? inodeOf(session, directory) : UNKNOWN_INODE;
        }
        at += before;
        last = at;
        at += reply.dirent(at, inode, index + 1, entry?.kind ?? "directory", name);
      }
    } catch (error) {
      session.listings.drop(directory);
      if (at === 0 || error instanceof NotYet) throw error;
      // The entries before the damage first; the next request meets the damage at its start.
      session.log.add(error);
      return at;
    }
  };
}

/** Writes an entry's attributes when they are wanted and returns its inode number. */
function listed(session: Session, reply: Reply, at: number, entry: Entry, plus: boolean): number {
  if (!plus) return entry.inode ?? inodeOf(session, entry.file);
  try {
    // A hostile directory that lists the root below itself: the kernel is given the name, but no such node.
    if (entry.file !== session.tree.root) {
      const found = session.tree.attributes(entry.file);
      reply.entryOut(at, entry.file, found);
      return found.inode;
    }
  } catch (error) {
    if (error instanceof NotYet) throw error;
    // One damaged file must not hide the others' names; to ask for this file itself will fail.
    session.log.add(error);
  }
  reply.clear(at, structures.fuse_entry_out.size);
  return entry.inode ?? UNKNOWN_INODE;
}

function inodeOf(session: Session, file: FileId): number {
  try {
    return session.tree.attributes(file).inode;
  } catch (error) {
    if (error instanceof NotYet) throw error;
    session.log.add(error);
    return UNKNOWN_INODE;
  }
}

function seek(session: Session, request: Request, reply: Reply): number {
  const { fields } = structures.fuse_lseek_in;
  const { tree } = session;
  if (!tree.extentAt) return -errno.ENOSYS;
  const whence = request.u32(fields.whence);
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return -errno.EINVAL;
  const file = session.file(request);
  const { size } = tree.attributes(file);
  const start = request.u64(fields.offset);
  if (start >= size) return -errno.ENXIO;
  const found = seekFrom(tree, file, start, size, whence === SEEK_HOLE);
  if (found < 0) return found;
  reply.u64(structures.fuse_lseek_out.fields.offset, found);
  return structures.fuse_lseek_out.size;
}

function seekFrom(tree: FileSystem, file: FileId, start: number, size: number, hole: boolean): number {
  let position = start;
  for (let count = 0; position < size; count++) {
    // Zeros called data and holes not told of are both allowed, and both copy right.
    if (count === MOST_EXTENTS) return hole ? size : position;
    const extent = tree.extentAt!(file, position);
    if (extent.hole === hole) return position;
    if (!(extent.length > 0)) throw new Error(`an extent of ${extent.length} bytes at ${position} of file ${file}`);
    position += extent.length;
  }
  return hole ? size : -errno.ENXIO;
}

function getAttribute(session: Session, request: Request, reply: Reply): number {
  const { tree } = session;
  if (!tree.extendedAttributes) return -errno.ENOSYS;
  const name = Buffer.from(request.name(structures.fuse_getxattr_in.size)).toString();
  const value = tree.extendedAttributes(session.file(request)).get(name);
  if (value === undefined) return -errno.ENODATA;
  return sized(request, reply, value);
}

function listAttributes(session: Session, request: Request, reply: Reply): number {
  const { tree } = session;
  if (!tree.extendedAttributes) return -errno.ENOSYS;
  // NTFS internals are there for who asks by name, as ntfs-3g has it: what copies all attributes could not set them.
  const names = [...tree.extendedAttributes(session.file(request)).keys()].filter(
    (name) => !name.startsWith("system.ntfs_"),
  );
  return sized(request, reply, Buffer.from(names.map((name) => `${name}\0`).join("")));
}

/** A value for a reader who gave its buffer's size, or 0 to be told the size. */
function sized(request: Request, reply: Reply, value: Uint8Array): number {
  const room = request.u32(structures.fuse_getxattr_in.fields.size);
  if (value.length > LONGEST_ATTRIBUTE) return -errno.E2BIG;
  if (room === 0) {
    reply.u64(structures.fuse_getxattr_out.fields.size, value.length);
    return structures.fuse_getxattr_out.size;
  }
  if (value.length > room) return -errno.ERANGE;
  reply.body.set(value);
  return value.length;
}

/** What a worker has at hand it answers; only what was put off can be given up. */
function interrupt(session: Session, request: Request): number {
  const at = structures.fuse_interrupt_in.fields.unique;
  session.interrupted((BigInt(request.u32(at + 4)) << 32n) | BigInt(request.u32(at)));
  return NO_REPLY;
}

/** Nothing to do on an image, which does not change. */
const done: Handler = () => 0;
/** The kernel takes ENOSYS for "never ask again": it does these by itself, or not at all. */
const unneeded: Handler = () => -errno.ENOSYS;
const readOnly: Handler = () => -errno.EROFS;
const noReply: Handler = () => NO_REPLY;

const rows: [keyof typeof opcodes, Handler][] = [
  ["LOOKUP", lookup],
  ["GETATTR", attributes],
  ["STATX", extendedStat],
  ["READLINK", readLink],
  ["STATFS", statistics],
  ["READ", read],
  ["READDIR", listing(false)],
  ["READDIRPLUS", listing(true)],
  ["LSEEK", seek],
  ["GETXATTR", getAttribute],
  ["LISTXATTR", listAttributes],
  // Node numbers are computed from the image, so there is nothing to forget.
  ["FORGET", noReply],
  ["BATCH_FORGET", noReply],
  ["INTERRUPT", interrupt],
  ["DESTROY", done],
  ["RELEASE", release],
  ["RELEASEDIR", done],
  ["OPEN", open],
  ["OPENDIR", unneeded],
  ["FLUSH", unneeded],
  ["ACCESS", unneeded],
  ["FSYNC", synchronise],
  ["FSYNCDIR", unneeded],
  ["WRITE", write],
  ["FALLOCATE", allocate],
  ["SETATTR", setAttributes],
  // Nothing is made or removed, whether files can be written to or not.
  ["SYMLINK", readOnly],
  ["MKNOD", readOnly],
  ["MKDIR", readOnly],
  ["UNLINK", readOnly],
  ["RMDIR", readOnly],
  ["RENAME", readOnly],
  ["RENAME2", readOnly],
  ["LINK", readOnly],
  ["CREATE", readOnly],
  ["TMPFILE", readOnly],
  ["SETXATTR", readOnly],
  ["REMOVEXATTR", readOnly],
  ["COPY_FILE_RANGE", unneeded],
];

const operations: (Handler | undefined)[] = [];
for (const [name, handler] of rows) operations[opcodes[name]] = handler;
