/**
 * .lzma, the older format of LZMA (lzma-file-format.txt of XZ Utils): one stream without checksums and without a way into it.
 *
 *     properties, 1 | size of the dictionary, 4 | size of the content, 8, or all ones where it isn't told | LZMA data
 *
 * It has no signature. What XZ Utils themselves take for one is looked for, and of the properties only the usual ones. Up to
 * 256 MiB of content are unpacked as a whole when they are read; more is kept.
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { corrupt } from "../errors.js";
import { keepContent } from "./kept-content.js";
import { checkDictionary, LzmaData } from "./lzma-data.js";
import { placeIn } from "./packed-input.js";
import { type PackedFile, type Packing, type PieceWriter, pieceSize } from "./packing.js";
import { largestPiece } from "./scratch.js";
import { WholePieceReader } from "./whole-piece-reader.js";

const HEADER = 13;
/** lc 3, lp 0, pb 2: what every program uses, unless it is told otherwise. */
const usualProperties = 0x5d;
const unknownSize = 2n ** 64n - 1n;
/** More than any file that was packed so has, by XZ Utils. */
const largestContent = 2n ** 38n;

export const lzma: Packing = {
  name: "lzma",
  recognises(source) {
    const header = Buffer.alloc(HEADER + 1);
    if (readFully(source, 0, header) < header.length) return false;
    const size = header.readBigUInt64LE(5);
    // The first byte of LZMA data is always 0.
    return (
      header[0] === usualProperties &&
      isUsualDictionary(header.readUInt32LE(1)) &&
      (size === unknownSize || size < largestContent) &&
      header[HEADER] === 0
    );
  },
  open: (source) => new LzmaFile(source),
};

/** 2^n or 2^n + 2^(n-1), from 4 KiB on. */
function isUsualDictionary(size: number): boolean {
  const highest = 2 ** (31 - Math.clz32(size));
  return size >= 4096 && (size === highest || size === highest * 1.5);
}

class LzmaFile implements PackedFile {
  readonly hasChecksums = false;
  readonly facts = {};
  readonly told: PackedFile["told"];

  constructor(private readonly source: ByteSource) {
    const header = Buffer.alloc(HEADER);
    readFully(source, 0, header);
    checkDictionary(source, 1, header.readUInt32LE(1), "xz --format=lzma -d");
    const size = header.readBigUInt64LE(5);
    this.told = size === unknownSize ? undefined : { kind: "proven", size: Number(size) };
  }

  get name(): string {
    return this.source.name;
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    const buffer = Buffer.alloc(pieceSize);
    const unpacking = this.content();
    let length = 0;
    let crc = 0;
    try {
      for (let count = unpacking.read(buffer); count > 0; count = unpacking.read(buffer)) {
        length += count;
        crc = crc32(buffer.subarray(0, count), crc);
        if (length > largestPiece) break;
        writer.progress(unpacking.position);
        yield;
      }
      if (length <= largestPiece) this.checkEnd(unpacking);
    } finally {
      unpacking.close();
    }
    if (length <= largestPiece) {
      if (length > 0) writer.packed(length, { at: 0, crc });
    } else {
      const all = this.content();
      yield* keepContent(writer, this.source, this.told?.size, all);
      this.checkEnd(all);
    }
    writer.progress(this.source.size);
  }

  reader() {
    return new WholePieceReader(this.name, () => this.content());
  }

  private content(): LzmaData {
    return new LzmaData(this.source, Buffer.alloc(0), 0, this.source.size);
  }

  private checkEnd({ position }: LzmaData): void {
    if (position < this.source.size)
      throw corrupt(
        `${this.name}: its LZMA data ends before ${placeIn(this.source, position)}, and the file goes on: it is damaged, or something was appended to it.`,
      );
  }
}
