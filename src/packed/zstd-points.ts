/**
 * Places to begin at within a large zstd frame. zstd packs with several threads what they can pack apart from each other
 * (ZSTD_compressStream2 with nbWorkers, which its command uses by itself since version 1.5): at the start of such a job, of 8 MiB
 * at level 3, blocks refer to the content just before, and to nothing else that a reader would have to know.
 *
 *     frame   header | block | block | … | block | … | block, the last | checksum, 4, or none
 *                                        ^ 32 MiB of content further on: a piece, with the content before it that it needs
 *
 * No header tells where that is. So every 32 MiB, a multiple of all jobs that zstd makes by itself, it is tried: the piece is
 * unpacked once more from there, and taken where its bytes are the same. Where they aren't, as in a frame that one thread
 * packed in one go, its content is kept itself.
 */
import { crc32 } from "node:zlib";
import type { ByteSource } from "../bytes/byte-source.js";
import { Unzstd } from "../bytes/zstd.js";
import { corrupt, ImageError } from "../errors.js";
import { damaged, PackedInput, placeIn, skipSkippable, truncated } from "./packed-input.js";
import { type Piece, type PieceWriter, pieceSize } from "./packing.js";
import { FrameUnpacker, type Point, readFrameHeader } from "./zstd-frame.js";

/** Content from one place to the next, in bytes; pieces end with the block that reaches it. */
const distance = 1 << 25;
/** RFC 8878, 3.1.1.2: of a block, packed or not. */
const largestBlock = 1 << 17;
/** Blocks from one moment at which the pass may be stopped to the next. */
const blocksAtOnce = 8;
/** Content before a place that is tried first, in bytes: what zstd takes at its usual level. Then the whole window is. */
const usualBefore = 1 << 18;
/** So many pieces one after another without a place to begin at, and no more are tried. */
const patience = 4;

/** Of ES2024. TypeScript's library has it together with what Node 20 lacks. */
type ResizableBuffer = ArrayBuffer & { resize(length: number): void };
const ResizableBuffer = ArrayBuffer as unknown as new (
  length: number,
  options: { readonly maxByteLength: number },
) => ResizableBuffer;

/** How a piece of a frame is begun; undefined for a piece that is a frame. */
export const pointOf = ({ note }: Piece, before: Uint8Array): Point | undefined =>
  note === 0 ? undefined : { descriptor: (note >> 1) & 0xff, before, checksum: (note & 1) === 1 };

/** What a piece keeps of its frame: not 0. */
const noteOf = ({ descriptor, checksum }: Point): number => 512 + descriptor * 2 + Number(checksum);

/**
 * Goes through a frame of any size and tells its pieces.
 * @param told bytes of its content; undefined where it doesn't tell
 * @returns bytes that it takes in the file
 */
export function* indexFrame(
  source: ByteSource,
  writer: PieceWriter,
  at: number,
  told: number | undefined,
): Generator<void, number> {
  const blocks = new Blocks(source, at);
  const pieces = new Pieces(source, writer, blocks);
  let total = 0;
  try {
    let number = 0;
    for (let ended = false; !ended; ) {
      const start = blocks.position;
      const content = pieces.room;
      let filled = 0;
      while (filled < distance && !ended) {
        const count = blocks.next(content.subarray(filled));
        ended = blocks.ended;
        filled += count;
        writer.progress(blocks.position);
        if (++number % blocksAtOnce === 0) yield;
      }
      yield* pieces.tell(content.subarray(0, filled), start);
      total += filled;
    }
  } finally {
    pieces.close();
    blocks.close();
  }
  if (told !== undefined && total !== told)
    throw corrupt(`${source.name}: unpacks to ${total} bytes where ${told} are told. Fetch or copy it again.`);
  return blocks.position - at;
}

/** A frame, unpacked block by block. */
class Blocks {
  ended = false;
  readonly descriptor: number | undefined;
  /** In bytes. */
  readonly window: number;
  private readonly unpacker: Unzstd;
  private readonly input: PackedInput;
  readonly checksum: boolean;

  constructor(
    private readonly source: ByteSource,
    private readonly at: number,
  ) {
    this.input = new PackedInput(source);
    this.input.seek(at);
    skipSkippable(this.input, "zstd");
    const start = this.input.position;
    const { window, checksum } = readFrameHeader(this.input);
    const length = this.input.position - start;
    this.input.seek(start);
    // Not before the header is checked: who is refused closes nothing.
    this.unpacker = new Unzstd();
    this.feed(this.input.take(length, "the header of a zstd frame"), new Uint8Array(0));
    this.checksum = checksum;
    this.descriptor = window?.descriptor;
    this.window = window?.size ?? 0;
  }

  close(): void {
    this.unpacker.close();
  }

  /** Where the next block is. */
  get position(): number {
    return this.input.position;
  }

  /** Unpacks the next block into `target`, which has room for the largest. @returns its bytes */
  next(target: Uint8Array): number {
    const { source, input } = this;
    const header = input.peek(3);
    if (header.length < 3) throw truncated(source, "a zstd frame");
    const bits = header.readUIntLE(0, 3);
    const kind = (bits >> 1) & 3;
    if (kind === 3 || bits >> 3 > largestBlock)
      throw corrupt(
        `${source.name}: the zstd frame at byte ${this.at} has a damaged block at ${placeIn(source, input.position)}. Fetch or copy the file again.`,
      );
    const isLast = (bits & 1) === 1;
    const length = 3 + (kind === 1 ? 1 : bits >> 3) + (isLast && this.checksum ? 4 : 0);
    const count = this.feed(input.take(length, "a zstd frame"), target);
    if (isLast && !this.ended) throw damaged(source, input.position, corrupt("the zstd data is damaged"));
    return count;
  }

  private feed(bytes: Uint8Array, target: Uint8Array): number {
    const { unpacker } = this;
    let filled = 0;
    for (let used = 0; ; ) {
      try {
        unpacker.step(bytes.subarray(used), target.subarray(filled));
      } catch (error) {
        throw damaged(this.source, this.input.position, error);
      }
      used += unpacker.consumed;
      filled += unpacker.produced;
      this.ended = unpacker.ended;
      if (this.ended || (unpacker.consumed === 0 && unpacker.produced === 0)) return filled;
    }
  }
}

/** Tells the pieces of one frame. */
class Pieces {
  private readonly memory: ResizableBuffer;
  /** What is before the piece, then the piece. */
  private readonly buffer: Buffer;
  private readonly isTried: boolean;
  private readonly window: number;
  private readonly zeros = Buffer.alloc(pieceSize);
  /** Bytes of content before the piece, at the end of the buffer's first part. */
  private known = 0;
  private before = usualBefore;
  private failures = 0;

  constructor(
    private readonly source: ByteSource,
    private readonly writer: PieceWriter,
    private readonly frame: Pick<Blocks, "descriptor" | "checksum" | "window">,
  ) {
    // A frame that refers farther back than a piece would take too much memory to try.
    this.isTried = frame.descriptor !== undefined && frame.window <= distance;
    this.window = this.isTried ? frame.window : 0;
    const length = this.window + distance + largestBlock;
    this.memory = new ResizableBuffer(length, { maxByteLength: length });
    this.buffer = Buffer.from(this.memory, 0, length);
  }

  /** Gives back at once what a collector would leave for long: the opening thread begins many passes, and does little else. */
  close(): void {
    this.memory.resize(0);
  }

  /** Where the next piece's content is to be put. */
  get room(): Buffer {
    return this.buffer.subarray(this.window);
  }

  /** @param at its first block */
  *tell(content: Buffer, at: number): Generator<void, void> {
    const { writer } = this;
    if (content.length > 0) {
      if (writer.position > 0 && this.isZeros(content)) writer.zeros(content.length);
      else {
        const crc = crc32(content);
        const point = this.pointFor(content.length, at, crc);
        yield;
        if (point) writer.packed(content.length, { at: at * 8, crc, note: noteOf(point) }, point.before);
        else yield* this.keep(content);
      }
    }
    this.known = Math.min(this.window, this.known + content.length);
    this.buffer.copyWithin(
      this.window - this.known,
      this.window + content.length - this.known,
      this.window + content.length,
    );
  }

  /** The start of a piece as a place to begin at; undefined where it is none. */
  private pointFor(length: number, at: number, crc: number): Point | undefined {
    const { descriptor, checksum } = this.frame;
    if (descriptor === undefined || !this.isTried || this.failures >= patience) return undefined;
    for (const wanted of new Set([this.before, this.window])) {
      const before = this.buffer.subarray(this.window - Math.min(wanted, this.known), this.window);
      const point = { descriptor, before, checksum };
      if (!this.isPoint(point, length, at, crc)) continue;
      this.before = wanted;
      this.failures = 0;
      return point;
    }
    this.failures++;
    return undefined;
  }

  private isPoint(point: Point, length: number, at: number, crc: number): boolean {
    const part = Buffer.allocUnsafe(pieceSize);
    let sum = 0;
    let unpacking: FrameUnpacker | undefined;
    try {
      unpacking = new FrameUnpacker(this.source, { at }, point);
      for (let left = length; left > 0; ) {
        const count = unpacking.read(part.subarray(0, Math.min(left, part.length)));
        if (count === 0) return false;
        sum = crc32(part.subarray(0, count), sum);
        left -= count;
      }
    } catch (error) {
      // Tables or distances that come from before: the frame itself has been found to be sound here.
      if (error instanceof ImageError && error.code === "corrupt") return false;
      throw error;
    } finally {
      unpacking?.close();
    }
    return sum === crc;
  }

  private *keep(content: Buffer): Generator<void, void> {
    for (let at = 0; at < content.length; at += pieceSize) {
      const part = content.subarray(at, at + pieceSize);
      if (part.equals(this.zeros.subarray(0, part.length))) this.writer.zeros(part.length);
      else this.writer.kept(part);
      yield;
    }
  }

  private isZeros(content: Buffer): boolean {
    for (let at = 0; at < content.length; at += pieceSize) {
      const part = content.subarray(at, at + pieceSize);
      if (!part.equals(this.zeros.subarray(0, part.length))) return false;
    }
    return true;
  }
}
