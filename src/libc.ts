/**
 * The few calls of the C library that Node lacks, through koffi: holes of files (lseek), mounting (mount, umount2),
 * descriptors over sockets (recvmsg). koffi is loaded at the first call, since most runs of `spindle` need none.
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

/** posix_fadvise(2), Linux only. Returns an errno, 0 for success. */
export const fadvise = lazy<(fd: number, offset: number, length: number, advice: number) => number>(
  "int posix_fadvise(int, int64_t, int64_t, int)",
);
export const POSIX_FADV_DONTNEED = 4;

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
