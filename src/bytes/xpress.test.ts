import test from "ava";
import fc from "fast-check";
import { ImageError } from "../errors.js";
import { chunksOf, noWimlib, packedByWimlib, variedData } from "./wim-test-tools.js";
import { unpackXpress } from "./xpress.js";

if (noWimlib) console.log(`Skipped: ${noWimlib}.`);
const withWimlib = noWimlib ? test.skip : test;

/** The examples of MS-XCA 3.2: code lengths as runs, then the bits. */
function example(lengths: Record<number, number>, bits: string): Buffer {
  const head = Buffer.alloc(256);
  for (const [at, value] of Object.entries(lengths)) head[Number(at)] = value;
  return Buffer.concat([head, Buffer.from(bits.replaceAll(" ", ""), "hex")]);
}
const fives = Object.fromEntries(Array.from({ length: 10 }, (_, index) => [49 + index, 0x55]));
const alphabet = example(
  { 48: 0x50, ...fives, 59: 0x45, 60: 0x44, 61: 0x04, 128: 0x04 },
  "d8 52 3e d7 94 11 5b e9 19 5f f9 d6 7c df 8d 04 00 00 00 00",
);
const abc = example({ 48: 0x30, 49: 0x23, 128: 0x02, 143: 0x20 }, "a8 dc 00 00 ff 26 01");

test("the alphabet of MS-XCA's first example is unpacked", (t) => {
  const target = Buffer.alloc(26);
  unpackXpress(alphabet, target);
  t.is(target.toString(), "abcdefghijklmnopqrstuvwxyz");
});

test("a match of 297 bytes, MS-XCA's second example, is unpacked", (t) => {
  const target = Buffer.alloc(300);
  unpackXpress(abc, target);
  t.is(target.toString(), "abc".repeat(100));
});

for (const chunkSize of [4096, 8192, 16384])
  withWimlib(`what wimlib packs in chunks of ${chunkSize} bytes is unpacked`, (t) => {
    const data = variedData(700_000);
    const packed = packedByWimlib(t, data, "XPRESS", chunkSize)!;
    let position = 0;
    let compressed = 0;
    for (const { chunk, size } of chunksOf(packed, data.length, chunkSize)) {
      if (chunk.length < size) {
        const target = Buffer.alloc(size);
        unpackXpress(chunk, target);
        t.true(target.equals(data.subarray(position, position + size)), `chunk at ${position}`);
        compressed++;
      }
      position += size;
    }
    t.true(compressed > 20);
  });

test("data that ends early, or is damaged anywhere, gives an ImageError or other bytes and never anything worse", (t) => {
  fc.assert(
    fc.property(
      fc.constantFrom(alphabet, abc),
      fc.array(fc.record({ at: fc.nat(280), value: fc.nat(255) }), { maxLength: 8 }),
      fc.nat(280),
      (packed, changes, length) => {
        const bytes = Buffer.from(packed.subarray(0, length));
        for (const { at, value } of changes) if (at < bytes.length) bytes[at] = value;
        try {
          unpackXpress(bytes, Buffer.alloc(4096));
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
        }
      },
    ),
    { numRuns: 2000 },
  );
  t.throws(() => unpackXpress(alphabet.subarray(0, 200), Buffer.alloc(26)), { instanceOf: ImageError });
  t.throws(() => unpackXpress(alphabet, Buffer.alloc(4096)), { instanceOf: ImageError });
});
