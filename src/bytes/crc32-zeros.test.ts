import { crc32 } from "node:zlib";
import test from "ava";
import { crc32OfZeros } from "./crc32-zeros.js";

test("zeros behind any bytes give what zlib gives of them, and a petabyte takes no time", (t) => {
  for (const before of ["", "a", "some bytes"])
    for (const length of [0, 1, 2, 3, 511, 512, 65537, 1_000_003]) {
      const start = crc32(before);
      t.is(crc32OfZeros(start, length), crc32(Buffer.alloc(length), start), `${length} zeros behind "${before}"`);
    }
  const half = crc32OfZeros(crc32("x"), 2 ** 49);
  t.is(crc32OfZeros(half, 2 ** 49), crc32OfZeros(crc32("x"), 2 ** 50));
});
