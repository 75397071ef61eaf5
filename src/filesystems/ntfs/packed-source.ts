import type { ByteSource } from "../../bytes/byte-source.js";
import type { ChunkCache, PackedChunks } from "../../bytes/chunk-cache.js";

/** How one chunk is unpacked: filled in by whoever wants it. */
export type Unpack = (target: Uint8Array) => void;

/**
 * The unpacked chunks of all files of a volume in one source of the cache. The cache tells sources apart by the order in
 * which they are made, which has to be the same in every worker, so a source for each file, made when it is read, can't be.
 * A chunk's number is the place of its packed bytes in the volume, in steps so small that no two chunks begin in one.
 */
export class PackedSource implements PackedChunks {
  readonly size: number;
  private readonly cached: ByteSource;
  private unpackNow: Unpack | undefined;

  /** @param step bytes of the volume: no packed chunk but a file's last is smaller. */
  constructor(
    readonly name: string,
    readonly chunkSize: number,
    private readonly step: number,
    volumeSize: number,
    cache: ChunkCache,
  ) {
    const chunks = Math.min(Math.ceil(volumeSize / step), Math.floor(Number.MAX_SAFE_INTEGER / chunkSize) - 1);
    this.size = chunks * chunkSize;
    this.cached = cache.source(this);
  }

  /**
   * Fills `target` with bytes of the chunk whose packed bytes lie at `place` in the volume, from its byte `within` on.
   * @returns how many were filled.
   */
  read(place: number, within: number, target: Uint8Array, unpack: Unpack): number {
    const count = Math.min(target.length, this.chunkSize - within);
    const position = Math.floor(place / this.step) * this.chunkSize;
    if (position >= this.size) {
      const chunk = new Uint8Array(this.chunkSize);
      unpack(chunk);
      target.set(chunk.subarray(within, within + count));
      return count;
    }
    this.unpackNow = unpack;
    try {
      return this.cached.read(position + within, count === target.length ? target : target.subarray(0, count));
    } finally {
      this.unpackNow = undefined;
    }
  }

  unpack(_chunk: number, target: Uint8Array): void {
    this.unpackNow!(target);
  }
}
