/**
 * Deflate streams one after another (members), as gzip and zip keep them: the pass that finds seek points, and the reader
 * that starts at one.
 *
 *     content   … 32 KiB | piece, up to 1 MiB                    | piece …        all in one buffer, moved on by pieces
 *               window  ─┘└─ a deflate block or a member begins   └─ another one
 *
 * A piece begins where a deflate block begins, and ends where the last block begins that is not beyond 1 MiB. A reader
 * needs the bit at which the block lies and the 32 KiB of content before, the window (as in zlib's example zran.c). One
 * mebibyte is a compromise: a small read unpacks half of it too many on average, and a window a mebibyte makes an index of
 * about 1 % of the content. A block that is longer than a piece has no way into its middle: its content is kept instead.
 * That happens only in files that were made for it, and in long runs of one byte, which packs to nothing.
 */
import { crc32 } from "node:zlib";
import type { ByteSource } from "../bytes/byte-source.js";
import { combineCrc32, Inflater, windowSize } from "../bytes/inflate.js";
import { corrupt } from "../errors.js";
import { damaged, PackedInput, truncated } from "./packed-input.js";
import { type Piece, type PieceReader, type PieceWriter, pieceSize } from "./packing.js";

/** What is around the deflate streams of a file. */
export interface Members {
  /** Reads up to the first byte of the next stream; false when there is none. */
  begin(input: PackedInput): boolean;
  /**
   * Reads what follows a stream; checks it where the CRC-32 and the length of the stream's content are given.
   * @throws ImageError `corrupt`
   */
  end(input: PackedInput, content?: { readonly crc: number; readonly length: number }): void;
}

/** Where a piece can begin. */
interface SeekPoint {
  /** In bits. */
  readonly at: number;
  /** First byte of the member's content. */
  readonly member: number;
}

/** Steps after which a pass gives others their turn, whether content came out of them or not. */
const patience = 1024;

/** Goes through all members from byte `from` on, or from a piece that an earlier pass told. */
export function* indexDeflate(
  source: ByteSource,
  members: Members,
  writer: PieceWriter,
  from: number | ReturnType<PieceWriter["resume"]> = 0,
): Generator<void, void> {
  const pass = new Pass(source, members, writer);
  try {
    yield* pass.run(from ?? 0);
  } finally {
    pass.close();
  }
}

class Pass {
  private readonly input: PackedInput;
  private readonly inflater = new Inflater();
  /** The window before the piece, then the piece. */
  private readonly buffer = Buffer.alloc(windowSize + pieceSize);
  /** Bytes of the piece so far, and how many of them are in its checksum already. */
  private filled = 0;
  private summed = 0;
  private pieceCrc = 0;
  private memberCrc = 0;
  private memberStart = 0;
  /** Where the piece begins; undefined within a block. `startCrc` is the member's checksum up to there. */
  private start: SeekPoint | undefined;
  private startCrc = 0;
  /** The last place in the piece where the next one can begin. */
  private next: (SeekPoint & { readonly offset: number }) | undefined;
  private steps = 0;

  constructor(
    private readonly source: ByteSource,
    private readonly members: Members,
    private readonly writer: PieceWriter,
  ) {
    this.input = new PackedInput(source);
  }

  *run(from: number | NonNullable<ReturnType<PieceWriter["resume"]>>): Generator<void, void> {
    const { input, members, writer } = this;
    if (typeof from === "number") input.seek(from);
    else {
      this.goOn(from, from.window);
      yield* this.member();
    }
    while (members.begin(input)) {
      this.inflater.begin();
      this.memberCrc = 0;
      this.memberStart = writer.position + this.filled;
      this.pieceMayBegin(input.position * 8);
      yield* this.member();
    }
    this.next = undefined;
    if (this.filled > 0) this.cut();
    writer.progress(input.position);
  }

  close(): void {
    this.inflater.close();
  }

  private goOn(piece: Piece, window: Uint8Array): void {
    this.buffer.set(window, windowSize - window.length);
    this.start = { at: piece.at, member: piece.note };
    this.startCrc = piece.mark;
    this.memberStart = piece.note;
    this.memberCrc = piece.mark;
    startAt(this.inflater, this.input, piece.at, window);
  }

  /** From where the inflater is to the end of the member. */
  private *member(): Generator<void, void> {
    const { inflater, input, writer } = this;
    while (!inflater.ended) {
      if (this.filled === pieceSize) {
        this.cut();
        yield;
      }
      const room = this.buffer.subarray(windowSize + this.filled, windowSize + pieceSize);
      this.filled += advance(this.source, inflater, input, room, true);
      if (inflater.boundary !== undefined) this.pieceMayBegin(input.position * 8 - inflater.boundary);
      if (++this.steps % patience === 0) {
        writer.progress(input.position);
        yield;
      }
    }
    this.sum(this.filled);
    this.members.end(input, { crc: this.memberCrc, length: writer.position + this.filled - this.memberStart });
  }

  /** A block or a member begins at bit `at`. */
  private pieceMayBegin(at: number): void {
    const point = { at, member: this.memberStart };
    if (this.filled > 0) {
      this.next = { ...point, offset: this.filled };
      // What is kept itself ends as soon as it may.
      if (this.start === undefined) this.cut();
    } else {
      this.start = point;
      this.startCrc = this.memberCrc;
    }
  }

  /** Ends the piece at the last place where another can begin, or else where the content is now. */
  private cut(): void {
    const { buffer, next, start, writer } = this;
    const length = next?.offset ?? this.filled;
    this.sum(length);
    const content = buffer.subarray(windowSize, windowSize + length);
    // Zeros at the start are a piece like any other: whoever checks zeros comes from the piece before.
    if (writer.position > 0 && content.equals(zeros.subarray(0, length))) writer.zeros(length);
    else if (start) {
      const window = buffer.subarray(windowSize - Math.min(windowSize, writer.position - start.member), windowSize);
      writer.packed(length, { at: start.at, crc: this.pieceCrc, note: start.member, mark: this.startCrc }, window);
    } else writer.kept(content);
    buffer.copyWithin(0, length, windowSize + this.filled);
    this.filled -= length;
    this.summed = 0;
    this.pieceCrc = 0;
    this.start = next;
    this.startCrc = this.memberCrc;
    this.next = undefined;
    writer.progress(this.input.position);
  }

  /** Takes what is not summed of the piece's bytes before `to` into both checksums: each byte once. */
  private sum(to: number): void {
    const length = to - this.summed;
    if (length === 0) return;
    const crc = crc32(this.buffer.subarray(windowSize + this.summed, windowSize + to));
    this.pieceCrc = combineCrc32(this.pieceCrc, crc, length);
    this.memberCrc = combineCrc32(this.memberCrc, crc, length);
    this.summed = to;
  }
}

const zeros = Buffer.alloc(pieceSize);

function startAt(inflater: Inflater, input: PackedInput, at: number, window: Uint8Array): void {
  const bits = (8 - (at % 8)) % 8;
  input.seek(Math.floor(at / 8));
  inflater.beginAt(bits, bits > 0 ? input.take(1, "its compressed data")[0]! : 0, window);
}

/** One step of the inflater; returns how many bytes it left in `target`. */
function advance(
  source: ByteSource,
  inflater: Inflater,
  input: PackedInput,
  target: Uint8Array,
  stopAtBlocks: boolean,
): number {
  const bytes = input.bytes();
  try {
    inflater.step(bytes, target, stopAtBlocks);
  } catch (error) {
    throw damaged(source, input.position, error);
  }
  input.skip(inflater.consumed);
  if (inflater.consumed === 0 && inflater.produced === 0 && !inflater.ended) {
    if (bytes.length === 0) throw truncated(source, "its compressed data");
    throw new Error(`${source.name}: the unpacking stands still at byte ${input.position}`);
  }
  return inflater.produced;
}

export class DeflateReader implements PieceReader {
  private readonly input: PackedInput;
  /** Lives as long as its thread. */
  private readonly inflater = new Inflater();
  private readonly spare = Buffer.alloc(64);
  /** Whether the piece is made of whole members, which are checked one by one. */
  private checksMembers = false;
  private crc = 0;
  private length = 0;

  constructor(
    private readonly source: ByteSource,
    private readonly members: Members,
  ) {
    this.input = new PackedInput(source);
  }

  begin(piece: Piece, window: Uint8Array): void {
    startAt(this.inflater, this.input, piece.at, window);
    this.checksMembers = piece.crc === undefined;
    this.crc = 0;
    this.length = 0;
  }

  fill(target: Uint8Array): void {
    for (let filled = 0; filled < target.length; ) {
      if (this.inflater.ended) this.nextMember();
      const room = target.subarray(filled);
      const count = advance(this.source, this.inflater, this.input, room, false);
      filled += count;
      if (!this.checksMembers) continue;
      this.crc = crc32(room.subarray(0, count), this.crc);
      this.length += count;
    }
  }

  finish(): void {
    if (!this.checksMembers) return;
    while (!this.inflater.ended)
      if (advance(this.source, this.inflater, this.input, this.spare, false) > 0)
        throw damaged(this.source, this.input.position, corrupt("a member unpacks to more bytes than it tells"));
    this.endMember();
  }

  private nextMember(): void {
    this.endMember();
    if (!this.members.begin(this.input))
      throw damaged(this.source, this.input.position, corrupt("the content ends before the length that was told"));
    this.inflater.begin();
    this.crc = 0;
    this.length = 0;
  }

  private endMember(): void {
    const { crc, length } = this;
    this.members.end(this.input, this.checksMembers ? { crc, length } : undefined);
  }
}
