import fc from "fast-check";
import type { PackedChunks } from "./chunk-cache.js";

/** The byte at `position` of the test source `seed`: neighbours, chunks and sources differ. */
export function byteAt(seed: number, position: number): number {
  return (Math.imul(position + seed * 7919, 0x9e3779b1) >>> 23) & 0xff;
}

/** What a read of `length` bytes at `position` must give. */
export function pattern(source: { seed: number; size: number }, position: number, length: number): Uint8Array {
  const bytes = new Uint8Array(Math.max(0, Math.min(length, source.size - position)));
  for (let index = 0; index < bytes.length; index++) bytes[index] = byteAt(source.seed, position + index);
  return bytes;
}

/** Chunks with bytes that can be told, and a record of what was unpacked. */
export class PatternChunks implements PackedChunks {
  /** The chunks that were unpacked, in order. */
  readonly unpacked: number[] = [];
  /** Called first: a test throws or sleeps here. */
  before: (chunk: number) => void = () => {};
  /** Called last. */
  after: (chunk: number) => void = () => {};

  constructor(
    readonly name: string,
    readonly seed: number,
    readonly size: number,
    readonly chunkSize: number,
  ) {}

  /** Chunks that aren't there: to unpack one is a mistake. */
  holes = new Set<number>();

  isStored(chunk: number): boolean {
    return !this.holes.has(chunk);
  }

  unpack(chunk: number, target: Uint8Array): void {
    if (!this.isStored(chunk)) throw new Error(`chunk ${chunk} is not stored`);
    const start = chunk * this.chunkSize;
    const length = Math.min(this.chunkSize, this.size - start);
    if (target.length !== length) throw new Error(`chunk ${chunk}: ${target.length} bytes asked, has ${length}`);
    this.unpacked.push(chunk);
    this.before(chunk);
    for (let index = 0; index < length; index++) target[index] = byteAt(this.seed, start + index);
    this.after(chunk);
  }
}

/** A read of one of two sources; it may begin or end beyond the source's end. */
export interface Access {
  readonly source: 0 | 1;
  readonly position: number;
  readonly length: number;
}

export const accesses: fc.Arbitrary<Access[]> = fc.array(
  fc.record({
    source: fc.constantFrom<0 | 1>(0, 1),
    position: fc.integer({ min: 0, max: 64 * 10 }),
    length: fc.integer({ min: 1, max: 64 * 4 }),
  }),
  { maxLength: 60 },
);
