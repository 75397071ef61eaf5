/**
 * lz4 (LZ4 Frame Format Description, version 1.6): frames one after another, among them skippable ones.
 *
 *     frame   04 22 4d 18 | flags, largest block, content size 8 or none, checksum of these | block | … | 0, 4 | checksum, 4, or none
 *     block   length, 4, its highest bit set where it isn't packed | data | checksum, 4, or none            (little-endian)
 *
 * Checksums are XXH32. Blocks are pieces, unless each refers to those before it (lz4 -BD): then the content is kept. The old
 * format of the Linux kernel, and frames that need a dictionary, are refused.
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { unpackLz4 } from "../bytes/lz4.js";
import { newXxh32 } from "../bytes/xxhash.js";
import { corrupt, ImageError, unsupported } from "../errors.js";
import { damaged, PackedInput, placeIn, skipSkippable, truncated } from "./packed-input.js";
import { type PackedFile, type Packing, type Piece, type PieceReader, type PieceWriter, pieceSize } from "./packing.js";

const magic = 0x184d2204;
const Flag = { dictionary: 1, checksum: 4, size: 8, blockChecksums: 16, independent: 32 } as const;
/** How far back blocks refer that aren't independent, in bytes. */
const reach = 65536;

export const lz4: Packing = {
  name: "lz4",
  recognises(source) {
    const mark = Buffer.alloc(4);
    return readFully(source, 0, mark) === 4 && mark.readUInt32LE(0) === magic;
  },
  open: (source) => new Lz4File(source),
};

class Lz4File implements PackedFile {
  readonly hasChecksums: boolean;
  readonly facts: Record<string, unknown>;
  readonly name: string;

  constructor(private readonly source: ByteSource) {
    this.name = source.name;
    const { flags, largest } = readHeader(new PackedInput(source, 4096));
    this.hasChecksums = (flags & (Flag.checksum | Flag.blockChecksums)) !== 0;
    this.facts = { blocks: largest };
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    const blocks = new Blocks(this.source, true);
    const zeros = Buffer.alloc(pieceSize);
    const isZeros = (part: Uint8Array) =>
      part.length === 0 || Buffer.compare(part, zeros.subarray(0, part.length)) === 0;
    for (let content = blocks.next(); content; content = blocks.next()) {
      const { at, frame } = blocks;
      const parts = Array.from({ length: Math.ceil(content.length / pieceSize) }, (_, nth) =>
        content!.subarray(nth * pieceSize, (nth + 1) * pieceSize),
      );
      if ((frame.flags & Flag.independent) === 0)
        for (const part of parts) isZeros(part) ? writer.zeros(part.length) : writer.kept(part);
      else if (writer.position > 0 && parts.every(isZeros)) writer.zeros(content.length);
      else if (content.length > 0)
        writer.packed(content.length, { at: at * 8, crc: crc32(content), note: noteOf(frame) });
      writer.progress(blocks.position);
      yield;
    }
  }

  reader(): PieceReader {
    return new Lz4Reader(this.source);
  }
}

/** What a frame's header tells. */
interface Frame {
  readonly flags: number;
  /** Of a block unpacked, in bytes. */
  readonly largest: number;
  /** Of the content, in bytes, where it is told. */
  readonly size: number | undefined;
}

/** What a piece keeps of its frame. */
const noteOf = ({ flags, largest }: Frame): number => largest * 256 + flags;

/** Reads a frame's header, up to the first block. @throws ImageError `corrupt` or `unsupported` */
function readHeader(input: PackedInput): Frame {
  const { source, position } = input;
  const what = "the header of an lz4 frame";
  const damage = (told: string) =>
    corrupt(`${source.name}: the lz4 frame at ${placeIn(source, position)} ${told}. Fetch or copy the file again.`);
  input.take(4, what);
  const [flags, sizes] = Buffer.from(input.peek(2)) as unknown as [number?, number?];
  if (flags === undefined || sizes === undefined) throw truncated(source, what);
  const hasSize = (flags & Flag.size) !== 0;
  const length = 2 + (hasSize ? 8 : 0) + (flags & Flag.dictionary ? 4 : 0);
  const header = Buffer.from(input.take(length + 1, what));
  if (((newXxh32().update(header.subarray(0, length)).digest() >>> 8) & 0xff) !== header[length])
    throw damage("has a damaged header: its checksum is wrong");
  const code = (sizes >> 4) & 7;
  if (flags >> 6 !== 1 || (flags & 2) !== 0 || (sizes & 0x8f) !== 0 || code < 4)
    throw unsupported(`${source.name}: the lz4 frame at byte ${position} has flags that Spindle doesn't know.`);
  if (flags & Flag.dictionary)
    throw unsupported(`${source.name}: was packed with a dictionary, which is another file. Unpack it with lz4 -d -D.`);
  const size = hasSize ? Number(header.readBigUInt64LE(2)) : undefined;
  if (size !== undefined && !Number.isSafeInteger(size)) throw damage(`tells ${size} bytes`);
  return { flags, largest: 2 ** (8 + 2 * code), size };
}

/** Unpacks the blocks of all frames from the first one on, or from any block of a frame with independent ones. */
class Blocks {
  /** Of the block that was unpacked last: where it is, and its frame. */
  at = 0;
  frame!: Frame;
  private readonly input: PackedInput;
  /** What blocks may refer to, then the block. */
  private buffer = Buffer.alloc(0);
  private known = 0;
  private isWithin = false;
  private sum: ReturnType<typeof newXxh32> | undefined;
  private length = 0;

  /** @param checks whether frames' own sizes and checksums are compared */
  constructor(
    private readonly source: ByteSource,
    private checks: boolean,
  ) {
    this.input = new PackedInput(source);
  }

  get position(): number {
    return this.input.position;
  }

  /** Goes on at a block. */
  seek({ at, note }: Piece): void {
    this.input.seek(at / 8);
    // Of the rest of a frame neither its size nor its checksum is known.
    this.checks = false;
    this.enter({ flags: note & 0xff, largest: Math.floor(note / 256), size: undefined });
  }

  /** The next block's content, good until the next call; undefined at the end of the file. */
  next(): Buffer | undefined {
    for (;;) {
      if (!this.isWithin && !this.beginFrame()) return undefined;
      this.at = this.input.position;
      const word = this.input.take(4, "an lz4 frame").readUInt32LE(0);
      if (word !== 0) return this.block(word);
      this.endFrame();
    }
  }

  private beginFrame(): boolean {
    const { input, source } = this;
    skipSkippable(input, "lz4");
    const mark = input.peek(4);
    if (mark.length === 0) return false;
    if (mark.length < 4 || mark.readUInt32LE(0) !== magic)
      throw corrupt(
        `${source.name}: there is no lz4 frame at ${placeIn(source, input.position)}, where one should begin: the file is damaged, or something was appended to it.`,
      );
    this.enter(readHeader(input));
    return true;
  }

  private enter(frame: Frame): void {
    this.frame = frame;
    this.isWithin = true;
    this.known = 0;
    this.length = 0;
    this.sum = this.checks && frame.flags & Flag.checksum ? newXxh32() : undefined;
    if (this.buffer.length < reach + frame.largest) this.buffer = Buffer.allocUnsafeSlow(reach + frame.largest);
  }

  private block(word: number): Buffer {
    const { input, source, frame, at } = this;
    const isPacked = word < 0x80000000;
    const length = word & 0x7fffffff;
    if (length > frame.largest)
      throw corrupt(
        `${source.name}: the lz4 block at ${placeIn(source, at)} tells ${length} bytes, more than a block has. Fetch or copy the file again.`,
      );
    const packed = this.packedBytes(length);
    if (frame.flags & Flag.blockChecksums) {
      const told = input.take(4, "an lz4 frame").readUInt32LE(0);
      if (told !== newXxh32().update(packed).digest())
        throw damaged(source, at, corrupt("an lz4 block does not have its checksum"));
    }
    const target = this.buffer.subarray(reach - this.known, reach + frame.largest);
    let count = length;
    if (!isPacked) packed.copy(target, this.known);
    else
      try {
        count = unpackLz4(packed, target, this.known);
      } catch (error) {
        throw damaged(source, input.position, error);
      }
    const content = target.subarray(this.known, this.known + count);
    this.sum?.update(content);
    this.length += count;
    if (frame.flags & Flag.independent) return content;
    // What follows may refer to the last 64 KiB: they come before it, and this block's content is given from a copy.
    const copy = Buffer.from(content);
    const known = Math.min(reach, this.known + count);
    this.buffer.copyWithin(reach - known, reach + count - known, reach + count);
    this.known = known;
    return copy;
  }

  /** Bytes of a block, which may be larger than what is read at once. */
  private packedBytes(length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    const { position } = this.input;
    if (readFully(this.source, position, bytes) < length) throw truncated(this.source, "an lz4 block");
    this.input.skip(length);
    return bytes;
  }

  private endFrame(): void {
    const { input, source, frame } = this;
    this.isWithin = false;
    const told = frame.flags & Flag.checksum ? input.take(4, "an lz4 frame").readUInt32LE(0) : undefined;
    if (this.sum && told !== this.sum.digest())
      throw corrupt(
        `${source.name}: the lz4 frame that ends at ${placeIn(source, input.position)} is damaged: its checksum doesn't match its content. Fetch or copy the file again.`,
      );
    if (this.checks && frame.size !== undefined && frame.size !== this.length)
      throw corrupt(`${source.name}: an lz4 frame unpacks to ${this.length} bytes where ${frame.size} are told.`);
    this.checks = true;
  }
}

class Lz4Reader implements PieceReader {
  private blocks: Blocks;
  private content: Uint8Array = new Uint8Array(0);

  constructor(private readonly source: ByteSource) {
    this.blocks = new Blocks(source, false);
  }

  begin(piece: Piece): void {
    this.blocks.seek(piece);
    this.content = new Uint8Array(0);
  }

  fill(target: Uint8Array): void {
    for (let filled = 0; filled < target.length; ) {
      if (this.content.length === 0) {
        const next = this.blocks.next();
        if (!next) throw corrupt(`${this.source.name}: ends before the length that was told. It is damaged.`);
        this.content = next;
        continue;
      }
      const part = this.content.subarray(0, target.length - filled);
      target.set(part, filled);
      filled += part.length;
      this.content = this.content.subarray(part.length);
    }
  }

  finish(): void {
    if (this.content.length > 0)
      throw new ImageError("corrupt", `${this.source.name}: an lz4 block has more content than before. It is damaged.`);
  }
}
