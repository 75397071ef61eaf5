import type { ByteSource, Extent } from "../../bytes/byte-source.js";
import { corrupt, type ImageError } from "../../errors.js";
import type { Resident } from "./attribute.js";
import { HOLE, type Runs } from "./runs.js";

/** The bytes of an attribute: of a file, of an alternate stream, of a directory's index. */
export interface Stream extends ByteSource {
  extentAt(position: number): Extent;
  /** What it takes of the cache of opened streams, in bytes of memory, roughly. */
  readonly weight: number;
}

/** The whole volume, with what its streams need to know of it. */
export interface Clusters {
  readonly source: ByteSource;
  readonly clusterSize: number;
}

export class ResidentStream implements Stream {
  readonly size: number;
  readonly weight = 200;

  constructor(
    readonly name: string,
    readonly attribute: Resident,
  ) {
    this.size = attribute.value.length;
  }

  read(position: number, target: Uint8Array): number {
    const count = Math.min(target.length, this.size - position);
    if (count <= 0) return 0;
    this.attribute.value.copy(target, 0, position, position + count);
    return count;
  }

  extentAt(position: number): Extent {
    return { hole: false, length: this.size - position };
  }
}

/** A non-resident attribute that isn't compressed. Holes, and what was never written, read as zeros. */
export class RunStream implements Stream {
  constructor(
    readonly name: string,
    readonly size: number,
    readonly validSize: number,
    readonly runs: Runs,
    private readonly volume: Clusters,
  ) {}

  get weight(): number {
    return 300 + this.runs.count * 16;
  }

  read(position: number, target: Uint8Array): number {
    let count = Math.min(target.length, this.size - position);
    if (count <= 0) return 0;
    if (position >= this.validSize) {
      target.fill(0, 0, count);
      return count;
    }
    const { clusterSize, source } = this.volume;
    const run = this.runAt(position);
    count = Math.min(count, this.validSize - position, this.runs.endOf(run) * clusterSize - position);
    const lcn = this.runs.lcnOf(run);
    if (lcn === HOLE) {
      target.fill(0, 0, count);
      return count;
    }
    const at = lcn * clusterSize + position - this.runs.startOf(run) * clusterSize;
    const filled = source.read(at, count === target.length ? target : target.subarray(0, count));
    if (filled === 0) throw truncated(this.name, source, at);
    return filled;
  }

  extentAt(position: number): Extent {
    const { runs, size } = this;
    const { clusterSize } = this.volume;
    // What was allocated and never written is a hole to those who ask, as ext4's unwritten extents are.
    if (position >= this.validSize) return { hole: true, length: size - position };
    let run = this.runAt(position);
    const hole = runs.lcnOf(run) === HOLE;
    while (run + 1 < runs.count && (runs.lcnOf(run + 1) === HOLE) === hole) run++;
    const mapped = runs.endOf(run) * clusterSize;
    if (mapped >= this.validSize && hole) return { hole, length: size - position };
    return { hole, length: Math.min(mapped, this.validSize) - position };
  }

  /** Where the byte at `position` is in the volume; undefined in a hole. */
  placeOf(position: number): number | undefined {
    const { clusterSize } = this.volume;
    const run = this.runAt(position);
    const lcn = this.runs.lcnOf(run);
    return lcn === HOLE ? undefined : lcn * clusterSize + position - this.runs.startOf(run) * clusterSize;
  }

  private runAt(position: number): number {
    const run = this.runs.find(Math.floor(position / this.volume.clusterSize));
    if (run < 0)
      throw corrupt(
        `${this.name}: no place is recorded for byte ${position} of its ${this.size} bytes; its runs end at byte ${this.runs.end * this.volume.clusterSize}. The volume is damaged.`,
      );
    return run;
  }
}

/** What is there but can't be read: the error comes with the first read, and all else about the file stays known. */
export class RefusedStream implements Stream {
  readonly weight = 200;

  constructor(
    readonly name: string,
    readonly size: number,
    private readonly error: ImageError,
  ) {}

  read(position: number, target: Uint8Array): number {
    if (position >= this.size || target.length === 0) return 0;
    throw this.error;
  }

  extentAt(position: number): Extent {
    return { hole: false, length: this.size - position };
  }
}

export const truncated = (name: string, source: ByteSource, at: number) =>
  corrupt(
    `${name}: its data at byte ${at} of the volume lies beyond the end of ${source.name} (${source.size} bytes). The image is truncated.`,
  );
