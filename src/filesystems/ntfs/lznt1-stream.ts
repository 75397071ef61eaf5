import { type Extent, readFully } from "../../bytes/byte-source.js";
import { unpackLznt1 } from "../../bytes/lznt1.js";
import { corrupt, ImageError } from "../../errors.js";
import type { PackedSource } from "./packed-source.js";
import { HOLE, type Runs } from "./runs.js";
import { type Clusters, RunStream, type Stream, truncated } from "./streams.js";

/** Clusters of a compression unit: the only number that Windows and ntfs-3g write and read. */
export const unitClusters = 16;

/**
 * A compressed attribute: units of 16 clusters. A unit that has all of them is stored as it is; one that has none is a
 * hole; one that has some and then a hole is compressed (LZNT1).
 */
export class Lznt1Stream implements Stream {
  private readonly plain: RunStream;
  private readonly unitSize: number;

  constructor(
    readonly name: string,
    readonly size: number,
    private readonly validSize: number,
    private readonly runs: Runs,
    private readonly volume: Clusters,
    private readonly units: PackedSource,
  ) {
    this.plain = new RunStream(name, size, validSize, runs, volume);
    this.unitSize = unitClusters * volume.clusterSize;
  }

  get weight(): number {
    return 400 + this.runs.count * 16;
  }

  read(position: number, target: Uint8Array): number {
    let count = Math.min(target.length, this.size - position);
    if (count <= 0) return 0;
    const unit = Math.floor(position / this.unitSize);
    const stored = position < this.validSize ? this.storedClusters(unit) : 0;
    if (stored === 0) {
      const end = position < this.validSize ? (unit + 1) * this.unitSize : this.size;
      count = Math.min(count, end - position);
      target.fill(0, 0, count);
      return count;
    }
    if (position < this.validSize) count = Math.min(count, this.validSize - position);
    const within = position - unit * this.unitSize;
    const wanted = target.subarray(0, Math.min(count, this.unitSize - within));
    if (stored === unitClusters) return this.plain.read(position, wanted);
    const first = this.runs.find(unit * unitClusters);
    const lcn = this.runs.lcnOf(first) + unit * unitClusters - this.runs.startOf(first);
    const place = lcn * this.volume.clusterSize;
    return this.units.read(place, within, wanted, (unpacked) => this.unpackUnit(unit, stored, unpacked));
  }

  extentAt(position: number): Extent {
    if (position >= this.validSize) return { hole: true, length: this.size - position };
    const first = Math.floor(position / this.unitSize);
    const hole = this.storedClusters(first) === 0;
    let unit = first + 1;
    // Bounded, as each step costs a search: the next call goes on.
    const most = first + 1024;
    const stop = Math.ceil(this.validSize / this.unitSize);
    while (unit < stop && unit < most && (this.storedClusters(unit) === 0) === hole) unit++;
    if (unit >= stop) return { hole, length: (hole ? this.size : this.validSize) - position };
    return { hole, length: unit * this.unitSize - position };
  }

  /** How many clusters of a unit are stored: they come first. What the runs don't tell is a hole: a last unit's end. */
  private storedClusters(unit: number): number {
    const { runs } = this;
    const start = unit * unitClusters;
    const stop = start + unitClusters;
    let stored = 0;
    let vcn = start;
    for (let run = runs.find(vcn); run >= 0 && vcn < stop; run = vcn < runs.end ? run + 1 : -1) {
      const end = Math.min(runs.endOf(run), stop);
      if (runs.lcnOf(run) !== HOLE) {
        if (vcn !== start + stored)
          throw corrupt(
            `${this.name}: the compression unit at its byte ${unit * this.unitSize} has a hole before its data. The volume is damaged.`,
          );
        stored += end - vcn;
      }
      vcn = end;
    }
    return stored;
  }

  private unpackUnit(unit: number, stored: number, target: Uint8Array): void {
    const { clusterSize, source } = this.volume;
    const packed = Buffer.allocUnsafe(stored * clusterSize);
    let vcn = unit * unitClusters;
    for (let filled = 0; filled < packed.length; ) {
      const run = this.runs.find(vcn);
      const length = Math.min((this.runs.endOf(run) - vcn) * clusterSize, packed.length - filled);
      const at = (this.runs.lcnOf(run) + vcn - this.runs.startOf(run)) * clusterSize;
      if (readFully(source, at, packed.subarray(filled, filled + length)) !== length)
        throw truncated(this.name, source, at);
      filled += length;
      vcn += length / clusterSize;
    }
    try {
      unpackLznt1(packed, target);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      const at = this.plain.placeOf(unit * this.unitSize);
      throw corrupt(
        `${this.name}: the compression unit at its byte ${unit * this.unitSize} (byte ${at} of the volume) is damaged: ${error.message}.`,
      );
    }
  }
}
