import test from "ava";
import { zstdMissing, zstdUnpacks } from "./spin-test-tools.js";
import { zeroFrame } from "./zero-frame.js";

const block = 128 * 1024;
for (const length of [1, 2, 4095, block - 1, block, block + 1, 2 * block, 16 * 1024 * 1024, 64 * 1024 * 1024 - 1])
  test(`the zstd command unpacks a zero frame to ${length} zeros`, (t) => {
    if (zstdMissing) return void t.pass(t.log(`skipped: ${zstdMissing}`) as undefined);
    const frame = zeroFrame(length);
    t.is(frame.length, 14 + 4 * Math.ceil(length / block));
    t.is(zstdUnpacks(frame).compare(Buffer.alloc(length)), 0);
  });

test("a zero frame tells a length beyond 4 GiB", (t) => {
  const frame = zeroFrame(5 * 2 ** 30);
  t.is(frame.readBigUInt64LE(6), 5n * 2n ** 30n);
});
