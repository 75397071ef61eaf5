/**
 * The first version of the format, "Expert Witness Compression Format specification" (libewf): E01 of EnCase, FTK Imager
 * and linen, and S01 of SMART. All numbers are little-endian, all checksums Adler-32.
 *
 *   segment   header, 13 | section …                      of the first: header2, header, volume, sectors, table, table2 …
 *   section   type, 16 | where the next begins, 8 | its own length, 8 | 40 zeros | checksum, 4 | data …
 *
 * Sections are walked at opening, from each segment's start; the last is called `next` or `done`. Of a table only its
 * header is read then. SMART and EnCase 1 keep chunks behind the table itself, the others in `sectors` before it.
 */

import { adler32 } from "../../bytes/adler32.js";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { guidText } from "../../bytes/guid.js";
import type { JoinedSource } from "../../bytes/joined.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, ImageError, mismatch, unsupported } from "../../errors.js";
import type { Surroundings } from "../../format.js";
import { tablePage, u64le } from "../fields.js";
import { caseFacts, mainValues, unpackText } from "./case-data.js";
import { acquisitionErrors, type Evidence, largestChunk, type Media, measured, mostSections } from "./evidence.js";
import { openSegments, type Segment } from "./segments.js";
import { ChunkTables, mostEntries, Table1, type TableHeader } from "./tables.js";

export const signature1 = Buffer.from("EVF\x09\x0d\x0a\xff\x00", "latin1");

const headerSize = 13;
const descriptorSize = 76;
/** Bytes of the volume section as EnCase writes it, and as the original specification and SMART have it. */
const volumeSize = 1052;
const shortVolumeSize = 94;
/** Bytes of a packed text that are looked at. */
const longestHeader = 1 << 20;

const mediaTypes: Record<number, string> = { 0: "removable", 1: "fixed", 3: "optical", 16: "memory" };
const logicalEvidence = 14;
/** By the volume's level, which is 0 too where the writer left it out, and by the header's letter. */
const compressions: Record<string, string> = { 1: "fast", 2: "best", n: "none", f: "fast", b: "best" };

export function readEwf1(file: ByteSource, around: Surroundings): Evidence {
  return new Reader().read(file, around);
}

interface Section {
  readonly type: string;
  /** Of its descriptor, in the segment. */
  readonly start: number;
  readonly data: number;
  /** Of its data. */
  readonly size: number;
  /** Where the next begins. */
  readonly end: number;
}

/** What the volume section tells, and the `data` sections repeat. */
interface Volume extends Media {
  readonly sectors: number;
  readonly mediaType: number | undefined;
  readonly physical: boolean | undefined;
  readonly compression: string | undefined;
  /** Empty where it isn't recorded. */
  readonly setId: string;
  /** Whether tables have checksums behind their entries: the original format has none. */
  readonly summedTables: boolean;
}

/** A table whose second copy may follow. */
interface PendingTable {
  readonly section: Section;
  readonly main: TableHeader | undefined;
  copy?: TableHeader;
}

class Reader {
  private readonly tables = new ChunkTables();
  private readonly shape = { summed: true, largest: 0 };
  private readonly facts: Record<string, unknown> = {};
  /** Of the segment that is walked, and of all segments, for the tables' entries, once all are known. */
  private pages!: MetadataPages;
  private allPages: MetadataPages | undefined;
  private volume: Volume | undefined;
  private pending: PendingTable | undefined;
  private sections = 0;
  private readonly texts = new Map<string, string>();

  read(file: ByteSource, around: Surroundings): Evidence {
    const segments = openSegments(file, around, segmentNumber, (segment, all) => this.walk(segment, all));
    const { volume } = this;
    if (!volume)
      throw corrupt(`${file.name}: has no volume section, which tells the disk's size. The file is damaged.`);
    const { mediaType, physical, setId, sectorSize, chunkSize, size } = volume;
    this.shape.summed = volume.summedTables;
    this.shape.largest = largestChunk(volume);
    // What `header2` has is the same in UTF-16.
    const values = mainValues(this.texts.get("header2") ?? this.texts.get("header") ?? "");
    const compression = volume.compression ?? compressions[values.get("r") ?? ""];
    const missing = Math.ceil(size / chunkSize) - this.tables.end;
    const facts = {
      subformat: volume.summedTables ? "E01" : "S01",
      segments: segments.count,
      chunkSize,
      // Partition tables on optical discs count in 512 bytes, whatever the disc's sectors are.
      ...(mediaType === 3 ? { sectorSize } : { logicalSectorSize: sectorSize }),
      ...(compression && { compression }),
      ...(mediaType !== undefined && { mediaType: mediaTypes[mediaType] ?? `type ${mediaType}` }),
      ...(physical !== undefined && { physical }),
      ...(setId && { setId }),
      ...(missing > 0 && { incomplete: `${missing} chunks at its end are in no table` }),
      ...caseFacts(values, 1),
      ...this.facts,
    };
    return { media: volume, tables: this.tables, packing: "zlib", facts };
  }

  /** Reads a segment's sections; whether its last says that another segment follows. */
  private walk(segment: Segment, all: JoinedSource): boolean {
    this.pages = new MetadataPages(segment.file, tablePage.size, 4);
    this.allPages ??= new MetadataPages(all, tablePage.size, tablePage.kept);
    for (let position = headerSize; ; ) {
      const section = this.section(segment.file, position);
      if (section.type !== "table2") this.finishTable(segment);
      if (section.type === "done") return false;
      if (section.type === "next") return true;
      this.take(section, segment);
      position = section.end;
    }
  }

  private section(file: ByteSource, position: number): Section {
    const { name, size } = file;
    if (position + descriptorSize > size)
      throw corrupt(
        `${name}: a section should begin at byte ${position}, but there are only ${size} bytes. The file is truncated, or was never finished.`,
      );
    if (++this.sections > mostSections)
      throw unsupported(`${name}: the image has more than ${mostSections} sections, more than Spindle walks.`);
    const bytes = this.pages.bytes(position, descriptorSize, "a section");
    if (adler32(bytes.subarray(0, 72)) !== bytes.readUInt32LE(72))
      throw corrupt(
        `${name}: the section at byte ${position} is damaged: its checksum is wrong, so that what follows can't be found. Restore the file from another copy.`,
      );
    const type = bytes.toString("latin1", 0, 16).replace(/\0.*$/s, "");
    const next = u64le(bytes, 16);
    const length = u64le(bytes, 24);
    const section = { type, start: position, data: position + descriptorSize, size: 0, end: position };
    // The last section names itself as the next, or its end.
    if (type === "done" || type === "next") return section;
    if (next < position + descriptorSize)
      throw corrupt(
        `${name}: the section "${printable(type)}" at byte ${position} says that byte ${next} is next: a loop. The file is damaged.`,
      );
    // Readers that go by the one or the other would see two different images. Expert Witness 1.35 left the length out.
    if (length !== 0 && position + length !== next)
      throw corrupt(
        `${name}: the section "${printable(type)}" at byte ${position} tells ${length} bytes as its length, but byte ${next} as the next. The file is damaged.`,
      );
    return { ...section, size: next - section.data, end: next };
  }

  private take(section: Section, segment: Segment): void {
    const { file } = segment;
    switch (section.type) {
      case "volume":
      case "disk":
      case "data":
        this.takeVolume(section, file);
        break;
      case "table":
        this.pending = { section, main: this.tableHeader(section, file) };
        break;
      case "table2":
        if (!this.pending) this.pending = { section, main: undefined, copy: this.tableHeader(section, file) };
        else this.pending.copy ??= this.tableHeader(section, file);
        break;
      case "header":
      case "header2":
        this.takeText(section, file);
        break;
      case "hash":
        this.takeDigests(section, file, 36, { md5: [0, 16] });
        break;
      case "digest":
        this.takeDigests(section, file, 80, { md5: [0, 16], sha1: [16, 36] });
        break;
      case "xhash":
        this.takeXmlDigests(section, file);
        break;
      case "error2":
        this.takeErrors(section, file);
        break;
      case "delta_chunk":
        throw unsupported(
          `${file.name}: keeps changes that were made to a shadow of the disk (a section "delta_chunk" at byte ${section.start}), which this Spindle does not read. Export it first with ewfexport.`,
        );
      case "ltree":
      case "ltypes":
        throw unsupported(`${file.name}: is logical evidence: it holds files, and no disk. Show it with ewfmount.`);
      default: // sectors, session, xheader, incomplete: nothing of theirs is needed
    }
  }

  /** The disk's measures: of the volume section, or where that is damaged of a section that repeats it. */
  private takeVolume(section: Section, file: ByteSource): void {
    const volume = readVolume(section, file);
    if (!volume) return;
    const known = this.volume;
    this.volume ??= volume;
    if (!known) return;
    const ids = known.setId && volume.setId;
    if (ids && known.setId !== volume.setId)
      throw mismatch(
        `${file.name}: belongs to another image: its set identifier is ${volume.setId}, that of the first segment is ${known.setId}. Put the right file there.`,
      );
    for (const key of ["chunkSize", "sectorSize", "sectors"] as const)
      if (known[key] !== volume[key])
        throw mismatch(
          `${file.name}: doesn't fit the segments before it: its section at byte ${section.start} tells ${volume[key]} as ${words[key]}, theirs ${known[key]}. Put the right file there.`,
        );
  }

  /** The header of a table; undefined where its checksum is wrong, or it can't be. */
  private tableHeader({ data, size }: Section, file: ByteSource): TableHeader | undefined {
    if (size < 24 || data + 24 > file.size) return undefined;
    const bytes = this.pages.bytes(data, 24, "a table");
    const count = bytes.readUInt32LE(0);
    const base = u64le(bytes, 8);
    const fits = count <= mostEntries && 24 + count * 4 <= size && base <= file.size;
    if (!fits || adler32(bytes.subarray(0, 20)) !== bytes.readUInt32LE(20)) return undefined;
    return { count, base, entries: data + 24 };
  }

  private finishTable(segment: Segment): void {
    const { pending, tables, shape, allPages } = this;
    this.pending = undefined;
    if (!pending) return;
    const { section, main, copy } = pending;
    const { name } = segment.file;
    const header = main ?? copy;
    if (!header)
      throw corrupt(
        `${name}: the table at byte ${section.start} is damaged, and has no sound copy: its header's checksum is wrong, or it tells more entries than there are. Restore the file from another copy.`,
      );
    if (header.count === 0) return;
    const { start, end, size } = section;
    const room = size >= 28 + header.count * 4;
    const copyOfIt = copy?.count === header.count ? copy : undefined;
    const place = { start, end, main, copy: copyOfIt, room };
    tables.add(new Table1(segment, allPages!, shape, place, tables.end));
  }

  /** A text that is damaged costs nobody the disk. */
  private takeText(section: Section, file: ByteSource): void {
    if (this.texts.has(section.type)) return;
    try {
      const packed = readExactly(file, section.data, Math.min(section.size, longestHeader), "the header");
      this.texts.set(section.type, unpackText(packed, "zlib"));
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.facts.damagedCaseData = `the section "${section.type}" at byte ${section.start} of ${file.name}: ${error.message}`;
    }
  }

  private takeDigests(
    { data, size, start, type }: Section,
    file: ByteSource,
    length: number,
    digests: Record<string, readonly [number, number]>,
  ): void {
    if (size < length || data + length > file.size) return;
    const bytes = readExactly(file, data, length, "the digest");
    if (adler32(bytes.subarray(0, -4)) !== bytes.readUInt32LE(length - 4)) {
      this.facts.damagedDigest = `the section "${type}" at byte ${start} of ${file.name} has a wrong checksum`;
      return;
    }
    for (const [name, [from, to]] of Object.entries(digests)) {
      const digest = bytes.subarray(from, to);
      // What the writer didn't compute is left zero.
      if (digest.some((byte) => byte !== 0)) this.facts[name] ??= digest.toString("hex");
    }
  }

  /** EWF-X keeps digests in XML as well. */
  private takeXmlDigests(section: Section, file: ByteSource): void {
    try {
      const packed = readExactly(file, section.data, Math.min(section.size, longestHeader), "the digests");
      const text = unpackText(packed, "zlib");
      for (const [name, digits] of [
        ["md5", 32],
        ["sha1", 40],
      ] as const) {
        const found = new RegExp(`<${name}>([0-9a-f]{${digits}})</${name}>`, "i").exec(text)?.[1];
        if (found) this.facts[name] ??= found.toLowerCase();
      }
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.facts.damagedDigest = `the section "xhash" at byte ${section.start} of ${file.name}: ${error.message}`;
    }
  }

  private takeErrors({ data, size, start }: Section, file: ByteSource): void {
    if (size < 520 || data + 520 > file.size) return;
    const header = readExactly(file, data, 520, "the table of errors");
    const count = header.readUInt32LE(0);
    const length = count * 8;
    const position = data + 520;
    if (
      adler32(header.subarray(0, 516)) !== header.readUInt32LE(516) ||
      520 + length > size ||
      position + length > file.size
    ) {
      this.facts.acquisitionErrors = `the table at byte ${start} of ${file.name} is damaged`;
      return;
    }
    this.facts.acquisitionErrors = acquisitionErrors(this.pages, position, count, 8, 4);
  }
}

const words = { chunkSize: "bytes a chunk", sectorSize: "bytes a sector", sectors: "the count of sectors" } as const;

/** Section types are ASCII; a damaged or hostile one may be anything. */
const printable = (type: string) => type.replace(/[^ -~]/g, "?");

function segmentNumber(file: ByteSource): number {
  const header = readExactly(file, 0, headerSize, "the segment's header");
  if (!header.subarray(0, 8).equals(signature1))
    throw mismatch(`${file.name}: is no EWF segment. Put the right file there.`);
  const number = header.readUInt16LE(9);
  if (number === 0) throw corrupt(`${file.name}: numbers itself as segment 0. The file is damaged.`);
  return number;
}

/** "Volume section"; undefined where the section's checksum is wrong, so that a copy of it is needed. */
function readVolume({ data, size, start, type }: Section, file: ByteSource): Volume | undefined {
  const { name } = file;
  const length = size >= volumeSize ? volumeSize : shortVolumeSize;
  if (size < length) throw corrupt(`${name}: its section "${type}" at byte ${start} has only ${size} bytes.`);
  const bytes = readExactly(file, data, length, `the section "${type}"`);
  if (adler32(bytes.subarray(0, length - 4)) !== bytes.readUInt32LE(length - 4)) return undefined;
  const long = length === volumeSize;
  const mediaType = long ? bytes[0] : undefined;
  if (mediaType === logicalEvidence)
    throw unsupported(`${name}: is logical evidence: it holds files, and no disk. Show it with ewfmount.`);
  const sectors = long ? u64le(bytes, 16) : bytes.readUInt32LE(16);
  const media = measured(
    name,
    `its section "${type}" at byte ${start}`,
    sectors,
    bytes.readUInt32LE(12),
    bytes.readUInt32LE(8),
  );
  const id = bytes.subarray(64, 80);
  return {
    ...media,
    sectors,
    mediaType,
    physical: long ? (bytes[36]! & 2) !== 0 : undefined,
    compression: long ? compressions[bytes[52]!] : undefined,
    setId: long && id.some((byte) => byte !== 0) ? guidText(id) : "",
    summedTables: long,
  };
}
