import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import { MetadataPages } from "../bytes/metadata-pages.js";
import { corrupt, unsupported } from "../errors.js";
import type { Format } from "../format.js";
import type { Integrity, Layer, ParentReference, Run } from "../layers/layer.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "./block-map.js";
import { largestDisk, tablePage, u64le } from "./fields.js";
import { FirstLevel } from "./first-level.js";
import { mapIntegrity, type ReservedPlace } from "./map-check.js";
import { backingReference } from "./qemu-backing.js";

/** QEMU's enhanced disk: docs/interop/qed_spec.txt of QEMU. Two levels of tables of one size, clusters of one size. */
export const qed: Format<Layer> = {
  name: "qed",
  recognises(source) {
    const mark = Buffer.alloc(4);
    return readFully(source, 0, mark) === 4 && mark.toString("latin1") === "QED\0";
  },
  open: (source) => new QedLayer(source),
};

const Feature = { backingFile: 1, needsCheck: 2, rawBacking: 4 } as const;

class QedLayer implements Layer, BlockTable {
  readonly format = "qed";
  readonly noun = "cluster";
  readonly size: number;
  readonly blockSize: number;
  readonly parent: ParentReference | undefined;
  readonly facts: Record<string, unknown>;
  readonly integrity: Integrity;
  private readonly pages: MetadataPages;
  private readonly tableEntries: number;
  private readonly first: FirstLevel;
  private readonly map: BlockMap;

  constructor(readonly source: ByteSource) {
    const { name } = source;
    const header = readExactly(source, 0, 64, "the QED header");
    const clusterSize = header.readUInt32LE(4);
    const tableSize = header.readUInt32LE(8);
    const headerSize = header.readUInt32LE(12);
    const features = u64le(header, 16);
    const l1Position = u64le(header, 40);
    const unknown = features > 0xffffffff || (features & ~7) !== 0;
    if (unknown)
      throw unsupported(`${name}: needs features that Spindle doesn't know, 0x${features.toString(16)} at byte 16.`);
    if (clusterSize < 4096 || clusterSize > 2 ** 26 || (clusterSize & (clusterSize - 1)) !== 0)
      throw corrupt(`${name}: byte 4 tells clusters of ${clusterSize} bytes. The header is damaged.`);
    if (tableSize < 1 || tableSize > 16 || (tableSize & (tableSize - 1)) !== 0)
      throw corrupt(`${name}: byte 8 tells tables of ${tableSize} clusters. The header is damaged.`);
    if (l1Position === 0 || l1Position % clusterSize !== 0)
      throw corrupt(`${name}: its table at byte ${l1Position} doesn't begin with a cluster. The header is damaged.`);
    this.blockSize = clusterSize;
    this.size = u64le(header, 48);
    this.tableEntries = (tableSize * clusterSize) / 8;
    const covered = this.tableEntries * clusterSize;
    if (this.size > largestDisk || this.size > this.tableEntries * covered)
      throw corrupt(`${name}: byte 48 tells a disk of ${this.size} bytes, more than its tables map.`);
    const backing =
      (features & Feature.backingFile) === 0
        ? undefined
        : readBacking(source, header.readUInt32LE(56), header.readUInt32LE(60), headerSize * clusterSize);
    this.parent =
      backing === undefined
        ? undefined
        : backingReference(name, backing, (features & Feature.rawBacking) !== 0 ? "raw" : undefined);
    this.pages = new MetadataPages(source, tablePage.size, tablePage.kept);
    this.first = new FirstLevel(this.pages, l1Position, Math.ceil(this.size / covered), (bytes) => u64le(bytes, 0));
    this.map = new BlockMap(this);
    const table = tableSize * clusterSize;
    const { first, size } = this;
    const reserved = function* (): Iterable<ReservedPlace> {
      yield { position: 0, length: headerSize * clusterSize, what: "the header" };
      yield { position: l1Position, length: table, what: "the first-level table" };
      yield* first.tables(table, covered, size);
    };
    const dirty =
      (features & Feature.needsCheck) === 0
        ? undefined
        : "it was not closed: what was written last may be missing; check it with qemu-img check";
    this.integrity = mapIntegrity({
      name,
      size,
      blockSize: clusterSize,
      source,
      locate: (position) => this.locate(position),
      reserved,
      notes: dirty ? [`${name}: ${dirty}.`] : [],
    });
    this.facts = {
      clusterSize,
      tableClusters: tableSize,
      ...(backing !== undefined && { backingFile: backing }),
      ...(dirty && { dirty }),
    };
  }

  get name(): string {
    return this.source.name;
  }

  get hasParent(): boolean {
    return this.parent !== undefined;
  }

  locate(position: number): Run {
    return this.map.locate(position);
  }

  missingFrom(block: number): number {
    const index = Math.floor(block / this.tableEntries);
    const count = this.first.missing(index);
    return count === 0 ? 0 : (index + count) * this.tableEntries - block;
  }

  entry(block: number, target: BlockEntry): void {
    const index = Math.floor(block / this.tableEntries);
    const table = this.first.at(index);
    if (table === 0) return;
    this.aligned(table, block, "its table");
    const at = table + (block - index * this.tableEntries) * 8;
    const position = u64le(this.pages.bytes(at, 8, "a second-level table"), 0);
    if (position === 0) return;
    if (position === 1) {
      target.kind = BlockKind.zero;
      return;
    }
    this.aligned(position, block, "it");
    target.kind = BlockKind.stored;
    target.position = position;
  }

  private aligned(position: number, cluster: number, what: string): void {
    if (position % this.blockSize !== 0)
      throw corrupt(
        `${this.name}: cluster ${cluster} (disk byte ${cluster * this.blockSize}) is damaged: ${what} should be at byte ${position}, which is no multiple of the cluster size. Restore the file from another copy.`,
      );
  }
}

function readBacking(file: ByteSource, position: number, length: number, headerEnd: number): string {
  if (length === 0 || length > 1023 || position + length > headerEnd)
    throw corrupt(`${file.name}: its parent's name of ${length} bytes at byte ${position} doesn't fit the header.`);
  const path = readExactly(file, position, length, "its parent's name").toString("utf8");
  if (path.includes("\0")) throw corrupt(`${file.name}: its parent's name at byte ${position} has a zero byte in it.`);
  return path;
}
