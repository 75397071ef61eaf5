import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { Xxh64 } from "../../bytes/xxh64.js";
import { shortestXxh128, Xxh128 } from "../../bytes/xxh128.js";
import type { Damage, Integrity, PieceReport } from "../../layers/layer.js";
import { checksumOf, type Header } from "./header.js";
import type { UsedBlocks } from "./used-blocks.js";

/** Bytes of a piece, and most bytes that are read at once. */
const pieceSize = 4 << 20;
const readAtOnce = 1 << 20;

/**
 * The checksums of an image's strips of used blocks, some strips a piece; undefined where it has none, and for XXH128 of
 * blocks of 240 bytes and less, which no filesystem has.
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
  if (checksum.kind === "none" || (checksum.kind === "xxh128" && blockSize < shortestXxh128)) return undefined;
  const strips = new Strips(source, header, used, start);
  // A sum of xxHash that goes on from strip to strip can't be taken up in the middle.
  const isOne = !checksum.reseeded && checksum.kind.startsWith("xxh");
  const perPiece = isOne ? Number.MAX_SAFE_INTEGER : Math.max(1, Math.floor(pieceSize / (checksum.blocks * blockSize)));
  return {
    get pieces() {
      return Math.ceil(strips.count / perPiece);
    },
    check: (piece) => strips.check(piece * perPiece, Math.min((piece + 1) * perPiece, strips.count)),
  };
}

/** A checksum that is being computed. */
interface Sum {
  update(bytes: Uint8Array): void;
  digest(): Buffer;
}

/** @param before what it goes on from */
function crcSum(before = 0xffffffff): Sum {
  let sum = before;
  return {
    update(bytes) {
      sum = checksumOf(bytes, sum);
    },
    digest() {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32LE(sum);
      return bytes;
    },
  };
}

class Strips {
  private buffer: Buffer | undefined;
  /** A sum of xxHash that goes on from strip to strip; undefined behind a strip that is damaged. */
  private running: Sum | undefined;

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
      this.running = undefined;
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
    const sum = this.sumBefore(strip, place);
    if (sum === undefined) return "follows one that is cut off or damaged, from whose checksum its own goes on";
    const end = place + blocks * blockSize;
    if (end > this.source.size) return "is cut off: the file ends within it";
    if (checksum.kind === "first byte") addFirstByte(this.source, place, blockSize, sum);
    else {
      this.buffer ??= Buffer.allocUnsafe(readAtOnce);
      for (let at = place; at < end; at += this.buffer.length) {
        const part = this.buffer.subarray(0, Math.min(this.buffer.length, end - at));
        if (readFully(this.source, at, part) < part.length) return "is cut off: the file ends within it";
        sum.update(part);
      }
    }
    const digest = sum.digest();
    // Of a wide checksum of format 0001 the first bytes count.
    const told = Buffer.alloc(digest.length);
    if (readFully(this.source, end, told) < told.length) return "is cut off: the file ends before its checksum";
    return told.equals(digest) ? undefined : "does not have its recorded checksum: it is damaged";
  }

  /** The sum that a strip's bytes are added to. */
  private sumBefore(strip: number, place: number): Sum | undefined {
    const { kind, size, reseeded } = this.header.checksum;
    const goesOn = !reseeded && strip > 0;
    if (kind === "xxh64" || kind === "xxh128") {
      if (!goesOn) this.running = kind === "xxh64" ? new Xxh64() : new Xxh128();
      return this.running;
    }
    const before = goesOn ? checksumAt(this.source, place - size) : 0xffffffff;
    return before === undefined ? undefined : crcSum(before);
  }
}

function checksumAt(source: ByteSource, position: number): number | undefined {
  const bytes = Buffer.alloc(4);
  return readFully(source, position, bytes) < 4 ? undefined : bytes.readUInt32LE(0);
}

/** Adds what counts in format 0001: of a block its first byte, as often as it has bytes. */
function addFirstByte(source: ByteSource, position: number, blockSize: number, sum: Sum): void {
  const byte = Buffer.alloc(1);
  readFully(source, position, byte);
  const repeated = Buffer.alloc(Math.min(blockSize, 65536), byte[0]);
  for (let left = blockSize; left > 0; left -= repeated.length)
    sum.update(repeated.subarray(0, Math.min(left, repeated.length)));
}

/**
 * Whether an image of format 0001 has checksums of 8 bytes, of which 4 count: a mistake of partclone before 0.1.0 on machines
 * of 64 bits, which nothing but the second block's checksum tells.
 */
export function hasWideChecksums(source: ByteSource, { version, blockSize }: Header, start: number): boolean {
  if (version !== 1) return false;
  const sum = crcSum();
  addFirstByte(source, start, blockSize, sum);
  const first = sum.digest().readUInt32LE();
  const fits = (size: number) => {
    const second = start + blockSize + size;
    const next = crcSum(first);
    addFirstByte(source, second, blockSize, next);
    return checksumAt(source, second + blockSize) === next.digest().readUInt32LE();
  };
  return checksumAt(source, start + blockSize) === first && !fits(4) && fits(8);
}
