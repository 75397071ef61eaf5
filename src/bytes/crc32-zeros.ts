/*
 * The CRC-32 of zlib.crc32, of a stretch of zeros without going through it. Such a checksum is the remainder of a polynomial
 * over GF(2); a zero byte more means multiplying it by x^8. Bit 31 is the coefficient of x^0.
 */

const polynomial = 0xedb88320;

/** The product of two polynomials modulo the CRC's. */
function multiply(a: number, b: number): number {
  let product = 0;
  for (let bit = 31; bit >= 0; bit--) {
    if ((a >>> bit) & 1) product ^= b;
    b = b & 1 ? (b >>> 1) ^ polynomial : b >>> 1;
  }
  return product >>> 0;
}

/** The checksum of what has checksum `crc` and `length` zero bytes behind it. */
export function crc32OfZeros(crc: number, length: number): number {
  let state = ~crc >>> 0;
  // x^8, x^16, x^32 …
  for (let power = 2 ** 23, rest = length; rest > 0; rest = Math.floor(rest / 2), power = multiply(power, power))
    if (rest % 2 === 1) state = multiply(power, state);
  return ~state >>> 0;
}
