/** Tests only: the mode LRW as one does it with pencil and paper. */
import { createCipheriv } from "node:crypto";

/** The product of two elements of the field of 2^128, bit by bit. */
export function multiplied(one: bigint, other: bigint): bigint {
  let product = 0n;
  for (let bit = 127n; bit >= 0n; bit--) {
    product <<= 1n;
    if (product >> 128n) product ^= (1n << 128n) | 0b10000111n;
    if ((other >> bit) & 1n) product ^= one;
  }
  return product;
}

export const bytesOf = (number: bigint): Buffer => Buffer.from(number.toString(16).padStart(32, "0"), "hex");
export const numberOf = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
export const largest = (1n << 128n) - 1n;

/** The vector `benbi` of a sector: blocks of 16 bytes counted from 1, big-endian. */
export const blockNumber = (sector: number): Buffer => bytesOf(BigInt(sector) * 32n + 1n);

const mixed = (one: Buffer, other: Buffer): Buffer => Buffer.from(one.map((byte, at) => byte ^ other[at]!));

/** One sector, encrypted with AES. @param first the number of its first block */
export function encryptLrw(plain: Buffer, keys: Buffer, first: Buffer): Buffer {
  const masks = Buffer.concat(
    Array.from({ length: plain.length / 16 }, (_, nth) =>
      bytesOf(multiplied(numberOf(keys.subarray(-16)), (numberOf(first) + BigInt(nth)) & largest)),
    ),
  );
  const aes = createCipheriv(`aes-${keys.length * 8 - 128}-ecb`, keys.subarray(0, -16), null);
  return mixed(aes.update(mixed(plain, masks)), masks);
}
