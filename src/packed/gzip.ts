import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import { corrupt, unsupported } from "../errors.js";
import { DeflateReader, indexDeflate, type Members } from "./deflate.js";
import { PackedInput, placeIn, truncated } from "./packed-input.js";
import type { PackedFile, Packing, PieceWriter } from "./packing.js";

/*
 * gzip (RFC 1952): members one after another, each a header, a deflate stream, and the CRC-32 and the length (modulo 2^32)
 * of its content.
 *
 *     1f 8b 08 | flags, time, … 7 | extra field, name, comment, header checksum, as flagged | deflate … | crc, 4 | length, 4
 *
 * BGZF (the SAM specification, section 4.1) is gzip of small members whose extra field `BC` tells how long the packed member
 * is: its pieces are found without unpacking anything.
 *
 * Zeros behind the last member are padding. Anything else that is no gzip is left alone and told, as gzip itself does it.
 */

const HEADER = 10;
const TRAILER = 8;
const Flag = { headerCrc: 2, extra: 4, name: 8, comment: 16, reserved: 0xe0 } as const;
/** A name or a comment that is longer is taken for damage, in bytes. */
const longestText = 65536;

/** Deflate packs 258 bytes into 2 bits at best, and a stored block has 5 bytes more than its 65535. */
const bestRatio = 1032;
const worstRatio = 65535 / 65540;

export const gzip: Packing = {
  name: "gzip",
  recognises(source) {
    const mark = Buffer.alloc(3);
    return readFully(source, 0, mark) === 3 && mark.equals(Buffer.of(0x1f, 0x8b, 8));
  },
  open: (source) => new GzipFile(source),
};

class GzipFile implements PackedFile {
  readonly told: PackedFile["told"];
  readonly hasChecksums = true;
  readonly facts: Record<string, unknown>;
  readonly name: string;
  private readonly blocked: boolean;

  constructor(private readonly source: ByteSource) {
    this.name = source.name;
    const input = new PackedInput(source);
    const header = readHeader(input);
    this.blocked = header.packedSize !== undefined;
    this.facts = {
      ...(header.name ? { name: header.name } : {}),
      ...(this.blocked ? { blocks: "BGZF" } : {}),
    };
    if (this.blocked || source.size < HEADER + TRAILER) return;
    const packed = source.size - input.position - TRAILER;
    this.told = {
      kind: "modulo",
      size: readExactly(source, source.size - 4, 4, "the gzip trailer").readUInt32LE(0),
      least: Math.floor(packed * worstRatio) - 5,
      most: packed * bestRatio,
    };
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    const members = new GzipMembers(this.source, writer);
    const last = writer.resume();
    // A piece of whole blocks has no checksum of its own.
    if (!this.blocked || last?.crc !== undefined) yield* indexDeflate(this.source, members, writer, last);
    else {
      const rest = yield* indexBlocks(this.source, writer, last?.note ?? 0);
      // Members without a length may follow, for example of files that were put together.
      if (rest < this.source.size) yield* indexDeflate(this.source, members, writer, rest);
    }
  }

  reader() {
    return new DeflateReader(this.source, new GzipMembers(this.source));
  }
}

interface Header {
  readonly name: string;
  /** Of a BGZF member: its packed size with header and trailer. */
  readonly packedSize: number | undefined;
}

/** Reads a member's header, up to the first byte of its deflate stream. @throws ImageError `corrupt` or `unsupported` */
function readHeader(input: PackedInput): Header {
  const { source, position } = input;
  const what = "a gzip header";
  const [, , method, flags] = Buffer.from(input.take(HEADER, what));
  if (method !== 8)
    throw corrupt(
      `${source.name}: the gzip header at byte ${position} tells method ${method}; only 8 (deflate) exists.`,
    );
  if ((flags! & Flag.reserved) !== 0)
    throw unsupported(
      `${source.name}: the gzip header at byte ${position} has flags that Spindle doesn't know (${flags}), or is damaged.`,
    );
  let packedSize: number | undefined;
  if (flags! & Flag.extra) {
    const length = input.take(2, what).readUInt16LE(0);
    packedSize = blockSize(input.take(length, what));
  }
  const name = flags! & Flag.name ? text(input) : "";
  if (flags! & Flag.comment) text(input);
  if (flags! & Flag.headerCrc) input.take(2, what);
  return { name, packedSize };
}

/** The `BC` subfield of an extra field: the member's packed size. */
function blockSize(extra: Buffer): number | undefined {
  for (let at = 0; at + 4 <= extra.length; ) {
    const length = extra.readUInt16LE(at + 2);
    if (extra[at] === 0x42 && extra[at + 1] === 0x43 && length === 2 && at + 6 <= extra.length)
      return extra.readUInt16LE(at + 4) + 1;
    at += 4 + length;
  }
  return undefined;
}

function text(input: PackedInput): string {
  const { source, position } = input;
  const bytes = input.peek(longestText);
  const length = bytes.indexOf(0);
  if (length < 0 && bytes.length < longestText) throw truncated(source, "a gzip header");
  if (length < 0)
    throw corrupt(`${source.name}: the gzip header has a name or comment without end at byte ${position}.`);
  const value = bytes.toString("latin1", 0, length);
  input.skip(length + 1);
  return value;
}

class GzipMembers implements Members {
  constructor(
    private readonly source: ByteSource,
    private readonly writer?: PieceWriter,
  ) {}

  begin(input: PackedInput): boolean {
    const mark = input.peek(2);
    if (mark.length === 2 && mark[0] === 0x1f && mark[1] === 0x8b) {
      readHeader(input);
      return true;
    }
    if (!input.atEnd) this.passTrailing(input);
    return false;
  }

  end(input: PackedInput, content?: { readonly crc: number; readonly length: number }): void {
    const { position } = input;
    const trailer = input.take(TRAILER, "a gzip trailer");
    if (content === undefined) return;
    const [crc, length] = [trailer.readUInt32LE(0), trailer.readUInt32LE(4)];
    const { name } = this.source;
    const place = placeIn(this.source, position);
    if (crc !== content.crc)
      throw corrupt(
        `${name}: the gzip member that ends at ${place} is damaged: its checksum doesn't match its content. Fetch or copy the file again.`,
      );
    if (length !== content.length % 2 ** 32)
      throw corrupt(
        `${name}: the gzip member that ends at ${place} is damaged: it tells a length of ${length} and has ${content.length % 2 ** 32}.`,
      );
  }

  /** What is no gzip: padding, or something that doesn't belong to the content. */
  private passTrailing(input: PackedInput): void {
    const { position, source } = input;
    for (let bytes = input.bytes(); bytes.length > 0; bytes = input.bytes()) {
      if (!bytes.equals(Buffer.alloc(bytes.length))) {
        this.writer?.remark(`${source.size - position} bytes from byte ${position} on are no gzip and were left alone`);
        input.seek(source.size);
        return;
      }
      input.skip(bytes.length);
    }
  }
}

/** Pieces are joined up to this many bytes: members may be tiny. */
const joinedBlocks = 65536;

/**
 * The members of a BGZF file, from the header at byte `from` on to the next. A piece's note is its first header.
 * @returns where they end: at the end of the file, or at something else
 */
function* indexBlocks(source: ByteSource, writer: PieceWriter, from: number): Generator<void, number> {
  const input = new PackedInput(source, 4096);
  input.seek(from);
  let position = from;
  let at = 0;
  let note = 0;
  let length = 0;
  const flush = () => {
    if (length > 0) writer.packed(length, { at: at * 8, note });
    length = 0;
  };
  for (let count = 0; position + HEADER < source.size; count++) {
    const mark = input.peek(2);
    if (mark[0] !== 0x1f || mark[1] !== 0x8b) break;
    const { packedSize } = readHeader(input);
    if (packedSize === undefined) break;
    const end = position + packedSize;
    if (end < input.position + TRAILER || end > source.size)
      throw corrupt(
        `${source.name}: the BGZF block at ${placeIn(source, position)} tells ${packedSize} bytes, which can't be. The file is truncated or damaged.`,
      );
    const start = input.position;
    input.skip(end - 4 - start);
    const content = input.take(4, "the length of a BGZF block").readUInt32LE(0);
    if (content > 65536)
      throw corrupt(
        `${source.name}: the BGZF block at byte ${position} tells ${content} bytes of content, more than 65536.`,
      );
    if (length + content > joinedBlocks) flush();
    if (length === 0) {
      at = start;
      note = position;
    }
    length += content;
    position = end;
    if (count % 1024 === 0) {
      writer.progress(position);
      yield;
    }
  }
  flush();
  return position;
}
