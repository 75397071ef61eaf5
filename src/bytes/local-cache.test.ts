import test from "ava";
import fc from "fast-check";
import { corrupt } from "../errors.js";
import { readFully } from "./byte-source.js";
import { type Access, accesses, byteAt, PatternChunks, pattern } from "./cache-test-data.js";
import { LocalChunkCache } from "./local-cache.js";

test("any read gives the right bytes, however small the cache", (t) => {
  fc.assert(
    fc.property(accesses, fc.integer({ min: 0, max: 5 * 64 }), (reads: Access[], bytes) => {
      const cache = new LocalChunkCache(bytes);
      const packed = [new PatternChunks("a", 1, 64 * 9 + 17, 64), new PatternChunks("b", 2, 32 * 7 + 1, 32)];
      const sources = packed.map((chunks) => cache.source(chunks));
      for (const { source, position, length } of reads) {
        const target = new Uint8Array(length);
        const count = readFully(sources[source]!, position, target);
        const expected = pattern(packed[source]!, position, length);
        t.is(count, expected.length);
        t.deepEqual(target.subarray(0, count), expected);
      }
    }),
  );
  t.pass();
});

test("a chunk that is kept is not unpacked again, and the least recently used one goes first", (t) => {
  const cache = new LocalChunkCache(3 * 64);
  const packed = new PatternChunks("a", 1, 64 * 10, 64);
  const source = cache.source(packed);
  const byte = new Uint8Array(1);
  for (const chunk of [0, 1, 2, 0, 3, 0, 2, 1]) source.read(chunk * 64 + 5, byte);
  t.deepEqual(packed.unpacked, [0, 1, 2, 3, 1]);
});

test("two sources with the same chunk numbers are told apart", (t) => {
  const cache = new LocalChunkCache(1 << 20);
  const packed = [new PatternChunks("a", 1, 200, 64), new PatternChunks("b", 2, 200, 64)];
  const sources = packed.map((chunks) => cache.source(chunks));
  for (let round = 0; round < 2; round++)
    for (const which of [0, 1]) {
      const target = new Uint8Array(10);
      sources[which]!.read(60, target);
      t.deepEqual(target, pattern(packed[which]!, 60, 10));
    }
  t.deepEqual(packed[0]!.unpacked, [0, 1]);
  t.deepEqual(packed[1]!.unpacked, [0, 1]);
});

test("a chunk larger than the whole cache is read, and unpacked once for neighbouring reads", (t) => {
  const cache = new LocalChunkCache(100);
  const packed = new PatternChunks("a", 1, 3000, 1024);
  const source = cache.source(packed);
  const target = new Uint8Array(16);
  for (let position = 1000; position < 1100; position += 16) {
    t.is(source.read(position, target), 16);
    t.deepEqual(target, pattern(packed, position, 16));
  }
  t.deepEqual(packed.unpacked, [0, 1]);
});

test("a whole chunk is unpacked straight into the target and pushes nothing out", (t) => {
  const cache = new LocalChunkCache(64);
  const packed = new PatternChunks("a", 1, 64 * 10, 64);
  const source = cache.source(packed);
  source.read(5, new Uint8Array(1));
  const target = new Uint8Array(64 * 4);
  t.is(source.read(64 * 2, target), 64 * 4);
  t.deepEqual(target, pattern(packed, 64 * 2, 64 * 4));
  source.read(6, new Uint8Array(1));
  t.deepEqual(packed.unpacked, [0, 2, 3, 4, 5]);
});

test("a damaged chunk fails at every read of it, and at no read of another", (t) => {
  const cache = new LocalChunkCache(1 << 20);
  const packed = new PatternChunks("a", 1, 64 * 4, 64);
  packed.before = (chunk) => {
    if (chunk === 2) throw corrupt("a: chunk 2 is damaged");
  };
  const source = cache.source(packed);
  for (let round = 0; round < 2; round++) {
    t.throws(() => source.read(2 * 64 + 1, new Uint8Array(1)), { message: "a: chunk 2 is damaged" });
    t.throws(() => source.read(2 * 64, new Uint8Array(64)), { message: "a: chunk 2 is damaged" });
    const target = new Uint8Array(1);
    t.is(source.read(3 * 64, target), 1);
    t.is(target[0], byteAt(1, 3 * 64));
  }
});

test("a chunk may be unpacked from another source of the same cache", (t) => {
  for (const bytes of [0, 64, 1 << 20]) {
    const cache = new LocalChunkCache(bytes);
    const inner = new PatternChunks("inner", 1, 64 * 8, 64);
    const innerSource = cache.source(inner);
    const outer = cache.source({
      name: "outer",
      size: 48 * 8,
      chunkSize: 48,
      unpack: (chunk, target) => void readFully(innerSource, chunk * 48, target),
    });
    for (const position of [0, 100, 40, 300, 101, 41]) {
      const target = new Uint8Array(30);
      t.is(outer.read(position, target), 30);
      t.deepEqual(target, pattern(inner, position, 30));
    }
  }
});
