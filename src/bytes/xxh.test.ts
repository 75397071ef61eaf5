import { execFileSync } from "node:child_process";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import koffi from "koffi";
import { shortestXxh128, Xxh128 } from "./xxh128.js";
import { newXxh32, Xxh64 } from "./xxhash.js";

/** The bytes that xxHash's own checks are of (tests/sanity_test.c). */
const sanity = (() => {
  const bytes = Buffer.alloc(2367);
  let next = 2654435761n;
  for (let at = 0; at < bytes.length; at++) {
    bytes[at] = Number(next >> 56n);
    next = BigInt.asUintN(64, next * 11400714785074694797n);
  }
  return bytes;
})();

const inWords = (bytes: Buffer) =>
  Array.from({ length: bytes.length / 8 }, (_, word) => bytes.readBigUInt64LE(word * 8));

test("the sums are those of xxHash's own checks", (t) => {
  for (const [length, sum] of [
    [0, 0xef46db3751d8e999n],
    [1, 0xe934a84adb052768n],
    [4, 0x9136a0dca57457een],
    [14, 0x8282dcc4994e35c8n],
    [222, 0xb641ae8cb691c174n],
  ] as const)
    t.deepEqual(inWords(new Xxh64().update(sanity.subarray(0, length)).digest()), [sum], `${length} bytes`);
  for (const [length, sum] of [
    [0, 0x02cc5d05],
    [1, 0xcf65b03e],
    [14, 0x1208e7e2],
    [222, 0x5bd11dbd],
  ] as const)
    t.is(newXxh32().update(sanity.subarray(0, length)).digest(), sum, `${length} bytes`);
  for (const [length, low, high] of [
    [403, 0xcdeb804d65c6dea4n, 0x1b6de21e332dd73dn],
    [512, 0x617e49599013cb6bn, 0x18d2d110dcc9bca1n],
    [2048, 0xdd59e2c3a5f038e0n, 0xf736557fd47073a5n],
    [2240, 0x6e73a90539cf2948n, 0xccb134fbfa7ce49dn],
    [2367, 0xcb37aeb9e5d361edn, 0xe89c0f6ff369b427n],
  ] as const)
    t.deepEqual(inWords(new Xxh128().update(sanity.subarray(0, length)).digest()), [low, high], `${length} bytes`);
});

interface LibXxhash {
  xxh32(bytes: Buffer, length: number, seed: number): number;
  xxh64(bytes: Buffer, length: number, seed: number): number | bigint;
  xxh128(bytes: Buffer, length: number): { low: number | bigint; high: number | bigint };
}

/** xxHash itself, where the machine has it. */
function libxxhash(t: ExecutionContext): LibXxhash | undefined {
  try {
    const library = koffi.load("libxxhash.so.0");
    koffi.struct("XxhTestSum", { low: "uint64_t", high: "uint64_t" });
    return {
      xxh32: library.func("uint32_t XXH32(const void *bytes, size_t length, uint32_t seed)"),
      xxh64: library.func("uint64_t XXH64(const void *bytes, size_t length, uint64_t seed)"),
      xxh128: library.func("XxhTestSum XXH3_128bits(const void *bytes, size_t length)"),
    };
  } catch (error) {
    t.pass(t.log(`skipped: libxxhash0 is not installed (${(error as Error).message})`) as undefined);
    return undefined;
  }
}

test("a sum of any bytes, added in any pieces and looked at in between, is xxHash's", (t) => {
  const library = libxxhash(t);
  if (!library) return;
  const sums = fc.property(fc.uint8Array({ maxLength: 5000 }), fc.array(fc.nat(5000)), (content, cuts) => {
    const bytes = Buffer.from(content);
    const [short, narrow, wide] = [newXxh32(), new Xxh64(), new Xxh128()];
    let at = 0;
    for (const end of [...cuts.filter((cut) => cut < bytes.length), bytes.length].sort((a, b) => a - b)) {
      const part = bytes.subarray(at, end);
      short.update(part);
      narrow.update(part);
      wide.update(part);
      at = end;
      t.is(short.digest(), library.xxh32(bytes, at, 0));
      t.is(narrow.digest().readBigUInt64LE(), BigInt(library.xxh64(bytes, at, 0)));
      if (at < shortestXxh128) continue;
      const { low, high } = library.xxh128(bytes, at);
      t.deepEqual(inWords(wide.digest()), [BigInt(low), BigInt(high)]);
    }
  });
  fc.assert(sums, { numRuns: 60 });
  for (const length of [shortestXxh128, 1024, 1025, 1088, 1089, 65536, 65537, 131_073, 1 << 20]) {
    const bytes = Buffer.alloc(length, sanity);
    const { low, high } = library.xxh128(bytes, length);
    t.deepEqual(inWords(new Xxh128().update(bytes).digest()), [BigInt(low), BigInt(high)], `${length} bytes`);
  }
});

test("the end of a zstd frame is the low half of the sum of its content", (t) => {
  const bytes = Buffer.alloc(1_000_003, sanity);
  try {
    const frame = execFileSync("zstd", ["-q", "-c"], { input: bytes, maxBuffer: 1 << 22 });
    t.deepEqual(new Xxh64().update(bytes).digest().subarray(0, 4), frame.subarray(-4));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    t.pass(t.log("skipped: zstd is not installed") as undefined);
  }
});
