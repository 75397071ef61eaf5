/** XXH32 with seed 0 (doc/xxhash_spec.md of xxHash, "XXH32 algorithm"), the checksum of LZ4's frames. */
const [prime1, prime2, prime3, prime4, prime5] = [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d, 0x27d4eb2f, 0x165667b1] as const;

/** Bytes that go into the sums at once. */
const stripe = 16;
/** Bytes that are copied to where they can be read as numbers. */
const atOnce = 65536;

const rotated = (value: number, bits: number): number => (value << bits) | (value >>> (32 - bits));

export class Xxh32 {
  private readonly sums = Int32Array.of(prime1 + prime2, prime2, 0, -prime1);
  private readonly bytes = new Uint8Array(atOnce);
  private readonly words = new Int32Array(this.bytes.buffer);
  /** Bytes at the start of `bytes`, less than a stripe. */
  private held = 0;
  private length = 0;

  update(input: Uint8Array): this {
    this.length += input.length;
    for (let at = 0; at < input.length; ) {
      const count = Math.min(input.length - at, atOnce - this.held);
      this.bytes.set(input.subarray(at, at + count), this.held);
      at += count;
      const filled = this.held + count;
      this.held = filled % stripe;
      this.addStripes((filled - this.held) / 4);
      this.bytes.copyWithin(0, filled - this.held, filled);
    }
    return this;
  }

  /** Of all bytes so far; more may follow. */
  digest(): number {
    const [a, b, c, d] = this.sums as unknown as [number, number, number, number];
    let hash = this.length >= stripe ? rotated(a, 1) + rotated(b, 7) + rotated(c, 12) + rotated(d, 18) : prime5;
    hash = (hash + this.length) | 0;
    let at = 0;
    for (; at + 4 <= this.held; at += 4)
      hash = Math.imul(rotated((hash + Math.imul(this.words[at / 4]!, prime3)) | 0, 17), prime4);
    for (; at < this.held; at++) hash = Math.imul(rotated((hash + Math.imul(this.bytes[at]!, prime5)) | 0, 11), prime1);
    hash = Math.imul(hash ^ (hash >>> 15), prime2);
    hash = Math.imul(hash ^ (hash >>> 13), prime3);
    return (hash ^ (hash >>> 16)) >>> 0;
  }

  /** Adds the first `count` words, which are whole stripes. */
  private addStripes(count: number): void {
    const { words, sums } = this;
    let [a, b, c, d] = sums as unknown as [number, number, number, number];
    for (let at = 0; at < count; at += 4) {
      a = Math.imul(rotated((a + Math.imul(words[at]!, prime2)) | 0, 13), prime1);
      b = Math.imul(rotated((b + Math.imul(words[at + 1]!, prime2)) | 0, 13), prime1);
      c = Math.imul(rotated((c + Math.imul(words[at + 2]!, prime2)) | 0, 13), prime1);
      d = Math.imul(rotated((d + Math.imul(words[at + 3]!, prime2)) | 0, 13), prime1);
    }
    sums.set([a, b, c, d]);
  }
}
