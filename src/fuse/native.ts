/**
 * The portable driver: the fuse-native package over libfuse 2. One event loop answers all requests, by paths. The direct
 * driver (direct/) is faster and is the default on Linux; this one also runs on macOS.
 *
 * What the package does not do is done here: it neither notices that somebody else unmounted, nor unmounts without
 * starting a shell, nor keeps to the size of the buffer that an extended attribute is asked for with. Its limits remain:
 * times have milliseconds and begin in 1970, and names that aren't UTF-8 show U+FFFD for the bytes that break it.
 *
 * What is written to goes past the kernel's page cache (direct_io): the package can't have the kernel forget what was
 * written through another file. So nothing can be mapped to be written to (mmap with MAP_SHARED), each read asks the server,
 * and there is no fallocate, so that holes can't be punched; a discard of a loop device is refused.
 */
import { readdirSync, readlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { NotYet } from "../bytes/byte-source.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { missing } from "../errors.js";
import type { Attributes, FileKind } from "../filesystems/filesystem.js";
import { settings } from "../settings.js";
import type { Driver, MountPlan, Server, TreeBuilder } from "./driver.js";
import { listMounts, type Mount, mountAt, ourType } from "./mounts.js";
import { failureInWords } from "./native-failure.js";
import { NativeTree } from "./native-tree.js";
import { unmountAt } from "./unmounting.js";

/** Milliseconds between two looks at whether the mount is still there. */
const lookInterval = 200;
/** Milliseconds that a request waits at a time for bytes that have to be unpacked first, and between two attempts. */
const patience = 50;
/** Milliseconds that the kernel may take for the first request of a new mount. */
const initPatience = 10_000;

type Signal = (result: number, ...values: unknown[]) => void;
type Callback = (error?: Error | null) => void;

/** The part of fuse-native 2.2.6 that is used: its class, and the methods that its C code calls. */
interface FuseSession {
  mount(done: Callback): void;
  /** Lets go of the event loop, after what Fuse.unmount does. */
  _close(done: Callback): void;
}
interface FuseClass {
  new (mountpoint: string, operations: Record<string, () => void>, options: { timeout: false }): FuseSession;
  unmount(mountpoint: string, done: Callback): void;
}

export const native: Driver = {
  name: "fuse-native",
  async mount(plan: MountPlan): Promise<Server> {
    const Fuse = load();
    const build = ((await import(plan.tree.module)) as Record<string, TreeBuilder>)[plan.tree.exported]!;
    let isServing = false;
    // The event loop is never held up for long: unmounting and signals need it.
    const cache = new LocalChunkCache(plan.cacheBytes);
    const files = build(plan.tree.data, cache, 0, (waited, position) => {
      if (isServing && waited >= patience) throw new NotYet(position);
    });
    const tree = new NativeTree(files, plan.log);
    isServing = true;
    const before = mountAt(plan.mountpoint);
    const descriptors = fuseDescriptors();
    const session = new (sessionClass(Fuse, tree, optionString(plan)))(plan.mountpoint, operations(plan.writable), {
      timeout: false,
    });
    try {
      await opened(session);
    } catch (error) {
      await takeAway(plan.mountpoint, before);
      await new Promise<void>((done) => session._close(() => done()));
      throw failureInWords(plan, error);
    }
    const mount = mountAt(plan.mountpoint);
    if (mount) raiseReadahead(mount);
    const descriptor = fuseDescriptors().find((fd) => !descriptors.includes(fd));
    const counters = () => ({ ...tree.counters(), ...cache.counters });
    return serving(plan, session, counters, mount, descriptor);
  },
};

/** @throws ImageError naming the package that is missing */
function load(): FuseClass {
  let Fuse: FuseClass;
  try {
    Fuse = createRequire(import.meta.url)("fuse-native") as FuseClass;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (/libfuse|osxfuse/i.test(message))
      throw missing(
        process.platform === "darwin"
          ? "The fuse-native driver needs macFUSE, which is not installed. Install it from https://macfuse.github.io."
          : "The fuse-native driver needs the library libfuse.so.2, which is not installed. Install it with: apt install libfuse2",
      );
    throw missing(`The fuse-native driver can't be loaded on this system: ${message.split("\n")[0]}`);
  }
  // _close() would start a shell with fusermount first; here the mount is gone already when it is called.
  Fuse.unmount = (_, done) => done(null);
  return Fuse;
}

const reading = ["getattr", "readdir", "open", "read", "release", "readlink", "statfs", "getxattr", "listxattr"];
const writing = ["write", "fsync", "truncate", "ftruncate", "chmod", "chown", "utimens"];
/** Nothing is made or removed where files are written to; a mount that is read-only refuses these by itself. */
const refusing = ["mknod", "mkdir", "unlink", "rmdir", "rename", "symlink", "link"];

/** Tells the package which requests we answer; the answers themselves are in sessionClass. */
const operations = (writable: boolean | undefined) =>
  Object.fromEntries([...reading, ...(writable ? [...writing, ...refusing] : [])].map((name) => [name, () => {}]));

/**
 * The package's class with the methods that its C code calls. It would wrap friendlier ones, but those can't answer
 * ERANGE, and make an array of 18 numbers for every entry of a folder.
 */
function sessionClass(Fuse: FuseClass, tree: NativeTree, optionText: string): FuseClass {
  class Session extends Fuse {
    _fuseOptions() {
      return optionText;
    }
    _op_getattr(signal: Signal, path: string) {
      const result = tree.answer(path, () => statNumbers(tree.attributes(path)));
      if (typeof result === "number") signal(result, new Uint32Array(18));
      else signal(0, result);
    }
    _op_readdir(signal: Signal, path: string) {
      const result = tree.answer(path, () => tree.list(path));
      if (typeof result === "number") return signal(result, [], []);
      signal(
        0,
        [".", "..", ...result.names],
        [kindNumbers.directory, kindNumbers.directory, ...result.kinds.map((kind) => kindNumbers[kind])],
      );
    }
    _op_open(signal: Signal, path: string, flags: number) {
      const result = tree.answer(path, () => ({ handle: tree.open(path, flags) }));
      if (typeof result === "number") signal(result, 0);
      else signal(0, result.handle);
    }
    _op_release(signal: Signal, _path: string, handle: number) {
      tree.release(handle);
      signal(0);
    }
    _op_read(signal: Signal, path: string, handle: number, target: Buffer, _: number, low: number, high: number) {
      const result = tree.answer(path, () => ({ count: tree.read(path, handle, low + high * 2 ** 32, target) }));
      signal(typeof result === "number" ? result : result.count, 0, target.buffer);
    }
    _op_write(signal: Signal, path: string, handle: number, bytes: Buffer, _: number, low: number, high: number) {
      const result = tree.answer(path, () => ({ count: tree.write(path, handle, low + high * 2 ** 32, bytes) }));
      signal(typeof result === "number" ? result : result.count, 0, bytes.buffer);
    }
    _op_fsync(signal: Signal, path: string) {
      signal(tree.answer(path, () => tree.synchronise()) ?? 0);
    }
    _op_truncate(signal: Signal, path: string, low: number, high: number) {
      signal(tree.answer(path, () => tree.truncate(path, low + high * 2 ** 32)) ?? 0);
    }
    _op_ftruncate(signal: Signal, path: string, _handle: number, low: number, high: number) {
      signal(tree.answer(path, () => tree.truncate(path, low + high * 2 ** 32)) ?? 0);
    }
    // Owners, modes and times are as they are; that a program would set them is passed over, as by the direct driver.
    _op_chmod(signal: Signal) {
      signal(0);
    }
    _op_chown(signal: Signal) {
      signal(0);
    }
    _op_utimens(signal: Signal) {
      signal(0);
    }
    _op_readlink(signal: Signal, path: string) {
      const result = tree.answer(path, () => tree.readLink(path));
      if (typeof result === "number") signal(result, "");
      else signal(0, result);
    }
    _op_statfs(signal: Signal, path: string) {
      const result = tree.answer(path, () => tree.statfsNumbers());
      if (typeof result === "number") signal(result, new Uint32Array(11));
      else signal(0, result);
    }
    _op_getxattr(signal: Signal, path: string, name: string, target: Buffer) {
      const result = tree.answer(path, () => tree.extendedAttribute(path, name));
      signal(typeof result === "number" ? result : fillAttribute(result, target), target.buffer);
    }
    _op_listxattr(signal: Signal, path: string, target: Buffer) {
      const result = tree.answer(path, () => tree.extendedAttributeNames(path));
      signal(typeof result === "number" ? result : fillAttribute(result, target), target.buffer);
    }
  }
  for (const name of Object.keys(operations(true))) makePatient(Session.prototype, `_op_${name}`);
  const refuse = (signal: Signal) => signal(-constants.errno.EROFS);
  Object.assign(Session.prototype, Object.fromEntries(refusing.map((name) => [`_op_${name}`, refuse])));
  return Session as unknown as FuseClass;
}

/** A request that has to wait for its bytes is asked again until they are there. */
function makePatient(prototype: object, name: string): void {
  const methods = prototype as Record<string, (...parameters: unknown[]) => void>;
  const act = methods[name]!;
  methods[name] = function attempt(this: unknown, ...parameters) {
    try {
      act.apply(this, parameters);
    } catch (error) {
      if (!(error instanceof NotYet)) throw error;
      setTimeout(() => attempt.apply(this, parameters), patience);
    }
  };
}

/** getxattr(2): the size is asked for with an empty buffer; a value that doesn't fit is no value. */
function fillAttribute(value: Uint8Array, target: Buffer): number {
  if (target.length === 0) return value.length;
  if (value.length > target.length) return -constants.errno.ERANGE;
  target.set(value);
  return value.length;
}

const typeBits: Record<FileKind, number> = {
  fifo: 0o010000,
  character: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
};

/** A stat of which only the kind is known, as a listing needs it. */
const kindNumbers = Object.fromEntries(
  Object.entries(typeBits).map(([kind, bits]) => [kind, Uint32Array.of(bits, ...new Array<number>(17).fill(0))]),
) as Record<FileKind, Uint32Array>;

/** A struct stat in the order of fuse-native's populate_stat(): 64-bit numbers take two words, low first. */
function statNumbers({ kind, mode, owner, group, size, links, device, allocated, ...times }: Attributes): Uint32Array {
  const words = new Uint32Array(18);
  const long = (at: number, value: number) => {
    words[at] = value % 2 ** 32;
    words[at + 1] = Math.floor(value / 2 ** 32);
  };
  const { major = 0, minor = 0 } = device ?? {};
  words[0] = typeBits[kind] | mode;
  words[1] = owner;
  words[2] = group;
  long(3, size);
  words[6] = links;
  words[8] = (((major & 0xfff) << 8) | (minor & 0xff) | ((minor & ~0xff) << 12)) >>> 0;
  words[9] = 4096;
  long(10, Math.ceil(allocated / 512));
  for (const [at, time] of [
    [12, times.accessed],
    [14, times.modified],
    [16, times.changed],
  ] as const)
    long(at, Math.max(0, time.seconds * 1000 + Math.floor(time.nanoseconds / 1e6)));
  return words;
}

/** The `-o` list for libfuse; a comma within a value is escaped. */
function optionString({ options, writable }: MountPlan): string {
  const escaped = (text: string) => text.replace(/[\\,]/g, "\\$&");
  const list = [writable ? "rw" : "ro", "nosuid", "nodev", `fsname=${escaped(options.fsname)}`, "subtype=spindle"];
  // An image doesn't change: the kernel may keep what it was told.
  list.push("entry_timeout=86400", "negative_timeout=86400");
  if (writable) list.push("direct_io", "big_writes", "attr_timeout=1");
  else list.push("kernel_cache", "attr_timeout=86400");
  if (process.platform === "linux") list.push("nonempty");
  if (options.allowOther) list.push("allow_other", "default_permissions");
  list.push(...options.others.map(escaped));
  return `-o${list.join(",")}`;
}

function opened(session: FuseSession): Promise<void> {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error("the kernel sent no request to it")), initPatience);
    session.mount((error) => {
      clearTimeout(timer);
      if (error) fail(error);
      else done();
    });
  });
}

/** Descriptors of this process that are connections to the kernel. None where /proc does not tell. */
function fuseDescriptors(): number[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc/self/fd").map(Number).filter(isFuse);
}

function isFuse(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === "/dev/fuse";
  } catch {
    return false;
  }
}

/** 1 MiB where it is permitted; a mount works without. */
function raiseReadahead({ device }: Mount): void {
  try {
    writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, String(settings.readaheadKiB));
  } catch {
    // only root may
  }
}

/**
 * After a failure: removes what came to `mountpoint` since `before` was there. Only that place is compared: a mount that
 * ended elsewhere in between has left its numbers to the new one.
 */
async function takeAway(mountpoint: string, before: Mount | undefined): Promise<void> {
  const mount = mountAt(mountpoint);
  if (mount?.type !== ourType || (mount.id === before?.id && mount.device === before.device)) return;
  await unmountAt(mountpoint, true).catch(() => {});
}

function serving(
  plan: MountPlan,
  session: FuseSession,
  counters: Server["counters"],
  mount: Mount | undefined,
  descriptor: number | undefined,
): Server {
  const isThere = () =>
    listMounts().some(
      ({ id, device, mountpoint }) => id === mount?.id && device === mount.device && mountpoint === mount.mountpoint,
    );
  // libfuse closes the descriptor when the kernel has ended the connection, after the last open file is closed. Without
  // /proc only the mount itself can be watched.
  const isConnected = () => (descriptor === undefined ? isThere() : isFuse(descriptor));
  const finished = new Promise<void>((done) => {
    const timer = setInterval(() => {
      if (isConnected()) return;
      clearInterval(timer);
      session._close(() => done());
    }, lookInterval);
  });
  let unmounting = false;
  return {
    finished,
    unmount() {
      if (unmounting || !isThere()) return;
      unmounting = true;
      unmountAt(plan.mountpoint, true)
        .catch((error: unknown) => plan.log(error instanceof Error ? error.message : String(error)))
        .finally(() => {
          unmounting = false;
        });
    },
    counters,
  };
}
