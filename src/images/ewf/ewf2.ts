/**
 * The second version of the format, "Expert Witness Compression Format version 2 specification" (libewf): Ex01 of EnCase
 * 7 and later. All numbers are little-endian.
 *
 *   segment   header, 32 | section …              of each: device information, case data, sector data, sector table …
 *   section   data …, padded to 16 bytes | descriptor, 64: type, flags, where the one before is, data size, …, Adler-32
 *
 * A descriptor is behind its section's data, and tells where the one before is: sections are walked from each segment's
 * end, and taken from its start. The last is `next` or `done`.
 */
import { adler32 } from "../../bytes/adler32.js";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { guidText } from "../../bytes/guid.js";
import type { JoinedSource } from "../../bytes/joined.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, ImageError, mismatch, unsupported } from "../../errors.js";
import type { Surroundings } from "../../format.js";
import { tablePage, u64le } from "../fields.js";
import { caseFacts, mainValues, type Packing, unpackText } from "./case-data.js";
import { acquisitionErrors, type Evidence, largestChunk, measured, mostSections } from "./evidence.js";
import { openSegments, type Segment } from "./segments.js";
import { ChunkTables, mostEntries, Table2 } from "./tables.js";

export const signature2 = Buffer.from("EVF2\x0d\x0a\x81\x00", "latin1");

const headerSize = 32;
const descriptorSize = 64;
/** Bytes of a packed text that are looked at. */
const longestText = 1 << 20;
/** A table's header with its padding, and how long the checksum behind its entries is. */
const tableStart = 32;
const sumSize = 4;

/** "Section types". */
const Type = {
  deviceInformation: 1,
  caseData: 2,
  sectorTable: 4,
  errorTable: 5,
  incrementData: 7,
  md5: 8,
  sha1: 9,
  encryptionKeys: 11,
  next: 13,
  done: 15,
  singleFilesData: 32,
} as const;
const encrypted = 2;

const driveTypes: Record<string, string> = {
  a: "RAM disk",
  c: "optical",
  f: "fixed",
  m: "memory",
  p: "PALM",
  r: "removable",
};

export function readEwf2(file: ByteSource, around: Surroundings): Evidence {
  return new Reader(file).read(around);
}

interface Section {
  readonly type: number;
  /** Of its descriptor, in the segment. */
  readonly descriptor: number;
  readonly data: number;
  /** Of its data with its padding. */
  readonly size: number;
}

class Reader {
  private readonly tables = new ChunkTables();
  private readonly shape = { summed: true, largest: 0 };
  private readonly facts: Record<string, unknown> = {};
  private readonly values = new Map<string, string>();
  private readonly packing: Packing | undefined;
  private readonly setId: Buffer;
  private allPages: MetadataPages | undefined;
  private sections = 0;

  constructor(private readonly file: ByteSource) {
    const { name } = file;
    const header = readExactly(file, 0, headerSize, "the segment's header");
    const [major, minor, method] = [header[8], header[9], header.readUInt16LE(10)];
    if (major !== 2 || minor !== 1)
      throw unsupported(`${name}: is an EWF2 image of version ${major}.${minor}; only 2.1 is known.`);
    if (method > 2) throw unsupported(`${name}: is packed by method ${method}; 1 (zlib) and 2 (bzip2) are known.`);
    this.packing = method === 0 ? undefined : method === 1 ? "zlib" : "bzip2";
    this.setId = Buffer.from(header.subarray(16, 32));
  }

  read(around: Surroundings): Evidence {
    const { file, packing, tables, facts } = this;
    const segments = openSegments(
      file,
      around,
      (one) => this.segmentNumber(one),
      (segment, all) => this.walk(segment, all),
    );
    const media = measured(
      file.name,
      "its device information",
      this.number("ts"),
      this.number("bp", 512),
      this.number("sb", 64),
    );
    this.shape.largest = largestChunk(media);
    tables.sort(file.name);
    const { sectorSize, chunkSize, size } = media;
    const missing = Math.ceil(size / chunkSize) - tables.end;
    const type = this.values.get("dt") ?? "";
    return {
      media,
      tables,
      packing: packing ?? "zlib",
      facts: {
        subformat: "Ex01",
        segments: segments.count,
        chunkSize,
        // Partition tables on optical discs count in 512 bytes, whatever the disc's sectors are.
        ...(type === "c" ? { sectorSize } : { logicalSectorSize: sectorSize }),
        compression: packing ?? "none",
        ...(type && { mediaType: driveTypes[type] ?? `type ${type}` }),
        physical: this.values.get("ph") === "1",
        ...(this.setId.some((byte) => byte !== 0) && { setId: guidText(this.setId) }),
        ...(missing > 0 && { incomplete: `${missing} chunks at its end are in no table` }),
        ...caseFacts(this.values, 2),
        ...facts,
      },
    };
  }

  private segmentNumber(file: ByteSource): number {
    const header = readExactly(file, 0, headerSize, "the segment's header");
    if (!header.subarray(0, 8).equals(signature2))
      throw mismatch(`${file.name}: is no EWF2 segment. Put the right file there.`);
    const id = header.subarray(16, 32);
    if (!id.equals(this.setId))
      throw mismatch(
        `${file.name}: belongs to another image: its set identifier is ${guidText(id)}, that of the first segment is ${guidText(this.setId)}. Put the right file there.`,
      );
    return header.readUInt32LE(12);
  }

  /** Reads a segment's sections; whether its last says that another segment follows. */
  private walk(segment: Segment, all: JoinedSource): boolean {
    const { file } = segment;
    this.allPages ??= new MetadataPages(all, tablePage.size, tablePage.kept);
    const pages = new MetadataPages(file, tablePage.size, 4);
    const found: Section[] = [];
    for (let position = file.size - descriptorSize; position > 0; ) {
      const { section, before } = this.section(pages, position);
      found.push(section);
      position = before;
    }
    const last = found[0]?.type;
    if (last !== Type.next && last !== Type.done)
      throw corrupt(
        `${file.name}: does not end with a section that ends a segment. It is truncated, or was never finished.`,
      );
    for (const section of found.reverse()) this.take(section, segment, pages);
    return last === Type.next;
  }

  /** The section whose descriptor is at `position`, and where the descriptor before it is: 0 for none. */
  private section(pages: MetadataPages, position: number): { section: Section; before: number } {
    const { name } = pages.source;
    if (position < headerSize) throw corrupt(`${name}: has no sections. The file is truncated or damaged.`);
    if (++this.sections > mostSections)
      throw unsupported(`${name}: the image has more than ${mostSections} sections, more than Spindle walks.`);
    const bytes = pages.bytes(position, descriptorSize, "a section");
    if (adler32(bytes.subarray(0, 60)) !== bytes.readUInt32LE(60))
      throw corrupt(
        `${name}: the section that should end at byte ${position + descriptorSize} is damaged: its checksum is wrong. The file is truncated, or damaged: restore it from another copy.`,
      );
    const type = bytes.readUInt32LE(0);
    const before = u64le(bytes, 8);
    const size = u64le(bytes, 16);
    const start = before === 0 ? headerSize : before + descriptorSize;
    if (start > position || (before !== 0 && before < headerSize))
      throw corrupt(
        `${name}: the section described at byte ${position} says that the one before is at byte ${before}: a loop. The file is damaged.`,
      );
    if (size > position - start)
      throw corrupt(
        `${name}: the section described at byte ${position} should have ${size} bytes, where ${position - start} are. The file is damaged.`,
      );
    if ((bytes.readUInt32LE(4) & encrypted) !== 0 || type === Type.encryptionKeys)
      throw unsupported(
        `${name}: is encrypted, by a method that was not published. Export it with EnCase, without encryption.`,
      );
    return { section: { type, descriptor: position, data: position - size, size }, before };
  }

  private take(section: Section, segment: Segment, pages: MetadataPages): void {
    const { file } = segment;
    switch (section.type) {
      case Type.deviceInformation:
      case Type.caseData:
        this.takeText(section, file);
        break;
      case Type.sectorTable:
        this.takeTable(section, segment, pages);
        break;
      case Type.errorTable:
        this.takeErrors(section, pages);
        break;
      case Type.md5:
        this.takeDigest(section, file, "md5", 16);
        break;
      case Type.sha1:
        this.takeDigest(section, file, "sha1", 20);
        break;
      case Type.incrementData:
        throw unsupported(
          `${file.name}: holds increment data (a section at byte ${section.data}), which this Spindle does not know.`,
        );
      case Type.singleFilesData:
        throw unsupported(`${file.name}: is logical evidence: it holds files, and no disk. Show it with ewfmount.`);
      default: // sector data, session and restart data, analytical data: nothing of theirs is needed
    }
  }

  /** The first of each kind counts; every segment repeats them. */
  private takeText({ data, size, type }: Section, file: ByteSource): void {
    const what = type === Type.caseData ? "its case data" : "its device information";
    if (size > longestText) throw corrupt(`${file.name}: ${what} at byte ${data} takes ${size} bytes, which can't be.`);
    const bytes = readExactly(file, data, size, what);
    let text: string;
    try {
      text = this.packing ? unpackText(bytes, this.packing) : bytes.toString("utf16le");
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "corrupt") throw error;
      throw corrupt(`${file.name}: ${what} at byte ${data} can't be read: ${error.message}.`, error);
    }
    for (const [code, value] of mainValues(text)) if (!this.values.has(code)) this.values.set(code, value);
  }

  private takeTable({ data, size }: Section, segment: Segment, pages: MetadataPages): void {
    const { name } = segment.file;
    const header = size < tableStart ? undefined : pages.bytes(data, 20, "a table of chunks");
    const first = header ? u64le(header, 0) : 0;
    const count = header?.readUInt32LE(8) ?? 0;
    const sound = header && adler32(header.subarray(0, 16)) === header.readUInt32LE(16);
    if (
      !sound ||
      count > mostEntries ||
      tableStart + count * 16 + sumSize > size ||
      first > Number.MAX_SAFE_INTEGER / 2
    )
      throw corrupt(
        `${name}: the table of chunks at byte ${data} is damaged: its header's checksum is wrong, or it tells more entries than there are. Restore the file from another copy.`,
      );
    if (count > 0) this.tables.add(new Table2(segment, this.allPages!, first, count, data + tableStart, this.shape));
  }

  private takeErrors({ data, size }: Section, pages: MetadataPages): void {
    const header = size < tableStart ? undefined : pages.bytes(data, 20, "the table of errors");
    const count = header?.readUInt32LE(0) ?? 0;
    if (!header || adler32(header.subarray(0, 16)) !== header.readUInt32LE(16) || tableStart + count * 16 > size)
      this.facts.acquisitionErrors = `the table at byte ${data} of ${pages.source.name} is damaged`;
    else this.facts.acquisitionErrors = acquisitionErrors(pages, data + tableStart, count, 16, 8);
  }

  private takeDigest({ data, size }: Section, file: ByteSource, name: string, length: number): void {
    if (size < length + sumSize) return;
    const bytes = readExactly(file, data, length + sumSize, "the digest");
    const digest = bytes.subarray(0, length);
    if (adler32(digest) === bytes.readUInt32LE(length)) this.facts[name] = digest.toString("hex");
    else this.facts.damagedDigest = `the ${name} at byte ${data} of ${file.name} has a wrong checksum`;
  }

  /** A count of the texts; `otherwise` where it is left out. NaN for what is none. */
  private number(code: string, otherwise = Number.NaN): number {
    const text = this.values.get(code) ?? "";
    if (text === "") return otherwise;
    return /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  }
}
