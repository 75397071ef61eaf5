/**
 * zstd (RFC 8878): frames one after another, each unpacked without the others; among them skippable frames with whatever
 * their writers like.
 *
 *     frame       28 b5 2f fd | descriptor, window, content size | block: last, kind and size, 3 | … | checksum, 4, or none
 *     skippable   5x 2a 4d 18 | size, 4 | …
 *
 * - pzstd puts a skippable frame with the packed size before each frame, whose content size it doesn't tell.
 * - The seekable format (contrib/seekable_format of zstd) has a table of both sizes of every frame in a last skippable one:
 *
 *       5e 2a 4d 18 | size, 4 | packed and unpacked size, checksum or none, of each | frames, 4 | flags, 1 | b1 ea 92 8f
 *
 * A frame up to 256 MiB is a piece. Where its size is told, the pass leaps from frame to frame, in a frame from block to
 * block; where it isn't, the frame is unpacked for its length. A larger frame, mostly a file's only one, is gone through for
 * places to begin at (zstd-points.ts).
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import { corrupt } from "../errors.js";
import { isSkippable, PackedInput, placeIn, skipSkippable, truncated } from "./packed-input.js";
import { type PackedFile, type Packing, type Piece, type PieceReader, type PieceWriter, pieceSize } from "./packing.js";
import { largestPiece } from "./scratch.js";
import { FrameUnpacker, magic, type Point, readFrameHeader } from "./zstd-frame.js";
import { indexFrame, pointOf } from "./zstd-points.js";

const seekMagic = 0x8f92eab1;

/** A frame of unknown size that is packed into more than this is taken for one that is too large to be a piece. */
const largestPacked = 1 << 26;
/** Milliseconds that opening takes for leaping through the frames. */
const lookTime = 100;

export const zstd: Packing = {
  name: "zstd",
  recognises(source) {
    const head = Buffer.alloc(8);
    if (readFully(source, 0, head) < 8) return false;
    if (head.readUInt32LE(0) === magic) return true;
    // A skippable frame may begin files of lz4 too.
    return isSkippable(head.readUInt32LE(0)) && readFully(source, 8 + head.readUInt32LE(4), head) >= 4
      ? head.readUInt32LE(0) === magic
      : false;
  },
  open: (source) => new ZstdFile(source),
};

interface Frame {
  /** First byte of the frame. */
  readonly at: number;
  /** Of its content, in bytes; undefined where it isn't told. */
  readonly size: number | undefined;
  /** In the file, in bytes; of a large frame not known before it was gone through. */
  packed: number | undefined;
  readonly checksum: boolean;
}

const zeros = Buffer.alloc(pieceSize);

class ZstdFile implements PackedFile {
  readonly hasChecksums: boolean;
  readonly facts: Record<string, unknown>;
  private readonly table: SeekTable | undefined;
  private looked: PackedFile["told"] | "not yet" = "not yet";

  constructor(private readonly source: ByteSource) {
    this.table = readSeekTable(source);
    const input = new PackedInput(source, 4096);
    skipSkippable(input, "zstd");
    this.hasChecksums = input.atEnd || readFrameHeader(input).checksum;
    this.facts = this.table ? { seekTable: `${this.table.count} frames` } : {};
  }

  get name(): string {
    return this.source.name;
  }

  get told(): PackedFile["told"] {
    if (this.looked === "not yet") this.looked = this.look();
    return this.looked;
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    const buffer = Buffer.alloc(pieceSize);
    let count = 0;
    for (const frame of this.frames(writer)) {
      const { at, size } = frame;
      if (frame.packed === undefined || (size ?? 0) > largestPiece)
        frame.packed = yield* indexFrame(this.source, writer, at, size);
      else if (size === undefined) yield* this.measured(writer, at, frame.packed, buffer);
      else if (size > 0) writer.packed(size, { at: at * 8 });
      writer.progress(at + frame.packed);
      if (++count % 1024 === 0) yield;
    }
  }

  reader(): PieceReader {
    return new ZstdReader(this.source);
  }

  private frames(writer?: PieceWriter): Iterable<Frame> {
    return this.table ? tableFrames(this.source, this.table) : walkFrames(this.source, writer);
  }

  /** Unpacks a frame for its length. */
  private *measured(writer: PieceWriter, at: number, packed: number, buffer: Buffer): Generator<void, void> {
    const unpacking = new FrameUnpacker(this.source, { at, packed });
    let length = 0;
    let crc = 0;
    let isZeros = true;
    try {
      for (let count = unpacking.read(buffer); count > 0; count = unpacking.read(buffer)) {
        const part = buffer.subarray(0, count);
        isZeros &&= part.equals(zeros.subarray(0, count));
        crc = crc32(part, crc);
        length += count;
        if (length > largestPiece) break;
        writer.progress(at + packed);
        yield;
      }
    } finally {
      unpacking.close();
    }
    if (length > largestPiece) yield* indexFrame(this.source, writer, at, undefined);
    else if (isZeros && writer.position > 0) writer.zeros(length);
    else if (length > 0) writer.packed(length, { at: at * 8, crc });
  }

  /** Goes through the frames, if that is done soon: then the size is known. */
  private look(): PackedFile["told"] {
    const until = performance.now() + lookTime;
    let size = 0;
    for (const frame of this.frames()) {
      if (frame.size === undefined || performance.now() > until) return undefined;
      size += frame.size;
    }
    return { kind: "proven", size };
  }
}

/** The frames as they stand in the file. */
function* walkFrames(source: ByteSource, writer?: PieceWriter): Generator<Frame, void> {
  const input = new PackedInput(source, 4096);
  for (;;) {
    skipSkippable(input, "zstd");
    const at = input.position;
    const mark = input.peek(4);
    if (mark.length === 0) return;
    if (mark.length < 4 || mark.readUInt32LE(0) !== magic) {
      if (at === 0) throw truncated(source, "the zstd header");
      // zstd itself takes this for an error.
      throw corrupt(
        `${source.name}: there is no zstd frame at ${placeIn(source, at)}, where one should begin: the file is damaged, or something was appended to it.`,
      );
    }
    const { size, checksum } = readFrameHeader(input);
    const frame: Frame = { at, size, packed: undefined, checksum };
    for (let last = false; !last; ) {
      // Who goes through the frame comes to its end.
      if (size === undefined && input.position - at > largestPacked) break;
      const header = input.take(3, "a zstd frame").readUIntLE(0, 3);
      last = (header & 1) === 1;
      const kind = (header >> 1) & 3;
      if (kind === 3)
        throw corrupt(
          `${source.name}: the zstd frame at byte ${at} has a damaged block before ${placeIn(source, input.position)}.`,
        );
      input.skip(kind === 1 ? 1 : header >> 3);
      if (input.position > source.size) throw truncated(source, "a zstd frame");
      writer?.progress(input.position);
      if (!last) continue;
      if (checksum) input.take(4, "a zstd frame");
      frame.packed = input.position - at;
    }
    yield frame;
    if (frame.packed === undefined) return;
    // To go elsewhere would read anew what is in the buffer.
    if (input.position !== at + frame.packed) input.seek(at + frame.packed);
  }
}

interface SeekTable {
  /** First byte of its skippable frame, and of its entries; how many bytes each has. */
  readonly at: number;
  readonly entries: number;
  readonly entrySize: number;
  readonly count: number;
}

function readSeekTable(source: ByteSource): SeekTable | undefined {
  if (source.size < 17) return undefined;
  const footer = readExactly(source, source.size - 9, 9, "the seek table's footer");
  if (footer.readUInt32LE(5) !== seekMagic || (footer[4]! & 0x7c) !== 0) return undefined;
  const count = footer.readUInt32LE(0);
  const entrySize = (footer[4]! & 0x80) !== 0 ? 12 : 8;
  const size = count * entrySize + 9;
  const at = source.size - size - 8;
  if (at < 0) return undefined;
  const head = readExactly(source, at, 8, "the seek table");
  if (head.readUInt32LE(0) !== 0x184d2a5e || head.readUInt32LE(4) !== size) return undefined;
  return { at, entries: at + 8, entrySize, count };
}

/** The frames as the seek table tells them. What it tells is compared with what a frame unpacks to. */
function* tableFrames(source: ByteSource, { at: end, entries, entrySize, count }: SeekTable): Generator<Frame, void> {
  const input = new PackedInput(source, 65536);
  input.seek(entries);
  let at = 0;
  for (let number = 0; number < count; number++) {
    const entry = input.take(entrySize, "the seek table");
    const packed = entry.readUInt32LE(0);
    yield { at, packed, size: entry.readUInt32LE(4), checksum: entrySize === 12 };
    at += packed;
  }
  if (at !== end)
    throw corrupt(
      `${source.name}: its seek table tells ${at} bytes of frames, and ${end} are there. The file is damaged; fetch or copy it again.`,
    );
}

class ZstdReader implements PieceReader {
  private frame: FrameUnpacker | undefined;
  /** Bytes of the piece that are to come: it must not go on into another frame. The zeros behind it may. */
  private left = 0;
  /** Whether the frame goes on behind the piece. */
  private isWithin = false;
  private readonly spare = Buffer.alloc(64);

  constructor(private readonly source: ByteSource) {}

  begin(piece: Piece, window: Uint8Array): void {
    const point = pointOf(piece, window);
    this.goTo(piece.at / 8, point);
    this.left = piece.length;
    this.isWithin = point !== undefined;
  }

  fill(target: Uint8Array): void {
    for (let filled = 0; filled < target.length; ) {
      const count = this.frame!.read(target.subarray(filled));
      filled += count;
      this.left -= count;
      if (count > 0) continue;
      const { position } = this.frame!;
      if (this.left > 0 || position >= this.source.size)
        throw corrupt(`${this.source.name}: a zstd frame doesn't unpack to the length that is told. It is damaged.`);
      this.goTo(position);
      this.isWithin = false;
    }
  }

  finish(): void {
    if (!this.isWithin && this.frame!.read(this.spare) > 0)
      throw corrupt(
        `${this.source.name}: the zstd frame before byte ${this.frame!.position} unpacks to more than the length that is told. It is damaged.`,
      );
  }

  private goTo(at: number, point?: Point): void {
    this.frame?.close();
    this.frame = undefined;
    this.frame = new FrameUnpacker(this.source, { at }, point);
  }
}
