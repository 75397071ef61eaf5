import type { WhileWaiting } from "../bytes/byte-source.js";
import type { ChunkCache } from "../bytes/chunk-cache.js";
import type { FileSystem } from "../filesystems/filesystem.js";

/**
 * How a thread builds the tree that is served, as plain data: `exported` of `module` is called with `data` and the
 * thread's chunk cache. The same in every thread, at the start and when a crashed worker is replaced; so `data` holds
 * open descriptors rather than paths, which could lead into the mount itself.
 */
export interface TreeSpec {
  /** URL of an ES module, for example `new URL("../open.js", import.meta.url).href`. */
  readonly module: string;
  /** Name of a function of that module, a TreeBuilder. */
  readonly exported: string;
  /** Structured-cloneable. */
  readonly data: unknown;
}

/**
 * A tree that may have to wait for its bytes asks `whileWaiting` whether to wait on.
 * @param worker the thread's number, from 0; a thread that replaces a dead one has its number.
 */
export type TreeBuilder = (data: unknown, cache: ChunkCache, worker: number, whileWaiting?: WhileWaiting) => FileSystem;

/** Options of `-o`, parsed (options.ts). */
export interface MountOptions {
  readonly allowOther: boolean;
  /** Shown as the source in /proc/mounts. */
  readonly fsname: string;
  /** What is left of the `-o` list, as the kernel or fusermount3 takes it: `noexec`, `noatime`, `max_read=…`. */
  readonly others: readonly string[];
}

export interface MountPlan {
  /** Absolute path of an existing folder. */
  readonly mountpoint: string;
  readonly options: MountOptions;
  readonly tree: TreeSpec;
  /** Threads that answer requests; the fuse-native driver has one, whatever is asked. */
  readonly workers: number;
  /** Bytes of unpacked chunks that are kept. */
  readonly cacheBytes: number;
  /** Bytes of the largest chunk the tree puts in the cache; 0 when it uses none. */
  readonly chunkSize: number;
  /** Whether the tree's files can be written to (FileSystem.changes). */
  readonly writable?: boolean;
  /** Whether who opens a file to write goes through the kernel's page cache, where the driver can let it go past that. */
  readonly pageCache?: boolean;
  /** Called when a worker thread has died, before another takes its number. */
  workerDied?(worker: number): void;
  /** One line of the log: a damaged chunk, a crashed worker. */
  log(line: string): void;
}

/** A mount that answers. */
export interface Server {
  /** Resolves when the mount is gone and all threads have ended: the process may exit. */
  readonly finished: Promise<void>;
  /** Unmounts lazily: new opens stop at once, open files are served until they are closed. Never throws; idempotent. */
  unmount(): void;
  /**
   * What it did since its start, by names that all drivers share: `requests` answered, `reads` among them, `bytesRead`,
   * `errors` (requests answered with an input/output error); of the chunk cache `hits`, `waits` (for a chunk that
   * another thread was unpacking) and `unpacked` chunks. A driver may tell more.
   */
  counters(): Record<string, number>;
}

export interface Driver {
  readonly name: "direct" | "fuse-native";
  /**
   * Mounts and returns when the mount answers. If anything fails nothing stays mounted.
   * @throws ImageError telling why and what to do (for example the package to install).
   */
  mount(plan: MountPlan): Promise<Server>;
}
