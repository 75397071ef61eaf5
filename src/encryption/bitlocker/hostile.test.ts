/** BitLocker's metadata with any byte changed, and with lies that have the right checksum. */

import { crc32 } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import { At, bitmapAt, given, makeVolume, renewChecksum, size, startupFile } from "./bitlocker-test-tools.js";
import { bitlocker } from "./index.js";
import { startupKeyOf } from "./secret.js";

/** Opens and reads it where anything may change: undefined where it is refused in words. */
function plainOf(image: Buffer): Buffer | undefined {
  try {
    const { source, facts } = bitlocker.open(new MemorySource("hostile", image), given("a password"));
    JSON.stringify(facts);
    return piecesOf(source);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return undefined;
  }
}

/** The first 16 KiB, and both sides of each edge that there may be. */
function piecesOf(source: ByteSource): Buffer {
  const pieces = [Buffer.alloc(0x4000)];
  readFully(source, 0, pieces[0]!);
  for (let at = 0x4000; at <= source.size; at += 0x4000) {
    const piece = Buffer.alloc(1024);
    pieces.push(piece.subarray(0, readFully(source, at - 512, piece)));
  }
  return Buffer.concat(pieces);
}

const isRefused = (image: Buffer) => plainOf(image) === undefined;

/** Changes each byte of `ranges` in turn by each of `masks`; in all copies at once, so that none is left to help. */
function changeEach(
  t: ExecutionContext,
  { image, plain }: { image: Buffer; plain: Buffer },
  length: number,
  copies: readonly number[],
  masks: readonly number[],
  after: (image: Buffer, at: number) => void = () => {},
): { refused: number; same: number } {
  const count = { refused: 0, same: 0 };
  const right = piecesOf(new MemorySource("plain", plain));
  const before = copies.map((at) => Buffer.from(image.subarray(at, at + length + 0x1000)));
  for (let byte = 0; byte < length; byte++)
    for (const mask of masks) {
      for (const at of copies) {
        image[at + byte]! ^= mask;
        after(image, at);
      }
      const read = plainOf(image);
      if (!read) count.refused++;
      else if (read.equals(right)) count.same++;
      else t.fail(`byte ${byte} changed by ${mask} gives other bytes`);
      for (const [nth, at] of copies.entries()) before[nth]!.copy(image, at);
    }
  return count;
}

const metadataLength = (image: Buffer) => image.readUInt16LE(At.metadata[0] + 8) * 16;

test("any byte of the metadata changed in all copies is refused by the checksum, and with a right one by what was sealed", (t) => {
  const made = makeVolume();
  const length = metadataLength(made.image);
  // Behind it are the checksum's header and what is sealed; in their heads 8 bytes tell nothing that is needed.
  const sum = changeEach(t, made, length + 88, At.metadata, [0xff]);
  t.true(sum.same <= 8, `${sum.same} gave the same bytes`);
  const renewed = changeEach(t, made, length, At.metadata, [1], renewChecksum);
  t.is(renewed.same, 0);
});

test("any byte of the metadata of Windows Vista changed is refused", (t) => {
  const made = makeVolume({ version: 1, method: 0x8000 });
  const length = made.image.readUInt16LE(At.metadata[0] + 8);
  t.is(changeEach(t, made, length, At.metadata, [0xff]).same, 0);
  t.is(changeEach(t, made, length, At.metadata, [1], renewChecksum).same, 0);
});

test("any byte of the first copy changed is told, and the next one read", (t) => {
  const made = makeVolume();
  const length = metadataLength(made.image);
  t.is(changeEach(t, made, length, [At.metadata[0]], [0x10]).refused, 0);
  // With the right checksum a change may look like a wrong key, which no other copy mends.
  t.true(changeEach(t, made, length, [At.metadata[0]], [0x10], renewChecksum).same > length / 2);
  made.image[At.metadata[0] + 200]! ^= 1;
  const { facts } = bitlocker.open(new MemorySource("v", made.image), given());
  t.is(facts.metadataAt, At.metadata[1]);
  t.deepEqual(facts.damagedMetadata, ["v: BitLocker's metadata at byte 131072: their checksum is wrong."]);
});

test("any byte of the first sector changed is refused, or gives the same bytes", (t) => {
  for (const options of [{}, { toGo: true }]) {
    const counts = changeEach(t, makeVolume(options), 512, [0], [0x12]);
    t.true(counts.same > 300 && counts.refused > 10, JSON.stringify(counts));
  }
});

const chunks = [Array<boolean>(8).fill(true), [true], [true, true, false, false, true, true, true, true]];

test("any byte of the tables of what is encrypted changed is refused, or gives the same bytes", (t) => {
  const made = makeVolume({ chunks });
  t.is(changeEach(t, made, 56 + 8 * chunks.length, At.conversion, [1, 0xff]).same, 0);
  // The bitmap and its two records: were the later one left out, the older would tell what was before.
  t.is(changeEach(t, made, 1536, [bitmapAt(2)], [1]).same, 0);
});

const u16 = (value: number) => (bytes: Buffer, at: number) => bytes.writeUInt16LE(value, at);
const u32 = (value: number) => (bytes: Buffer, at: number) => bytes.writeUInt32LE(value, at);
const u64 = (value: number) => (bytes: Buffer, at: number) => bytes.writeBigUInt64LE(BigInt(value), at);

test("sizes and places that can't be are refused at once, with the right checksum", (t) => {
  const lies: [number, (bytes: Buffer, at: number) => void, RegExp][] = [
    [8, u16(0), /tell of 0 bytes/],
    [8, u16(6), /tell of 96 bytes/],
    [8, u16(0xffff), /tell of 1048560 bytes/],
    [10, u16(3), /of version 3, not 1 or 2/],
    [32, u64(0x30000), /should be at the bytes 196608/],
    [64, u32(0), /entries take 0 bytes/],
    [64, u32(0xffffffff), /entries take 4294967295 bytes/],
    [72, u32(0), /entries take/],
    [112, u16(1), /an entry tells of 1 bytes/],
    [112, u16(0xffff), /an entry tells of 65535 bytes/],
    [112, u16(0), /with its protectors, of which there are none|only with its/],
    [16, u64(2 ** 60), /SHA-256/],
  ];
  for (const [field, write, words] of lies) {
    const { image } = makeVolume();
    for (const at of At.metadata) {
      write(image, at + field);
      renewChecksum(image, at);
    }
    const error = t.throws(() => bitlocker.open(new MemorySource("v", image), given()), { instanceOf: ImageError });
    t.regex(error?.message ?? "", words, `at ${field}`);
  }
});

test("lies that were sealed are refused, too", (t) => {
  for (const encrypted of [2 ** 52, size + 512, 1000])
    t.true(isRefused(makeVolume({ encrypted }).image), `${encrypted}`);
});

test("lies in the tables of what is encrypted are refused at once, with the right checksum", (t) => {
  const lies: [number, number, (bytes: Buffer, at: number) => void][] = [
    ...[0, 1, 511, 513, 0xffffffff].map((value): (typeof lies)[number] => [0, 20, u32(value)]),
    ...[0, 1, 2, 4, 0xffffffff].map((value): (typeof lies)[number] => [0, 32, u32(value)]),
    ...[0, 55, 0xffff].map((value): (typeof lies)[number] => [0, 8, u16(value)]),
    ...[0, 56, 79, 0xffff].map((value): (typeof lies)[number] => [0, 10, u16(value)]),
    ...[0, 2 ** 60, size - 1].map((value): (typeof lies)[number] => [0, 56, u64(value)]),
    ...[0, 59, 512, 0xffffffff].map((value): (typeof lies)[number] => [1, 12, u32(value)]),
    ...[0, 0x4000, 2 ** 60].map((value): (typeof lies)[number] => [1, 20, u64(value)]),
    ...[0, 512, 2 ** 60].map((value): (typeof lies)[number] => [1, 28, u64(value)]),
    ...[0, 59, 1535, 0xffffffff].map((value): (typeof lies)[number] => [1, 44, u32(value)]),
  ];
  for (const [table, field, write] of lies) {
    const { image } = makeVolume({ chunks });
    for (const at of table === 0 ? At.conversion : [bitmapAt(0)]) {
      write(image, at + field);
      const [sum, length] =
        table === 0 ? [at + 36, image.readUInt16LE(at + 10)] : [at + 56, image.readUInt32LE(at + 44)];
      image.writeUInt32LE(0, sum);
      if (length > 60 && length < 0x1000) image.writeUInt32LE(crc32(image.subarray(at, at + length)), sum);
    }
    t.true(isRefused(image), `table ${table}, byte ${field}`);
  }
});

test("a volume that is cut off anywhere is refused", (t) => {
  const { image } = makeVolume();
  for (const length of [
    512,
    513,
    At.metadata[0],
    At.metadata[0] + 100,
    At.metadata[0] + 600,
    At.moved,
    size - 512,
    size - 1,
  ])
    t.true(isRefused(image.subarray(0, length)), `${length} bytes`);
});

test("a startup key file of any bytes is refused in words, or is none", (t) => {
  const file = startupFile();
  const damaged = (what: string) => new ImageError("locked", what);
  for (let at = 0; at < file.length; at++)
    for (const value of [0, 1, 0x7f, 0xff]) {
      const bytes = Buffer.from(file);
      bytes[at] = value;
      try {
        startupKeyOf(bytes, damaged);
        startupKeyOf(bytes.subarray(0, at), damaged);
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
      }
    }
  t.is(startupKeyOf(file, damaged)?.key.length, 32);
});
