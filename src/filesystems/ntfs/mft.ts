import { LRUCache } from "lru-cache";
import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, ImageError } from "../../errors.js";
import {
  ATTRIBUTE_LIST,
  type Attribute,
  COMPRESSION_MASK,
  DATA,
  ENCRYPTED,
  type NonResident,
  type Piece,
  parseAttributeList,
  parseAttributes,
} from "./attribute.js";
import type { Geometry } from "./boot-sector.js";
import { FileRecord } from "./file-record.js";
import { applyFixups } from "./fixups.js";
import { u64 } from "./numbers.js";
import { Runs } from "./runs.js";
import { type Clusters, RunStream } from "./streams.js";

/*
 * The master file table: a file ($MFT, itself record 0) of records of one size, one or more for each file. The header of
 * a record:
 *
 *    0  "FILE"    4  fixups    16  sequence number: how often the record was used    18  names of the file
 *   20  first attribute       22  1: in use, 2: a directory      24  bytes used      32  base record of an extension
 *
 * A file whose attributes don't fit has an attribute list in its base record, which says in which other records they are;
 * these name the base record. Both ways the sequence number has to fit, so that nothing of a deleted file comes in.
 */

/** An attribute list of more bytes is refused, as Windows does. */
const largestList = 256 * 1024;
/** Bytes of $MFT that are read at once: walks go through it in order, more or less. */
const pageSize = 16 * 1024;
const pages = 128;
/** Records that are kept parsed, in bytes: some 8000 files. */
const keptBytes = 8 * 1024 * 1024;

interface RawRecord {
  readonly sequence: number;
  readonly flags: number;
  readonly baseRecord: number;
  readonly baseSequence: number;
  readonly attributes: readonly Attribute[];
}

export class Mft {
  readonly warnings: string[] = [];
  readonly clusters: Clusters;
  private stream!: RunStream;
  private pages!: MetadataPages;
  private readonly records = new LRUCache<number, FileRecord>({
    maxSize: keptBytes,
    sizeCalculation: (kept) => kept.weight,
  });

  /** @throws ImageError `corrupt` when $MFT can be found neither by its own record nor by the mirror's. */
  constructor(
    private readonly source: ByteSource,
    private readonly geometry: Geometry,
  ) {
    const { mftPosition, mirrorPosition, recordSize, clusterSize } = geometry;
    this.clusters = { source, clusterSize };
    const first = this.firstRecord(mftPosition, mirrorPosition);
    const data = first.attributes.find(({ type, name }) => type === DATA && name === "");
    if (!data || data.resident || data.firstCluster !== 0)
      throw corrupt(`${source.name}: $MFT at byte ${mftPosition} has no place for its data. The volume is damaged.`);
    if ((data.flags & (COMPRESSION_MASK | ENCRYPTED)) !== 0)
      throw corrupt(
        `${source.name}: $MFT at byte ${mftPosition} is marked compressed or encrypted. The volume is damaged.`,
      );
    const runs = this.newRuns();
    const wrong = runs.append(data.pairs, 0);
    if (wrong)
      throw corrupt(
        `${source.name}: the runs of $MFT (record at byte ${mftPosition}) ${wrong}. The volume is damaged.`,
      );
    const open = () => {
      // Only what has a place yet: the rest of the runs is in records that have to be read first.
      const mapped = Math.min(data.size, runs.end * clusterSize);
      this.stream = new RunStream(
        `${source.name}: $MFT`,
        mapped,
        Math.min(data.validSize, mapped),
        runs,
        this.clusters,
      );
      this.pages = new MetadataPages(this.stream, Math.max(pageSize, recordSize), pages);
    };
    open();
    const list = first.attributes.find(({ type }) => type === ATTRIBUTE_LIST);
    if (!list) return;
    const pieces = this.readList(0, list).filter(
      ({ type, name, firstCluster }) => type === DATA && name === "" && firstCluster > 0,
    );
    for (const piece of pieces) {
      const further = this.piece(0, first.sequence, piece);
      const wrong = runs.append(further.pairs, further.firstCluster);
      if (wrong)
        throw corrupt(`${source.name}: the runs of $MFT in record ${piece.record} ${wrong}. The volume is damaged.`);
      open();
    }
  }

  /** Records that the table has room for. */
  get count(): number {
    return Math.floor(this.stream.size / this.geometry.recordSize);
  }

  newRuns(): Runs {
    return new Runs(this.geometry.clusters, Math.floor(Number.MAX_SAFE_INTEGER / this.geometry.clusterSize));
  }

  /**
   * The file of record `number`, with the attributes that are in other records.
   * @throws ImageError `corrupt` when there is none, or its record is damaged.
   */
  file(number: number): FileRecord {
    const kept = this.records.get(number);
    if (kept !== undefined) return kept;
    const file = this.readFile(number);
    this.records.set(number, file);
    return file;
  }

  /** The pieces of `attribute` after its first, in order. */
  *furtherPieces(file: FileRecord, attribute: NonResident): Iterable<NonResident> {
    for (const piece of attribute.further ?? []) yield this.piece(file.number, file.sequence, piece);
  }

  /** How messages name a record. */
  nameOf(number: number): string {
    return `${this.source.name}: file record ${number} (byte ${this.positionOf(number)})`;
  }

  private readFile(number: number): FileRecord {
    const raw = this.record(number);
    if ((raw.flags & 1) === 0)
      throw corrupt(`${this.nameOf(number)} is not in use, but is referred to. The volume is damaged.`);
    if (raw.baseRecord !== 0 || raw.baseSequence !== 0)
      throw corrupt(
        `${this.nameOf(number)} is a part of file ${raw.baseRecord}, not a file of its own. The volume is damaged.`,
      );
    const list = raw.attributes.find(({ type }) => type === ATTRIBUTE_LIST);
    const attributes = list ? this.gather(number, raw, this.readList(number, list)) : raw.attributes;
    return new FileRecord(number, raw.sequence, raw.flags, attributes, this.geometry.recordSize, this);
  }

  /** All attributes that a list names; further pieces of non-resident ones are noted, and read when they're needed. */
  private gather(number: number, base: RawRecord, pieces: readonly Piece[]): Attribute[] {
    const attributes: Attribute[] = [];
    const extensions = new Map<number, RawRecord>([[number, base]]);
    let current: NonResident | undefined;
    let further: Piece[] = [];
    for (const piece of pieces) {
      if (piece.firstCluster > 0) {
        if (!current || current.type !== piece.type || current.name !== piece.name)
          throw corrupt(
            `${this.nameOf(number)}: its attribute list continues an attribute that it didn't begin. The volume is damaged.`,
          );
        further.push(piece);
        continue;
      }
      let record = extensions.get(piece.record);
      if (!record) {
        record = this.extension(number, base.sequence, piece);
        extensions.set(piece.record, record);
      } else if (record.sequence !== piece.sequence) throw this.staleExtension(number, piece);
      const found = this.pick(number, record, piece);
      current = undefined;
      if (found.resident) attributes.push(found);
      else {
        further = [];
        current = { ...found, further };
        attributes.push(current);
      }
    }
    // The list doesn't name itself.
    return attributes;
  }

  /** One further piece of a non-resident attribute. */
  private piece(number: number, sequence: number, piece: Piece): NonResident {
    const record = piece.record === number ? this.record(number) : this.extension(number, sequence, piece);
    const found = this.pick(number, record, piece);
    if (found.resident)
      throw corrupt(
        `${this.nameOf(piece.record)}: a part of file ${number} there should be runs and isn't. The volume is damaged.`,
      );
    return found;
  }

  private pick(number: number, record: RawRecord, piece: Piece): Attribute {
    const found = record.attributes.find(
      ({ type, name, instance }) => instance === piece.instance && type === piece.type && name === piece.name,
    );
    if (!found || (found.resident ? 0 : found.firstCluster) !== piece.firstCluster)
      throw corrupt(
        `${this.nameOf(piece.record)}: the attribute of type 0x${piece.type.toString(16)} that file ${number} should have there isn't there. The volume is damaged.`,
      );
    return found;
  }

  private extension(number: number, sequence: number, piece: Piece): RawRecord {
    const record = this.record(piece.record);
    if (
      (record.flags & 1) === 0 ||
      record.sequence !== piece.sequence ||
      record.baseRecord !== number ||
      record.baseSequence !== sequence
    )
      throw this.staleExtension(number, piece);
    return record;
  }

  private staleExtension(number: number, piece: Piece): ImageError {
    return corrupt(
      `${this.nameOf(piece.record)} should be a part of file ${number}, and isn't (any more). The volume is damaged.`,
    );
  }

  private readList(number: number, list: Attribute): Piece[] {
    const bytes = list.resident ? list.value : this.readListRuns(number, list);
    const pieces = parseAttributeList(bytes);
    if (typeof pieces === "string") throw corrupt(`${this.nameOf(number)}: its attribute list is damaged: ${pieces}.`);
    return pieces;
  }

  private readListRuns(number: number, list: NonResident): Buffer {
    const name = `${this.nameOf(number)}: its attribute list`;
    if (list.size > largestList)
      throw corrupt(`${name} has ${list.size} bytes, more than ${largestList}. The volume is damaged.`);
    const runs = this.newRuns();
    const wrong = runs.append(list.pairs, 0);
    if (wrong) throw corrupt(`${name} is damaged: its runs ${wrong}.`);
    const bytes = Buffer.alloc(list.size);
    readFully(new RunStream(name, list.size, list.validSize, runs, this.clusters), 0, bytes);
    return bytes;
  }

  private positionOf(number: number): number {
    if (number >= this.count) return this.geometry.mftPosition;
    try {
      return this.stream.placeOf(number * this.geometry.recordSize) ?? this.geometry.mftPosition;
    } catch (error) {
      if (error instanceof ImageError) return this.geometry.mftPosition;
      throw error;
    }
  }

  private record(number: number): RawRecord {
    const { recordSize } = this.geometry;
    if (!(number < this.count))
      throw corrupt(
        `${this.source.name}: file record ${number} is referred to, but $MFT has only ${this.count}. The volume is damaged.`,
      );
    const position = number * recordSize;
    let record: Buffer;
    try {
      record = Buffer.from(this.pages.bytes(position, recordSize, "a file record"));
    } catch (error) {
      // The page may have a damaged neighbour in it.
      if (!(error instanceof ImageError)) throw error;
      record = readExactly(this.stream, position, recordSize, `file record ${number}`);
    }
    const parsed = this.parse(record, this.positionOf(number));
    if (typeof parsed === "string") throw corrupt(`${this.nameOf(number)} ${parsed}. The volume is damaged.`);
    return parsed;
  }

  private parse(record: Buffer, position: number): RawRecord | string {
    const torn = applyFixups(record, "FILE");
    if (torn) return torn;
    const attributes = parseAttributes(record, position);
    if (typeof attributes === "string") return attributes;
    const base = u64(record, 32);
    return {
      sequence: record.readUInt16LE(16),
      flags: record.readUInt16LE(22),
      baseRecord: base === 0 ? 0 : record.readUIntLE(32, 6),
      baseSequence: record.readUInt16LE(38),
      attributes,
    };
  }

  private firstRecord(position: number, mirror: number): RawRecord {
    const { recordSize } = this.geometry;
    const read = (at: number) => {
      try {
        return this.parse(readExactly(this.source, at, recordSize, "the record of $MFT"), at);
      } catch (error) {
        if (error instanceof ImageError) return `can't be read: ${error.message}`;
        throw error;
      }
    };
    const first = read(position);
    if (typeof first !== "string") return first;
    const mirrored = read(mirror);
    if (typeof mirrored === "string")
      throw corrupt(
        `${this.source.name}: the record of $MFT at byte ${position} ${first}, and its mirror at byte ${mirror} ${mirrored}. The volume is damaged.`,
      );
    this.warnings.push(
      `The record of $MFT at byte ${position} ${first}; its mirror at byte ${mirror} is sound and used.`,
    );
    return mirrored;
  }
}
