/** The modes of encryption of disks, against OpenSSL's own of each sector. */
import { createCipheriv, createHash } from "node:crypto";
import test from "ava";
import { readFully } from "./byte-source.js";
import { DecryptedSource } from "./decrypted.js";
import { blockNumber, encryptLrw } from "./lrw-test-tools.js";
import { MemorySource } from "./memory.js";
import { cipherSector, sectorCipher } from "./sector-cipher.js";

const key = Buffer.from(Array.from({ length: 64 }, (_, at) => (at * 37 + 11) & 0xff));

/** A sector's vector, as the modes `plain` and `plain64` have it. */
function vector(sector: number): Buffer {
  const iv = Buffer.alloc(16);
  iv.writeBigUInt64LE(BigInt(sector));
  return iv;
}

for (const [mode, cipher, length] of [
  ["xts-plain64", "aes-128-xts", 32],
  ["xts-plain64", "aes-256-xts", 64],
  ["cbc-plain64", "aes-128-cbc", 16],
  ["cbc-plain", "aes-256-cbc", 32],
  ["cbc-benbi", "aes-256-cbc", 32],
  ["xts-benbi", "aes-256-xts", 64],
] as const)
  test(`sectors that OpenSSL encrypted one by one are decrypted together: ${cipher}, ${mode}`, (t) => {
    const used = key.subarray(0, length);
    for (const first of [0, 7, 0xfffffffe]) {
      if (mode === "cbc-plain" && first > 7) continue;
      const plain = Buffer.from(Array.from({ length: 5 * cipherSector }, (_, at) => (at * at + first) & 0xff));
      const packed = [0, 1, 2, 3, 4].map((nth) => {
        const one = createCipheriv(cipher, used, (mode.endsWith("-benbi") ? blockNumber : vector)(first + nth));
        one.setAutoPadding(false);
        return one.update(plain.subarray(nth * cipherSector, (nth + 1) * cipherSector));
      });
      const bytes = Buffer.concat(packed);
      sectorCipher("aes", mode, used).decrypt(bytes, first);
      t.true(bytes.equals(plain), `from sector ${first}`);
    }
  });

test("any stretch of decrypted sectors can be read, up to the last whole one", (t) => {
  const plain = Buffer.from(Array.from({ length: 20 * cipherSector }, (_, at) => (at * 31 + (at >> 8)) & 0xff));
  const packed = Buffer.concat(
    Array.from({ length: 20 }, (_, nth) =>
      createCipheriv("aes-256-xts", key, vector(nth)).update(
        plain.subarray(nth * cipherSector, (nth + 1) * cipherSector),
      ),
    ),
  );
  const source = new DecryptedSource(
    new MemorySource("m", Buffer.concat([packed, Buffer.alloc(100)])),
    sectorCipher("aes", "xts-plain64", key),
  );
  t.is(source.size, plain.length);
  for (const position of [0, 1, 511, 512, 513, 5000, plain.length - 513, plain.length - 1])
    for (const length of [1, 2, 511, 512, 513, 1024, 5000, 20000]) {
      const target = Buffer.alloc(length, 0xee);
      const got = readFully(source, position, target);
      const right = plain.subarray(position, position + length);
      t.true(got === right.length && target.subarray(0, got).equals(right), `${length} bytes at ${position}`);
    }
  t.is(source.read(plain.length, Buffer.alloc(10)), 0);
});

test("ciphers and modes that aren't known are refused in words", (t) => {
  t.throws(() => sectorCipher("cast6", "xts-plain64", key), {
    message: /encrypted with cast6, and Spindle decrypts aes, /,
  });
  t.throws(() => sectorCipher("constructor", "xts-plain64", key), { message: /encrypted with constructor/ });
  t.throws(() => sectorCipher("aes", "cbc-essiv:shake256", key.subarray(0, 32)), { message: /the hash shake256/ });
  t.throws(() => sectorCipher("twofish", "xts-plain64", key.subarray(0, 48)), { message: /twofish with a key of 192/ });
  t.throws(() => sectorCipher("aes", "lrw-eboiv", key.subarray(0, 32)), { message: /the mode lrw-eboiv/ });
  t.throws(() => sectorCipher("aes", "lrw", key.subarray(0, 32)), { message: /the mode lrw, / });
  t.throws(() => sectorCipher("aes", "lrw-benbi", key.subarray(0, 36)), { message: /aes with a key of 160 bits/ });
  t.throws(() => sectorCipher("aes", "lrw-benbi", key.subarray(0, 15)), { message: /aes with a key of 0 bits/ });
  t.throws(() => sectorCipher("twofish", "lrw-benbi", key.subarray(0, 40)), { message: /twofish with a key of 192/ });
  t.throws(() => sectorCipher("aes", "cbc-essiv:sha1", key.subarray(0, 32)), { message: /sha1 makes no key/ });
  t.throws(() => sectorCipher("aes", "xts-plain64", key.subarray(0, 40)), { message: /key of 160 bits/ });
});

test("larger sectors have the vector of their first 512 bytes, and a volume may begin at another than 0", (t) => {
  const plain = Buffer.from(Array.from({ length: 5 * 4096 }, (_, at) => (at * 29 + (at >> 7)) & 0xff));
  const packed = Buffer.concat(
    [0, 1, 2, 3, 4].map((nth) =>
      createCipheriv("aes-256-xts", key, vector(70 + nth * 8)).update(plain.subarray(nth * 4096, (nth + 1) * 4096)),
    ),
  );
  const cipher = sectorCipher("aes", "xts-plain64", key, 4096);
  const source = new DecryptedSource(new MemorySource("m", Buffer.concat([packed, Buffer.alloc(512)])), cipher, 70);
  t.is(source.size, plain.length);
  for (const position of [0, 1, 512, 4095, 4096, 9000, plain.length - 1]) {
    const target = Buffer.alloc(5000);
    const got = readFully(source, position, target);
    t.true(target.subarray(0, got).equals(plain.subarray(position, position + 5000)), `at ${position}`);
  }
});

/** The sector's number, encrypted with the hash of all keys. */
function essiv(sector: number, keys: Buffer): Buffer {
  return createCipheriv("aes-256-ecb", createHash("sha256").update(keys).digest(), null).update(vector(sector));
}

for (const [mode, ivOf] of [
  ["lrw-benbi", blockNumber],
  ["lrw-plain", vector],
  ["lrw-plain64", vector],
  ["lrw-essiv:sha256", essiv],
] as const)
  test(`${mode}: a key and another one of 128 bits, and sectors of any size`, (t) => {
    for (const [length, sectorSize, first] of [
      [32, 512, 0],
      [40, 512, 7],
      [48, 4096, 0x7fffff8],
      [48, 512, 0x7fffffe],
      [48, 512, mode === "lrw-plain" ? 3 : 0x1fffffffffd],
    ] as const) {
      const used = key.subarray(0, length);
      const plain = Buffer.from(Array.from({ length: 4 * sectorSize }, (_, at) => (at * at + first) & 0xff));
      const packed = [0, 1, 2, 3].map((nth) =>
        encryptLrw(
          plain.subarray(nth * sectorSize, (nth + 1) * sectorSize),
          used,
          ivOf(first + (nth * sectorSize) / 512, used),
        ),
      );
      const bytes = Buffer.concat(packed);
      sectorCipher("aes", mode, used, sectorSize).decrypt(bytes, first);
      t.true(bytes.equals(plain), `${length * 8} bits, from sector ${first}`);
    }
  });
