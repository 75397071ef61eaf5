import type { ByteSource, Extent } from "../../bytes/byte-source.js";
import { DecryptedSource } from "../../bytes/decrypted.js";
import type { SectorCipher } from "../../bytes/sector-cipher.js";
import { corrupt } from "../../errors.js";
import type { Stretch } from "./conversion.js";

/** A stretch of the plain volume, up to the next one. */
interface Piece {
  readonly start: number;
  /** Undefined: zeros. */
  readonly source: ByteSource | undefined;
  /** Where in that it begins. */
  readonly at: number;
}

export interface Layout {
  /** Bytes of the plain volume: whole sectors. */
  readonly size: number;
  /** The first bytes of the plain volume, and where they are, as they are encrypted there. */
  readonly moved: { readonly size: number; readonly position: number };
  /** What takes the place of the first bytes: nearly these, of Windows Vista. */
  readonly first?: ByteSource;
  /** And of the same number of bytes at this position. */
  readonly again?: number;
  /** In order, to infinity: which of the stored bytes are encrypted. */
  readonly stretches: readonly Stretch[];
  /** Where BitLocker keeps what is its own: zeros, in the plain volume. */
  readonly reserved: readonly (readonly [start: number, end: number])[];
}

/** The plain bytes of a BitLocker volume. Those of each sector depend on where it is stored, and not on where it belongs. */
export class PlainSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  private readonly decrypted: ByteSource;
  private readonly pieces: Piece[] = [];

  /** @throws ImageError `corrupt` where the first bytes are stored where they can't be */
  constructor(
    private readonly stored: ByteSource,
    cipher: SectorCipher | undefined,
    private readonly layout: Layout,
  ) {
    this.name = stored.name;
    this.size = layout.size;
    this.decrypted = cipher ? new DecryptedSource(stored, cipher) : stored;
    const { moved, first, again, reserved } = layout;
    if (moved.size > this.size || moved.position + moved.size > this.size)
      throw corrupt(
        `${this.name}: BitLocker's metadata tell that the first ${moved.size} bytes are at ${moved.position}, beyond the volume's end. It is damaged or truncated.`,
      );
    if (first) this.push(0, first, 0);
    this.store(first?.size ?? 0, moved.size, moved.position + (first?.size ?? 0));
    let position = moved.size;
    const zeros = [...reserved].sort((a, b) => a[0] - b[0]);
    for (const [start, end] of zeros) {
      if (end <= position || start >= this.size) continue;
      this.store(position, start, position);
      this.push(Math.max(start, position), undefined, 0);
      position = Math.min(end, this.size);
    }
    if (first && again !== undefined && again >= position) {
      this.store(position, again, position);
      this.push(again, first, 0);
      position = again + first.size;
    }
    this.store(position, this.size, position);
  }

  read(position: number, target: Uint8Array): number {
    if (position >= this.size) return 0;
    const index = this.indexAt(position);
    const { start, source, at } = this.pieces[index]!;
    const part = target.subarray(0, Math.min(target.length, this.endOf(index) - position));
    if (source) return source.read(at + position - start, part);
    part.fill(0);
    return part.length;
  }

  extentAt(position: number): Extent {
    const index = this.indexAt(position);
    return { hole: this.pieces[index]!.source === undefined, length: this.endOf(index) - position };
  }

  willRead(position: number, length: number): void {
    const { start, source, at } = this.pieces[this.indexAt(position)]!;
    source?.willRead?.(at + position - start, length);
  }

  isFar(position: number): boolean {
    const { start, source, at } = this.pieces[this.indexAt(position)]!;
    return source?.isFar?.(at + position - start) === true;
  }

  /** Adds what is stored from `at` on, as the plain volume's `start` to `end`. */
  private store(start: number, end: number, at: number): void {
    const { stretches } = this.layout;
    let [low, high] = [0, stretches.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (stretches[middle]!.end > at) high = middle;
      else low = middle + 1;
    }
    for (let from = start; from < end; low++) {
      const stretch = stretches[low]!;
      this.push(from, stretch.isEncrypted ? this.decrypted : this.stored, at + from - start);
      from = Math.min(end, from + stretch.end - (at + from - start));
    }
  }

  private push(start: number, source: ByteSource | undefined, at: number): void {
    this.pieces.push({ start, source, at });
  }

  private endOf(index: number): number {
    return this.pieces[index + 1]?.start ?? this.size;
  }

  private indexAt(position: number): number {
    let [low, high] = [0, this.pieces.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.pieces[middle]!.start <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
