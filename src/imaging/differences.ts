/** Where two disks differ: stretches in order, in memory that has a bound. */

/** Stretches that are kept apart; where there are more, the last one reaches to the end of the disk. */
const most = 1_000_000;

export interface Stretch {
  /** In bytes, as is the length. */
  readonly position: number;
  readonly length: number;
}

export class Differences {
  private starts = new Float64Array(1024);
  private ends = new Float64Array(1024);
  private count = 0;
  /** Bytes that differ. */
  bytes = 0;
  /** Stretches that were found, those that were too many to be kept apart included. */
  found = 0;

  constructor(private readonly size: number) {}

  /** Takes the next stretch, which begins at or behind the end of the last. */
  add(position: number, length: number): void {
    if (length === 0) return;
    this.bytes += length;
    if (this.count > 0 && this.ends[this.count - 1] === position) {
      this.ends[this.count - 1] = position + length;
      return;
    }
    this.found++;
    if (this.count === most) {
      this.ends[most - 1] = this.size;
      return;
    }
    if (this.count === this.starts.length) {
      this.starts = grown(this.starts);
      this.ends = grown(this.ends);
    }
    this.starts[this.count] = position;
    this.ends[this.count] = position + length;
    this.count++;
  }

  /** Whether the stretches are so many that the last one holds others, and equal bytes between them. */
  get isCut(): boolean {
    return this.found > this.count;
  }

  /** Whether anything differs within the stretch; always true where it isn't known. */
  touches(position: number, length: number): boolean {
    // The first stretch that ends behind `position`.
    let low = 0;
    for (let high = this.count; low < high; ) {
      const middle = (low + high) >>> 1;
      if (this.ends[middle]! > position) high = middle;
      else low = middle + 1;
    }
    return low < this.count && this.starts[low]! < position + length;
  }

  *[Symbol.iterator](): Generator<Stretch> {
    for (let i = 0; i < this.count; i++) yield { position: this.starts[i]!, length: this.ends[i]! - this.starts[i]! };
  }
}

function grown(values: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const result = new Float64Array(values.length * 2);
  result.set(values);
  return result;
}
