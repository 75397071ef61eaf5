/** The largest prime below 2^16: both sums are counted modulo it (RFC 1950, section 8). */
const MODULUS = 65521;
/** Bytes after which the second sum could pass 2^31: 255 n (n + 1) / 2 + (n + 1) (MODULUS - 1) stays below it. */
const LONGEST = 3848;

/**
 * Adler-32 of `bytes`, continued from `sum` (1 at the beginning), as an unsigned number of 32 bits. zlib makes it itself
 * for what it packs; Node offers no other way to it.
 */
export function adler32(bytes: Uint8Array, sum = 1): number {
  let low = sum & 0xffff;
  let high = sum >>> 16;
  const end = bytes.length;
  for (let at = 0; at < end; ) {
    const stop = Math.min(at + LONGEST, end);
    // Eight bytes a step: half as fast again, since one byte's sums no longer wait for those of the byte before.
    for (const last = stop - 7; at < last; at += 8) {
      const b0 = bytes[at];
      const b1 = bytes[at + 1];
      const b2 = bytes[at + 2];
      const b3 = bytes[at + 3];
      const b4 = bytes[at + 4];
      const b5 = bytes[at + 5];
      const b6 = bytes[at + 6];
      const b7 = bytes[at + 7];
      high = (high + (low << 3) + (b0 << 3) + b1 * 7 + b2 * 6 + b3 * 5 + (b4 << 2) + b5 * 3 + (b6 << 1) + b7) | 0;
      low = (low + b0 + b1 + b2 + b3 + b4 + b5 + b6 + b7) | 0;
    }
    for (; at < stop; at++) {
      low += bytes[at];
      high += low;
    }
    low %= MODULUS;
    high %= MODULUS;
  }
  return ((high << 16) | low) >>> 0;
}
