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
 * block; where it isn't, the frame is unpacked for its length. The content of a larger frame, mostly a file's only one, has
 * no way into it and is kept.
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import { Unzstd } from "../bytes/zstd.js";
import { corrupt, unsupported } from "../errors.js";
import { keepContent, type Unpacking } from "./kept-content.js";
import { damaged, PackedInput, placeIn, truncated } from "./packed-input.js";
import { type PackedFile, type Packing, type Piece, type PieceReader, type PieceWriter, pieceSize } from "./packing.js";
import { largestPiece } from "./scratch.js";

const magic = 0xfd2fb528;
const seekMagic = 0x8f92eab1;
const isSkippable = (mark: number) => (mark & 0xfffffff0) >>> 0 === 0x184d2a50;

/** What libzstd takes by itself, in bytes. */
const largestWindow = 2 ** 27;
/** A frame of unknown size that is packed into more than this is taken for one that is too large to be a piece. */
const largestPacked = 1 << 26;
/** Bytes of a frame that are read at once. */
const largestRead = 1 << 18;
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
  /** In the file, in bytes. */
  readonly packed: number;
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
    skipToFrame(input);
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
      const { at, size, packed } = frame;
      if ((size ?? 0) > largestPiece || (size === undefined && packed > largestPacked))
        yield* keepContent(writer, this.source, size, new FrameUnpacker(this.source, frame));
      else if (size === undefined) yield* this.measured(writer, frame, buffer);
      else if (size > 0) writer.packed(size, { at: at * 8 });
      writer.progress(at + packed);
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
  private *measured(writer: PieceWriter, frame: Frame, buffer: Buffer): Generator<void, void> {
    const { at, packed } = frame;
    const unpacking = new FrameUnpacker(this.source, frame);
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
    if (length > largestPiece)
      yield* keepContent(writer, this.source, undefined, new FrameUnpacker(this.source, frame));
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
    skipToFrame(input);
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
    for (let last = false; !last; ) {
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
    }
    if (checksum) input.take(4, "a zstd frame");
    yield { at, size, packed: input.position - at, checksum };
  }
}

/** Passes over skippable frames. */
function skipToFrame(input: PackedInput): void {
  for (;;) {
    const head = input.peek(8);
    if (head.length < 8 || !isSkippable(head.readUInt32LE(0))) return;
    const end = input.position + 8 + head.readUInt32LE(4);
    if (end > input.source.size) throw truncated(input.source, "a skippable zstd frame");
    input.seek(end);
  }
}

/** RFC 8878, 3.1.1.1. Reads up to the first block. */
function readFrameHeader(input: PackedInput): { size: number | undefined; checksum: boolean } {
  const { source, position } = input;
  const what = "the header of a zstd frame";
  const descriptor = input.take(5, what)[4]!;
  const single = (descriptor & 0x20) !== 0;
  if ((descriptor & 8) !== 0)
    throw unsupported(`${source.name}: the zstd frame at byte ${position} has flags that Spindle doesn't know.`);
  let window: number | undefined;
  if (!single) {
    const byte = input.take(1, what)[0]!;
    const base = 2 ** (10 + (byte >> 3));
    window = base + (base / 8) * (byte & 7);
  }
  const dictionaryLength = [0, 1, 2, 4][descriptor & 3]!;
  if (dictionaryLength > 0 && input.take(dictionaryLength, what).some((byte) => byte !== 0))
    throw unsupported(
      `${source.name}: was packed with a dictionary, which is another file. Unpack it with zstd -d -D.`,
    );
  const sizeLength = [single ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  let size: number | undefined;
  if (sizeLength > 0) {
    const bytes = Buffer.alloc(8);
    input.take(sizeLength, what).copy(bytes);
    size = Number(bytes.readBigUInt64LE(0)) + (sizeLength === 2 ? 256 : 0);
    if (!Number.isSafeInteger(size))
      throw corrupt(`${source.name}: the zstd frame at byte ${position} tells ${size} bytes. It is damaged.`);
  }
  if ((window ?? size ?? 0) > largestWindow)
    throw unsupported(
      `${source.name}: the zstd frame at byte ${position} needs ${window ?? size} bytes of memory (it was packed with --long or --ultra); Spindle takes up to ${largestWindow}. Unpack it with zstd -d --long=31.`,
    );
  return { size, checksum: (descriptor & 4) !== 0 };
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

/** Unpacks one frame. */
class FrameUnpacker implements Unpacking {
  private readonly unpacker = new Unzstd();
  private readonly input: PackedInput;

  /** @param frame where it is; with `packed`, no more is read at once than that: there may be many small ones. */
  constructor(
    private readonly source: ByteSource,
    { at, packed = largestRead }: { readonly at: number; readonly packed?: number },
  ) {
    this.input = new PackedInput(source, Math.min(packed, largestRead));
    this.input.seek(at);
    skipToFrame(this.input);
    const start = this.input.position;
    // What it would allocate is looked at first.
    if (this.input.peek(4).length === 4) readFrameHeader(this.input);
    this.input.seek(start);
  }

  /** The first byte behind what was used of the file. */
  get position(): number {
    return this.input.position;
  }

  read(target: Uint8Array): number {
    const { unpacker, input, source } = this;
    for (let filled = 0; ; ) {
      if (unpacker.ended || filled === target.length) return filled;
      const bytes = input.bytes();
      try {
        unpacker.step(bytes, target.subarray(filled));
      } catch (error) {
        throw damaged(source, input.position, error);
      }
      input.skip(unpacker.consumed);
      filled += unpacker.produced;
      if (unpacker.consumed === 0 && unpacker.produced === 0 && !unpacker.ended)
        throw bytes.length === 0
          ? truncated(source, "a zstd frame")
          : damaged(source, input.position, corrupt("the zstd data is damaged"));
    }
  }

  close(): void {
    this.unpacker.close();
  }
}

class ZstdReader implements PieceReader {
  private frame: FrameUnpacker | undefined;
  /** Whether the piece was unpacked in the pass: what was only told must not go on into another frame. */
  private isMeasured = false;
  private readonly spare = Buffer.alloc(64);

  constructor(private readonly source: ByteSource) {}

  begin({ at, crc }: Piece): void {
    this.goTo(at / 8);
    this.isMeasured = crc !== undefined;
  }

  fill(target: Uint8Array): void {
    for (let filled = 0; filled < target.length; ) {
      const count = this.frame!.read(target.subarray(filled));
      filled += count;
      if (count > 0 || filled === target.length) continue;
      const { position } = this.frame!;
      if (!this.isMeasured || position >= this.source.size)
        throw corrupt(`${this.source.name}: a zstd frame doesn't unpack to the length that is told. It is damaged.`);
      this.goTo(position);
    }
  }

  finish(): void {
    if (this.frame!.read(this.spare) > 0)
      throw corrupt(
        `${this.source.name}: the zstd frame before byte ${this.frame!.position} unpacks to more than the length that is told. It is damaged.`,
      );
    this.frame!.close();
    this.frame = undefined;
  }

  private goTo(at: number): void {
    this.frame?.close();
    this.frame = undefined;
    this.frame = new FrameUnpacker(this.source, { at });
  }
}
