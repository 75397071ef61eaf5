import { basename } from "node:path";
import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import { MetadataPages } from "../bytes/metadata-pages.js";
import { corrupt, ImageError, unsupported } from "../errors.js";
import type { Format, Surroundings } from "../format.js";
import type { Integrity, Layer, Run } from "../layers/layer.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "./block-map.js";
import { largestDisk, tablePage, u64le } from "./fields.js";
import { mapIntegrity } from "./map-check.js";

/**
 * Parallels' expanding disk (.hds): a header of 64 bytes, a map of 4-byte entries, clusters ("tracks") of any number of
 * sectors. The older kind's entries count sectors, the newer one's clusters (docs/interop/parallels.txt of QEMU).
 */
export const parallels: Format<Layer> = {
  name: "parallels",
  recognises(source) {
    const head = Buffer.alloc(20);
    return readFully(source, 0, head) === 20 && kindOf(head) !== undefined;
  },
  open: (source, around) => new ParallelsLayer(source, around),
};

const sector = 512;
const openMark = 0x746f6e59;
const longestDescriptor = 1 << 20;

const kindOf = (head: Buffer): "old" | "extended" | undefined => {
  const mark = head.toString("latin1", 0, 16);
  return mark === "WithoutFreeSpace" ? "old" : mark === "WithouFreSpacExt" ? "extended" : undefined;
};

class ParallelsLayer implements Layer, BlockTable {
  readonly format = "parallels";
  readonly noun = "cluster";
  readonly parent = undefined;
  readonly hasParent = false;
  readonly size: number;
  readonly blockSize: number;
  readonly facts: Record<string, unknown>;
  readonly integrity: Integrity;
  /** Bytes that an entry counts in. */
  private readonly unit: number;
  private readonly pages: MetadataPages;
  private readonly map: BlockMap;

  constructor(
    readonly source: ByteSource,
    around: Surroundings,
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
    refuseChild(name, around);
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

/**
 * A snapshot's .hds holds what changed since its parent, and only the bundle's DiskDescriptor.xml says so: read by
 * itself it would have zeros for the rest.
 */
function refuseChild(name: string, around: Surroundings): void {
  let descriptor: string;
  try {
    const source = around.companion("DiskDescriptor.xml");
    if (source.size > longestDescriptor)
      throw corrupt(`${source.name}: is ${source.size} bytes long, too long for a Parallels bundle's descriptor.`);
    descriptor = readExactly(source, 0, source.size, "the descriptor").toString("utf8");
  } catch (error) {
    if (error instanceof ImageError && error.code === "missing") return; // a disk by itself
    throw error;
  }
  const part = (text: string, tag: string) => new RegExp(`<${tag}>\\s*([^<]*?)\\s*</${tag}>`).exec(text)?.[1];
  const parts = (tag: string) =>
    descriptor
      .split(`<${tag}>`)
      .slice(1)
      .map((text) => text.split(`</${tag}>`)[0]!);
  const own = parts("Image").find((image) => part(image, "File")?.split(/[\\/]/).at(-1) === basename(name));
  if (!own) return;
  if (parts("Storage").length > 1)
    throw unsupported(`${name}: is one part of a split Parallels disk, which Spindle doesn't join yet.`);
  const shot = parts("Shot").find((one) => part(one, "GUID") === part(own, "GUID"));
  const parent = shot && part(shot, "ParentGUID");
  if (parent && !/^\{?[0-]+\}?$/.test(parent))
    throw unsupported(
      `${name}: holds what changed since a Parallels snapshot (${parent} in DiskDescriptor.xml), which Spindle doesn't follow yet. Merge the snapshots first, or convert the disk with prl_disk_tool.`,
    );
}
