import { corrupt } from "../errors.js";

/** Bytes readable at any position: a file, a disk, a volume. */
export interface ByteSource {
  /** How messages name these bytes, for example `vm.vdi > volume 2`. */
  readonly name: string;
  /** Length in bytes. */
  readonly size: number;
  /**
   * Fills the start of `target` with the bytes at `position` and returns how many it filled. It may stop early where
   * the bytes continue elsewhere (the end of a cluster, an extent, a file of a set), never before one byte; it
   * returns 0 at or past `size`.
   */
  read(position: number, target: Uint8Array): number;
  /** The hole or the data at `position` (< size), where that is known without reading data. */
  extentAt?(position: number): Extent;
  /** Is told which stretch is read next, so that a device can begin with all of it; only a hint, which never fails. */
  willRead?(position: number, length: number): void;
  /**
   * Whether a read at `position` (< size) would wait long now, since what is before has to be unpacked first. Who can do
   * without the bytes may leave them out then.
   */
  isFar?(position: number): boolean;
  /** Of bytes that lie in several files: the one with the byte at `position` (< size), and where in it that is. */
  partAt?(position: number): { readonly part: ByteSource; readonly position: number };
}

/** A stretch of bytes that is all hole (reads as zeros, nothing is stored) or all data. */
export interface Extent {
  readonly hole: boolean;
  /** In bytes, at least 1. */
  readonly length: number;
}

/**
 * Thrown by a read that would have to wait long, where its thread has others to serve meanwhile: it is to be asked again,
 * of a thread that may wait. No failure, and nothing to tell anybody.
 */
export class NotYet extends Error {
  /** @param position of the bytes in what is waited for: of two reads of the same file the lower one's turn is first. */
  constructor(readonly position: number) {
    super(`the bytes at ${position} are not there yet`);
  }
}

/**
 * Called now and then while a read waits, with the milliseconds that it has waited for the bytes at `position`. May throw
 * to end the waiting.
 */
export type WhileWaiting = (waited: number, position: number) => void;

/** Fills `target` from `position` on, in as many pieces as it takes; returns less than its length only at the end. */
export function readFully(source: ByteSource, position: number, target: Uint8Array): number {
  let filled = source.read(position, target);
  if (filled === target.length || filled === 0) return filled;
  while (filled < target.length) {
    const count = source.read(position + filled, target.subarray(filled));
    if (count === 0) break;
    filled += count;
  }
  return filled;
}

/**
 * `length` bytes at `position`, all of them.
 * @throws ImageError `corrupt` when the bytes end before; `what` names the structure, for example `the header`.
 */
export function readExactly(source: ByteSource, position: number, length: number, what: string): Buffer {
  if (position + length > source.size)
    throw corrupt(
      `${source.name}: ${what} should take ${length} bytes at byte ${position}, but there are only ${source.size} bytes. The file is truncated or damaged.`,
    );
  const bytes = Buffer.allocUnsafe(length);
  const filled = readFully(source, position, bytes);
  if (filled !== length)
    throw corrupt(`${source.name}: ${what} at byte ${position} ends after ${filled} of ${length} bytes.`);
  return bytes;
}

/** The bytes of `source` from `position` on for `size` bytes, as a source of their own: a volume, an embedded file. */
export class Slice implements ByteSource {
  constructor(
    readonly name: string,
    private readonly source: ByteSource,
    private readonly position: number,
    readonly size: number,
  ) {}

  read(position: number, target: Uint8Array): number {
    const rest = this.size - position;
    if (rest <= 0) return 0;
    return this.source.read(this.position + position, target.length > rest ? target.subarray(0, rest) : target);
  }

  extentAt(position: number): Extent {
    const rest = this.size - position;
    const extent = this.source.extentAt?.(this.position + position);
    return extent ? { hole: extent.hole, length: Math.min(extent.length, rest) } : { hole: false, length: rest };
  }

  willRead(position: number, length: number): void {
    this.source.willRead?.(this.position + position, Math.min(length, this.size - position));
  }

  isFar(position: number): boolean {
    return this.source.isFar?.(this.position + position) === true;
  }
}
