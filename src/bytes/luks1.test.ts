/** LUKS 1 containers that cryptsetup and others made, and the modes of encryption against OpenSSL's own. */
import { createCipheriv, createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import test from "ava";
import { sharedRows, unpackShared } from "../images/shared-test-images.js";
import { readFully, Slice } from "./byte-source.js";
import { DecryptedSource } from "./decrypted.js";
import { FileSource } from "./file.js";
import { Luks1Header } from "./luks1.js";
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
] as const)
  test(`sectors that OpenSSL encrypted one by one are decrypted together: ${cipher}, ${mode}`, (t) => {
    const used = key.subarray(0, length);
    for (const first of [0, 7, 0xfffffffe]) {
      if (mode === "cbc-plain" && first > 7) continue;
      const plain = Buffer.from(Array.from({ length: 5 * cipherSector }, (_, at) => (at * at + first) & 0xff));
      const packed = [0, 1, 2, 3, 4].map((nth) => {
        const one = createCipheriv(cipher, used, vector(first + nth));
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
  t.throws(() => sectorCipher("twofish", "xts-plain64", key), { message: /twofish/ });
  t.throws(() => sectorCipher("aes", "lrw-benbi", key.subarray(0, 32)), { message: /the mode lrw-benbi/ });
  t.throws(() => sectorCipher("aes", "cbc-benbi", key.subarray(0, 32)), { message: /the mode cbc-benbi/ });
  t.throws(() => sectorCipher("aes", "cbc-essiv:sha1", key.subarray(0, 32)), { message: /sha1 makes no key/ });
  t.throws(() => sectorCipher("aes", "xts-plain64", key.subarray(0, 40)), { message: /key of 160 bits/ });
});

const rows = sharedRows().filter(({ container, raw_sha256 }) => container!.startsWith("luks1") && raw_sha256 !== "");
if (rows.length === 0)
  test("the shared LUKS 1 containers", (t) => t.pass(t.log("skipped: there are no shared images") as undefined));
for (const row of rows)
  test(`${row.file} is the disk that cryptsetup's key gives, or refused by name`, (t) => {
    const path = unpackShared(t, row, row.secret!.includes("keyfile1") ? ["luks1_keyfile1"] : []);
    const keyFile = join(dirname(path), "luks1_keyfile1");
    const words = /(?:passphrase|password): (\S+)/.exec(row.secret!)?.[1];
    const file = FileSource.open(path);
    t.teardown(() => file.close());
    if (row.file!.includes("whirlpool")) {
      // OpenSSL 3 keeps that hash among its legacy algorithms, which Node leaves out.
      t.throws(() => new Luks1Header(file, basename(path)), { message: /makes its keys with the hash whirlpool/ });
      return;
    }
    const header = new Luks1Header(file, basename(path));
    const password = words === undefined && existsSync(keyFile) ? readFileSync(keyFile) : Buffer.from(words ?? "");
    const cipher = header.cipherOf(header.open(password));
    const disk = new DecryptedSource(new Slice("disk", file, header.payload, file.size - header.payload), cipher);
    t.is(disk.size, Number(row.raw_size));
    const bytes = Buffer.alloc(disk.size);
    readFully(disk, 0, bytes);
    t.is(createHash("sha256").update(bytes).digest("hex"), row.raw_sha256);
  });
