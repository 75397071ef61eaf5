/** Every number that one may want to change, with its unit and its reason. */

const KiB = 1024;
const MiB = 1024 * KiB;

export const settings = {
  /** Bytes a chunk of a new image: small enough that a 4 KiB read unpacks little, large enough to compress well. */
  chunkSize: 64 * KiB,
  smallestChunk: 16 * KiB,
  largestChunk: 4 * MiB,
  /** Zstandard level of a new image, as `zstd` itself has it. */
  level: 3,
  /** Bytes of disk that one job of create, restore or verify handles: large enough that handing it over costs nothing. */
  jobSize: 4 * MiB,
  /**
   * Most bytes that are written to a file at once. A write of 2 MiB and more takes huge pages of memory, which a virtual
   * machine may have given back to its host: writing then was ten times slower, and 1 MiB stays in the processor's cache.
   */
  largestWrite: 1 * MiB,
  /** Layers of a chain; a longer one is taken for a loop. */
  deepestChain: 1000,
  /** Wrappings around an image (a disk in an archive, packed): an archive can be made that holds itself, without end. */
  deepestWrapping: 8,
  /** Files of a folder that are looked into for a parent that was renamed: a look costs a few small reads. */
  filesSearchedForParent: 1000,
  /** Index pages of an image kept by each thread. A leaf page unpacks to some 14 KiB: at most 7 MiB. */
  indexPages: 512,
  /** Bytes of unpacked chunks a command keeps that reads an image in its own process. */
  cacheBytes: 64 * MiB,
  /**
   * Bytes of unpacked chunks a mount keeps by default: this share of the machine's memory, within these bounds. The kernel
   * keeps what was served; what lies around it in a chunk is kept here alone, and reads at random come back to it. Memory
   * is taken as chunks come.
   */
  mountCache: { share: 1 / 16, least: 64 * MiB, most: 1024 * MiB },
  /**
   * Threads that answer FUSE requests unless others are asked for: one a processor, within these bounds. With one alone a miss
   * blocks the hits behind it. Each compiles what it runs, so that more than there are processors cost a reader of some
   * gigabytes a fifth of its speed, and gained a quarter where four readers waited for a disk.
   */
  leastUsualWorkers: 2,
  /**
   * A server takes some 65 MB, and 14 to 18 MB for each of them: after four readers had gone through a disk at random it had,
   * besides its chunks, 96 MB with 2 workers, 132 with 4 and 189 with 8, and it is to stay under 150 on any machine.
   */
  mostUsualWorkers: 4,
  /**
   * Most bytes of one FUSE request. The kernel would take 1 MiB, but cuts a larger read or its readahead into requests of
   * this size and sends them at once: several workers then unpack side by side. 256 KiB was half as fast again as 1 MiB.
   */
  largestRequest: 256 * KiB,
  /**
   * Most bytes of one request that writes: all that the kernel takes, since it sends the requests of a write one after another.
   * 1 MiB was a tenth faster than 512 KiB past the page cache, buffered or with O_DIRECT, and some 4 % through it. Reads of such a
   * mount are kept to `largestRequest` by an option of it.
   */
  largestWriteRequest: 1 * MiB,
  /** Readahead of a mount in KiB, where the system lets it be raised: 1 MiB doubled buffered throughput, and 2 MiB gave a third
   * more, since the workers have a window to unpack while the one before is read. */
  readaheadKiB: 2048,
  /** Bytes that seek points of compressed disks, and what is kept of those without any, may take in the cache folder. */
  packedCacheBytes: 8 * 1024 * MiB,
  /** Bytes of a disk that are left free by it. */
  packedCacheSpare: 512 * MiB,
  /** Milliseconds that the server of a mount without users gets to end. */
  endPatience: 10_000,
  /** The same of a mount that was written to: all that is in the overlay goes to the disk first, which may be slow or busy. */
  flushPatience: 600_000,
  /** Bytes of unpacked pieces of compressed disks that a process keeps in a temporary file. */
  scratchBytes: 1024 * MiB,
  /** Bytes before a place that unpacking it may refer to, of an xz block: each thread that unpacks one has as many. */
  largestDictionary: 256 * MiB,
} as const;
