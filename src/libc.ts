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
