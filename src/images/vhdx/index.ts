import type { ByteSource } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, mismatch } from "../../errors.js";
import type { Format } from "../../format.js";
import type { Integrity, Layer, ParentReference, Run } from "../../layers/layer.js";
import { LastRun } from "../last-run.js";
import { mapIntegrity, type ReservedPlace } from "../map-check.js";
import { recordedPaths } from "../recorded-paths.js";
import { storedRun } from "../stored-run.js";
import {
  type Header,
  hasSignature,
  type Metadata,
  type Region,
  readHeader,
  readMetadata,
  readRegions,
} from "./headers.js";
import { replayLog } from "./log.js";

/** Hyper-V's format: fixed, dynamic and differencing disks, with a log that is replayed in memory. */
export const vhdx: Format<Layer> = {
  name: "vhdx",
  recognises: hasSignature,
  open: (source) => new VhdxLayer(source),
};

const MiB = 1 << 20;
/** States of payload blocks ([MS-VHDX] 2.5.1.1). 5 is how a draft of the format had `unmapped`. */
const State = { notPresent: 0, undefined: 1, zero: 2, unmapped: 3, oldUnmapped: 5, present: 6, partly: 7 } as const;
/** Bytes of a page of the table and of sector bitmaps: 512 blocks. */
const pageSize = 4096;
/** Blocks that are joined to one run at most: a longer run saves nothing, and looking far costs. */
const blocksJoined = 32;

class VhdxLayer implements Layer {
  readonly format = "vhdx";
  readonly parent: ParentReference | undefined;
  readonly integrity: Integrity;
  readonly header: Header;
  private readonly metadata: Metadata;
  private readonly bat: Region;
  /** The file, with the log's changes. */
  private readonly source: ByteSource;
  private readonly logEntries: number;
  private readonly complaints: readonly string[];
  private readonly pages: MetadataPages;
  private readonly lastRun = new LastRun();
  /** Payload blocks whose sectors one bitmap block tells: so many table entries, then the bitmap's. */
  private readonly chunkRatio: number;
  private readonly blocks: number;

  constructor(private readonly file: ByteSource) {
    const { header, complaints } = readHeader(file);
    this.header = header;
    const { source, entries } = replayLog(file, header);
    this.source = source;
    this.logEntries = entries;
    const regions = readRegions(source);
    this.complaints = [...complaints, ...regions.complaints];
    this.bat = regions.bat;
    this.metadata = readMetadata(source, regions.metadata);
    this.pages = new MetadataPages(source, pageSize, 512);
    const { blockSize, logicalSectorSize, size, hasParent } = this.metadata;
    this.chunkRatio = (2 ** 23 * logicalSectorSize) / blockSize;
    this.blocks = Math.ceil(size / blockSize);
    const entriesNeeded = hasParent
      ? Math.ceil(this.blocks / this.chunkRatio) * (this.chunkRatio + 1)
      : this.blocks + Math.floor((this.blocks - 1) / this.chunkRatio);
    if (entriesNeeded * 8 > this.bat.length)
      throw corrupt(
        `${file.name}: its block allocation table has ${this.bat.length} bytes, where ${size} bytes in blocks of ${blockSize} need ${entriesNeeded * 8}. The file is damaged.`,
      );
    if (hasParent) this.parent = this.describeParent();
    const metadataRegion = regions.metadata;
    this.integrity = mapIntegrity({
      name: file.name,
      size,
      blockSize,
      source,
      locate: (position) => this.locate(position),
      reserved: () => this.reservedPlaces(metadataRegion),
      complaints: this.complaints,
    });
  }

  get name(): string {
    return this.file.name;
  }

  get size(): number {
    return this.metadata.size;
  }

  get facts(): Record<string, unknown> {
    const { blockSize, logicalSectorSize, physicalSectorSize, diskId, leaveAllocated, locator } = this.metadata;
    return {
      subformat: this.parent ? "differencing" : leaveAllocated ? "fixed" : "dynamic",
      id: diskId,
      dataWriteGuid: this.header.dataWriteGuid,
      blockSize,
      logicalSectorSize,
      physicalSectorSize,
      ...(this.header.logGuid && { logEntriesReplayed: this.logEntries }),
      ...(this.parent && { parentLocator: Object.fromEntries(locator) }),
      ...(this.complaints.length > 0 && { damage: this.complaints }),
    };
  }

  locate(position: number): Run {
    return this.lastRun.from(position) ?? this.lastRun.keep(position, this.find(position));
  }

  private find(position: number): Run {
    const { blockSize } = this.metadata;
    const block = Math.floor(position / blockSize);
    const within = position - block * blockSize;
    const { state, at } = this.entry(block);
    switch (state) {
      case State.present: {
        const length = this.endOf(
          block,
          (next, nth) => next.state === State.present && next.at === at + nth * blockSize,
        );
        return storedRun(this.source, this.placed(at, block) + within, length - position, position, `block ${block}`);
      }
      case State.partly: {
        const { present, length } = this.sectorsAlike(block, within);
        if (!present) return { kind: "absent", length };
        return storedRun(this.source, this.placed(at, block) + within, length, position, `block ${block}`);
      }
      case State.notPresent:
        return {
          kind: this.parent ? "absent" : "zero",
          length: this.endOf(block, (next) => next.state === state) - position,
        };
      // The contents of these are undefined or were given back, and the parent's are not meant: QEMU reads zeros too.
      case State.zero:
      case State.undefined:
      case State.unmapped:
      case State.oldUnmapped:
        return { kind: "zero", length: this.endOf(block, (next) => next.state === state) - position };
      default:
        throw corrupt(
          `${this.name}: the table entry of block ${block} (disk bytes from ${block * blockSize} on) has the unknown state ${state}. The file is damaged.`,
        );
    }
  }

  /** State and position of the payload block; bitmap blocks have their entries among them. */
  private entry(block: number): { state: number; at: number } {
    return this.entryAt(block + Math.floor(block / this.chunkRatio));
  }

  private entryAt(index: number): { state: number; at: number } {
    const bytes = this.pages.bytes(this.bat.position + index * 8, 8, "the block allocation table");
    const low = bytes.readUInt32LE(0);
    return { state: low & 7, at: (bytes.readUInt32LE(4) * 4096 + (low >>> 20)) * MiB };
  }

  /** Blocks begin behind the headers; what lies beyond the file's end is found where it is read. */
  private placed(at: number, block: number): number {
    if (at >= MiB && Number.isSafeInteger(at + this.metadata.blockSize)) return at;
    throw corrupt(
      `${this.name}: the table entry of block ${block} names byte ${at}, where no block can be. The file is damaged.`,
    );
  }

  /** Disk position behind the last block from `block` on that is `alike`; the second argument counts from `block`. */
  private endOf(block: number, alike: (next: { state: number; at: number }, nth: number) => boolean): number {
    const stop = Math.min(this.blocks, block + blocksJoined);
    let end = block + 1;
    while (end < stop && alike(this.entry(end), end - block)) end++;
    return Math.min(end * this.metadata.blockSize, this.size);
  }

  /** Whether the sector at `within` of a partly present block is kept here, and how many bytes on that stays so. */
  private sectorsAlike(block: number, within: number): { present: boolean; length: number } {
    const { blockSize, logicalSectorSize: sector } = this.metadata;
    const chunk = Math.floor(block / this.chunkRatio);
    const { state, at } = this.entryAt(chunk * (this.chunkRatio + 1) + this.chunkRatio);
    if (!this.parent || state !== State.present)
      throw corrupt(
        `${this.name}: block ${block} is partly present, but ${this.parent ? `its sector bitmap is missing (state ${state})` : "there is no parent"}. The file is damaged.`,
      );
    const bitmap = this.placed(at, block) + ((block % this.chunkRatio) * blockSize) / sector / 8;
    const first = Math.floor(within / sector);
    const firstByte = first >> 3;
    const count = Math.min(blockSize / sector / 8 - firstByte, pageSize);
    const bits = this.pages.bytes(bitmap + firstByte, count, `the sector bitmap of block ${block}`);
    const bit = (nth: number) => (bits[(nth >> 3) - firstByte]! >> (nth & 7)) & 1;
    const present = bit(first) === 1;
    const plain = present ? 0xff : 0;
    const stop = (firstByte + count) * 8;
    let end = first + 1;
    while (end < stop) {
      if ((end & 7) === 0 && bits[(end >> 3) - firstByte] === plain) end += 8;
      else if ((bit(end) === 1) === present) end++;
      else break;
    }
    return { present, length: Math.min(end * sector, this.size - block * blockSize) - within };
  }

  private describeParent(): ParentReference {
    const { locator } = this.metadata;
    const paths = ["relative_path", "volume_path", "absolute_win32_path"].map((key) => locator.get(key) ?? "");
    const linkage = ["parent_linkage", "parent_linkage2"]
      .map((key) => (locator.get(key) ?? "").replace(/[{}]/g, "").toLowerCase())
      .filter((guid) => /^[0-9a-f-]{36}$/.test(guid));
    if (linkage.length === 0)
      throw corrupt(
        `${this.name}: is a differencing disk whose locator does not identify a parent. The file is damaged.`,
      );
    return {
      paths: recordedPaths(paths),
      description: `${paths.find((path) => path !== "") ?? "without a name"} (data write GUID ${linkage[0]})`,
      check: (candidate) => this.checkParent(linkage, candidate),
    };
  }

  private checkParent(linkage: readonly string[], candidate: Layer): void {
    const remedy = "Put the right file back, or name it with --parent PATH; nothing is served from a wrong parent.";
    if (!(candidate instanceof VhdxLayer))
      throw mismatch(
        `${this.name}: its parent should be the VHDX with data write GUID ${linkage[0]}, but ${candidate.name} is not a VHDX (${candidate.format}). ${remedy}`,
      );
    const found = candidate.header.dataWriteGuid;
    if (!linkage.includes(found))
      throw mismatch(
        `${this.name}: ${candidate.name} is not the parent it was made from, or was changed since: its data write GUID is ${found}, recorded is ${linkage.join(" or ")}. ${remedy}`,
      );
  }

  /** The places that no payload block may be in. */
  private *reservedPlaces(metadata: Region): Iterable<ReservedPlace> {
    const { logOffset, logLength } = this.header;
    yield { position: 0, length: MiB, what: "the headers" };
    if (logLength > 0) yield { position: logOffset, length: logLength, what: "the log" };
    yield { position: this.bat.position, length: this.bat.length, what: "the block allocation table" };
    yield { position: metadata.position, length: metadata.length, what: "the metadata" };
    if (!this.parent) return;
    for (let chunk = 0; chunk * this.chunkRatio < this.blocks; chunk++) {
      const { state, at } = this.entryAt(chunk * (this.chunkRatio + 1) + this.chunkRatio);
      if (state === State.present) yield { position: at, length: MiB, what: `sector bitmap ${chunk}` };
    }
  }
}
