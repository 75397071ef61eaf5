/**
 * bzip2: streams one after another, each a header, blocks of at most 900 kB (before runs of equal bytes are restored), and a
 * footer. Nothing but the header is at a whole byte.
 *
 *     B Z h 9 | block | block … | footer | padding to a byte | B Z h 9 | …
 *
 *     block   31 41 59 26 53 59 | CRC-32 of its content, 4 | …          footer  17 72 45 38 50 90 | of all blocks' CRCs, 4
 *
 * A block depends on none before: its bits, moved to a byte and put between a header and a footer, are a stream of their own
 * for libbz2, which checks the block's CRC. Where a block ends is found by looking for the next mark, at any bit. Nothing
 * keeps a mark from occurring within a block, though none of 2^48 bits expects it: if a block doesn't unpack, it is tried
 * up to the mark after.
 */
import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { Bunzipper } from "../bytes/bzip2.js";
import { corrupt, ImageError } from "../errors.js";
import { damaged, placeIn, truncated } from "./packed-input.js";
import { type PackedFile, type Packing, type Piece, type PieceReader, type PieceWriter, pieceSize } from "./packing.js";
import { largestPiece } from "./scratch.js";

const blockMark = Buffer.from("314159265359", "hex");
const footerMark = Buffer.from("177245385090", "hex");
const markBits = 48;

/** A block of random bytes takes some more bytes than it has. What is longer isn't one. */
const longestBlock = 1_200_000;
/** Marks that a block is tried up to before it is taken for damaged. */
const mostMarks = 4;

export const bzip2: Packing = {
  name: "bzip2",
  recognises(source) {
    const head = Buffer.alloc(10);
    if (readFully(source, 0, head) !== 10 || !isStreamHeader(head)) return false;
    return [blockMark, footerMark].some((mark) => head.subarray(4).equals(mark));
  },
  open: (source) => new BzipFile(source),
};

const isStreamHeader = (bytes: Buffer) => /^BZh[1-9]/.test(bytes.toString("latin1", 0, 4));

class BzipFile implements PackedFile {
  readonly hasChecksums = true;
  readonly facts = {};

  constructor(private readonly source: ByteSource) {}

  get name(): string {
    return this.source.name;
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    const last = writer.resume();
    const blocks = new Blocks(this.source, writer);
    if (last) blocks.goOn(last.at, last.mark);
    const buffer = Buffer.alloc(pieceSize);
    const zeros = Buffer.alloc(pieceSize);
    for (let block = blocks.next(); block; block = blocks.next()) {
      const { length, isZeros, end } = measure(this.source, blocks, block, buffer, zeros);
      // The sum of the blocks before it, for who goes on from here.
      const mark = blocks.sum;
      blocks.passed(end, block.crc);
      if (length > largestPiece)
        throw corrupt(`${this.name}: the bzip2 block at bit ${block.at} unpacks to ${length} bytes, which can't be.`);
      if (isZeros && writer.position > 0) writer.zeros(length);
      else if (length > 0) writer.packed(length, { at: block.at, note: end, mark });
      writer.progress(Math.floor(end / 8));
      yield;
    }
  }

  reader(): PieceReader {
    return new BzipReader(this.source);
  }
}

interface Block {
  /** Its first bit. */
  readonly at: number;
  /** Of its content, as bzip2 counts it. */
  readonly crc: number;
}

/** Unpacks a block for its length, and to see that it is sound. `end` is the bit behind it. */
function measure(source: ByteSource, blocks: Blocks, block: Block, buffer: Buffer, zeros: Buffer) {
  let failure: unknown;
  let end = block.at + markBits;
  for (let tries = 0; tries < mostMarks; tries++) {
    const next = blocks.markAfter(end, block.at);
    if (next === undefined) break;
    end = next;
    let length = 0;
    let isZeros = true;
    const unpacking = new OneBlock(source, block.at, end);
    try {
      for (let count = unpacking.read(buffer); count > 0; count = unpacking.read(buffer)) {
        isZeros &&= buffer.subarray(0, count).equals(zeros.subarray(0, count));
        length += count;
      }
      return { length, isZeros, end };
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      failure ??= error;
    } finally {
      unpacking.close();
    }
    end += markBits;
  }
  if (failure !== undefined) throw failure;
  throw truncated(source, `the bzip2 block at bit ${block.at}`);
}

/** The blocks of a file, one after the other, with the streams' headers and footers. */
class Blocks {
  /** Of the stream's blocks so far: what its footer is to tell. */
  sum = 0;
  private position = 0;
  /** Whether `position` is at a stream's header. */
  private isBetween = true;
  private readonly search: MarkSearch;

  /** @param writer of a pass: without one, blocks are looked at one by one, and sums aren't checked. */
  constructor(
    private readonly source: ByteSource,
    private readonly writer?: PieceWriter,
  ) {
    this.search = new MarkSearch(source);
  }

  /** From bit `at` on, in a stream whose blocks before have the sum `sum`. */
  goOn(at: number, sum: number): void {
    this.position = at;
    this.sum = sum;
    this.isBetween = false;
  }

  /** The next block; undefined at the end. @throws ImageError `corrupt` */
  next(): Block | undefined {
    for (;;) {
      if (this.isBetween && !this.beginStream()) return undefined;
      const bits = readBits(this.source, this.position, markBits + 32);
      if (bits === undefined) throw truncated(this.source, "a bzip2 stream");
      const crc = bits.readUInt32BE(6);
      if (bits.subarray(0, 6).equals(blockMark)) return { at: this.position, crc };
      if (!bits.subarray(0, 6).equals(footerMark))
        throw corrupt(
          `${this.source.name}: there is neither a block nor the end of the bzip2 stream at bit ${this.position}, ${placeIn(this.source, Math.floor(this.position / 8))}. The file is damaged; fetch or copy it again.`,
        );
      if (this.writer && crc !== this.sum)
        throw corrupt(
          `${this.source.name}: the bzip2 stream that ends at ${placeIn(this.source, Math.floor(this.position / 8))} is damaged: its checksum doesn't match its blocks. Fetch or copy the file again.`,
        );
      this.position = Math.ceil((this.position + markBits + 32) / 8) * 8;
      this.isBetween = true;
    }
  }

  /** The block with this checksum ended at bit `end`. */
  passed(end: number, crc: number): void {
    this.position = end;
    this.sum = (((this.sum << 1) | (this.sum >>> 31)) ^ crc) >>> 0;
  }

  markAfter(from: number, start: number): number | undefined {
    return this.search.next(from, start + longestBlock * 8);
  }

  private beginStream(): boolean {
    const { source, position } = this;
    const head = Buffer.alloc(4);
    const at = position / 8;
    const count = readFully(source, at, head);
    if (count === 0) return false;
    if (count === 4 && isStreamHeader(head)) {
      this.position += 32;
      this.sum = 0;
      this.isBetween = false;
      return true;
    }
    if (at === 0) throw truncated(source, "the bzip2 header");
    this.writer?.remark(`${source.size - at} bytes from byte ${at} on are no bzip2 and were left alone`);
    return false;
  }
}

/** `count` bits at bit `at`, from the top of the first byte on; undefined where the file ends before. */
function readBits(source: ByteSource, at: number, count: number): Buffer | undefined {
  const shift = at % 8;
  const bytes = Buffer.alloc(Math.ceil((shift + count) / 8));
  if (readFully(source, Math.floor(at / 8), bytes) < bytes.length) return undefined;
  return shifted(bytes, shift).subarray(0, Math.ceil(count / 8));
}

/** The bytes moved up by some bits; the last one is filled up with zeros. */
function shifted(bytes: Buffer, shift: number): Buffer {
  if (shift === 0) return bytes;
  const down = 8 - shift;
  const last = bytes.length - 1;
  for (let at = 0; at < last; at++) bytes[at] = (bytes[at]! << shift) | (bytes[at + 1]! >> down);
  bytes[last] = bytes[last]! << shift;
  return bytes;
}

/** Looks for marks of blocks and footers at every bit. */
class MarkSearch {
  /** Much more than a block, so that not every block has it filled anew. */
  private readonly buffer = Buffer.alloc(4 * longestBlock);
  private start = 0;
  private end = 0;
  /** For each pattern where it occurs next in the buffer, and from where on that was looked for. */
  private readonly found = patterns.map(() => ({ at: -1, from: -1 }));

  constructor(private readonly source: ByteSource) {}

  /** The first mark at or behind bit `from` and before bit `limit`; undefined when there is none. */
  next(from: number, limit: number): number | undefined {
    const first = Math.floor(from / 8);
    const last = Math.min(Math.ceil(limit / 8) + 8, this.source.size);
    if (first < this.start || last > this.end) this.load(first);
    let best: number | undefined;
    for (const [number, pattern] of patterns.entries()) {
      const at = this.occurrence(number, pattern, from);
      if (at !== undefined && (best === undefined || at < best)) best = at;
    }
    return best !== undefined && best < limit ? best : undefined;
  }

  private load(first: number): void {
    this.start = first;
    this.end = first + readFully(this.source, first, this.buffer);
    for (const known of this.found) known.from = -1;
  }

  /** The first bit at or behind `from` at which a pattern occurs. */
  private occurrence(number: number, pattern: Pattern, from: number): number | undefined {
    const known = this.found[number]!;
    const bitOf = (at: number) => (this.start + at) * 8 - pattern.before;
    if (known.from >= 0 && known.from <= from && (known.at < 0 || bitOf(known.at) >= from))
      return known.at < 0 ? undefined : bitOf(known.at);
    const bytes = this.buffer.subarray(0, this.end - this.start);
    known.from = from;
    known.at = Math.max(0, Math.ceil((from + pattern.before) / 8) - this.start) - 1;
    do known.at = bytes.indexOf(pattern.middle, known.at + 1);
    while (known.at >= 0 && !fits(bytes, known.at, pattern));
    return known.at < 0 ? undefined : bitOf(known.at);
  }
}

/** A mark at one of the eight places in a byte: its whole bytes, and what is of it in the bytes around them. */
interface Pattern {
  readonly middle: Buffer;
  /** Bits of the mark before its first whole byte. */
  readonly before: number;
  /** The byte before, and the one behind, as far as they are the mark's. */
  readonly head: number;
  readonly headMask: number;
  readonly tail: number;
  readonly tailMask: number;
}

const patterns: readonly Pattern[] = [blockMark, footerMark].flatMap((mark) =>
  Array.from({ length: 8 }, (_, shift): Pattern => {
    // The mark behind `shift` bits of zeros.
    const value = BigInt(`0x${mark.toString("hex")}`) << BigInt(8 - shift);
    const bytes = Buffer.from(value.toString(16).padStart(14, "0"), "hex");
    if (shift === 0) return { middle: mark, before: 0, head: 0, headMask: 0, tail: 0, tailMask: 0 };
    const headMask = 0xff >> shift;
    const tailMask = (0xff << (8 - shift)) & 0xff;
    const [head, tail] = [bytes[0]!, bytes[6]!];
    return { middle: bytes.subarray(1, 6), before: 8 - shift, head, headMask, tail, tailMask };
  }),
);

function fits(bytes: Buffer, at: number, { middle, head, headMask, tail, tailMask }: Pattern): boolean {
  if (headMask !== 0 && (at === 0 || (bytes[at - 1]! & headMask) !== head)) return false;
  const behind = bytes[at + middle.length];
  return tailMask === 0 || (behind !== undefined && (behind & tailMask) === tail);
}

/** A block, unpacked as a stream of its own. */
class OneBlock {
  private readonly unpacker = new Bunzipper();
  private input: Buffer;

  constructor(
    private readonly source: ByteSource,
    private readonly at: number,
    end: number,
  ) {
    this.input = this.asStream(end);
  }

  /** The next bytes of its content; 0 when all were read and its checksum is right. @throws ImageError `corrupt` */
  read(target: Uint8Array): number {
    const { unpacker } = this;
    try {
      for (let filled = 0; ; ) {
        if (unpacker.ended || filled === target.length) return filled;
        unpacker.step(this.input, target.subarray(filled));
        this.input = this.input.subarray(unpacker.consumed);
        filled += unpacker.produced;
        if (unpacker.consumed === 0 && unpacker.produced === 0 && !unpacker.ended)
          throw corrupt("the bzip2 data ends in the middle");
      }
    } catch (error) {
      throw damaged(this.source, Math.floor(this.at / 8), error);
    }
  }

  close(): void {
    this.unpacker.close();
  }

  private asStream(end: number): Buffer {
    const count = end - this.at;
    const bits = readBits(this.source, this.at, count);
    if (bits === undefined) throw truncated(this.source, "a bzip2 block");
    const crc = bits.subarray(6, 10);
    const stream = Buffer.alloc(4 + Math.ceil((count + markBits + 32) / 8));
    stream.write("BZh9", "latin1");
    bits.copy(stream, 4);
    // What is behind the block's last bit isn't its own.
    const used = count % 8;
    let at = 4 + Math.floor(count / 8);
    if (used > 0) stream[at]! &= 0xff << (8 - used);
    for (const byte of Buffer.concat([footerMark, crc])) {
      stream[at]! |= byte >> used;
      at++;
      if (used > 0) stream[at] = byte << (8 - used);
    }
    return stream;
  }
}

class BzipReader implements PieceReader {
  private block: OneBlock | undefined;
  private readonly spare = Buffer.alloc(64);
  private readonly blocks: Blocks;
  private end = 0;

  constructor(private readonly source: ByteSource) {
    this.blocks = new Blocks(source);
  }

  begin({ at, note }: Piece): void {
    this.open(at, note);
  }

  fill(target: Uint8Array): void {
    for (let filled = 0; filled < target.length; ) {
      const count = this.block!.read(target.subarray(filled));
      filled += count;
      if (count > 0) continue;
      this.blocks.goOn(this.end, 0);
      const next = this.following();
      if (next === undefined) throw damaged(this.source, this.end / 8, corrupt("its content ends too early"));
      this.open(next.at, next.end);
    }
  }

  finish(): void {
    if (this.block!.read(this.spare) > 0)
      throw damaged(this.source, this.end / 8, corrupt("a bzip2 block has more content than before"));
  }

  private open(at: number, end: number): void {
    this.block?.close();
    this.block = new OneBlock(this.source, at, end);
    this.end = end;
  }

  private following(): { at: number; end: number } | undefined {
    const next = this.blocks.next();
    const end = next && this.blocks.markAfter(next.at + markBits, next.at);
    return next && end !== undefined ? { at: next.at, end } : undefined;
  }
}
