/**
 * The used blocks as they lie in the image: strips of them, each with its checksum behind it, which a strip's bytes are
 * compared with when they are read first.
 *
 *     blocks … | checksum | blocks … | checksum | … | the last blocks, fewer maybe | checksum
 *
 * Of CRC-32, a checksum may go on from the one before it: that one, as the image tells it, is then what to begin with, so
 * that every strip can be checked alone. A sum of xxHash that goes on can't be taken up in the middle.
 */
import { LRUCache } from "lru-cache";
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { shortestXxh128, Xxh128 } from "../../bytes/xxh128.js";
import { Xxh64 } from "../../bytes/xxhash.js";
import { corrupt } from "../../errors.js";
import { largestPacked } from "../fields.js";
import { checksumOf, type Header } from "./header.js";
import type { UsedBlocks } from "./used-blocks.js";

/** Most bytes that are read at once, where nobody wants them. */
const readAtOnce = 1 << 20;
/** Strips of which a thread knows that it has checked them. */
const remembered = 4096;

/** A checksum that is being computed. */
export interface Sum {
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

export class Strips {
  /** How many there are. */
  readonly count: number;
  private readonly blocks: number;
  private buffer: Buffer | undefined;

  /** @param start where the first strip begins, in bytes */
  constructor(
    readonly source: ByteSource,
    readonly header: Header,
    private readonly used: UsedBlocks,
    private readonly start: number,
  ) {
    this.blocks = used.count;
    this.count = header.checksum.blocks === 0 ? 0 : Math.ceil(this.blocks / header.checksum.blocks);
  }

  /** `alone`: each by itself; `in order`: only after all before it; undefined: not at all. */
  get checkable(): "alone" | "in order" | undefined {
    const { checksum, blockSize } = this.header;
    // For XXH128 of blocks of 240 bytes and less, which no filesystem has, there are other algorithms.
    if (checksum.kind === "none" || (checksum.kind === "xxh128" && blockSize < shortestXxh128)) return undefined;
    return !checksum.reseeded && checksum.kind.startsWith("xxh") ? "in order" : "alone";
  }

  /** Bytes of all strips but the last, without the checksum. */
  get length(): number {
    return this.header.checksum.blocks * this.header.blockSize;
  }

  lengthOf(strip: number): number {
    const { checksum, blockSize } = this.header;
    return Math.min(checksum.blocks, this.blocks - strip * checksum.blocks) * blockSize;
  }

  /** Where it begins in the image. */
  placeOf(strip: number): number {
    return this.start + strip * (this.length + this.header.checksum.size);
  }

  /** Whether the file ends before the strip and its checksum do. */
  isCut(strip: number): boolean {
    return this.placeOf(strip) + this.lengthOf(strip) + this.header.checksum.size > this.source.size;
  }

  /** The stretch of the disk from the first block of a strip to the last one of another: in between are unused blocks. */
  onDisk(first: number, last: number): { position: number; length: number } {
    const { checksum, blockSize, size } = this.header;
    const position = this.used.select(first * checksum.blocks) * blockSize;
    const block = Math.min((last + 1) * checksum.blocks, this.blocks) - 1;
    return { position, length: Math.min((this.used.select(block) + 1) * blockSize, size) - position };
  }

  /** A sum that nothing was added to. */
  newSum(): Sum {
    const { kind } = this.header.checksum;
    return kind === "xxh64" ? new Xxh64() : kind === "xxh128" ? new Xxh128() : crcSum();
  }

  /**
   * Reads a strip and compares it with its checksum.
   * @param target gets its bytes, where it is given: it has the strip's length
   * @param sum of all before it, where the strips can be checked in order only
   * @returns what is wrong
   */
  damageOf(strip: number, target?: Uint8Array, sum = this.sumBefore(strip)): string | undefined {
    if (this.isCut(strip)) return "is cut off: the file is truncated";
    const place = this.placeOf(strip);
    const end = place + this.lengthOf(strip);
    this.buffer ??= target ? undefined : Buffer.allocUnsafe(readAtOnce);
    const bytes = target ?? this.buffer!;
    for (let at = place; at < end; at += bytes.length) {
      const part = bytes.subarray(0, Math.min(bytes.length, end - at));
      if (readFully(this.source, at, part) < part.length) return "is cut off: the file shrank";
      if (this.header.checksum.kind !== "first byte") sum.update(part);
      else if (at === place) addFirstByte(part[0]!, this.header.blockSize, sum);
    }
    const digest = sum.digest();
    // Of a wide checksum of format 0001 the first bytes count.
    const told = Buffer.alloc(digest.length);
    readFully(this.source, end, told);
    return told.equals(digest) ? undefined : "does not have its recorded checksum: it is damaged";
  }

  /** What the sum of a strip begins with. */
  private sumBefore(strip: number): Sum {
    const { size, reseeded } = this.header.checksum;
    return reseeded || strip === 0 ? this.newSum() : crcSum(checksumAt(this.source, this.placeOf(strip) - size));
  }
}

/**
 * The used blocks end to end, of which a thread checks each strip before it gives the first byte of it. A strip that was
 * checked isn't checked again, but read no further than is asked for: a small strip costs little, and of one of many MiB,
 * as Clonezilla makes them, no more than once.
 */
export class CheckedStrips implements ByteSource {
  readonly size: number;
  private readonly checked = new LRUCache<number, true>({ max: remembered });
  /** The strip that was checked last, as far as it isn't too large to be kept. */
  private kept: Buffer | undefined;
  private keptStrip = -1;

  /** @param blocks them, unchecked */
  constructor(
    readonly name: string,
    private readonly strips: Strips,
    private readonly blocks: ByteSource,
  ) {
    this.size = blocks.size;
  }

  read(position: number, target: Uint8Array): number {
    const { length } = this.strips;
    const strip = Math.floor(position / length);
    const within = position - strip * length;
    if (strip >= this.strips.count) return 0;
    const stripLength = this.strips.lengthOf(strip);
    const count = Math.min(target.length, stripLength - within);
    if (count <= 0) return 0;
    if (this.keptStrip !== strip && !this.checked.has(strip)) this.check(strip, stripLength);
    const wanted = target.subarray(0, count);
    if (this.keptStrip !== strip) return this.blocks.read(position, wanted);
    wanted.set(this.kept!.subarray(within, within + count));
    return count;
  }

  /** @throws ImageError `corrupt` */
  private check(strip: number, length: number): void {
    let target: Buffer | undefined;
    if (length <= largestPacked) {
      this.kept ??= Buffer.allocUnsafeSlow(Math.min(this.strips.length, largestPacked));
      this.keptStrip = -1;
      target = this.kept.subarray(0, length);
    }
    const wrong = this.strips.damageOf(strip, target);
    if (wrong !== undefined) {
      const { position, length } = this.strips.onDisk(strip, strip);
      throw corrupt(
        `${wordsOf(this.strips, strip)} ${wrong}. What is there of the disk, in bytes ${position} to ${position + length - 1}, can't be trusted. Restore the file from another copy; spindle verify lists all damage.`,
      );
    }
    this.checked.set(strip, true);
    if (target) this.keptStrip = strip;
  }
}

/** A strip as messages name it. */
export const wordsOf = (strips: Strips, strip: number) =>
  `${strips.source.name}: the strip of ${strips.lengthOf(strip) / strips.header.blockSize} blocks at byte ${strips.placeOf(strip)}`;

function checksumAt(source: ByteSource, position: number): number {
  const bytes = Buffer.alloc(4);
  readFully(source, position, bytes);
  return bytes.readUInt32LE(0);
}

/** Adds what counts in format 0001: of a block its first byte, as often as it has bytes. */
function addFirstByte(byte: number, blockSize: number, sum: Sum): void {
  const repeated = Buffer.alloc(Math.min(blockSize, 65536), byte);
  for (let left = blockSize; left > 0; left -= repeated.length)
    sum.update(repeated.subarray(0, Math.min(left, repeated.length)));
}

/**
 * Whether an image of format 0001 has checksums of 8 bytes, of which 4 count: a mistake of partclone before 0.1.0 on machines
 * of 64 bits, which nothing but the second block's checksum tells.
 */
export function hasWideChecksums(source: ByteSource, { version, blockSize }: Header, start: number): boolean {
  if (version !== 1) return false;
  const byte = Buffer.alloc(1);
  const sumAt = (position: number, before?: number) => {
    const sum = crcSum(before);
    readFully(source, position, byte);
    addFirstByte(byte[0]!, blockSize, sum);
    return sum.digest().readUInt32LE();
  };
  const first = sumAt(start);
  const fits = (size: number) => {
    const second = start + blockSize + size;
    return checksumAt(source, second + blockSize) === sumAt(second, first);
  };
  return checksumAt(source, start + blockSize) === first && !fits(4) && fits(8);
}
