import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import { corrupt, unsupported } from "../errors.js";
import type { Format } from "../format.js";
import type { Layer, Run } from "../layers/layer.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "./block-map.js";
import { largestDisk, u64be } from "./fields.js";

/*
 * Apple's sparse images (.sparseimage, UDSP): nodes of 4096 bytes, each followed by the bands that it lists in the order in
 * which they lie in the file. All numbers are big-endian. Apple has not published it; the fields are as libmodi's
 * documentation ("Mac OS disk image types") and apfs-fuse's reader have them.
 *
 *   first node   "sprs", version (4), sectors a band (4), flags (4), sectors of the disk (4), next node (8),
 *                sectors of the disk (8), 28 bytes; 1008 numbers of 4 bytes: which band of the disk, plus 1, or 0 for none
 *   others       "sprs", number (4), flags (4), next node (8), 36 bytes; 1010 numbers
 */
export const sparseimage: Format<Layer> = {
  name: "sparseimage",
  recognises(source) {
    const mark = Buffer.alloc(8);
    return readFully(source, 0, mark) === 8 && mark.toString("latin1") === "sprs\0\0\0\x03";
  },
  open: (source) => new SparseImageLayer(source),
};

const nodeSize = 4096;
/** Of all nodes but the first, which has two fewer. */
const slotsPerNode = 1010;
/** Of a band, in bytes. hdiutil makes bands of 1 MiB. */
const largestBand = 2 ** 30;
/** With bands of 1 MiB, these list 16 TiB of data; their places take 130 MB of memory. */
const mostNodes = 2 ** 14;
/** Bands of a disk, whether they are in the file or not: 256 TiB with bands of 1 MiB. */
const mostBands = 2 ** 28;
/** A band and its place in one number: all places are below this. */
const places = 2 ** 24;

class SparseImageLayer implements Layer, BlockTable {
  readonly format = "sparseimage";
  readonly noun = "band";
  readonly parent = undefined;
  readonly hasParent = false;
  readonly size: number;
  readonly blockSize: number;
  readonly facts: Record<string, unknown>;
  /** The bands that are in the file, in the disk's order: `band * places + node * slotsPerNode + slot`. */
  private readonly bands: Float64Array;
  /** Where the nodes are. */
  private readonly nodes: number[] = [];
  /** Bands of the disk. */
  private readonly count: number;
  private readonly map: BlockMap;

  constructor(readonly source: ByteSource) {
    const { name } = source;
    const header = readExactly(source, 0, nodeSize, "the header");
    const sectors = header.readUInt32BE(8);
    this.blockSize = sectors * 512;
    if (sectors === 0 || this.blockSize > largestBand)
      throw corrupt(`${name}: byte 8 tells of bands of ${this.blockSize} bytes. The header is damaged.`);
    // Disks of 2 TiB and more don't fit the first of the two numbers.
    const told = (header.readBigUInt64BE(28) || BigInt(header.readUInt32BE(16))) * 512n;
    if (told > largestDisk) throw corrupt(`${name}: byte 28 tells of a disk of ${told} bytes. The header is damaged.`);
    this.size = Number(told);
    this.count = Math.ceil(this.size / this.blockSize);
    if (this.count > mostBands)
      throw unsupported(
        `${name}: is a disk of ${this.size} bytes in bands of ${this.blockSize}, more than this Spindle takes.`,
      );
    this.bands = this.readNodes(header);
    this.map = new BlockMap(this);
    this.facts = { bandSize: this.blockSize, bands: this.bands.length };
  }

  private readNodes(header: Buffer): Float64Array {
    const { name, size } = this.source;
    const found: number[] = [];
    let at = 0;
    for (let node = header; ; node = readExactly(this.source, at, nodeSize, "an index node")) {
      if (node.toString("latin1", 0, 4) !== "sprs")
        throw corrupt(`${name}: an index node should be at byte ${at}, and is not there. The file is damaged.`);
      if (this.nodes.length >= mostNodes)
        throw unsupported(`${name}: has more than ${mostNodes} index nodes, which is more than this Spindle takes.`);
      const first = this.nodes.length * slotsPerNode;
      this.nodes.push(at);
      const numbers = at === 0 ? 64 : 56;
      let used = 0;
      for (let slot = 0; numbers + slot * 4 < nodeSize; slot++) {
        const band = node.readUInt32BE(numbers + slot * 4);
        if (band === 0) continue;
        if (band > this.count)
          throw corrupt(
            `${name}: the index node at byte ${at} lists band ${band - 1}, but the disk has only ${this.count}. The file is damaged.`,
          );
        found.push((band - 1) * places + first + slot);
        used = slot + 1;
      }
      const link = at === 0 ? 20 : 12;
      const next = u64be(node, link);
      if (next === 0) break;
      // Nodes follow each other in the file, so that no chain of them is a loop.
      const end = at + nodeSize + used * this.blockSize;
      if (next < end || next + nodeSize > size)
        throw corrupt(
          `${name}: the index node at byte ${at} names byte ${node.readBigUInt64BE(link)} for the next one, which can be from byte ${end} to ${size - nodeSize} only. The file is truncated or damaged.`,
        );
      at = next;
    }
    const sorted = Float64Array.from(found).sort();
    for (let index = 1; index < sorted.length; index++)
      if (bandOf(sorted[index]!) === bandOf(sorted[index - 1]!))
        throw corrupt(`${name}: lists band ${bandOf(sorted[index]!)} twice. The file is damaged.`);
    return sorted;
  }

  get name(): string {
    return this.source.name;
  }

  locate(position: number): Run {
    return this.map.locate(position);
  }

  missingFrom(block: number): number {
    const next = this.bands[this.indexFrom(block)];
    return (next === undefined ? this.count : bandOf(next)) - block;
  }

  entry(block: number, target: BlockEntry): void {
    const found = this.bands[this.indexFrom(block)];
    if (found === undefined || bandOf(found) !== block) return;
    const place = found - block * places;
    const node = Math.floor(place / slotsPerNode);
    target.kind = BlockKind.stored;
    target.position = this.nodes[node]! + nodeSize + (place - node * slotsPerNode) * this.blockSize;
  }

  /** Index of the first band that is in the file from `block` on. */
  private indexFrom(block: number): number {
    const first = block * places;
    let low = 0;
    for (let high = this.bands.length; low < high; ) {
      const middle = (low + high) >> 1;
      if (this.bands[middle]! < first) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

const bandOf = (value: number) => Math.floor(value / places);
