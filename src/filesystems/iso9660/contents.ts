import type { ImageError } from "../../errors.js";
import { type DirectoryRecord, recordAt } from "./record.js";
import { SECTOR, type Volume } from "./volume.js";

/** A file has no more extents than this: each may have almost 4 GiB. */
const MOST_EXTENTS = 1 << 16;

/** Where the bytes of a file lie: one extent for each of its records, which follow each other. */
export class Contents {
  /** Byte in the volume at which each extent begins, and byte in the file at which it ends. */
  private readonly positions: number[] = [];
  private readonly ends: number[] = [];
  readonly size: number = 0;
  /** What keeps the file from being read, though its size is known. */
  private readonly obstacle: ImageError | undefined;

  /** @throws ImageError `corrupt` when records of further extents should follow, and don't. */
  constructor(
    private readonly volume: Volume,
    first: DirectoryRecord,
  ) {
    let record = first;
    for (;;) {
      this.positions.push(record.extent);
      this.size += record.size;
      this.ends.push(this.size);
      if (record.isInterleaved)
        this.obstacle ??= volume.unsupported(record.position, "the file is interleaved with others, which isn't read");
      if (volume.setSize > 1 && record.sequence !== volume.sequence)
        this.obstacle ??= volume.unsupported(
          record.position,
          `the file lies on volume ${record.sequence} of a set of ${volume.setSize}, and this is volume ${volume.sequence}`,
        );
      if (!record.continues) break;
      const next = following(volume, record);
      if (!next || !first.continuedBy(next) || this.ends.length === MOST_EXTENTS)
        throw volume.corrupt(record.position, "a file's record says that another extent follows, and none does");
      record = next;
    }
  }

  /** Bytes on the medium. */
  get allocated(): number {
    const { blockSize } = this.volume;
    let blocks = 0;
    for (let index = 0; index < this.ends.length; index++)
      blocks += Math.ceil((this.ends[index] - (this.ends[index - 1] ?? 0)) / blockSize);
    return blocks * blockSize;
  }

  read(position: number, target: Uint8Array): number {
    if (position >= this.size || target.length === 0) return 0;
    if (this.obstacle) throw this.obstacle;
    const index = this.extentWith(position);
    const at = this.placeOf(position);
    const length = Math.min(target.length, this.ends[index] - position);
    const read = this.volume.source.read(at, length === target.length ? target : target.subarray(0, length));
    if (read === 0)
      throw this.volume.corrupt(at, `a file goes on here, beyond the volume's ${this.volume.source.size} bytes`);
    return read;
  }

  /** Byte in the volume of the file's byte `position`. */
  placeOf(position: number): number {
    const index = this.extentWith(position);
    return this.positions[index] + position - (this.ends[index - 1] ?? 0);
  }

  corrupt(what: string): ImageError {
    return this.volume.corrupt(this.positions[0], `a file begins here, and ${what}`);
  }

  unsupported(what: string): ImageError {
    return this.volume.unsupported(this.positions[0], `${what}`);
  }

  private extentWith(position: number): number {
    let low = 0;
    let high = this.ends.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ends[middle] > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** The record behind `record`: in the next sector where this one has no more. */
function following(volume: Volume, record: DirectoryRecord): DirectoryRecord | undefined {
  const position = record.position + record.bytes.length;
  if (position % SECTOR !== 0) {
    const next = recordAt(volume, position);
    if (next) return next;
  }
  return recordAt(volume, Math.ceil(position / SECTOR) * SECTOR);
}
