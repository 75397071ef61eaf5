import { type ByteSource, Slice } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, mismatch } from "../../errors.js";
import type { Format } from "../../format.js";
import type { Integrity, Layer, ParentReference, Run } from "../../layers/layer.js";
import { LastRun } from "../last-run.js";
import { mapIntegrity, type ReservedPlace } from "../map-check.js";
import { recordedPaths } from "../recorded-paths.js";
import { storedRun } from "../stored-run.js";
import {
  type DynamicHeader,
  type Footer,
  hasFooter,
  idText,
  parentPaths,
  readDynamicHeader,
  readFooter,
  timeText,
} from "./headers.js";

/** Virtual PC's and Hyper-V's older format, and Azure's: fixed, dynamic and differencing disks. */
export const vhd: Format<Layer> = {
  name: "vhd",
  recognises: hasFooter,
  open: (source) => new VhdLayer(source),
};

const unallocated = 0xffffffff;
/** Bytes a page of the table and of sector bitmaps: 1024 blocks, or 16 MiB in sectors. */
const pageSize = 4096;
/** Blocks without data that are joined to one run at most: looking far costs each read at a place of its own. */
const blocksJoined = 32;

class VhdLayer implements Layer {
  readonly format = "vhd";
  readonly parent: ParentReference | undefined;
  readonly integrity: Integrity;
  readonly footer: Footer;
  private readonly header: DynamicHeader | undefined;
  private readonly complaints: readonly string[];
  /** What was noticed of the parent. */
  private readonly notes: string[] = [];
  private readonly pages: MetadataPages;
  private readonly lastRun = new LastRun();
  /** The disk of a fixed image. */
  private readonly data: ByteSource | undefined;

  constructor(private readonly file: ByteSource) {
    const { value: footer, complaints } = readFooter(file);
    this.footer = footer;
    this.pages = new MetadataPages(file, pageSize, 512);
    if (footer.type === "fixed") {
      if (footer.size > footer.dataEnd)
        throw corrupt(
          `${file.name}: should hold a fixed disk of ${footer.size} bytes, but has only ${footer.dataEnd} before its footer. The file is truncated or damaged.`,
        );
      this.data = new Slice(file.name, file, 0, footer.size);
      this.complaints = complaints;
    } else {
      const header = readDynamicHeader(file, footer);
      this.header = header.value;
      this.complaints = [...complaints, ...header.complaints];
    }
    if (footer.type === "differencing") this.parent = this.describeParent(this.header!);
    this.integrity = mapIntegrity({
      name: file.name,
      size: footer.size,
      blockSize: this.header?.blockSize ?? footer.size,
      source: this.data ?? file,
      locate: (position) => this.locate(position),
      reserved: () => (this.header ? this.reservedPlaces(this.header) : []),
      complaints: this.complaints,
      notes: this.notes,
    });
  }

  get name(): string {
    return this.file.name;
  }

  get size(): number {
    return this.footer.size;
  }

  get facts(): Record<string, unknown> {
    const { type, id, creator, timestamp } = this.footer;
    const header = this.header;
    return {
      subformat: type,
      id: idText(id),
      creator,
      created: timeText(timestamp),
      ...(header && { blockSize: header.blockSize }),
      ...(header && this.parent && { parentId: idText(header.parentId) }),
      ...(header && this.parent && header.parentTimestamp > 0 && { parentTime: timeText(header.parentTimestamp) }),
      ...(this.complaints.length > 0 && { damage: this.complaints }),
      ...(this.notes.length > 0 && { notes: this.notes }),
    };
  }

  locate(position: number): Run {
    return this.lastRun.from(position) ?? this.lastRun.keep(position, this.find(position));
  }

  private find(position: number): Run {
    const { header } = this;
    if (!header) {
      const extent = this.file.extentAt?.(position) ?? { hole: false, length: this.size - position };
      const length = Math.min(extent.length, this.size - position);
      return extent.hole ? { kind: "zero", length } : { kind: "stored", length, source: this.data!, at: position };
    }
    const { blockSize } = header;
    const block = Math.floor(position / blockSize);
    const within = position - block * blockSize;
    const length = Math.min(blockSize - within, this.size - position);
    const sector = this.entry(header, block);
    if (sector === unallocated) {
      const end = Math.min(this.endOfUnallocated(header, block) * blockSize, this.size);
      return { kind: this.parent ? "absent" : "zero", length: end - position };
    }
    const bitmapSize = bitmapSizeOf(header);
    const start = sector * 512;
    // Sectors of a dynamic disk whose bits are clear were never written, and are zeros in the block itself: QEMU and
    // libvhdi read the block as it is.
    const at = start + bitmapSize + within;
    if (!this.parent) return storedRun(this.file, at, length, position, `block ${block}`);
    const { present, length: same } = this.sectorsAlike(start, within, length, block);
    if (!present) return { kind: "absent", length: same };
    return storedRun(this.file, at, same, position, `block ${block}`);
  }

  private entry(header: DynamicHeader, block: number): number {
    return this.pages.bytes(header.tableOffset + block * 4, 4, "the block allocation table").readUInt32BE(0);
  }

  /** The first block behind `block` that is stored, looking only so far as it costs little. */
  private endOfUnallocated(header: DynamicHeader, block: number): number {
    const blocks = Math.ceil(this.size / header.blockSize);
    const stop = Math.min(blocks, block + blocksJoined);
    let end = block + 1;
    while (end < stop && this.entry(header, end) === unallocated) end++;
    return end;
  }

  /** Whether the sector at `within` of the block is kept here, and how many bytes on that stays so: a bit a sector. */
  private sectorsAlike(start: number, within: number, most: number, block: number) {
    const first = Math.floor(within / 512);
    const last = Math.floor((within + most - 1) / 512);
    const firstByte = start + (first >> 3);
    // A page at a time is enough: the run is asked on from there.
    const count = Math.min((last >> 3) - (first >> 3) + 1, pageSize);
    const bits = this.pages.bytes(firstByte, count, `the sector bitmap of block ${block}`);
    const bit = (sector: number) => (bits[(sector >> 3) - (first >> 3)]! >> (7 - (sector & 7))) & 1;
    const present = bit(first) === 1;
    const plain = present ? 0xff : 0;
    const stop = Math.min(last + 1, ((first >> 3) + count) * 8);
    let end = first + 1;
    while (end < stop) {
      if ((end & 7) === 0 && bits[(end >> 3) - (first >> 3)] === plain) end += 8;
      else if ((bit(end) === 1) === present) end++;
      else break;
    }
    return { present, length: Math.min(Math.min(end, stop) * 512 - within, most) };
  }

  private describeParent(header: DynamicHeader): ParentReference {
    const recorded = parentPaths(this.file, header);
    return {
      paths: recordedPaths(recorded),
      description: `${header.parentName || recorded[0] || "without a name"} (id ${idText(header.parentId)})`,
      check: (candidate) => this.checkParent(header, candidate),
    };
  }

  /**
   * Only the id decides. The recorded time is that of the parent's footer or of its file, as its writer liked (Windows
   * records none), and copying a file changes the second: one that differs is told by `info` and `verify`.
   */
  private checkParent(header: DynamicHeader, candidate: Layer): void {
    const remedy = "Put the right file back, or name it with --parent PATH; nothing is served from a wrong parent.";
    if (!(candidate instanceof VhdLayer))
      throw mismatch(
        `${this.name}: its parent should be the VHD with id ${idText(header.parentId)}, but ${candidate.name} is not a VHD (${candidate.format}). ${remedy}`,
      );
    if (!candidate.footer.id.equals(header.parentId))
      throw mismatch(
        `${this.name}: ${candidate.name} is not the parent it was made from: it has the id ${idText(candidate.footer.id)}, recorded is ${idText(header.parentId)}. ${remedy}`,
      );
    const { parentTimestamp } = header;
    const { timestamp } = candidate.footer;
    if (parentTimestamp !== 0 && parentTimestamp !== timestamp)
      this.notes.push(
        `${this.name}: records ${timeText(parentTimestamp)} as its parent's time, where ${candidate.name} tells ${timeText(timestamp)}. If that was written to since, the disk shows a mixture.`,
      );
  }

  /** The places that no block may be in, the blocks' own bitmaps among them. */
  private *reservedPlaces(header: DynamicHeader): Iterable<ReservedPlace> {
    const { dataOffset, size } = this.footer;
    const { tableOffset, maxTableEntries, blockSize } = header;
    yield { position: dataOffset, length: 1024, what: "the dynamic header" };
    yield { position: tableOffset, length: maxTableEntries * 4, what: "the block allocation table" };
    for (let block = 0; block * blockSize < size; block++) {
      const sector = this.entry(header, block);
      if (sector === unallocated || sector * 512 >= this.file.size) continue;
      const disk = { position: block * blockSize, length: Math.min(blockSize, size - block * blockSize) };
      yield { position: sector * 512, length: bitmapSizeOf(header), disk, what: `the sector bitmap of block ${block}` };
    }
  }
}

/** Bytes of the bitmap before a block: a bit a sector, in whole sectors. */
const bitmapSizeOf = ({ blockSize }: DynamicHeader) => Math.ceil(blockSize / 512 / 8 / 512) * 512;
