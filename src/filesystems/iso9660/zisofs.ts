/**
 * zisofs: files that are packed in blocks of zlib streams, which Rock Ridge entries ZF (or Z2) tell of. Version 1 is as Linux
 * reads it; version 2 (of libburnia) has 64-bit numbers, and is read where it is packed by zlib too.
 *
 *     header | places of blocks 0, 1, 2 … and of the end | block 0 | block 1 | …        an empty block is all zeros
 */
import { inflateSync } from "node:zlib";
import { LRUCache } from "lru-cache";
import type { Contents } from "./contents.js";

export interface PackedFormat {
  /** `pz` is zisofs, `PZ` is zisofs2. */
  readonly algorithm: string;
  readonly headerSize: number;
  /** Logarithm of the size of a block. */
  readonly blockBits: number;
  /** In bytes, unpacked. */
  readonly size: number;
}

const magics: Record<string, string> = { pz: "37e45396c9dbd607", PZ: "ef2255a1bc1b95a0" };

/**
 * Unpacked blocks of all files of a filesystem, 4 MiB. They are few and found again in the next request, so that they are
 * kept here and not in the cache that threads share, whose slots would have to be as large as the largest block.
 */
export class UnpackedBlocks {
  private readonly kept = new LRUCache<number, Uint8Array>({
    maxSize: 4 << 20,
    sizeCalculation: (block) => block.length,
  });

  /** @param place of the block's entry in its file's table: a byte in the volume, which no other block has. */
  get(place: number, unpack: () => Uint8Array): Uint8Array {
    let block = this.kept.get(place);
    if (block === undefined) {
      block = unpack();
      this.kept.set(place, block);
    }
    return block;
  }
}

export class PackedContents {
  private readonly blockSize: number;
  private readonly pointerSize: number;

  /** @throws ImageError `unsupported` for another algorithm, `corrupt` for a header that isn't what the entry tells. */
  constructor(
    private readonly packed: Contents,
    private readonly format: PackedFormat,
    private readonly blocks: UnpackedBlocks,
  ) {
    const { algorithm, headerSize, blockBits, size } = format;
    const magic = magics[algorithm];
    if (magic === undefined)
      throw packed.unsupported(`the file is packed with the unknown algorithm ${JSON.stringify(algorithm)}`);
    const is2 = algorithm === "PZ";
    this.pointerSize = is2 ? 8 : 4;
    const smallest = is2 ? 24 : 16;
    if (headerSize < smallest || blockBits < 10 || blockBits > 20 || size > Number.MAX_SAFE_INTEGER)
      throw packed.corrupt(`its zisofs entry tells a header of ${headerSize} bytes and blocks of 2^${blockBits}`);
    this.blockSize = 2 ** blockBits;
    const header = this.bytes(0, smallest);
    const [headerWords, bits] = is2 ? [header[9], header[11]] : [header[12], header[13]];
    const stored = is2 ? header.readUInt32LE(12) + header.readUInt32LE(16) * 2 ** 32 : header.readUInt32LE(8);
    if (is2 && header[10] !== 1 && header.toString("hex", 0, 8) === magic)
      throw packed.unsupported(`the file is packed with zisofs2's algorithm ${header[10]}; only zlib (1) is read`);
    if (
      header.toString("hex", 0, 8) !== magic ||
      headerWords * 4 !== headerSize ||
      bits !== blockBits ||
      stored !== size
    )
      throw packed.corrupt("its zisofs header is not what its directory record tells");
  }

  get size(): number {
    return this.format.size;
  }

  read(position: number, target: Uint8Array): number {
    const { size, blockSize } = this;
    if (position >= size) return 0;
    const index = Math.floor(position / blockSize);
    const within = position - index * blockSize;
    const length = Math.min(blockSize, size - index * blockSize);
    const count = Math.min(target.length, length - within);
    const table = this.format.headerSize + index * this.pointerSize;
    const pointers = this.bytes(table, 2 * this.pointerSize);
    const from = this.pointer(pointers, 0);
    const to = this.pointer(pointers, this.pointerSize);
    if (from === to) {
      target.fill(0, 0, count);
      return count;
    }
    // A block that doesn't get smaller by packing gets a little larger.
    if (to < from || to - from > 2 * blockSize + 1024)
      throw this.packed.corrupt(`its packed block ${index} goes from byte ${from} to ${to} of the file`);
    const block = this.blocks.get(this.packed.placeOf(table), () => this.unpack(index, from, to - from, length));
    target.set(block.subarray(within, within + count));
    return count;
  }

  private unpack(index: number, from: number, packedLength: number, length: number): Uint8Array {
    const packed = this.bytes(from, packedLength);
    let block: Buffer;
    try {
      block = inflateSync(packed, { maxOutputLength: length });
    } catch (error) {
      throw this.packed.corrupt(`its packed block ${index} does not unpack (${(error as Error).message})`);
    }
    if (block.length !== length)
      throw this.packed.corrupt(`its packed block ${index} has ${block.length} bytes instead of ${length}`);
    return block;
  }

  private pointer(bytes: Buffer, at: number): number {
    return bytes.readUInt32LE(at) + (this.pointerSize === 8 ? bytes.readUInt32LE(at + 4) * 2 ** 32 : 0);
  }

  private bytes(position: number, length: number): Buffer {
    if (position + length > this.packed.size)
      throw this.packed.corrupt(`it is packed, and its ${this.packed.size} bytes end before byte ${position + length}`);
    const bytes = Buffer.allocUnsafe(length);
    for (let filled = 0; filled < length; ) filled += this.packed.read(position + filled, bytes.subarray(filled));
    return bytes;
  }
}
