import { deflateSync } from "node:zlib";
import test from "ava";
import fc from "fast-check";
import { adler32 } from "./adler32.js";

/** The sum that zlib puts behind what it packs (RFC 1950, section 2.2). */
const byZlib = (bytes: Uint8Array) => deflateSync(bytes).subarray(-4).readUInt32BE();

test("the sum of nothing, of a few letters, and of the largest bytes is zlib's", (t) => {
  t.is(adler32(new Uint8Array(0)), 1);
  t.is(adler32(Buffer.from("Wikipedia")), 0x11e60398);
  for (const length of [1, 7, 8, 9, 3847, 3848, 3849, 3856, 7696, 65521, 1_000_003]) {
    const bytes = Buffer.alloc(length, 0xff);
    t.is(adler32(bytes), byZlib(bytes), `${length} bytes`);
  }
});

test("a sum in pieces of any length is zlib's sum of the whole", (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 9000 }), fc.nat(9000), (bytes, cut) => {
      const at = Math.min(cut, bytes.length);
      return adler32(bytes.subarray(at), adler32(bytes.subarray(0, at))) === byZlib(bytes);
    }),
  );
  t.pass();
});
