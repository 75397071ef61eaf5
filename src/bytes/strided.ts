import { corrupt } from "../errors.js";
import { type ByteSource, readFully } from "./byte-source.js";

/** Records of one size at equal distances, of each of which a stretch counts: sectors with their headers, blocks with checksums. */
export interface Stride {
  /** Where the counting stretch of the first record begins, in bytes of the source. */
  readonly start: number;
  /** Bytes from one record to the next. */
  readonly step: number;
  /** Bytes of each record that count, at most `step`. */
  readonly length: number;
  /** How many records there are. */
  readonly count: number;
}

/** Most bytes that are read at once, what doesn't count included. */
const mostAtOnce = 256 * 1024;

/** The counting stretches of records, end to end. Many are read from the source at once. */
export class StridedSource implements ByteSource {
  readonly size: number;
  private scratch: Buffer | undefined;
  private readonly most: number;

  constructor(
    readonly name: string,
    private readonly source: ByteSource,
    private readonly stride: Stride,
  ) {
    this.size = stride.count * stride.length;
    this.most = Math.max(1, Math.floor(mostAtOnce / stride.step));
  }

  /** @throws ImageError `corrupt` where the source ends before the byte at `position`. */
  read(position: number, target: Uint8Array): number {
    const rest = this.size - position;
    if (rest <= 0) return 0;
    const { start, step, length } = this.stride;
    const record = Math.floor(position / length);
    const within = position - record * length;
    const at = start + record * step;
    const records = Math.min(this.most, Math.ceil((within + Math.min(target.length, rest)) / length));
    if (records === 1) {
      const count = this.source.read(at + within, target.subarray(0, Math.min(target.length, length - within)));
      if (count === 0 && target.length > 0) throw this.ends(record, at + within);
      return count;
    }
    this.scratch ??= Buffer.allocUnsafeSlow(this.most * step);
    const taken = readFully(this.source, at, this.scratch.subarray(0, (records - 1) * step + length));
    let filled = 0;
    for (let nth = 0; nth < records && filled < target.length; nth++) {
      const from = nth * step + (nth === 0 ? within : 0);
      const to = Math.min(nth * step + length, taken, from + target.length - filled);
      if (to <= from) break;
      this.scratch.copy(target, filled, from, to);
      filled += to - from;
      if (to < nth * step + length) break;
    }
    if (filled === 0) throw this.ends(record, at + within);
    return filled;
  }

  willRead(position: number, length: number): void {
    const last = Math.min(position + length, this.size) - 1;
    if (last < position) return;
    const at = this.placeOf(position);
    this.source.willRead?.(at, this.placeOf(last) + 1 - at);
  }

  isFar(position: number): boolean {
    return this.source.isFar?.(this.placeOf(position)) === true;
  }

  private placeOf(position: number): number {
    const { start, step, length } = this.stride;
    return start + Math.floor(position / length) * step + (position % length);
  }

  private ends(record: number, at: number) {
    return corrupt(
      `${this.name}: record ${record} should go on at byte ${at}, but there are only ${this.source.size} bytes. The file is truncated or damaged.`,
    );
  }
}
