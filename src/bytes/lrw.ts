/**
 * The masks of the mode LRW, which disks were encrypted in before XTS: each block is mixed with the product of a second key
 * and the block's number, before the block cipher and behind it. The references are the draft D5 of IEEE P1619 and, for what
 * is on disks, Linux (crypto/lrw.c).
 *
 * A key, a number and a mask are elements of the field of 2^128: 128 bits, big-endian, of which that with the value 2^n is
 * the coefficient of x^n, modulo x^128 + x^7 + x^2 + x + 1. XTS has the same field with its bytes the other way around.
 */
import { block } from "./block-cipher.js";

/** Bytes of the second key, which follows the block cipher's own. */
export const lrwKeyLength = 16;

const bits = 128;
const modulus = (1n << 128n) | 0x87n;
/** Words of a mask. */
const words = block / 4;

/**
 * Of the blocks in sectors: `each` from every number in `firsts` on, which has 16 bytes for each sector. Words are in the
 * machine's own order, to be mixed with words of the data.
 */
export type Masks = (firsts: Buffer, each: number) => Uint32Array;

/** @param key the second one */
export function lrwMasks(key: Uint8Array): Masks {
  const powers = timesPowers(key);
  // The next number differs in the ones at the end and the zero before them, so the next mask by the key times 1, 3, 7 …
  const steps = powers.slice();
  for (let at = words; at < steps.length; at++) steps[at]! ^= steps[at - words]!;
  return (firsts, each) => {
    const masks = new Uint32Array((firsts.length / block) * each * words);
    let at = 0;
    for (let from = 0; from < firsts.length; from += block) {
      const first = firsts.subarray(from, from + block);
      let [a, b, c, d] = product(first, powers);
      let low = first.readUInt32BE(12);
      for (let nth = 0; nth < each; nth++, low++) {
        masks[at++] = a;
        masks[at++] = b;
        masks[at++] = c;
        masks[at++] = d;
        // Below 2^32 blocks at a time, the bits further up change but once.
        const ones = low === 0xffffffff ? onesAtEnd(first.subarray(0, 12)) + 32 : onesOf(low);
        // Behind the last number comes 0, whose mask is 0: the step is that of all ones.
        const step = Math.min(ones, bits - 1) * words;
        a ^= steps[step]!;
        b ^= steps[step + 1]!;
        c ^= steps[step + 2]!;
        d ^= steps[step + 3]!;
      }
    }
    return masks;
  };
}

/** `key` times 1, x, x^2 and so on to x^127. */
function timesPowers(key: Uint8Array): Uint32Array {
  const bytes = Buffer.alloc(bits * block);
  let power = BigInt(`0x${Buffer.from(key).toString("hex")}`);
  for (let at = 0; at < bytes.length; at += block) {
    bytes.writeBigUInt64BE(power >> 64n, at);
    bytes.writeBigUInt64BE(power & 0xffffffffffffffffn, at + 8);
    power <<= 1n;
    if (power >> 128n) power ^= modulus;
  }
  return new Uint32Array(new Uint8Array(bytes).buffer);
}

/** The sum of the powers that are in `number`. */
function product(number: Uint8Array, powers: Uint32Array): [number, number, number, number] {
  let [a, b, c, d] = [0, 0, 0, 0];
  for (let byte = 0; byte < block; byte++)
    for (let rest = number[block - 1 - byte]!; rest !== 0; rest &= rest - 1) {
      const at = (byte * 8 + 31 - Math.clz32(rest & -rest)) * words;
      a ^= powers[at]!;
      b ^= powers[at + 1]!;
      c ^= powers[at + 2]!;
      d ^= powers[at + 3]!;
    }
  return [a, b, c, d];
}

/** The ones at the end of 32 bits, which aren't all ones. */
const onesOf = (low: number): number => 31 - Math.clz32(~low & (low + 1));

function onesAtEnd(number: Uint8Array): number {
  let bytes = 0;
  while (bytes < number.length && number[number.length - 1 - bytes] === 0xff) bytes++;
  return bytes === number.length ? bytes * 8 : bytes * 8 + onesOf(number[number.length - 1 - bytes]!);
}
