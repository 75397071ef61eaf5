/** The operations of a mount that is written to: what they change, and who has to forget what was there. */
import { NotYet } from "../../bytes/byte-source.js";
import type { Share } from "../../filesystems/filesystem.js";
import { errno, numberOf } from "../errno.js";
import type { Handler, Session } from "./handlers.js";
import { type InvalidationRing, type OpenFiles, ReplyKind } from "./invalidation.js";
import {
  FATTR_SIZE,
  NO_REPLY,
  openFlags,
  type Reply,
  type Request,
  structures,
  WRITE_CACHE,
  WRITE_LOCKOWNER,
} from "./protocol.js";

/** Of fuse_open_in.flags: O_RDONLY is none of these bits. */
const O_ACCMODE = 3;

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_ZERO_RANGE = 16;

export interface Writing {
  readonly open: OpenFiles;
  readonly ring: InvalidationRing;
  /** Whether who opens a file to write goes past the page cache (init.ts). */
  readonly pastCache: boolean;
}

/**
 * A file's pages are forgotten by the kernel when it is opened, and then when others write to the same bytes: so it has to
 * be known who is open.
 *
 * Who may write goes past the page cache where the kernel can do so properly: the overlay's file has pages of what was
 * written already, and to make a second set of them is most of the work of a write. Not with PARALLEL_DIRECT_WRITES, which was
 * 2 to 4 times as fast for four who write at random: two who write at once into what somebody has mapped privately, or read
 * before, may meet in the kernel's fuse_set_nowrite, which then stops the machine (BUG_ON, Linux 6.18).
 */
export function open(session: Session, request: Request, reply: Reply): number {
  const { writing } = session;
  if (!writing) return -errno.ENOSYS;
  const { size, fields } = structures.fuse_open_out;
  writing.open.opened(session.file(request));
  reply.clear(0, size);
  if (writing.pastCache && (request.u32(structures.fuse_open_in.fields.flags) & O_ACCMODE) !== 0)
    reply.u32(fields.open_flags, openFlags.DIRECT_IO);
  return size;
}

export function release(session: Session, request: Request): number {
  session.writing?.open.closed(session.file(request));
  return 0;
}

export function write(session: Session, request: Request, reply: Reply): number {
  const { tree, writing } = session;
  if (!tree.changes || !writing) return -errno.EROFS;
  const { size, fields } = structures.fuse_write_in;
  const file = session.file(request);
  const position = request.u64(fields.offset);
  const isWrittenBack = (request.u32(fields.write_flags) & WRITE_CACHE) !== 0;
  const pastCache = (request.u32(fields.write_flags) & WRITE_LOCKOWNER) !== 0;
  if (!pastCache) writing.open.hasPages(file);
  const rest = tree.attributes(file).size - position;
  const length = Math.min(request.u32(fields.size), rest);
  // As at the end of a device: what fits is written, and then there is no space.
  if (length <= 0) return -errno.ENOSPC;
  const changes = tree.changes;
  const failed = refused(session, () => {
    changes.write(file, position, request.data(size, length));
    // The kernel doesn't ask for that after these, or not after all; of those through the page cache it does.
    if (pastCache && request.isSynchronous) changes.flush();
  });
  const written = { file, position, length };
  if (failed !== 0) return forgetAfter(failed, session, request, written, pastCache);
  reply.u32(structures.fuse_write_out.fields.size, length);
  reply.u32(structures.fuse_write_out.fields.size + 4, 0);
  const kind = isWrittenBack ? ReplyKind.writtenBack : ReplyKind.written;
  const handed = forgetElsewhere(session, request, written, pastCache, kind);
  return handed ? NO_REPLY : structures.fuse_write_out.size;
}

export function allocate(session: Session, request: Request): number {
  const { tree, writing } = session;
  if (!tree.changes || !writing) return -errno.EROFS;
  const { fields } = structures.fuse_fallocate_in;
  const mode = request.u32(fields.mode) & ~FALLOC_FL_KEEP_SIZE;
  // To take room beforehand is nothing that an overlay does; glibc then writes, which takes it.
  if (mode !== FALLOC_FL_PUNCH_HOLE && mode !== FALLOC_FL_ZERO_RANGE) return -errno.EOPNOTSUPP;
  const file = session.file(request);
  const position = request.u64(fields.offset);
  const { size } = tree.attributes(file);
  const wanted = request.u64(fields.length);
  if (position + wanted > size && (request.u32(fields.mode) & FALLOC_FL_KEEP_SIZE) === 0) return -errno.ENOSPC;
  const length = Math.min(wanted, size - position);
  if (length <= 0) return 0;
  const failed = refused(session, () => tree.changes!.clear(file, position, length));
  const cleared = { file, position, length };
  // Of this file the kernel forgets them itself, unless it fails; and it holds none meanwhile.
  if (failed !== 0) return forgetAfter(failed, session, request, cleared, true);
  return forgetElsewhere(session, request, cleared, false, ReplyKind.empty) ? NO_REPLY : 0;
}

export const synchronise: Handler = (session, request) => {
  const { changes } = session.tree;
  if (!changes) return -errno.ENOSYS;
  const failed = refused(session, () => changes.flush());
  // What was changed through a mapping is seen through the other files from then on. It isn't where so much was written that
  // everything is to be forgotten: then it is soon.
  if (failed === 0 && session.writing?.ring.giveReply(request.uniqueLow, request.uniqueHigh)) return NO_REPLY;
  return failed;
};

/** A file keeps its size, as a device does: to cut it to nothing, as `dd of=` does, is passed over, as there. */
export function setAttributes(session: Session, request: Request, reply: Reply): number {
  if (!session.writing) return -errno.EROFS;
  const { fields } = structures.fuse_setattr_in;
  const attributes = session.tree.attributes(session.file(request));
  if ((request.u32(fields.valid) & FATTR_SIZE) !== 0) {
    const size = request.u64(fields.size);
    if (size > attributes.size) return -errno.ENOSPC;
    if (size !== 0 && size !== attributes.size) return -errno.EINVAL;
  }
  return reply.attrOut(attributes);
}

/** 0, or the number of what `act` failed with, which is logged. */
function refused(session: Session, act: () => void): number {
  try {
    act();
    return 0;
  } catch (error) {
    if (error instanceof NotYet) throw error;
    session.log.add(error);
    return -numberOf(error);
  }
}

/** Any part of what failed may have been written, and is seen through the other files as well. @returns `failed` */
function forgetAfter(failed: number, session: Session, request: Request, written: Share, pastCache: boolean): number {
  forgetElsewhere(session, request, written, pastCache, ReplyKind.none);
  return failed;
}

/**
 * @param pastCache whether the kernel has no pages of what was written: then others may have some, of the same file too
 * @returns whether the reply was handed over with what is to be forgotten
 */
function forgetElsewhere(
  session: Session,
  request: Request,
  written: Share,
  pastCache: boolean,
  reply: number,
): boolean {
  const { open, ring } = session.writing!;
  const { file, position, length } = written;
  const shares = session.tree.changes!.others(file, position, length).filter((share) => open.isOpen(share.file));
  if (pastCache && open.mayHavePages(file)) shares.push(written);
  if (shares.length === 0) return false;
  return ring.give(shares, pastCache ? undefined : written, reply, request.uniqueLow, request.uniqueHigh, length);
}
