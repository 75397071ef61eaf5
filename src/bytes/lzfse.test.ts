import test from "ava";
import fc from "fast-check";
import { ImageError } from "../errors.js";
import { unpackAdc } from "./adc.js";
import { unpackLzfse } from "./lzfse.js";
import { packLzfse, packLzvn } from "./lzfse-test-tools.js";
import { unpackLzvn } from "./lzvn.js";

/** Numbers in words, as the packed texts below have them. */
function text(size: number): Buffer {
  const words = Array.from({ length: size / 4 }, (_, index) => `${(index * 7919) % 99} `.repeat(1 + (index % 3)));
  return Buffer.from(words.join("")).subarray(0, size);
}

/** What Apple's lzfse command (version 1.0) makes of text(50000) and text(600). */
const fromApple = {
  bvx2: [
    50000,
    "YnZ4MlDDAAC4AAAFAFUAAPWEQ/zkVgAAkwAAACYYoA+Hx+E8BAAAQCD35BgAAA6fm7YAAAAAAAAFAAAAAAAAAAAuAQAAAAAAAIBnBgAAAHgQ3obf4W14G36Ht+GP+B1+BQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAD8GYWlk7HpAeCYPXe6ingCRekWkKkdKe+P8ojnl02rOYrdzVpkjkgojfIykWuhfUIdtfg6YUU2Ym+rFUAz8Er8vEjkaHi/UEcuueGAVAEAAAAAAAAAAAAAIh7+z//n/8//5//z//n//H/+P/+f/8//5//z//n//H/+P/+f/89Q/f856K0f3ekms1K8PJfnmsHpJrNSvDyX59rA6SazUrw8l2d0AWJ2eCQ=",
  ],
  bvxn: [
    600,
    "YnZ4blgCAAAYAQAA5DAgOTgQA2435DYgOTX1bjTkMyA5MvVuMeQwIDg59W445DcgODb1bjXkNCA4M/VuMuQxIDgw9J43OfLkOCA3N/VuNuQ1IDc09W4z5DIgNzH1ZjDlNjkgNjj1bjfkNiA2NfVuNOQzIDYy9W4x5DAgNTn1bjjkNyA1NvVuNeQ0IDUz9W4y5DEgNTD0njQ58uQ4IDQ39W425DUgNDT1bjPkMiA0MfVmMOUzOSAzOPVuN+Q2IDM19W405DMgMzL1bjHkMCAyOfVuOOQ3IDI29W415DQgMjP1bjLkMSAyMPSeMTny5DggMTf1bjbkNSAxNPVuM+QyIDEx9WYwAd8AAlY3ASUAAlY0AGsAAlYxOj/+4TUGAAAAAAAAAGJ2eCQ=",
  ],
} as const;

for (const [kind, [size, packed]] of Object.entries(fromApple))
  test(`lzfse: what Apple's command packed as ${kind} comes back, and nothing is given beyond the room there is`, (t) => {
    const bytes = Buffer.from(packed, "base64");
    t.is(bytes.toString("latin1", 0, 4), kind);
    const target = Buffer.from(new SharedArrayBuffer(size + 9));
    t.is(unpackLzfse(Buffer.concat([bytes, Buffer.from("what follows")]), target), size);
    t.deepEqual(target.subarray(0, size), text(size));
    t.throws(() => unpackLzfse(bytes, target.subarray(0, size - 1)), { instanceOf: ImageError, message: /more than/ });
    for (let cut = 1; cut < bytes.length; cut += 7)
      t.throws(() => unpackLzfse(bytes.subarray(0, -cut), target), { instanceOf: ImageError });
  });

/** Literals of a few or many kinds, and repetitions from near and far. */
function mixture(seed: number, size: number, kinds: number): Buffer {
  let state = seed;
  const next = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; ) {
    if (at < 10 || next(4) > 0) {
      bytes[at++] = next(kinds);
      continue;
    }
    const distance = 1 + next(next(2) === 0 ? Math.min(at, 40) : at);
    for (let length = 1 + next(next(20) === 0 ? 3000 : 30); length > 0 && at < size; length--, at++)
      bytes[at] = bytes[at - distance]!;
  }
  return bytes;
}

test("lzfse: blocks of all kinds in turn, with matches into earlier blocks, come back", (t) => {
  for (const [seed, kinds] of [1, 3, 40, 256].entries()) {
    const input = mixture(seed, 150_000, kinds);
    const packed = packLzfse(input, ["bvx2", "bvxn", "bvx1", "bvx-"]);
    t.true(packed.length < input.length);
    const target = Buffer.alloc(input.length);
    t.is(unpackLzfse(packed, target), input.length);
    t.true(target.equals(input));
  }
});

test("lzvn: alone, it comes back, and its end is found", (t) => {
  const input = mixture(7, 60_000, 30);
  const packed = packLzvn(input);
  const target = Buffer.alloc(70_000);
  t.deepEqual(unpackLzvn(Buffer.concat([packed, Buffer.alloc(5)]), target), {
    at: packed.length,
    filled: input.length,
  });
  t.true(target.subarray(0, input.length).equals(input));
  for (const wrong of [[0x70], [0xd3], [0x1e], [0xe5, 1, 2], [0xf3, 6], [0, 9, 6], [0x41, 0], [6, 0, 0], []])
    t.throws(() => unpackLzvn(Buffer.from(wrong), target), { instanceOf: ImageError }, `${wrong}`);
});

test("lzfse: a header that tells what can't be is refused with the block's byte", (t) => {
  const target = Buffer.alloc(5000);
  const packed = packLzfse(mixture(3, 4000, 9), ["bvx1"]);
  const refused = (at: number, value: number, words: RegExp) => {
    const bytes = Buffer.from(packed);
    bytes.writeUInt32LE(value, at);
    t.throws(() => unpackLzfse(bytes, target), { instanceOf: ImageError, message: words });
  };
  refused(0, 0x33787662, /unknown block at byte 0/);
  refused(4, 4001, /fewer bytes than it tells/);
  refused(4, 3999, /more bytes than the block tells/);
  refused(4, 0xffffffff, /more than 5000/);
  refused(12, 0xfffffffc, /impossible header/);
  refused(12, packed.readUInt32LE(12) - 4, /more literals than there are/);
  refused(16, 10_001, /impossible header/);
  refused(20, 0xffffffff, /ends in the middle/);
  refused(20, 1, /end in the middle|where there should be none|beyond the block's end/);
  refused(28, 1, /impossible header/);
  refused(32, 0xffff, /impossible header/);
  refused(50, 0, /don't give all states/);
  const [size, apple] = fromApple.bvx2;
  const longer = Buffer.from(apple, "base64");
  longer.writeUInt32LE(0xffffffff, 24);
  t.throws(() => unpackLzfse(longer, Buffer.alloc(size)), { instanceOf: ImageError, message: /ends in the middle/ });
});

/** Each kind of instruction, put together by hand. */
test("adc: each kind of instruction does what its bits say", (t) => {
  const unpack = (...codes: (number | string)[]) => {
    const bytes = Buffer.concat(codes.map((code) => (typeof code === "string" ? Buffer.from(code) : Buffer.of(code))));
    const target = Buffer.alloc(2000);
    return target.subarray(0, unpackAdc(bytes, target)).toString();
  };
  t.is(unpack(0x83, "abcd"), "abcd");
  t.is(unpack(0x83, "abcd", 0b00000100, 1), "abcdcdcd");
  t.is(unpack(0x83, "abcd", 0b00111100, 0), `abcd${"d".repeat(18)}`);
  t.is(unpack(0x83, "abcd", 0b01111111, 0, 3), "abcd".repeat(18).slice(0, 71));
  const long = Array.from({ length: 10 }, (_, index) => String(index).repeat(128));
  const literals = long.flatMap((part) => [0xff, part]);
  t.is(unpack(...literals, 0b00000011, 0xff), `${long.join("")}222`);
  t.is(unpack(...literals, 0b01000000, 4, 0xff), `${long.join("")}0000`);
  for (const wrong of [[0x83, "abc"], [0x00], [0x40, 0], [0x80, "a", 0, 1], [0x80, "a", 0x40, 0, 1]])
    t.throws(() => unpack(...wrong), { instanceOf: ImageError }, `${wrong}`);
  t.is(unpack(), "");
});

test("whatever is given, only ImageErrors come out, and nothing is written beyond the target", (t) => {
  const sample = mixture(5, 700, 20);
  const seeds: Record<string, [(packed: Uint8Array, target: Uint8Array) => unknown, Buffer[]]> = {
    adc: [unpackAdc, [Buffer.from([0x85, ...Buffer.from("abcdef"), 0x0c, 1, 0x52, 0, 2])]],
    lzvn: [unpackLzvn, [packLzvn(sample)]],
    lzfse: [
      unpackLzfse,
      [
        packLzfse(sample, ["bvx2"]),
        packLzfse(sample, ["bvx1"]),
        packLzfse(sample, ["bvxn", "bvx-"], 200),
        Buffer.from(fromApple.bvx2[1], "base64"),
      ],
    ],
  };
  for (const [unpack, samples] of Object.values(seeds))
    for (const whole of samples) {
      const flips = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 5 });
      const damaged = fc.tuple(flips, fc.nat(whole.length)).map(([changes, length]) => {
        const bytes = Buffer.from(whole);
        for (const [at, value] of changes) bytes[at] = value;
        return length % 4 === 0 ? bytes.subarray(0, length) : bytes;
      });
      fc.assert(
        fc.property(
          fc.oneof({ weight: 1, arbitrary: fc.uint8Array({ maxLength: 100 }) }, { weight: 5, arbitrary: damaged }),
          (bytes) => {
            const around = Buffer.alloc(900, 0xee);
            try {
              unpack(bytes, around.subarray(100, 800));
            } catch (error) {
              if (!(error instanceof ImageError)) throw error;
            }
            return around.every((byte, at) => byte === 0xee || (at >= 100 && at < 800));
          },
        ),
        { numRuns: 400 },
      );
    }
  t.pass();
});
