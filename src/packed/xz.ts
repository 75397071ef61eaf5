/**
 * xz ("The .xz File Format", 1.1.0): streams one after another, each with blocks that depend on nothing before, and an index
 * of them at its end.
 *
 *     header, 12 | block … | index | footer, 12 | padding, zeros by fours | header …
 *
 *     block  header: its size in fours, flags, filters | LZMA2 data | padding to a multiple of four | check
 *     index  0 | number of blocks | unpadded size and unpacked size of each | padding | crc, 4
 *     footer crc, 4 | size of the index in fours, 4 | flags, 2 | Y Z
 *
 * So the file is read from its end, and a block is a piece: put between a header, an index and a footer of its own it is a
 * stream for liblzma, which checks it. Blocks are as large as their writer liked (24 MiB by default): those up to 256 MiB
 * are unpacked as a whole when they are read. In a larger one, which mostly is the file's only one, nothing can be found
 * but by unpacking all before: its content is kept.
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import { Unxz } from "../bytes/xz.js";
import { corrupt, unsupported } from "../errors.js";
import { settings } from "../settings.js";
import { keepContent } from "./kept-content.js";
import { damaged, PackedInput, placeIn, truncated } from "./packed-input.js";
import type { PackedFile, Packing, Piece, PieceReader, PieceWriter } from "./packing.js";
import { largestPiece } from "./scratch.js";
import { WholePieceReader } from "./whole-piece-reader.js";

const headerMagic = Buffer.from("fd377a585a00", "hex");
const footerMagic = Buffer.from("YZ");
const HEADER = 12;
/** Streams of a file, beyond which it is refused: every stream takes memory, and a disk has one or a few. */
const mostStreams = 65536;

const LZMA2 = 0x21;

export const xz: Packing = {
  name: "xz",
  recognises(source) {
    const mark = Buffer.alloc(6);
    return readFully(source, 0, mark) === 6 && mark.equals(headerMagic);
  },
  open: (source) => new XzFile(source),
};

/** A stream, as its footer and index tell it. */
interface Stream {
  /** First byte of its header. */
  readonly at: number;
  /** First byte of its index, and the bytes it has. */
  readonly index: number;
  readonly indexSize: number;
  /** The second byte of the stream's flags: the kind of its checks. */
  readonly check: number;
}

class XzFile implements PackedFile {
  readonly hasChecksums: boolean;
  private toldSize: number | undefined;
  private readonly streams: readonly Stream[];

  constructor(private readonly source: ByteSource) {
    this.streams = streamsOf(source);
    this.hasChecksums = this.streams.every(({ check }) => check !== 0);
  }

  get name(): string {
    return this.source.name;
  }

  get facts() {
    return {};
  }

  get told() {
    if (this.toldSize === undefined) {
      this.toldSize = 0;
      for (const stream of this.streams) for (const { size } of blocksOf(this.source, stream)) this.toldSize += size;
    }
    return { kind: "proven", size: this.toldSize } as const;
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    let count = 0;
    for (const stream of this.streams)
      for (const { at, unpadded, size } of blocksOf(this.source, stream)) {
        const place = { at: at * 8, note: unpadded, mark: stream.check };
        if (size > largestPiece)
          yield* keepContent(writer, this.source, size, new BlockUnpacker(this.source, { ...place, length: size }));
        else if (size > 0) writer.packed(size, place);
        writer.progress(at + unpadded);
        if (++count % 1024 === 0) yield;
      }
  }

  reader(): PieceReader {
    return new WholePieceReader(this.name, (piece) => new BlockUnpacker(this.source, piece));
  }
}

/** All streams, the first one first, found from the last one's footer on. @throws ImageError `corrupt` */
function streamsOf(source: ByteSource): Stream[] {
  const { name } = source;
  const streams: Stream[] = [];
  let end = source.size;
  while (end > 0) {
    end = withoutPadding(source, end);
    if (end < 2 * HEADER) throw truncated(source, "an xz stream");
    const footer = readExactly(source, end - HEADER, HEADER, "the xz footer");
    if (!footer.subarray(10).equals(footerMagic))
      throw corrupt(
        `${name}: there is no xz footer at ${placeIn(source, end - HEADER)}, where the file or its last stream should end: the file is truncated or damaged. Fetch or copy it again.`,
      );
    if (crc32(footer.subarray(4, 10)) !== footer.readUInt32LE(0))
      throw corrupt(`${name}: the xz footer at byte ${end - HEADER} is damaged: its checksum is wrong.`);
    if (footer[8] !== 0 || (footer[9]! & 0xf0) !== 0)
      throw unsupported(`${name}: the xz footer at byte ${end - HEADER} has flags that Spindle doesn't know.`);
    const indexSize = (footer.readUInt32LE(4) + 1) * 4;
    const index = end - HEADER - indexSize;
    if (index < HEADER) throw corrupt(`${name}: the xz footer at byte ${end - HEADER} tells an index before the file.`);
    let packed = 0;
    const stream = { index, indexSize, check: footer[9]! };
    for (const { unpadded } of blocksOf(source, { ...stream, at: 0 })) packed += padded(unpadded);
    const at = index - packed - HEADER;
    if (at < 0)
      throw corrupt(`${name}: the xz index at byte ${index} tells more packed bytes than there are before it.`);
    const header = readExactly(source, at, HEADER, "an xz header");
    if (!header.subarray(0, 6).equals(headerMagic) || header.readUInt16LE(6) !== footer.readUInt16LE(8))
      throw corrupt(
        `${name}: there is no xz header at ${placeIn(source, at)}, where the stream begins by its index. It is damaged.`,
      );
    streams.push({ ...stream, at });
    if (streams.length > mostStreams)
      throw unsupported(`${name}: has more than ${mostStreams} xz streams. Unpack it with xz -d.`);
    end = at;
  }
  return streams.reverse();
}

const padded = (size: number) => Math.ceil(size / 4) * 4;

const zeros = Buffer.alloc(65536);

/** Where the padding behind a stream begins. */
function withoutPadding(source: ByteSource, end: number): number {
  // Mostly there is none: few bytes are looked at first, since a file may have many streams.
  let length = 64;
  for (let at = end; ; length = zeros.length) {
    const from = Math.max(0, at - length);
    const bytes = readExactly(source, from, at - from, "the end of the file");
    if (!bytes.equals(zeros.subarray(0, bytes.length))) {
      let last = bytes.length;
      while (bytes[last - 1] === 0) last--;
      // A footer doesn't end with zeros: what follows it is padding, by fours.
      return at - (bytes.length - last);
    }
    if (from === 0) return 0;
    at = from;
  }
}

/** The blocks of a stream, as its index has them. @throws ImageError `corrupt` */
function* blocksOf(source: ByteSource, stream: Stream) {
  const input = new PackedInput(source, Math.min(65536, stream.indexSize));
  input.seek(stream.index);
  const end = stream.index + stream.indexSize;
  let sum = 0;
  const wrong = (what: string) =>
    corrupt(
      `${source.name}: the xz index at byte ${stream.index} ${what}. The file is damaged; fetch or copy it again.`,
    );
  const take = (length: number) => {
    const bytes = input.take(length, "the xz index");
    sum = crc32(bytes, sum);
    return bytes;
  };
  const number = () => {
    let value = 0;
    for (let shift = 0; shift < 63; shift += 7) {
      if (input.position >= end - 4) break;
      const byte = take(1)[0]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80 && Number.isSafeInteger(value)) return value;
    }
    throw wrong(`has a damaged number at byte ${input.position}`);
  };
  if (take(1)[0] !== 0) throw wrong("doesn't begin as one");
  const count = number();
  let at = stream.at + HEADER;
  for (let done = 0; done < count; done++) {
    const unpadded = number();
    const size = number();
    if (unpadded < 5) throw wrong(`tells a block of ${unpadded} bytes`);
    yield { at, unpadded, size };
    at += padded(unpadded);
  }
  while (input.position < end - 4) if (take(1)[0] !== 0) throw wrong("has something behind its blocks");
  const told = sum;
  if (input.take(4, "the xz index").readUInt32LE(0) !== told) throw wrong("is damaged: its checksum is wrong");
}

/** Unpacks one block as a stream of its own. */
class BlockUnpacker {
  private readonly unpacker: Unxz;
  /** What is before the block, and what is behind it. */
  private before: Buffer;
  private behind: Buffer;
  private readonly input: PackedInput;
  private readonly end: number;

  /** @param place `at` in bits, `note` the block's unpadded size, `mark` the kind of check */
  constructor(
    private readonly source: ByteSource,
    { at, note, mark, length }: Pick<Piece, "at" | "note" | "mark" | "length">,
  ) {
    const position = at / 8;
    checkFilters(source, position, note);
    this.input = new PackedInput(source);
    this.input.seek(position);
    this.end = position + padded(note);
    const flags = Buffer.of(0, mark);
    this.before = Buffer.concat([headerMagic, flags, checksum(flags)]);
    const records = Buffer.concat([Buffer.of(0, 1), varint(note), varint(length)]);
    const index = Buffer.concat([records, Buffer.alloc(padded(records.length) - records.length)]);
    const backward = Buffer.alloc(4);
    backward.writeUInt32LE(index.length / 4);
    const told = Buffer.concat([backward, flags]);
    this.behind = Buffer.concat([index, checksum(index), checksum(told), told, footerMagic]);
    this.unpacker = new Unxz();
  }

  /** The next bytes of its content; 0 at its end, when it was checked. @throws ImageError `corrupt` */
  read(target: Uint8Array): number {
    const { unpacker, input, end } = this;
    for (let filled = 0; ; ) {
      if (unpacker.ended || filled === target.length) return filled;
      const room = target.subarray(filled);
      if (this.before.length > 0) {
        this.step(this.before, room, false);
        this.before = this.before.subarray(unpacker.consumed);
      } else if (input.position < end) {
        const bytes = input.bytes();
        if (bytes.length === 0) throw truncated(this.source, "an xz block");
        this.step(bytes.subarray(0, end - input.position), room, false);
        input.skip(unpacker.consumed);
      } else {
        this.step(this.behind, room, true);
        this.behind = this.behind.subarray(unpacker.consumed);
      }
      filled += unpacker.produced;
    }
  }

  close(): void {
    this.unpacker.close();
  }

  private step(bytes: Uint8Array, room: Uint8Array, last: boolean): void {
    try {
      this.unpacker.step(bytes, room, last);
    } catch (error) {
      throw damaged(this.source, this.input.position, error);
    }
    if (this.unpacker.consumed === 0 && this.unpacker.produced === 0 && !this.unpacker.ended)
      throw damaged(this.source, this.input.position, corrupt("the xz data is damaged"));
  }
}

function checksum(bytes: Buffer): Buffer {
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(bytes));
  return crc;
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.of(...bytes, rest);
    bytes.push((rest % 128) | 0x80);
  }
}

/** Looks at a block's header for what liblzma would allocate: a dictionary may be claimed to have 4 GiB. */
function checkFilters(source: ByteSource, position: number, unpadded: number): void {
  const { name } = source;
  const first = readExactly(source, position, 1, "an xz block")[0]!;
  const size = (first + 1) * 4;
  if (first === 0 || size > unpadded)
    throw corrupt(`${name}: there is no xz block at ${placeIn(source, position)}. It is damaged.`);
  const header = readExactly(source, position, size, "the header of an xz block");
  let at = 2;
  const number = (): number => {
    let value = 0;
    for (let shift = 0; at < size - 4 && shift < 63; shift += 7) {
      const byte = header[at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw corrupt(`${name}: the xz block at byte ${position} has a damaged header.`);
  };
  const flags = header[1]!;
  if (flags & 0x40) number();
  if (flags & 0x80) number();
  for (let filter = 0; filter <= (flags & 3); filter++) {
    const id = number();
    const length = number();
    const bits = header[at] ?? 0;
    const dictionary = bits === 40 ? 2 ** 32 - 1 : (2 | (bits & 1)) * 2 ** ((bits >> 1) + 11);
    if (id === LZMA2 && (bits > 40 || dictionary > settings.largestDictionary))
      throw unsupported(
        `${name}: was packed with a dictionary of ${dictionary} bytes; Spindle takes up to ${settings.largestDictionary}. Unpack it with xz -d, or pack it with xz -9.`,
      );
    at += length;
  }
}
