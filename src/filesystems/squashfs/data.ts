/**
 * Data blocks and fragments: packed, each at a place of its own, of a length that only the inode or the fragment table knows.
 *
 * In the chunk cache they are chunks all the same: a chunk's number is the position of the packed bytes, which no two blocks
 * share, and every thread finds without asking another. So that positions in this space of `blockSize` bytes for each packed
 * byte stay exact numbers, it is cut into windows. What the position alone doesn't tell is left in `wanted` just before the
 * read, and found there by `unpack`, which the cache calls within it.
 */
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import type { ChunkCache, PackedChunks } from "../../bytes/chunk-cache.js";
import { corrupt, ImageError } from "../../errors.js";
import type { Unpack } from "./compressors.js";

const NOT_PACKED = 1 << 24;

/** Length of a block's packed bytes, from a word of a block list or the fragment table; 0 for a hole. */
export const packedLength = (word: number) => word & (NOT_PACKED - 1);

export class DataBlocks {
  private readonly windows: ByteSource[] = [];
  /** Packed bytes of the volume to a window. */
  private readonly windowSize: number;
  private wantedPosition = -1;
  private wantedLength = 0;
  private wantedBytes = 0;

  constructor(
    private readonly source: ByteSource,
    private readonly unpackBytes: Unpack,
    private readonly blockSize: number,
    private readonly size: number,
    cache: ChunkCache,
    largestWindow = 2 ** 52,
  ) {
    this.windowSize = largestWindow / blockSize;
    for (let start = 0; start < size; start += this.windowSize)
      this.windows.push(cache.source(this.window(start, Math.min(this.windowSize, size - start))));
  }

  /**
   * Reads from byte `within` of a block on; the block unpacks to `length` bytes or more.
   * @param position of its packed bytes.
   * @param word their length and whether they are packed, as SquashFS keeps it; not a hole's.
   */
  read(position: number, word: number, length: number, within: number, target: Uint8Array): number {
    const packed = packedLength(word);
    const wrong = (what: string) =>
      corrupt(`${this.source.name}: the SquashFS data block at byte ${position} ${what}.`);
    if (packed > this.blockSize) throw wrong(`takes ${packed} bytes, more than a block's ${this.blockSize}`);
    const count = Math.min(target.length, length - within);
    const part = count === target.length ? target : target.subarray(0, count);
    if (word & NOT_PACKED) {
      if (packed < length) throw wrong(`has ${packed} bytes, and ${length} are needed`);
      const read = this.source.read(position + within, part);
      if (read === 0) throw wrong(`lies beyond the volume's ${this.source.size} bytes: the image is truncated`);
      return read;
    }
    const number = Math.floor(position / this.windowSize);
    const window = this.windows[number];
    if (!window || position + packed > this.size) throw wrong(`goes beyond the filesystem's end at byte ${this.size}`);
    this.wantedPosition = position;
    this.wantedLength = packed;
    this.wantedBytes = length;
    return window.read((position - number * this.windowSize) * this.blockSize + within, part);
  }

  private window(start: number, length: number): PackedChunks {
    const { blockSize } = this;
    return {
      name: `${this.source.name} > SquashFS data`,
      size: length * blockSize,
      chunkSize: blockSize,
      unpack: (chunk, target) => this.unpack(start + chunk, target),
    };
  }

  private unpack(position: number, target: Uint8Array): void {
    if (position !== this.wantedPosition)
      throw new Error(`block ${position} is unpacked, ${this.wantedPosition} was read`);
    const needed = this.wantedBytes;
    const what = "a SquashFS data block";
    const packed = readExactly(this.source, position, this.wantedLength, what);
    let count: number;
    try {
      count = this.unpackBytes(packed, target);
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "corrupt") throw error;
      throw corrupt(`${this.source.name}: ${what} at byte ${position} is damaged: ${error.message}.`, error);
    }
    if (count < needed)
      throw corrupt(
        `${this.source.name}: ${what} at byte ${position} unpacks to ${count} bytes, and ${needed} are needed.`,
      );
    target.fill(0, count);
  }
}
