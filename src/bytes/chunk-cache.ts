import type { ByteSource } from "./byte-source.js";

/**
 * Bytes that are stored packed, a chunk at a time. Every chunk is `chunkSize` bytes long but the last, which may be
 * shorter; chunks are numbered from 0 at position 0.
 */
export interface PackedChunks {
  /** How messages name these bytes. */
  readonly name: string;
  /** Length of all unpacked chunks in bytes. */
  readonly size: number;
  /** Bytes a chunk, unpacked. */
  readonly chunkSize: number;
  /**
   * Whether a chunk is stored, and can be unpacked by its number alone: asked of chunks that nobody has read yet. Where
   * there is no such function nothing is unpacked ahead of a reader.
   * @throws ImageError, NotYet where that can't be told
   */
  isStored?(chunk: number): boolean;
  /**
   * Unpacks chunk `chunk` into `target`, which has exactly the chunk's length.
   * @throws ImageError `corrupt` naming the chunk and its range when its bytes are damaged.
   */
  unpack(chunk: number, target: Uint8Array): void;
}

/**
 * Where unpacked chunks are kept. One process keeps them in an lru-cache (local-cache.ts); many workers share one
 * piece of memory (shared-cache.ts). Formats only ever see this interface.
 */
export interface ChunkCache {
  /**
   * The unpacked bytes of `packed` as a ByteSource whose reads go through this cache. Sources are told apart by the
   * order of these calls, which therefore is the same in every worker that opens the same image.
   */
  source(packed: PackedChunks): ByteSource;
}
