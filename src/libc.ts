/**
 * The few calls of the C library that Node lacks, through koffi: holes of files (lseek), mounting (mount, umount2),
 * descriptors over sockets (recvmsg), files by name in an open folder (openat and its kin). koffi is loaded at the first call, since most runs of `spindle` need none.
 */
import { createRequire } from "node:module";

type Koffi = typeof import("koffi");
type Library = ReturnType<Koffi["load"]>;

const require = createRequire(import.meta.url);
let koffi: Koffi | undefined;
let library: Library | undefined;

function libc(): Library {
  koffi ??= require("koffi") as Koffi;
  library ??= koffi.load(process.platform === "darwin" ? "libSystem.dylib" : "libc.so.6");
  return library;
}

/** Declares one function, at its first use: `lazy("long lseek(int, long, int)")`. */
function lazy<F extends (...parameters: never[]) => number>(declaration: string): F {
  let call: F | undefined;
  return ((...parameters: never[]) => {
    call ??= libc().func(declaration) as unknown as F;
    return call(...parameters);
  }) as F;
}

/** errno of the last call of this module. */
export function errno(): number {
  return koffi ? koffi.errno() : 0;
}

/** A call's failure as Node would have thrown it: with `code` (`ENOENT`) and `errno`. */
export function failure(call: string): NodeJS.ErrnoException {
  const number = errno();
  const os = require("node:os") as typeof import("node:os");
  const code = Object.entries(os.constants.errno).find(([, value]) => value === number)?.[0] ?? `errno ${number}`;
  return Object.assign(new Error(`${code}: ${call}`), { code, errno: number, syscall: call });
}

/** lseek(2). Offsets up to 2^53. Returns -1 on failure. */
export const lseek = lazy<(fd: number, offset: number, whence: number) => number>("int64_t lseek(int, int64_t, int)");
export const SEEK_END = 2;
export const SEEK_DATA = process.platform === "darwin" ? 4 : 3;
export const SEEK_HOLE = process.platform === "darwin" ? 3 : 4;
export const ENXIO = 6;

/** fallocate(2), Linux only. Returns -1 on failure. */
export const fallocate = lazy<(fd: number, mode: number, offset: number, length: number) => number>(
  "int fallocate(int, int, int64_t, int64_t)",
);
export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;

const syncFileRange = lazy<(fd: number, position: number, length: number, flags: number) => number>(
  "int sync_file_range(int, int64_t, int64_t, unsigned int)",
);
const SYNC_FILE_RANGE_WRITE = 2;

/** Has the system begin to write a stretch to the device, where it can; says nothing of whether that succeeds. */
export function beginWriting(fd: number, position: number, length: number): void {
  if (process.platform === "linux") syncFileRange(fd, position, length, SYNC_FILE_RANGE_WRITE);
}

const posixFadvise = lazy<(fd: number, position: number, length: number, advice: number) => number>(
  "int posix_fadvise(int, int64_t, int64_t, int)",
);
export const POSIX_FADV_WILLNEED = 3;
export const POSIX_FADV_DONTNEED = 4;

/** posix_fadvise(2), where there is one; advice that isn't taken does no harm. */
export function fadvise(fd: number, position: number, length: number, advice: number): void {
  if (process.platform === "linux") posixFadvise(fd, position, length, advice);
}

const pollCall = lazy<(descriptors: Uint8Array, count: number, milliseconds: number) => number>(
  "int poll(void *, unsigned long, int)",
);
const POLLIN = 1;

/** poll(2) of one descriptor: a function that tells whether it can be read from, or has ended, without waiting. */
export function readable(fd: number): () => boolean {
  // struct pollfd: the descriptor, what is asked for, what is there.
  const descriptors = Buffer.alloc(8);
  descriptors.writeInt32LE(fd, 0);
  descriptors.writeInt16LE(POLLIN, 4);
  return () => pollCall(descriptors, 1, 0) !== 0;
}

/** sched_yield(2): another thread runs, if one wants this one's processor. */
export const yieldProcessor = lazy<() => number>("int sched_yield(void)");

/** setsid(2). Returns -1 on failure. */
export const setsid = lazy<() => number>("int setsid(void)");

/** flock(2). Returns -1 on failure. The lock goes with the last descriptor of this opening, however its process ends. */
export const flock = lazy<(fd: number, operation: number) => number>("int flock(int, int)");
export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const LOCK_UN = 8;
export const EWOULDBLOCK = process.platform === "darwin" ? 35 : 11;

/** umount2(2), Linux only. Returns -1 on failure. */
export const umount2 = lazy<(path: string, flags: number) => number>("int umount2(const char *, int)");

/** fcntl(2) with a number as its third argument, Linux only. Returns -1 on failure. */
export const fcntl = lazy<(fd: number, command: number, value: number) => number>("int fcntl(int, int, int)");
export const F_SETFD = 2;
export const FD_CLOEXEC = 1;

/** mount(2), Linux only. Returns -1 on failure. */
export const mount = lazy<(source: string, target: string, type: string, flags: number, data: string) => number>(
  "int mount(const char *, const char *, const char *, unsigned long, const char *)",
);

export const getpagesize = lazy<() => number>("int getpagesize(void)");

const socketpair = lazy<(domain: number, type: number, protocol: number, pair: Int32Array) => number>(
  "int socketpair(int, int, int, int *)",
);
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
const SOCK_CLOEXEC = 0o2000000;

/**
 * Two connected Unix sockets, which no child process inherits by itself; Linux only. With `packets` each write is read
 * whole or not at all.
 * @throws Error as Node throws it.
 */
export function socketPair(packets = false): [number, number] {
  const pair = new Int32Array(2);
  if (socketpair(AF_UNIX, (packets ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0, pair) < 0)
    throw failure("socketpair");
  return [pair[0]!, pair[1]!];
}

const recvmsg = lazy<(socket: number, message: Uint8Array, flags: number) => number>(
  "int64_t recvmsg(int, void *, int)",
);
const MSG_CMSG_CLOEXEC = 0x40000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

/**
 * Receives the descriptor that another process passes through `socket` (unix(7), SCM_RIGHTS); no child process
 * inherits it. Linux only. Undefined when the other end was closed without passing one.
 * @throws Error as Node throws it.
 */
export function receiveDescriptor(socket: number): number | undefined {
  libc();
  const address = (bytes: Uint8Array) => BigInt(koffi!.address(bytes));
  const byte = Buffer.alloc(1);
  // struct cmsghdr: length (8 bytes), level, type, and then the descriptor at byte 16; 24 bytes with padding.
  const control = Buffer.alloc(24);
  // struct iovec: where to, how many.
  const vector = Buffer.alloc(16);
  vector.writeBigUInt64LE(address(byte), 0);
  vector.writeBigUInt64LE(1n, 8);
  // struct msghdr of 64-bit Linux: name (none), vectors and their number, control and its length, flags.
  const message = Buffer.alloc(56);
  message.writeBigUInt64LE(address(vector), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(address(control), 32);
  message.writeBigUInt64LE(BigInt(control.length), 40);
  const count = recvmsg(socket, message, MSG_CMSG_CLOEXEC);
  if (count < 0) throw failure("recvmsg");
  if (count === 0 || control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) return undefined;
  return control.readInt32LE(16);
}

const linux = process.platform !== "darwin";
export const AT_SYMLINK_NOFOLLOW = linux ? 0x100 : 0x20;

/** A name as C has it; the calls beneath take names as bytes, relative to the open folder `folder`. */
const ended = (name: Uint8Array) => Buffer.concat([name, Buffer.alloc(1)]);

let openatCall:
  | ((folder: number, name: Uint8Array, flags: number, type: "uint32_t", mode: number) => number)
  | undefined;

/** openat(2). Returns -1 on failure. */
export function openat(folder: number, name: Uint8Array, flags: number, mode = 0): number {
  openatCall ??= libc().func("int openat(int, const void *, int, ...)") as unknown as NonNullable<typeof openatCall>;
  return openatCall(folder, ended(name), flags, "uint32_t", mode);
}

const mkdiratCall = lazy<(folder: number, name: Uint8Array, mode: number) => number>(
  "int mkdirat(int, const void *, uint32_t)",
);
/** mkdirat(2). Returns -1 on failure. */
export const mkdirat = (folder: number, name: Uint8Array, mode: number) => mkdiratCall(folder, ended(name), mode);

const symlinkatCall = lazy<(target: Uint8Array, folder: number, name: Uint8Array) => number>(
  "int symlinkat(const void *, int, const void *)",
);
/** symlinkat(2). Returns -1 on failure. */
export const symlinkat = (target: Uint8Array, folder: number, name: Uint8Array) =>
  symlinkatCall(ended(target), folder, ended(name));

const linkatCall = lazy<(from: number, old: Uint8Array, folder: number, name: Uint8Array, flags: number) => number>(
  "int linkat(int, const void *, int, const void *, int)",
);
/** linkat(2); a symbolic link is linked itself. Returns -1 on failure. */
export const linkat = (from: number, old: Uint8Array, folder: number, name: Uint8Array) =>
  linkatCall(from, ended(old), folder, ended(name), 0);

const mknodatCall = lazy<(folder: number, name: Uint8Array, mode: number, device: bigint) => number>(
  "int mknodat(int, const void *, uint32_t, uint64_t)",
);
/** mknodat(2), Linux only; `mode` has the kind of file in it. Returns -1 on failure. */
export function mknodat(folder: number, name: Uint8Array, mode: number, major: number, minor: number): number {
  // As gnu_dev_makedev of glibc puts them together.
  const [high, low] = [BigInt(major), BigInt(minor)];
  const device = ((high & 0xfffff000n) << 32n) | ((high & 0xfffn) << 8n) | ((low & 0xffffff00n) << 12n) | (low & 0xffn);
  return mknodatCall(folder, ended(name), mode, device);
}

const unlinkatCall = lazy<(folder: number, name: Uint8Array, flags: number) => number>(
  "int unlinkat(int, const void *, int)",
);
/** unlinkat(2), of what is no folder. Returns -1 on failure. */
export const unlinkat = (folder: number, name: Uint8Array) => unlinkatCall(folder, ended(name), 0);

const fchownatCall = lazy<(folder: number, name: Uint8Array, owner: number, group: number, flags: number) => number>(
  "int fchownat(int, const void *, uint32_t, uint32_t, int)",
);
/** fchownat(2); a symbolic link isn't followed. Returns -1 on failure. */
export const fchownat = (folder: number, name: Uint8Array, owner: number, group: number) =>
  fchownatCall(folder, ended(name), owner, group, AT_SYMLINK_NOFOLLOW);

const fchmodatCall = lazy<(folder: number, name: Uint8Array, mode: number, flags: number) => number>(
  "int fchmodat(int, const void *, uint32_t, int)",
);
/** fchmodat(2); a symbolic link isn't followed. Returns -1 on failure. */
export const fchmodat = (folder: number, name: Uint8Array, mode: number) =>
  fchmodatCall(folder, ended(name), mode, AT_SYMLINK_NOFOLLOW);

interface Moment {
  readonly seconds: number;
  readonly nanoseconds: number;
}

/** Two struct timespec. */
function timespecs(moments: readonly Moment[]): Buffer {
  const bytes = Buffer.alloc(32);
  for (const [index, { seconds, nanoseconds }] of moments.entries()) {
    bytes.writeBigInt64LE(BigInt(seconds), index * 16);
    bytes.writeBigInt64LE(BigInt(nanoseconds), index * 16 + 8);
  }
  return bytes;
}

const utimensatCall = lazy<(folder: number, name: Uint8Array, times: Uint8Array, flags: number) => number>(
  "int utimensat(int, const void *, const void *, int)",
);
/** utimensat(2); a symbolic link isn't followed. Returns -1 on failure. */
export const utimensat = (folder: number, name: Uint8Array, accessed: Moment, modified: Moment) =>
  utimensatCall(folder, ended(name), timespecs([accessed, modified]), AT_SYMLINK_NOFOLLOW);

const futimensCall = lazy<(fd: number, times: Uint8Array) => number>("int futimens(int, const void *)");
/** futimens(3). Returns -1 on failure. */
export const futimens = (fd: number, accessed: Moment, modified: Moment) =>
  futimensCall(fd, timespecs([accessed, modified]));

const fsetxattrCall = lazy<(fd: number, name: string, value: Uint8Array, size: number, flags: number) => number>(
  "int fsetxattr(int, const char *, const void *, size_t, int)",
);
/** fsetxattr(2), Linux only. Returns -1 on failure. */
export const fsetxattr = (fd: number, name: string, value: Uint8Array) =>
  fsetxattrCall(fd, name, value, value.length, 0);

const lsetxattrCall = lazy<(path: Uint8Array, name: string, value: Uint8Array, size: number, flags: number) => number>(
  "int lsetxattr(const void *, const char *, const void *, size_t, int)",
);
/** lsetxattr(2), Linux only, of a file in the open folder `folder`. Returns -1 on failure. */
export const setxattrAt = (folder: number, file: Uint8Array, name: string, value: Uint8Array) =>
  lsetxattrCall(Buffer.concat([Buffer.from(`/proc/self/fd/${folder}/`), ended(file)]), name, value, value.length, 0);
