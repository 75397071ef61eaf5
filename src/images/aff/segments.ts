/**
 * The segments of an AFF file ("AFF Segments", AFFLIB's documentation): names with values, of which the disk's pages are
 * some. All numbers are big-endian.
 *
 *   file      "AFF10\r\n\0" | segment …
 *   segment   "AFF\0" | name's length, 4 | data's length, 4 | argument, 4 | name | data | "ATT\0" | segment's length, 4
 *
 *   pagesize    argument: bytes a page          page7            data: the page; argument: how it is packed
 *   imagesize   data: bytes of the disk         page7_md5 …      data: the page's digest
 *
 * There is no index: all segments are walked at opening. What is kept is where pages are.
 */
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, unsupported } from "../../errors.js";

export const signature = Buffer.from("AFF10\r\n\0", "latin1");

const headSize = 16;
const tailSize = 8;
/** AFFLIB takes no longer names. */
const longestName = 64;
/** Bytes of a value that is shown. */
const longestValue = 4000;
/** Pages of a disk of 64 TiB as AFFLIB cuts it, and segments for some digests and signatures of each. */
const mostPages = 1 << 22;
const mostSegments = 1 << 24;

export const digests = ["md5", "sha1", "sha256"] as const;

/** Values that are kept: small ones that tell of the disk. */
const kept = new Set([
  "imagesize",
  "badsectors",
  "md5",
  "sha1",
  "sha256",
  "image_gid",
  "aff_file_type",
  "afflib_version",
  "case_num",
  "acquisition_date",
  "acquisition_device",
  "acquisition_technician",
  "acquisition_notes",
  "device_manufacturer",
  "device_model",
  "device_sn",
]);

/** Numbered things of the files: where the data of each is. */
export class Numbered {
  private readonly numbers: number[] = [];
  private readonly positions: number[] = [];
  private readonly lengths: number[] = [];
  private readonly arguments: number[] = [];
  /** By number, where that isn't the order in which they came. */
  private order: Uint32Array | undefined;
  private rising = true;

  add(number: number, position: number, length: number, argument: number): void {
    if (this.numbers.length > 0 && number <= this.numbers.at(-1)!) this.rising = false;
    this.numbers.push(number);
    this.positions.push(position);
    this.lengths.push(length);
    this.arguments.push(argument);
  }

  get count(): number {
    return this.numbers.length;
  }

  /** To be called when all are there; returns a number that came twice, where there is one. */
  sort(): number | undefined {
    if (this.rising) return undefined;
    const { numbers } = this;
    const order = Uint32Array.from(numbers.keys()).sort((a, b) => numbers[a]! - numbers[b]!);
    this.order = order;
    const twice = order.find((index, place) => place > 0 && numbers[index] === numbers[order[place - 1]!]);
    return twice === undefined ? undefined : numbers[twice];
  }

  /** The one with `number`; undefined where there is none. */
  find(number: number): { readonly position: number; readonly length: number; readonly argument: number } | undefined {
    const index = this.at(this.place(number));
    if (index === undefined || this.numbers[index] !== number) return undefined;
    return { position: this.positions[index]!, length: this.lengths[index]!, argument: this.arguments[index]! };
  }

  /** The lowest number from `number` on; undefined where there is none. */
  next(number: number): number | undefined {
    const index = this.at(this.place(number));
    return index === undefined ? undefined : this.numbers[index];
  }

  get highest(): number | undefined {
    const index = this.at(this.count - 1);
    return index === undefined ? undefined : this.numbers[index];
  }

  private at(place: number): number | undefined {
    if (place < 0 || place >= this.count) return undefined;
    return this.order ? this.order[place]! : place;
  }

  /** How many have a lower number. */
  private place(number: number): number {
    let low = 0;
    for (let high = this.count; low < high; ) {
      const middle = Math.floor((low + high) / 2);
      if (this.numbers[this.at(middle)!]! < number) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** What the files of an image hold. Positions are those of the joined files. */
export class AffContents {
  readonly pages = new Numbered();
  readonly hashes: Readonly<Record<(typeof digests)[number], Numbered>> = {
    md5: new Numbered(),
    sha1: new Numbered(),
    sha256: new Numbered(),
  };
  readonly values = new Map<string, Buffer>();
  pageSize = 0;
  sectorSize = 512;
  private segments = 0;

  /** Walks the segments of a file whose first byte is at `start` of the joined files. */
  take(file: ByteSource, start: number): void {
    const { name, size } = file;
    const metadata = new MetadataPages(file, 4096, 4);
    for (let position = signature.length; position < size; ) {
      if (++this.segments > mostSegments)
        throw unsupported(`${name}: has more than ${mostSegments} segments, more than Spindle walks.`);
      if (position + headSize > size) throw truncated(file, position);
      const head = metadata.bytes(position, headSize, "a segment");
      const nameLength = head.readUInt32BE(4);
      const length = head.readUInt32BE(8);
      const argument = head.readUInt32BE(12);
      const sound = head.toString("latin1", 0, 4) === "AFF\0" && nameLength <= longestName;
      if (!sound) throw broken(file, position);
      const data = position + headSize + nameLength;
      const end = data + length + tailSize;
      if (end > size) throw truncated(file, position);
      const tail = metadata.bytes(data + length, tailSize, "a segment's tail");
      const same = tail.readUInt32BE(4) === (end - position) % 2 ** 32;
      if (tail.toString("latin1", 0, 4) !== "ATT\0" || !same) throw broken(file, position);
      const segment = metadata.bytes(position + headSize, nameLength, "a segment's name").toString("latin1");
      this.segment(segment, argument, file, data, length, start);
      position = end;
    }
  }

  private segment(
    segment: string,
    argument: number,
    file: ByteSource,
    data: number,
    length: number,
    start: number,
  ): void {
    // `seg7` and `segsize` are what pages and their size were called in the first versions.
    const page = /^(?:page|seg)(\d{1,10})(?:_(md5|sha1|sha256)|(\/aes256))?$/.exec(segment);
    if (page?.[3])
      throw unsupported(
        `${file.name}: its pages are encrypted, which this Spindle does not read. Convert it first with affconvert -r, with the passphrase in AFFLIB_PASSPHRASE.`,
      );
    if (page) {
      const into = page[2] ? this.hashes[page[2] as (typeof digests)[number]] : this.pages;
      if (into.count >= mostPages)
        throw unsupported(`${file.name}: has more than ${mostPages} pages, more than Spindle keeps in mind.`);
      into.add(Number(page[1]), start + data, length, argument);
    } else if (segment === "pagesize" || (segment === "segsize" && this.pageSize === 0)) this.pageSize = argument;
    else if (segment === "sectorsize") this.sectorSize = argument || 512;
    else if (kept.has(segment) && !this.values.has(segment))
      this.values.set(segment, readExactly(file, data, Math.min(length, longestValue), "a value"));
  }
}

const truncated = ({ name, size }: ByteSource, position: number) =>
  corrupt(
    `${name}: the segment at byte ${position} should go on beyond the file's ${size} bytes. The file is truncated: get another copy, or let affix save what there is.`,
  );

const broken = ({ name }: ByteSource, position: number) =>
  corrupt(
    `${name}: the segment at byte ${position} is damaged, so that what follows can't be found. Restore the file from another copy, or let affix save what there is.`,
  );
