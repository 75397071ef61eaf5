/** Most ranges that are remembered: some 100 KB of them. */
const most = 4096;

/** Stretches of a file that are known to be alike, so that nobody has to be asked for them again. */
export class Ranges {
  /** Both in order, one of each for a range. */
  private starts: number[] = [];
  private ends: number[] = [];

  /** Bytes from `position` to the end of the range in which it lies; 0 if it is in none. */
  lengthAt(position: number): number {
    const at = this.lastFrom(position);
    return at >= 0 && position < this.ends[at]! ? this.ends[at]! - position : 0;
  }

  /** @param start in no range that is known. */
  add(start: number, end: number): void {
    const next = this.lastFrom(start) + 1;
    // The rest of a stretch is known when its end was asked for before.
    if (next < this.starts.length && this.starts[next]! <= end) {
      this.starts[next] = start;
      this.ends[next] = Math.max(end, this.ends[next]!);
      return;
    }
    if (this.starts.length >= most) {
      this.starts = [start];
      this.ends = [end];
      return;
    }
    this.starts.splice(next, 0, start);
    this.ends.splice(next, 0, end);
  }

  /** The last range that begins at or before `position`, or -1. */
  private lastFrom(position: number): number {
    let [low, high] = [0, this.starts.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.starts[middle]! <= position) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}
