/**
 * lzip (its manual, "File format"): members one after another, which depend on nothing before.
 *
 *     "LZIP" 1 | coded size of the dictionary, 1 | LZMA data with its end marked | CRC-32, 4 | size of the content, 8 | size of the member, 8
 *
 * So the members are found from the file's end on. A member is a piece: plzip makes one of some mebibytes. Members of more than
 * 256 MiB of content, mostly the file's only one, are kept. liblzma takes the data for .lzma when it has that header.
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import { corrupt, unsupported } from "../errors.js";
import { keepContent, type Unpacking } from "./kept-content.js";
import { checkDictionary, LzmaData } from "./lzma-data.js";
import { placeIn, truncated } from "./packed-input.js";
import type { PackedFile, Packing, PieceWriter } from "./packing.js";
import { largestPiece } from "./scratch.js";
import { WholePieceReader } from "./whole-piece-reader.js";

const magic = Buffer.from("LZIP\x01");
const HEADER = 6;
const TRAILER = 20;
/** Members of a file, beyond which it is refused: plzip makes this many of a tebibyte. */
const mostMembers = 2 ** 20;

export const lzip: Packing = {
  name: "lzip",
  recognises(source) {
    const mark = Buffer.alloc(magic.length);
    return readFully(source, 0, mark) === mark.length && mark.equals(magic);
  },
  open: (source) => new LzipFile(source),
};

class LzipFile implements PackedFile {
  readonly hasChecksums = true;
  readonly facts = {};
  readonly told: PackedFile["told"];
  /** Where the members begin, and where the last one ends. */
  private readonly places: readonly number[];

  constructor(private readonly source: ByteSource) {
    const { places, size } = membersOf(source);
    this.places = places;
    this.told = { kind: "proven", size };
  }

  get name(): string {
    return this.source.name;
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    for (let number = 0; number + 1 < this.places.length; number++) {
      const at = this.places[number]!;
      const end = this.places[number + 1]!;
      const { size } = readTrailer(this.source, end);
      if (size > largestPiece) yield* keepContent(writer, this.source, size, new MemberUnpacker(this.source, at, end));
      else if (size > 0) writer.packed(size, { at: at * 8, note: end });
      writer.progress(end);
      if (number % 1024 === 1023) yield;
    }
  }

  reader() {
    return new WholePieceReader(this.name, ({ at, note }) => new MemberUnpacker(this.source, at / 8, note));
  }
}

/** All members, found from the last one's trailer on. @throws ImageError `corrupt` */
function membersOf(source: ByteSource): { places: number[]; size: number } {
  const { name } = source;
  const places = [source.size];
  let total = 0;
  for (let end = source.size; end > 0; end = places.at(-1)!) {
    if (end < HEADER + TRAILER) throw truncated(source, "an lzip member");
    const { size, length } = readTrailer(source, end);
    const at = end - length;
    const begins = at >= 0 && readExactly(source, at, magic.length, "an lzip header").equals(magic);
    total += size;
    if (!begins || length < HEADER + TRAILER || !Number.isSafeInteger(total))
      throw corrupt(
        `${name}: there is no lzip member that ends at ${placeIn(source, end)}: the file is truncated or damaged, or something was appended to it. Fetch or copy it again.`,
      );
    places.push(at);
    if (places.length > mostMembers)
      throw unsupported(`${name}: has more than ${mostMembers} lzip members. Unpack it with lzip -d.`);
  }
  return { places: places.reverse(), size: total };
}

/** @param end of the member */
function readTrailer(source: ByteSource, end: number) {
  const bytes = readExactly(source, end - TRAILER, TRAILER, "an lzip trailer");
  return {
    crc: bytes.readUInt32LE(0),
    size: Number(bytes.readBigUInt64LE(4)),
    length: Number(bytes.readBigUInt64LE(12)),
  };
}

/** Unpacks one member, and checks it at its end. */
class MemberUnpacker implements Unpacking {
  private readonly data: LzmaData;
  private crc = 0;
  private size = 0;
  private checked = false;

  constructor(
    private readonly source: ByteSource,
    private readonly at: number,
    private readonly end: number,
  ) {
    const coded = readExactly(source, at, HEADER, "an lzip header")[5]!;
    const power = 2 ** (coded & 0x1f);
    const dictionary = power - (power / 16) * (coded >> 5);
    if (dictionary < 4096 || dictionary > 2 ** 29)
      throw corrupt(`${source.name}: the lzip member at ${placeIn(source, at)} has a damaged header.`);
    checkDictionary(source, at + 5, dictionary, "lzip -d");
    const header = Buffer.alloc(13, 0xff);
    header[0] = 0x5d;
    header.writeUInt32LE(dictionary, 1);
    this.data = new LzmaData(source, header, at + HEADER, end - TRAILER);
  }

  read(target: Uint8Array): number {
    const count = this.data.read(target);
    this.crc = crc32(target.subarray(0, count), this.crc);
    this.size += count;
    if (count < target.length && !this.checked) this.check();
    return count;
  }

  close(): void {
    this.data.close();
  }

  private check(): void {
    const told = readTrailer(this.source, this.end);
    if (this.data.position !== this.end - TRAILER || told.size !== this.size || told.crc !== this.crc)
      throw corrupt(
        `${this.source.name}: the lzip member at ${placeIn(this.source, this.at)} is damaged: it doesn't unpack to what its trailer tells. Fetch or copy the file again.`,
      );
    this.checked = true;
  }
}
