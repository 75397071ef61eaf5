import test from "ava";
import fc from "fast-check";
import { crc32c, updateCrc32c } from "./crc32c.js";

test("the examples of RFC 3720, appendix B.4", (t) => {
  t.is(crc32c(new Uint8Array(32)), 0x8a9136aa);
  t.is(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  t.is(crc32c(Uint8Array.from({ length: 32 }, (_, index) => index)), 0x46dd794e);
  t.is(crc32c(Uint8Array.from({ length: 32 }, (_, index) => 31 - index)), 0x113fdb5c);
});

test("the check value of the catalogue of CRC algorithms, and nothing of nothing", (t) => {
  t.is(crc32c(Buffer.from("123456789")), 0xe3069283);
  t.is(crc32c(new Uint8Array(0)), 0);
});

test("a sum in pieces of any length is the sum of the whole", (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(100), (bytes, cut) => {
      const at = Math.min(cut, bytes.length);
      const first = updateCrc32c(0xffffffff, bytes, 0, at);
      return updateCrc32c(first, bytes, at) === updateCrc32c(0xffffffff, bytes);
    }),
  );
  t.pass();
});
