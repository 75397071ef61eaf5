import type { Extent } from "../bytes/byte-source.js";
import type { Disk } from "./disk.js";

/** A read that was noted instead of being done, in bytes: to where in the buffer, from where on the disk, how much. */
export interface Trace {
  readonly at: number;
  readonly position: number;
  readonly length: number;
}

/**
 * A disk that can be asked where a file's bytes lie: reads into one particular buffer are noted and not done, while all
 * others are, above all those of the filesystem's own records.
 */
export class TracedDisk implements Disk {
  readonly name: string;
  readonly size: number;
  private traces: Trace[] | undefined;

  /** @param buffer has memory of its own, which no other buffer shares */
  constructor(
    private readonly inner: Disk,
    private readonly buffer: Uint8Array,
  ) {
    this.name = inner.name;
    this.size = inner.size;
  }

  /** The reads into the buffer that `act` asks for; what it finds in the buffer means nothing. */
  tracesOf(act: () => void): Trace[] {
    this.traces = [];
    try {
      act();
      return this.traces;
    } finally {
      this.traces = undefined;
    }
  }

  read(position: number, target: Uint8Array): number {
    if (!this.traces || target.buffer !== this.buffer.buffer) return this.inner.read(position, target);
    const length = Math.max(0, Math.min(target.length, this.size - position));
    if (length > 0) this.traces.push({ at: target.byteOffset - this.buffer.byteOffset, position, length });
    return length;
  }

  extentAt(position: number): Extent {
    return this.inner.extentAt(position);
  }

  dataBytes(from: number, to: number): number {
    return this.inner.dataBytes(from, to);
  }

  zerosAt(position: number): number {
    return this.inner.zerosAt(position);
  }
}
