import type { ByteSource } from "./byte-source.js";

/** Bytes in memory, for tests and for small structures that were unpacked whole. */
export class MemorySource implements ByteSource {
  constructor(
    readonly name: string,
    private readonly bytes: Uint8Array,
    /** At most this many bytes a read, so that tests meet short reads. */
    private readonly most = Number.POSITIVE_INFINITY,
  ) {}

  get size(): number {
    return this.bytes.length;
  }

  read(position: number, target: Uint8Array): number {
    if (position >= this.bytes.length) return 0;
    const count = Math.min(target.length, this.bytes.length - position, this.most);
    target.set(this.bytes.subarray(position, position + count));
    return count;
  }
}
