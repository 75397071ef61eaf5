/**
 * Inodes, directories and tables lie in metadata blocks: two bytes (15 bits of length, the highest one says "not packed"),
 * then what unpacks to 8192 bytes, but for the last block of a table. Records go on from one block into the next.
 */
import { LRUCache } from "lru-cache";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { corrupt, ImageError } from "../../errors.js";
import type { Unpack } from "./compressors.js";

export const METADATA = 8192;
/** 4 MiB of unpacked blocks are kept. */
const MOST_BLOCKS = 512;

interface Block {
  readonly bytes: Buffer;
  /** Position of the block after it. */
  readonly next: number;
}

export class MetadataBlocks {
  private readonly blocks = new LRUCache<number, Block>({ max: MOST_BLOCKS });
  private readonly scratch = Buffer.alloc(METADATA);

  /** @param size of the filesystem: no block lies beyond. */
  constructor(
    readonly source: ByteSource,
    private readonly unpack: Unpack,
    private readonly size: number,
  ) {}

  /** The block at `position` of the volume. */
  block(position: number): Block {
    let block = this.blocks.get(position);
    if (!block) {
      block = this.read(position);
      this.blocks.set(position, block);
    }
    return block;
  }

  private read(position: number): Block {
    const wrong = (what: string, cause?: unknown) =>
      corrupt(`${this.source.name}: the SquashFS metadata block at byte ${position} ${what}.`, cause);
    if (position + 2 > this.size) throw wrong(`lies beyond the filesystem's ${this.size} bytes`);
    const header = readExactly(this.source, position, 2, "a SquashFS metadata block").readUInt16LE(0);
    const length = header & 0x7fff;
    if (length === 0 || length > METADATA) throw wrong(`tells a length of ${length} bytes`);
    const next = position + 2 + length;
    const packed = readExactly(this.source, position + 2, length, "a SquashFS metadata block");
    if (header & 0x8000) return { bytes: packed, next };
    let count: number;
    try {
      count = this.unpack(packed, this.scratch);
    } catch (error) {
      if (error instanceof ImageError && error.code === "corrupt") throw wrong(`is damaged: ${error.message}`, error);
      throw error;
    }
    if (count === 0) throw wrong("is empty");
    return { bytes: Buffer.from(this.scratch.subarray(0, count)), next };
  }
}

/** Reads records one after another, from block to block. */
export class MetadataReader {
  private block: Block;

  /**
   * @param position of a block in the volume.
   * @param offset in the block, unpacked; at its end it means the next one's first byte.
   * @param end where the table ends that is read: a block at or after it isn't one of it.
   */
  constructor(
    private readonly blocks: MetadataBlocks,
    public position: number,
    public offset: number,
    private readonly end: number,
  ) {
    this.check();
    this.block = blocks.block(position);
    if (offset > this.block.bytes.length)
      throw corrupt(
        `${blocks.source.name}: something should lie at byte ${offset} of the SquashFS metadata block at byte ${position}, which unpacks to ${this.block.bytes.length} bytes.`,
      );
  }

  private check(): void {
    if (this.position >= this.end)
      throw corrupt(
        `${this.blocks.source.name}: a SquashFS table goes on at byte ${this.position}, and it ends at byte ${this.end}.`,
      );
  }

  /** The rest of the block that the reader stands in: at least one byte. Doesn't move on. */
  rest(): Buffer {
    if (this.offset === this.block.bytes.length) {
      this.position = this.block.next;
      this.check();
      this.block = this.blocks.block(this.position);
      this.offset = 0;
    }
    return this.block.bytes.subarray(this.offset);
  }

  /** The next `length` bytes: a view where they lie in one block, and not to be changed. */
  take(length: number): Buffer {
    const end = this.offset + length;
    if (end <= this.block.bytes.length) {
      const bytes = this.block.bytes.subarray(this.offset, end);
      this.offset = end;
      return bytes;
    }
    const bytes = Buffer.allocUnsafe(length);
    for (let filled = 0; filled < length; ) {
      const part = this.rest().subarray(0, length - filled);
      bytes.set(part, filled);
      filled += part.length;
      this.offset += part.length;
    }
    return bytes;
  }

  /** The next four bytes as a number. */
  uint32(): number {
    const { bytes } = this.block;
    const at = this.offset;
    if (at + 4 > bytes.length) return this.take(4).readUInt32LE(0);
    this.offset = at + 4;
    return bytes.readUInt32LE(at);
  }

  skip(length: number): void {
    for (let left = length; left > 0; ) {
      const step = Math.min(left, this.rest().length);
      this.offset += step;
      left -= step;
    }
  }
}
