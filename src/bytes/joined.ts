import type { ByteSource, Extent } from "./byte-source.js";

/** Sources end to end: the parts of a split file, of any sizes. */
export class JoinedSource implements ByteSource {
  readonly size: number;
  private readonly parts: readonly ByteSource[];
  /** Where each part begins. */
  private readonly starts: Float64Array;

  constructor(
    readonly name: string,
    parts: readonly ByteSource[],
  ) {
    // An empty part has no byte to be asked for.
    this.parts = parts.filter(({ size }) => size > 0);
    this.starts = new Float64Array(this.parts.length);
    let size = 0;
    for (const [index, part] of this.parts.entries()) {
      this.starts[index] = size;
      size += part.size;
    }
    this.size = size;
  }

  /** Stops at the end of a part. */
  read(position: number, target: Uint8Array): number {
    if (position >= this.size) return 0;
    const index = this.indexAt(position);
    return this.parts[index]!.read(position - this.starts[index]!, target);
  }

  extentAt(position: number): Extent {
    const index = this.indexAt(position);
    const part = this.parts[index]!;
    const within = position - this.starts[index]!;
    return part.extentAt?.(within) ?? { hole: false, length: part.size - within };
  }

  /** The last part that begins at or before `position`. */
  private indexAt(position: number): number {
    let low = 0;
    for (let high = this.parts.length - 1; low < high; ) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle]! <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
