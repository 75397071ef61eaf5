/**
 * XXH64 with seed 0 (doc/xxhash_spec.md of xxHash, "XXH64 algorithm"): four sums, to each of which every fourth 8 bytes go,
 * then what is left over. The sums are kept as halves of 32 bits: as BigInt they would take many times as long.
 */
import { halves, highOfProduct, joinedHalves, prime, rotated, wrap } from "./xxh-numbers.js";

/** Bytes that go into the sums at once. */
const stripe = 32;
/** Bytes that are copied to where they can be read as numbers. */
const atOnce = 65536;

const [low1, high1] = halves(prime[1]);
const [low2, high2] = halves(prime[2]);

export class Xxh64 {
  /** Low and high half of each sum. */
  private readonly sums = Uint32Array.from([prime[1] + prime[2], prime[2], 0n, wrap(-prime[1])].flatMap(halves));
  private readonly bytes = new Uint8Array(atOnce);
  private readonly words = new Uint32Array(this.bytes.buffer);
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

  /** Of all bytes so far; more may follow. @returns 8 bytes, the lowest first */
  digest(): Buffer {
    const [a, b, c, d] = [0, 2, 4, 6].map((at) => joinedHalves(this.sums[at]!, this.sums[at + 1]!)) as Four;
    let hash: bigint = prime[5];
    if (this.length >= stripe) {
      hash = wrap(rotated(a, 1n) + rotated(b, 7n) + rotated(c, 12n) + rotated(d, 18n));
      for (const sum of [a, b, c, d]) hash = wrap((hash ^ mixed(sum)) * prime[1] + prime[4]);
    }
    hash = wrap(hash + BigInt(this.length));
    const rest = Buffer.from(this.bytes.buffer, 0, this.held);
    let at = 0;
    for (; at + 8 <= rest.length; at += 8)
      hash = wrap(rotated(hash ^ mixed(rest.readBigUInt64LE(at)), 27n) * prime[1] + prime[4]);
    for (; at + 4 <= rest.length; at += 4)
      hash = wrap(rotated(hash ^ wrap(BigInt(rest.readUInt32LE(at)) * prime[1]), 23n) * prime[2] + prime[3]);
    for (; at < rest.length; at++) hash = wrap(rotated(hash ^ wrap(BigInt(rest[at]!) * prime[5]), 11n) * prime[1]);
    hash = wrap((hash ^ (hash >> 33n)) * prime[2]);
    hash = wrap((hash ^ (hash >> 29n)) * prime[3]);
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(hash ^ (hash >> 32n));
    return bytes;
  }

  /** Adds the first `count` words, which are whole stripes. */
  private addStripes(count: number): void {
    const { words, sums } = this;
    for (let lane = 0; lane < 8; lane += 2) {
      let low = sums[lane]!;
      let high = sums[lane + 1]!;
      for (let at = lane; at < count; at += 8) {
        // The sum and the word times prime 2 …
        const word = words[at]!;
        const product = Math.imul(word, low2) >>> 0;
        const upper =
          highOfProduct(word, low2, product) + Math.imul(word, high2) + Math.imul(words[at + 1]!, low2) + high;
        const sum = low + product;
        const a = sum >>> 0;
        const b = (upper + (sum >= 2 ** 32 ? 1 : 0)) >>> 0;
        // … rotated left by 31, and times prime 1.
        const turnedLow = ((a << 31) | (b >>> 1)) >>> 0;
        const turnedHigh = (b << 31) | (a >>> 1);
        low = Math.imul(turnedLow, low1) >>> 0;
        high = (highOfProduct(turnedLow, low1, low) + Math.imul(turnedLow, high1) + Math.imul(turnedHigh, low1)) >>> 0;
      }
      sums[lane] = low;
      sums[lane + 1] = high;
    }
  }
}

type Four = [bigint, bigint, bigint, bigint];

const mixed = (word: bigint): bigint => wrap(rotated(wrap(word * prime[2]), 31n) * prime[1]);
