import test from "ava";
import fc from "fast-check";
import { ImageError } from "../errors.js";
import { largestLzx, unpackLzx } from "./lzx.js";
import { chunksOf, noWimlib, packedByWimlib, variedData } from "./wim-test-tools.js";

if (noWimlib) console.log(`Skipped: ${noWimlib}.`);
const withWimlib = noWimlib ? test.skip : test;

/** A chunk that holds one stored block: the bits of its header, three distances, the bytes. */
function storedChunk(data: Buffer): Buffer {
  // 3 bits of kind (3), 1 of size (0), 16 of size; 12 bits of padding follow.
  const bits = (3 << 17) | data.length;
  const words = bits << 12;
  const header = Buffer.alloc(16, 0);
  header.writeUInt16LE((words >>> 16) & 0xffff, 0);
  header.writeUInt16LE(words & 0xffff, 2);
  for (const at of [4, 8, 12]) header.writeUInt32LE(1, at);
  return Buffer.concat([header, data, Buffer.alloc(data.length & 1)]);
}

test("a stored block is copied", (t) => {
  const target = Buffer.alloc(11);
  unpackLzx(storedChunk(Buffer.from("eleven byte")), target);
  t.is(target.toString(), "eleven byte");
});

test("a call's absolute target becomes a distance again, but not in the last ten bytes", (t) => {
  const data = Buffer.alloc(40);
  data.set([0xe8, 0x00, 0x10, 0x00, 0x00], 8);
  data.set([0xe8, 0x00, 0x10, 0x00, 0x00], 31);
  const target = Buffer.alloc(40);
  unpackLzx(storedChunk(data), target);
  t.is(target.readInt32LE(9), 0x1000 - 8);
  t.is(target.readInt32LE(32), 0x1000);
});

withWimlib("what wimlib packs is unpacked: verbatim and aligned blocks, x86 calls, all lengths of data", (t) => {
  for (const size of [700_000, 33_000]) {
    const data = variedData(size);
    const packed = packedByWimlib(t, data, "LZX", largestLzx)!;
    let position = 0;
    let compressed = 0;
    for (const { chunk, size } of chunksOf(packed, data.length, largestLzx)) {
      if (chunk.length < size) {
        const target = Buffer.alloc(size);
        unpackLzx(chunk, target);
        t.true(target.equals(data.subarray(position, position + size)), `chunk at ${position}`);
        compressed++;
      }
      position += size;
    }
    t.true(compressed > 0);
  }
});

withWimlib("damaged data gives an ImageError or other bytes and never anything worse", (t) => {
  const data = variedData(100_000);
  const packed = packedByWimlib(t, data, "LZX", largestLzx)!;
  const chunks = chunksOf(packed, data.length, largestLzx).filter(({ chunk, size }) => chunk.length < size);
  fc.assert(
    fc.property(
      fc.constantFrom(...chunks),
      fc.array(fc.record({ at: fc.nat(200), value: fc.nat(255) }), { maxLength: 8 }),
      fc.nat(40_000),
      ({ chunk, size }, changes, length) => {
        const bytes = Buffer.from(chunk.subarray(0, length));
        for (const { at, value } of changes) if (at < bytes.length) bytes[at] = value;
        try {
          unpackLzx(bytes, Buffer.alloc(size));
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
        }
      },
    ),
    { numRuns: 500 },
  );
  const { chunk, size } = chunks[0]!;
  t.throws(() => unpackLzx(chunk.subarray(0, chunk.length >> 1), Buffer.alloc(size)), { instanceOf: ImageError });
  t.throws(() => unpackLzx(Buffer.alloc(0), Buffer.alloc(10)), { instanceOf: ImageError });
});
