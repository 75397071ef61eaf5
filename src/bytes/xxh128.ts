/**
 * XXH128, the wide sum of XXH3, with seed 0 and the usual secret (doc/xxhash_spec.md of xxHash, "XXH3 algorithm for long
 * inputs"): eight sums, which each take 8 bytes of every 64, and are mixed after every 1024. The sums are kept as halves of
 * 32 bits: as BigInt they would take many times as long. It is our own: @node-rs/xxhash, which makes the other sums, makes this one
 * only of bytes that are all there at once.
 *
 * Only what is longer than 240 bytes: for less there are three other algorithms, and nothing that Spindle reads has sums of so little.
 */

/** Bytes that there have to be at least. */
export const shortestXxh128 = 241;

/** Bytes that go into the sums at once, and how many times before the sums are mixed. */
const stripe = 64;
const stripesPerBlock = 16;
/** Bytes that are copied to where they can be read as numbers. */
const atOnce = 65536;

/** The default secret (kSecret of the specification). */
const secret = Buffer.from(
  "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c" +
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364" +
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e",
  "hex",
);

const [prime32x1, prime32x2, prime32x3] = [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d];

/** PRIME64_1 to PRIME64_5, by number. */
const prime = [
  0n,
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as const;

const wrap = (value: bigint): bigint => BigInt.asUintN(64, value);

const joinedHalves = (low: number, high: number): bigint => (BigInt(high) << 32n) | BigInt(low);

/** The low half, then the high one. */
const halves = (value: bigint): [low: number, high: number] => [
  Number(value & 0xffffffffn),
  Number((value >> 32n) & 0xffffffffn),
];

/**
 * The high 32 bits of a product of two numbers below 2^32, of which the low ones are known. The product as a double is
 * wrong by 2^11 at most, so that what is above the low half is wrong by far less than a half.
 */
const highOfProduct = (a: number, b: number, low: number): number => ((a * b - low) * 2 ** -32 + 0.5) >>> 0;

/** Words of the secret from a byte on that needn't be a multiple of 4. */
const secretWords = (at: number): Uint32Array =>
  Uint32Array.from({ length: Math.min(stripe, secret.length - at) / 4 }, (_, word) =>
    secret.readUInt32LE(at + word * 4),
  );

const ofStripes = Array.from({ length: stripesPerBlock }, (_, number) => secretWords(number * 8));
const ofMixing = secretWords(secret.length - stripe);
const ofLast = secretWords(secret.length - stripe - 7);

export class Xxh128 {
  /** Low and high half of each sum. */
  private readonly sums = Uint32Array.from(
    [BigInt(prime32x3), prime[1], prime[2], prime[3], prime[4], BigInt(prime32x2), prime[5], BigInt(prime32x1)].flatMap(
      halves,
    ),
  );
  /** The stripe before those that follow, and then bytes that aren't added yet: always one at least, once there are any. */
  private readonly bytes = new Uint8Array(stripe + atOnce);
  private readonly words = new Uint32Array(this.bytes.buffer);
  /** Bytes behind that stripe. */
  private held = 0;
  private length = 0;
  /** Stripes since the sums were mixed. */
  private stripes = 0;

  update(input: Uint8Array): this {
    this.length += input.length;
    for (let at = 0; at < input.length; ) {
      const count = Math.min(input.length - at, atOnce - this.held);
      this.bytes.set(input.subarray(at, at + count), stripe + this.held);
      at += count;
      this.held += count;
      // The last stripe is added in another way: whether one is that tells what follows.
      const whole = Math.floor((this.held - 1) / stripe);
      for (let number = 0; number < whole; number++) this.addStripe((stripe + number * stripe) / 4);
      this.bytes.copyWithin(0, whole * stripe, stripe + this.held);
      this.held -= whole * stripe;
    }
    return this;
  }

  /**
   * Of all bytes so far, 241 at least; more may follow.
   * @returns 16 bytes, the lowest first
   */
  digest(): Buffer {
    if (this.length < shortestXxh128) throw new RangeError(`XXH128 of ${this.length} bytes`);
    const sums = this.sums.slice();
    const last = Uint32Array.from(new Uint32Array(this.bytes.slice(this.held, this.held + stripe).buffer));
    accumulate(sums, last, 0, ofLast);
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(merged(sums, 11, BigInt(this.length) * prime[1]), 0);
    bytes.writeBigUInt64LE(merged(sums, secret.length - stripe - 11, ~(BigInt(this.length) * prime[2])), 8);
    return bytes;
  }

  /** @param at a word of `words` */
  private addStripe(at: number): void {
    accumulate(this.sums, this.words, at, ofStripes[this.stripes++]!);
    if (this.stripes < stripesPerBlock) return;
    mix(this.sums);
    this.stripes = 0;
  }
}

/** Adds the 64 bytes from word `at` on. */
function accumulate(sums: Uint32Array, words: Uint32Array, at: number, key: Uint32Array): void {
  for (let lane = 0; lane < 16; lane += 2) {
    const low = words[at + lane]!;
    const high = words[at + lane + 1]!;
    const a = (low ^ key[lane]!) >>> 0;
    const b = (high ^ key[lane + 1]!) >>> 0;
    const product = Math.imul(a, b) >>> 0;
    const sum = sums[lane]! + product;
    sums[lane + 1] = sums[lane + 1]! + highOfProduct(a, b, product) + (sum >= 2 ** 32 ? 1 : 0);
    sums[lane] = sum;
    // The bytes themselves go to the neighbour.
    const other = lane ^ 2;
    const neighbour = sums[other]! + low;
    sums[other + 1] = sums[other + 1]! + high + (neighbour >= 2 ** 32 ? 1 : 0);
    sums[other] = neighbour;
  }
}

function mix(sums: Uint32Array): void {
  for (let lane = 0; lane < 16; lane += 2) {
    const low = (sums[lane]! ^ (sums[lane + 1]! >>> 15) ^ ofMixing[lane]!) >>> 0;
    const high = sums[lane + 1]! ^ ofMixing[lane + 1]!;
    const product = Math.imul(low, prime32x1) >>> 0;
    sums[lane] = product;
    sums[lane + 1] = highOfProduct(low, prime32x1, product) + Math.imul(high, prime32x1);
  }
}

/** All sums as one, with 64 bytes of the secret from byte `at` on. */
function merged(sums: Uint32Array, at: number, start: bigint): bigint {
  let hash = start;
  for (let pair = 0; pair < 4; pair++) {
    const [a, b] = [pair * 2, pair * 2 + 1].map(
      (sum) => joinedHalves(sums[sum * 2]!, sums[sum * 2 + 1]!) ^ secret.readBigUInt64LE(at + sum * 8),
    ) as [bigint, bigint];
    const product = a * b;
    hash += wrap(product) ^ (product >> 64n);
  }
  hash = wrap(hash);
  hash = wrap((hash ^ (hash >> 37n)) * 0x165667919e3779f9n);
  return hash ^ (hash >> 32n);
}
