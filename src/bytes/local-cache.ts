import { LRUCache } from "lru-cache";
import type { ByteSource } from "./byte-source.js";
import type { ChunkCache, PackedChunks } from "./chunk-cache.js";

/**
 * Unpacked chunks of one thread, least recently used out first: what `ls`, `cat`, `verify` and the fuse-native driver
 * use. Threads that serve one mount share their chunks instead, see shared-cache.ts.
 */
export class LocalChunkCache implements ChunkCache {
  private readonly chunks: LRUCache<number, Uint8Array> | undefined;
  /** The buffer that was evicted last: reading on needs one of the same size at once. */
  private spare: Uint8Array | undefined;
  /** Chunks of all sources so far: each source's chunks have keys of their own, counted on from here. */
  private keys = 0;
  /** How often a chunk was there, and how often one was unpacked. */
  readonly counters = { hits: 0, unpacked: 0 };

  /** @param bytes most bytes of unpacked chunks that are kept; 0 keeps none. */
  constructor(private readonly bytes: number) {
    if (bytes >= 1)
      this.chunks = new LRUCache({
        maxSize: Math.floor(bytes),
        sizeCalculation: (chunk) => chunk.length,
        dispose: (chunk) => {
          this.spare = chunk;
        },
      });
  }

  source(packed: PackedChunks): ByteSource {
    const firstKey = this.keys;
    this.keys += Math.ceil(packed.size / packed.chunkSize);
    return new LocalSource(packed, firstKey, this);
  }

  get(key: number): Uint8Array | undefined {
    return this.chunks?.get(key);
  }

  /** Unpacks a chunk that isn't kept, and keeps it; undefined if it is larger than everything that may be kept. */
  unpack(packed: PackedChunks, chunk: number, key: number, length: number): Uint8Array | undefined {
    if (length > this.bytes) return undefined;
    let buffer = this.spare;
    this.spare = undefined;
    if (buffer?.length !== length) buffer = new Uint8Array(length);
    this.counters.unpacked++;
    packed.unpack(chunk, buffer);
    this.chunks!.set(key, buffer);
    return buffer;
  }
}

class LocalSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  /** The last chunk that was too large to be kept, one per source: unpacking one source may read another. */
  private scratch: Uint8Array | undefined;
  private inScratch = -1;

  constructor(
    private readonly packed: PackedChunks,
    private readonly firstKey: number,
    private readonly cache: LocalChunkCache,
  ) {
    this.name = packed.name;
    this.size = packed.size;
  }

  read(position: number, target: Uint8Array): number {
    const length = Math.min(target.length, this.size - position);
    if (length <= 0) return 0;
    let filled = 0;
    try {
      while (filled < length) filled += this.readChunk(position + filled, target, filled, length - filled);
    } catch (error) {
      // What lies before a damaged chunk is given; the next read begins at the damage, and throws.
      if (filled === 0) throw error;
    }
    return filled;
  }

  /** Reads at most to the end of the chunk at `position`, into `target` at `filled`. */
  private readChunk(position: number, target: Uint8Array, filled: number, most: number): number {
    const { chunkSize } = this.packed;
    const chunk = Math.floor(position / chunkSize);
    const within = position - chunk * chunkSize;
    const chunkLength = Math.min(chunkSize, this.size - chunk * chunkSize);
    const count = Math.min(chunkLength - within, most);
    const kept = this.cache.get(this.firstKey + chunk);
    const { counters } = this.cache;
    if (kept !== undefined) {
      counters.hits++;
      target.set(count === kept.length ? kept : kept.subarray(within, within + count), filled);
    } else if (count === chunkLength) {
      // Whoever reads a whole chunk has it then: keeping it too would cost a copy and push out what is read in parts.
      counters.unpacked++;
      this.packed.unpack(chunk, target.subarray(filled, filled + count));
    } else target.set(this.unpacked(chunk, chunkLength).subarray(within, within + count), filled);
    return count;
  }

  private unpacked(chunk: number, length: number): Uint8Array {
    const kept = this.cache.unpack(this.packed, chunk, this.firstKey + chunk, length);
    if (kept !== undefined) return kept;
    if (this.inScratch === chunk) this.cache.counters.hits++;
    else {
      this.cache.counters.unpacked++;
      if (this.scratch === undefined || this.scratch.length < length) this.scratch = new Uint8Array(length);
      this.inScratch = -1;
      this.packed.unpack(chunk, this.scratch.subarray(0, length));
      this.inScratch = chunk;
    }
    return this.scratch!;
  }
}
