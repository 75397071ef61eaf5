/** What both sums of xxHash are made of: numbers of 64 bits, as BigInt where speed doesn't count, else as halves of 32 bits. */

/** PRIME64_1 to PRIME64_5, by number. */
export const prime = [
  0n,
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as const;

export const wrap = (value: bigint): bigint => BigInt.asUintN(64, value);

export const rotated = (value: bigint, bits: bigint): bigint => wrap((value << bits) | (value >> (64n - bits)));

export const joinedHalves = (low: number, high: number): bigint => (BigInt(high) << 32n) | BigInt(low);

/** The low half, then the high one. */
export const halves = (value: bigint): [low: number, high: number] => [
  Number(value & 0xffffffffn),
  Number((value >> 32n) & 0xffffffffn),
];

/**
 * The high 32 bits of a product of two numbers below 2^32, of which the low ones are known. The product as a double is
 * wrong by 2^11 at most, so that what is above the low half is wrong by far less than a half.
 */
export const highOfProduct = (a: number, b: number, low: number): number => ((a * b - low) * 2 ** -32 + 0.5) >>> 0;
