/**
 * What BitLocker makes of a password so that guessing is slow: SHA-256, 2^20 times. OpenSSL is quicker at that, but calling
 * it costs more than the hash of so few bytes; the loop here takes half the time of calls of createHash.
 */

/** Times that the hash is taken. */
const rounds = 2 ** 20;

/** The first 32 bits of the fractional parts of the `power`-th roots of the first primes (FIPS 180-4, 4.2.2 and 5.3.3). */
function rootsOfPrimes(count: number, root: (prime: number) => number): Int32Array {
  const found: number[] = [];
  for (let number = 2; found.length < count; number++)
    if (found.every((prime) => number % prime !== 0)) found.push(number);
  return Int32Array.from(found, (prime) => ((root(prime) % 1) * 2 ** 32) | 0);
}

const constants = rootsOfPrimes(64, Math.cbrt);
const initial = rootsOfPrimes(8, Math.sqrt);

const wordsOf = (bytes: Uint8Array) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Int32Array.from({ length: bytes.length / 4 }, (_, nth) => view.getInt32(nth * 4));
};

/**
 * The key that a password makes: the hash of the last hash, of `secret`, of `salt` and of a count, again and again (libbde's
 * "BitLocker Drive Encryption (BDE) format", sections "Recovery key" and "User key"). About a second.
 *
 * @param secret the hash of the password, 32 bytes
 * @param salt 16 bytes
 */
export function stretch(secret: Uint8Array, salt: Uint8Array): Uint8Array {
  const [secretWords, saltWords] = [wordsOf(secret), wordsOf(salt)];
  const last = new Int32Array(8);
  const words = new Int32Array(64);
  // What is hashed has 88 bytes, and with what is added to it (FIPS 180-4, 5.1.1) it fills two blocks.
  for (let count = 0; count < rounds; count++) {
    for (let nth = 0; nth < 8; nth++) {
      words[nth] = last[nth]!;
      words[nth + 8] = secretWords[nth]!;
      last[nth] = initial[nth]!;
    }
    addBlock(last, words);
    for (let nth = 0; nth < 4; nth++) words[nth] = saltWords[nth]!;
    // The count is little-endian, and has 64 bits.
    words[4] = (count << 24) | ((count & 0xff00) << 8) | ((count >>> 8) & 0xff00) | (count >>> 24);
    words[5] = 0;
    words[6] = 0x80000000 | 0;
    for (let nth = 7; nth < 15; nth++) words[nth] = 0;
    words[15] = 88 * 8;
    addBlock(last, words);
  }
  const key = new Uint8Array(32);
  const view = new DataView(key.buffer);
  last.forEach((word, nth) => {
    view.setInt32(nth * 4, word);
  });
  return key;
}

/** FIPS 180-4, 6.2.2, with its names. @param w the 16 words of the block, and room for 48 */
function addBlock(hash: Int32Array, w: Int32Array): void {
  for (let t = 16; t < 64; t++) {
    const [x, y] = [w[t - 15]!, w[t - 2]!];
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    w[t] = (w[t - 16]! + w[t - 7]! + s0 + s1) | 0;
  }
  let a = hash[0]!;
  let b = hash[1]!;
  let c = hash[2]!;
  let d = hash[3]!;
  let e = hash[4]!;
  let f = hash[5]!;
  let g = hash[6]!;
  let h = hash[7]!;
  for (let t = 0; t < 64; t++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const t1 = (h + s1 + (g ^ (e & (f ^ g))) + constants[t]! + w[t]!) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t2 = (s0 + ((a & b) | (c & (a | b)))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + t1) | 0;
    d = c;
    c = b;
    b = a;
    a = (t1 + t2) | 0;
  }
  hash[0]! += a;
  hash[1]! += b;
  hash[2]! += c;
  hash[3]! += d;
  hash[4]! += e;
  hash[5]! += f;
  hash[6]! += g;
  hash[7]! += h;
}
