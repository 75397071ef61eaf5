/** The first exchange of a mount: what kernel and server may ask of each other. No I/O. */
import { unsupported } from "../../errors.js";
import { settings } from "../../settings.js";
import { initFlags, initFlags2, protocol, type Reply, type Request, structures } from "./protocol.js";

const initIn = structures.fuse_init_in.fields;
const initOut = structures.fuse_init_out.fields;

/** Requests for which nobody waits (readahead) that the kernel sends before it holds further ones back. */
const MOST_BACKGROUND = 64;
/**
 * The same of a mount that is written to, where those are among them whose reply waits until others forgot what was written
 * (`mostAwaited`): what they wait for is to find room. Normal users get 83 at least (a machine of 256 MiB).
 */
const MOST_BACKGROUND_WRITING = 256;

/**
 * What is asked for:
 * - ASYNC_READ, ASYNC_DIO: several reads of one file under way at a time;
 * - EXPORT_SUPPORT: node numbers last for ever, so NFS may come back to one after the kernel forgot it;
 * - DO_READDIRPLUS: a listing brings attributes along. Not with AUTO, by which the kernel asks for the later pieces of a
 *   listing without: a LOOKUP costs twenty times what the attributes do;
 * - NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT: after the first ENOSYS no OPEN and no RELEASE are sent, caches are kept;
 * - POSIX_ACL where the kernel is to enforce permissions: it then asks for access control lists and goes by them, which
 *   mode bits alone would get wrong both ways. It implies default_permissions, so it isn't for the mounting user alone;
 * - WRITEBACK_CACHE: for the sake of reads. With it the kernel takes sizes as it knows them, which is right for an image,
 *   and fills what a reply lacks with zeros instead of taking it for the file's end: a stretch of zeros is then answered
 *   with no bytes at all, and the kernel need not copy them;
 * - INIT_EXT: flags2;
 * - CACHE_SYMLINKS, PARALLEL_DIROPS, MAX_PAGES: fewer requests, more at a time, larger ones.
 */
const always =
  initFlags.ASYNC_READ |
  initFlags.ASYNC_DIO |
  initFlags.EXPORT_SUPPORT |
  initFlags.BIG_WRITES |
  initFlags.DO_READDIRPLUS |
  initFlags.PARALLEL_DIROPS |
  initFlags.NO_OPENDIR_SUPPORT |
  initFlags.MAX_PAGES |
  initFlags.CACHE_SYMLINKS |
  initFlags.INIT_EXT;

/**
 * The first kernel (Linux 6.12) of which it is known that it goes past the page cache properly. From 6.9 on it tells those who
 * do from those who have the file mapped or open to read, and until 6.12 mistook one for the other.
 */
const firstPastCache = 41;

/** What a mount wants of the kernel. */
export interface Wishes {
  /** Whether the kernel is to enforce the files' permissions. */
  readonly enforce?: boolean;
  /** Whether files can be written to. */
  readonly writable?: boolean;
  /** Whether who opens a file to write goes through the page cache nevertheless. */
  readonly pageCache?: boolean;
}

/** What was agreed on with the kernel. */
export interface Agreement {
  /** Whether the kernel fills what a reply to a read of its page cache lacks with zeros. */
  readonly fillsZeros: boolean;
  /** Whether files may be opened past the page cache and be mapped nevertheless. */
  readonly pastCache: boolean;
}

/** Of a mount that is only read. One that is written to has to know which of its files are open (handlers.ts). */
const readOnly = initFlags.WRITEBACK_CACHE | initFlags.NO_OPEN_SUPPORT;

/**
 * Writes the body of the reply to INIT. There is no agreement yet when the kernel speaks a newer major version: it will send
 * a second INIT in ours.
 * @param pageSize of this machine, bytes: the kernel counts a request's size in pages.
 * @throws ImageError `unsupported` for a kernel before Linux 5.4.
 */
export function answerInit(
  request: Request,
  reply: Reply,
  pageSize: number,
  { enforce, writable, pageCache }: Wishes,
): { length: number; agreement?: Agreement } {
  const major = request.u32(initIn.major);
  const minor = request.u32(initIn.minor);
  reply.clear(0, structures.fuse_init_out.size);
  reply.u32(initOut.major, protocol.major);
  reply.u32(initOut.minor, major > protocol.major ? protocol.minor : Math.min(minor, protocol.minor));
  if (major > protocol.major) return { length: structures.fuse_init_out.size };
  if (major < protocol.major || minor < protocol.oldestMinor)
    throw unsupported(
      `this kernel speaks FUSE ${major}.${minor}; Spindle's direct driver needs ${protocol.major}.${protocol.oldestMinor} (Linux 5.4). Mount with --driver fuse-native.`,
    );
  reply.u32(initOut.max_readahead, settings.readaheadKiB * 1024);
  const agreed = (always | (writable ? 0 : readOnly) | (enforce ? initFlags.POSIX_ACL : 0)) & request.u32(initIn.flags);
  reply.u32(initOut.flags, agreed);
  const offered = (agreed & initFlags.INIT_EXT) !== 0 ? request.u32(initIn.flags2) : 0;
  const agreed2 = writable && !pageCache && minor >= firstPastCache ? initFlags2.DIRECT_IO_ALLOW_MMAP & offered : 0;
  reply.u32(initOut.flags2, agreed2);
  reply.u16(initOut.max_background, writable ? MOST_BACKGROUND_WRITING : MOST_BACKGROUND);
  reply.u16(initOut.congestion_threshold, (MOST_BACKGROUND * 3) / 4);
  // A small value lets the workers' request buffers be small.
  reply.u32(initOut.max_write, writable ? settings.largestWriteRequest : 4096);
  reply.u32(initOut.time_gran, 1);
  reply.u16(
    initOut.max_pages,
    Math.max(1, Math.floor((writable ? settings.largestWriteRequest : settings.largestRequest) / pageSize)),
  );
  return {
    length: structures.fuse_init_out.size,
    agreement: {
      fillsZeros: (agreed & initFlags.WRITEBACK_CACHE) !== 0,
      pastCache: agreed2 !== 0,
    },
  };
}
