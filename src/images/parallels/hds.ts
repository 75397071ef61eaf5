import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, unsupported } from "../../errors.js";
import type { Integrity, Layer, Run } from "../../layers/layer.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "../block-map.js";
import { largestDisk, tablePage, u64le } from "../fields.js";
import { mapIntegrity } from "../map-check.js";

const sector = 512;
const openMark = 0x746f6e59;

export const isHds = (source: ByteSource): boolean => {
  const head = Buffer.alloc(20);
  return readFully(source, 0, head) === 20 && kindOf(head) !== undefined;
};

const kindOf = (head: Buffer): "old" | "extended" | undefined => {
  const mark = head.toString("latin1", 0, 16);
  return mark === "WithoutFreeSpace" ? "old" : mark === "WithouFreSpacExt" ? "extended" : undefined;
};

/**
 * Parallels' expanding disk (.hds): a header of 64 bytes, a map of 4-byte entries, clusters ("tracks") of any number of
 * sectors. The older kind's entries count sectors, the newer one's clusters (docs/interop/parallels.txt of QEMU).
 */
export class HdsLayer implements Layer, BlockTable {
  readonly format = "parallels";
  readonly noun = "cluster";
  readonly parent = undefined;
  readonly size: number;
  readonly blockSize: number;
  readonly facts: Record<string, unknown>;
  readonly integrity: Integrity;
  /** Bytes that an entry counts in. */
  private readonly unit: number;
  private readonly pages: MetadataPages;
  private readonly map: BlockMap;

  /** @param hasParent whether a cluster that isn't kept is left to another image: only a bundle's descriptor tells. */
  constructor(
    readonly source: ByteSource,
    readonly hasParent = false,
  ) {
    const { name } = source;
    const header = readExactly(source, 0, 64, "the Parallels header");
    const kind = kindOf(header);
    if (!kind) throw corrupt(`${name}: doesn't begin with the mark of a Parallels disk.`);
    const version = header.readUInt32LE(16);
    if (version !== 2)
      throw unsupported(`${name}: is a Parallels disk of version ${version}; Spindle reads version 2.`);
    const tracks = header.readUInt32LE(28);
    const entries = header.readUInt32LE(32);
    // The older kind has 4 bytes for the sectors; what is behind them isn't theirs.
    const sectors = kind === "old" ? header.readUInt32LE(36) : u64le(header, 36);
    this.blockSize = tracks * sector;
    this.size = sectors * sector;
    if (tracks === 0 || this.blockSize >= 2 ** 31)
      throw corrupt(`${name}: byte 28 tells clusters of ${tracks} sectors. The header is damaged.`);
    if (this.size > largestDisk || Math.ceil(this.size / this.blockSize) > entries)
      throw corrupt(`${name}: its map of ${entries} entries is too short for a disk of ${this.size} bytes.`);
    const mapEnd = 64 + Math.ceil(this.size / this.blockSize) * 4;
    if (mapEnd > source.size)
      throw corrupt(
        `${name}: its map should end at byte ${mapEnd}, but the file has ${source.size} bytes. It is truncated or damaged.`,
      );
    this.unit = kind === "old" ? sector : this.blockSize;
    this.pages = new MetadataPages(source, tablePage.size, tablePage.kept);
    this.map = new BlockMap(this);
    const dirty =
      header.readUInt32LE(44) === openMark
        ? "it was not closed: what was written last may be missing; check it with qemu-img check"
        : undefined;
    this.integrity = mapIntegrity({
      name,
      size: this.size,
      blockSize: this.blockSize,
      source,
      locate: (position) => this.locate(position),
      reserved: () => [{ position: 0, length: mapEnd, what: "the header with the cluster map" }],
      notes: dirty ? [`${name}: ${dirty}.`] : [],
    });
    this.facts = {
      subformat: kind,
      version,
      clusterSize: this.blockSize,
      ...(dirty && { dirty }),
    };
  }

  get name(): string {
    return this.source.name;
  }

  locate(position: number): Run {
    return this.map.locate(position);
  }

  entry(block: number, target: BlockEntry): void {
    const entry = this.pages.bytes(64 + block * 4, 4, "the cluster map").readUInt32LE(0);
    if (entry === 0) return;
    target.kind = BlockKind.stored;
    target.position = entry * this.unit;
    if (target.position < 64)
      throw corrupt(`${this.name}: cluster ${block} should be at byte ${target.position}, which is the header.`);
  }
}
