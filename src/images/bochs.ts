import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import { MetadataPages } from "../bytes/metadata-pages.js";
import { corrupt, unsupported } from "../errors.js";
import type { Format } from "../format.js";
import type { Layer, Run } from "../layers/layer.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "./block-map.js";
import { largestDisk, tablePage, u64le } from "./fields.js";

/*
 * Disks of Bochs that grow (its manual's "growing" mode; iodev/hdimage/hdimage.h). All numbers are little-endian.
 *
 *   0        header: mark (32), "Redolog" (16), "Growing" (16), version (4), bytes of the header (4), entries of the
 *            catalog (4), bytes of a bitmap (4), bytes of an extent (4), time (4, not in version 1), bytes of the disk (8)
 *   header   the catalog: for each extent of the disk its number in the file (4), or ffffffff
 *   then     the extents: a bitmap of the sectors that were written, on whole sectors; the sectors
 */
export const bochs: Format<Layer> = {
  name: "bochs",
  recognises(source) {
    const start = Buffer.alloc(mark.length);
    return readFully(source, 0, start) === mark.length && start.equals(mark);
  },
  open: (source) => new BochsLayer(source),
};

const mark = Buffer.from("Bochs Virtual HD Image\0", "latin1");
const sector = 512;
const absent = 0xffffffff;
/** Of an extent, in bytes. bximage makes 16 MiB for the largest disk it can make. */
const largestExtent = 2 ** 30;

class BochsLayer implements Layer, BlockTable {
  readonly format = "bochs";
  readonly noun = "sector";
  readonly blockSize = sector;
  readonly parent = undefined;
  readonly hasParent = false;
  readonly size: number;
  readonly facts: Record<string, unknown>;
  private readonly extentSize: number;
  private readonly catalogAt: number;
  private readonly extentsAt: number;
  /** Bytes of an extent in the file, before its sectors and in all. */
  private readonly bitmapSize: number;
  private readonly stride: number;
  private readonly pages: MetadataPages;
  private readonly map: BlockMap;

  constructor(readonly source: ByteSource) {
    const { name } = source;
    const header = readExactly(source, 0, sector, "the header");
    const version = header.readUInt32LE(64);
    if (version !== 0x10000 && version !== 0x20000)
      throw unsupported(`${name}: is a Bochs image of version 0x${version.toString(16)}; 1 and 2 are known.`);
    const [type, kind] = [textOf(header, 32), textOf(header, 48)];
    if (type !== "Redolog" || kind !== "Growing")
      throw unsupported(
        `${name}: is a Bochs file of kind "${type}, ${kind}", which holds the changes of another image. Merge it into that first, with bximage -func=commit.`,
      );
    const catalogEntries = header.readUInt32LE(72);
    const bitmap = header.readUInt32LE(76);
    this.extentSize = header.readUInt32LE(80);
    this.size = Math.floor(u64le(header, version === 0x10000 ? 84 : 88) / sector) * sector;
    this.catalogAt = header.readUInt32LE(68);
    if (this.extentSize < sector || this.extentSize > largestExtent || (this.extentSize & (this.extentSize - 1)) !== 0)
      throw corrupt(`${name}: byte 80 tells of extents of ${this.extentSize} bytes. The header is damaged.`);
    if (bitmap * 8 < this.extentSize / sector)
      throw corrupt(
        `${name}: byte 76 tells of bitmaps of ${bitmap} bytes, too few for an extent. The header is damaged.`,
      );
    if (this.size > largestDisk || Math.ceil(this.size / this.extentSize) > catalogEntries)
      throw corrupt(
        `${name}: tells of a disk of ${this.size} bytes, more than its catalog of ${catalogEntries} entries holds. The header is damaged.`,
      );
    this.extentsAt = this.catalogAt + catalogEntries * 4;
    if (this.catalogAt < 96 || this.extentsAt > source.size)
      throw corrupt(
        `${name}: its catalog of ${catalogEntries} entries should be at byte ${this.catalogAt}, but the file has ${source.size} bytes. It is truncated or damaged.`,
      );
    this.bitmapSize = Math.ceil(bitmap / sector) * sector;
    this.stride = this.bitmapSize + this.extentSize;
    this.pages = new MetadataPages(source, tablePage.size, tablePage.kept);
    this.map = new BlockMap(this);
    this.facts = { extentSize: this.extentSize };
  }

  get name(): string {
    return this.source.name;
  }

  locate(position: number): Run {
    return this.map.locate(position);
  }

  /** Number of an extent in the file, or `absent`. */
  private catalog(extent: number): number {
    return this.pages.bytes(this.catalogAt + extent * 4, 4, "the catalog").readUInt32LE(0);
  }

  missingFrom(block: number): number {
    const perExtent = this.extentSize / sector;
    const first = Math.floor(block / perExtent);
    const end = Math.min(Math.ceil(this.size / this.extentSize), first + 4096);
    let next = first;
    while (next < end && this.catalog(next) === absent) next++;
    return next === first ? 0 : next * perExtent - block;
  }

  entry(block: number, target: BlockEntry): void {
    const perExtent = this.extentSize / sector;
    const extent = Math.floor(block / perExtent);
    const number = this.catalog(extent);
    if (number === absent) return;
    const within = block - extent * perExtent;
    const at = this.extentsAt + number * this.stride;
    if (at + this.stride > this.source.size + this.extentSize)
      throw corrupt(
        `${this.name}: extent ${extent} (disk byte ${extent * this.extentSize} and on) should be at byte ${at}, but the file has ${this.source.size} bytes. It is truncated or damaged.`,
      );
    if (((this.pages.byte(at + (within >>> 3), "a bitmap") >>> (within & 7)) & 1) === 0) return;
    target.kind = BlockKind.stored;
    target.position = at + this.bitmapSize + within * sector;
  }
}

function textOf(header: Buffer, at: number): string {
  const bytes = header.subarray(at, at + 16);
  const end = bytes.indexOf(0);
  return bytes.toString("latin1", 0, end < 0 ? 16 : end);
}
