import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import type { Damage, Integrity, PieceReport } from "../../layers/layer.js";
import { checksumOf, type Header } from "./header.js";
import type { UsedBlocks } from "./used-blocks.js";

/** Bytes of a piece, and most bytes that are read at once. */
const pieceSize = 4 << 20;
const readAtOnce = 1 << 20;

/**
 * The checksums of an image's strips of used blocks, some strips a piece; undefined where it has none, or of a kind that
 * Spindle doesn't compute (xxh64).
 *
 * @param start where the first strip begins, in bytes
 */
export function partcloneIntegrity(
  source: ByteSource,
  header: Header,
  used: UsedBlocks,
  start: number,
): Integrity | undefined {
  const { checksum, blockSize } = header;
  if (checksum.kind === "none" || checksum.kind === "xxh64") return undefined;
  const strips = new Strips(source, header, used, start);
  const perPiece = Math.max(1, Math.floor(pieceSize / (checksum.blocks * blockSize)));
  return {
    get pieces() {
      return Math.ceil(strips.count / perPiece);
    },
    check: (piece) => strips.check(piece * perPiece, Math.min((piece + 1) * perPiece, strips.count)),
  };
}

class Strips {
  private buffer: Buffer | undefined;

  constructor(
    private readonly source: ByteSource,
    private readonly header: Header,
    private readonly used: UsedBlocks,
    private readonly start: number,
  ) {}

  get count(): number {
    return Math.ceil(this.used.count / this.header.checksum.blocks);
  }

  check(from: number, to: number): PieceReport {
    const damages: Damage[] = [];
    let bytes = 0;
    for (let strip = from; strip < to; strip++) {
      const { checksum, blockSize } = this.header;
      const first = strip * checksum.blocks;
      const blocks = Math.min(checksum.blocks, this.used.count - first);
      bytes += blocks * blockSize;
      const what = this.damageOf(strip, blocks);
      if (what === undefined) continue;
      const position = this.used.select(first) * blockSize;
      const end = Math.min((this.used.select(first + blocks - 1) + 1) * blockSize, this.header.size);
      const message = `${this.source.name}: the strip of ${blocks} blocks at byte ${this.placeOf(strip)} ${what}.`;
      damages.push({ file: this.source.name, position, length: end - position, message });
    }
    return { chunks: to - from, bytes, damages };
  }

  private placeOf(strip: number): number {
    const { checksum, blockSize } = this.header;
    return this.start + strip * (checksum.blocks * blockSize + checksum.size);
  }

  /** What is wrong with a strip. */
  private damageOf(strip: number, blocks: number): string | undefined {
    const { checksum, blockSize } = this.header;
    const place = this.placeOf(strip);
    let sum: number | undefined = 0xffffffff;
    if (!checksum.reseeded && strip > 0) sum = this.told(place - checksum.size);
    if (sum === undefined) return "follows one that is cut off";
    const end = place + blocks * blockSize;
    if (end > this.source.size) return "is cut off: the file ends within it";
    if (checksum.kind === "first byte") sum = sumOfFirstByte(this.source, place, blockSize, sum);
    else {
      this.buffer ??= Buffer.allocUnsafe(readAtOnce);
      for (let at = place; at < end; at += this.buffer.length) {
        const part = this.buffer.subarray(0, Math.min(this.buffer.length, end - at));
        if (readFully(this.source, at, part) < part.length) return "is cut off: the file ends within it";
        sum = checksumOf(part, sum);
      }
    }
    const told = this.told(end);
    if (told === undefined) return "is cut off: the file ends before its checksum";
    return told === sum ? undefined : "does not have its recorded checksum: it is damaged";
  }

  private told(position: number): number | undefined {
    return checksumAt(this.source, position);
  }
}

function checksumAt(source: ByteSource, position: number): number | undefined {
  const bytes = Buffer.alloc(4);
  return readFully(source, position, bytes) < 4 ? undefined : bytes.readUInt32LE(0);
}

/** The checksum of format 0001: of a block its first byte, as often as it has bytes. */
function sumOfFirstByte(source: ByteSource, position: number, blockSize: number, before: number): number {
  const byte = Buffer.alloc(1);
  readFully(source, position, byte);
  const repeated = Buffer.alloc(Math.min(blockSize, 65536), byte[0]);
  let sum = before;
  for (let left = blockSize; left > 0; left -= repeated.length)
    sum = checksumOf(repeated.subarray(0, Math.min(left, repeated.length)), sum);
  return sum;
}

/**
 * Whether an image of format 0001 has checksums of 8 bytes, of which 4 count: a mistake of partclone before 0.1.0 on machines
 * of 64 bits, which nothing but the second block's checksum tells.
 */
export function hasWideChecksums(source: ByteSource, { version, blockSize }: Header, start: number): boolean {
  if (version !== 1) return false;
  const first = sumOfFirstByte(source, start, blockSize, 0xffffffff);
  const fits = (size: number) => {
    const second = start + blockSize + size;
    return checksumAt(source, second + blockSize) === sumOfFirstByte(source, second, blockSize, first);
  };
  return checksumAt(source, start + blockSize) === first && !fits(4) && fits(8);
}
