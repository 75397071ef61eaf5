import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import type { PackedChunks } from "../bytes/chunk-cache.js";
import { MetadataPages } from "../bytes/metadata-pages.js";
import { unpackZlib } from "../bytes/zlib.js";
import { corrupt, ImageError, unsupported } from "../errors.js";
import type { Format, Surroundings } from "../format.js";
import type { Damage, Integrity, Layer, PieceReport, Run } from "../layers/layer.js";
import { settings } from "../settings.js";
import { largestDisk, tablePage, u64be } from "./fields.js";

/*
 * Compressed loop images (cloop) of version 2, as create_compressed_fs makes them and Knoppix had them. Numbers are big-endian.
 *
 *   0     a shell script that mounts it, filled up with zeros
 *   128   bytes a block (4), blocks (4)
 *   136   where each block begins, and where the last one ends (8 each)
 *   then  the blocks, each a zlib stream
 */
export const cloop: Format<Layer> = {
  name: "cloop",
  recognises(source) {
    const start = Buffer.alloc(mark.length);
    return readFully(source, 0, start) === mark.length && start.equals(mark);
  },
  open: (source, around) => new CloopLayer(source, around),
};

const mark = Buffer.from("#!/bin/sh\n#V2.0 Format\n", "latin1");
const offsetsAt = 136;

class CloopLayer implements Layer, PackedChunks {
  readonly format = "cloop";
  readonly parent = undefined;
  readonly size: number;
  readonly chunkSize: number;
  readonly facts: Record<string, unknown>;
  /** zlib has a checksum of each block. */
  readonly integrity: Integrity;
  private readonly pages: MetadataPages;
  private readonly unpacked: ByteSource;
  private scratch: Buffer | undefined;

  constructor(
    private readonly source: ByteSource,
    around: Surroundings,
  ) {
    const { name } = source;
    const header = readExactly(source, 128, 8, "the header");
    this.chunkSize = header.readUInt32BE(0);
    const blocks = header.readUInt32BE(4);
    if (this.chunkSize === 0 || this.chunkSize % 512 !== 0)
      throw corrupt(`${name}: byte 128 tells of blocks of ${this.chunkSize} bytes. The header is damaged.`);
    if (this.chunkSize > settings.largestChunk)
      throw unsupported(`${name}: has blocks of ${this.chunkSize} bytes; up to ${settings.largestChunk} are possible.`);
    if (offsetsAt + (blocks + 1) * 8 > source.size)
      throw corrupt(
        `${name}: tells of ${blocks} blocks, more than a file of ${source.size} bytes can list. It is truncated or damaged.`,
      );
    this.size = blocks * this.chunkSize;
    if (this.size > largestDisk)
      throw corrupt(`${name}: tells of a disk of ${this.size} bytes, more than any has. The header is damaged.`);
    this.pages = new MetadataPages(source, tablePage.size, tablePage.kept);
    this.unpacked = around.cache.source(this);
    this.facts = { blockSize: this.chunkSize, compression: "zlib" };
    this.integrity = { pieces: blocks, check: (block) => this.check(block) };
  }

  get name(): string {
    return this.source.name;
  }

  locate(position: number): Run {
    return { kind: "stored", length: this.size - position, source: this.unpacked, at: position };
  }

  isStored(): boolean {
    return true;
  }

  unpack(block: number, target: Uint8Array): void {
    const [from, to] = [this.offset(block), this.offset(block + 1)];
    try {
      if (from < offsetsAt || to < from || to > this.source.size)
        throw corrupt(`it can't be from byte ${from} to ${to} of a file of ${this.source.size} bytes`);
      if (to - from > 2 * target.length + 1024) throw corrupt(`its ${to - from} bytes are more than it can take`);
      const got = unpackZlib(readExactly(this.source, from, to - from, "a block"), target);
      if (got !== target.length) throw corrupt(`it unpacks to ${got} bytes instead of ${target.length}`);
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "corrupt") throw error;
      const start = block * this.chunkSize;
      throw corrupt(
        `${this.name}: block ${block} at byte ${from} is damaged, ${error.message}: disk bytes ${start} to ${start + target.length - 1} are lost. Restore the file from another copy; spindle verify lists all damage.`,
        error,
      );
    }
  }

  private offset(block: number): number {
    return u64be(this.pages.bytes(offsetsAt + block * 8, 8, "the list of blocks"), 0);
  }

  private check(block: number): PieceReport {
    const damages: Damage[] = [];
    this.scratch ??= Buffer.allocUnsafe(this.chunkSize);
    try {
      this.unpack(block, this.scratch);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      const position = block * this.chunkSize;
      damages.push({ file: this.name, position, length: this.chunkSize, message: error.message });
    }
    return { chunks: 1, bytes: damages.length === 0 ? this.chunkSize : 0, damages };
  }
}
