import { execFileSync } from "node:child_process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { deflateRawSync, deflateSync, inflateRawSync, inflateSync } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { ImageError } from "../errors.js";
import { unpackBzip2 } from "./bzip2.js";
import { unpackDeflate } from "./deflate.js";
import { inflateWhole } from "./inflate.js";
import { libdeflate } from "./libdeflate.js";
import { unpackLz4 } from "./lz4.js";
import { unpackLzma } from "./lzma.js";
import { unpackLzo } from "./lzo.js";
import { unpackXz } from "./xz.js";
import { unpackZlib } from "./zlib.js";
import { Unzstd, unpackZstd } from "./zstd.js";

const unpackers = {
  bzip2: unpackBzip2,
  lz4: unpackLz4,
  lzma: unpackLzma,
  lzo: unpackLzo,
  xz: unpackXz,
  zlib: unpackZlib,
  zstd: unpackZstd,
};

function text(size: number): Buffer {
  const words = Array.from({ length: size / 4 }, (_, index) => `${(index * 7919) % 99} `.repeat(1 + (index % 3)));
  return Buffer.from(words.join("")).subarray(0, size);
}

/** What a packing tool makes of `input`; undefined, and said, where it isn't installed. */
function packed(t: ExecutionContext, tool: string, options: readonly string[], input: Buffer): Buffer | undefined {
  try {
    return execFileSync(tool, ["-c", ...options], { input, stdio: ["pipe", "pipe", "pipe"] });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    t.log(`skipped: ${tool} is not installed (Debian: ${tool === "xz" ? "xz-utils" : tool})`);
    t.pass();
    return undefined;
  }
}

/** The first block of an lz4 frame that has no content size: 7 bytes of header, and 4 of the block's length. */
function lz4Block(frame: Buffer): Buffer {
  const length = frame.readUInt32LE(7);
  if (length & 0x80000000) throw new Error("the block isn't packed");
  return frame.subarray(11, 11 + length);
}

test("zlib: what is packed by Node's zlib comes back, with the system's libdeflate and without", (t) => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 3000 }),
      fc.integer({ min: 0, max: 9 }),
      fc.integer({ min: 0, max: 40 }),
      fc.nat(3000),
      (bytes, level, repeat, more) => {
        const input = Buffer.concat(Array.from({ length: repeat + 1 }, () => bytes));
        const room = Buffer.alloc(input.length + more, 0xee);
        t.is(unpackZlib(deflateSync(input, { level }), room), input.length);
        t.true(
          room.subarray(0, input.length).equals(input) && room.subarray(input.length).every((byte) => byte === 0xee),
        );
        t.deepEqual(inflateWhole("zlib", deflateSync(input, { level }), room), { produced: input.length, ended: true });
        t.true(room.subarray(0, input.length).equals(input));
        const whole = Buffer.alloc(input.length);
        t.deepEqual(inflateWhole("deflate", deflateRawSync(input, { level }), whole), {
          produced: input.length,
          ended: true,
        });
        t.true(whole.equals(input));
        whole.fill(0);
        unpackDeflate(Buffer.concat([deflateRawSync(input, { level }), Buffer.alloc(more % 600, 7)]), whole);
        t.true(whole.equals(input));
      },
    ),
    { numRuns: 200 },
  );
  if (!libdeflate()) t.log("libdeflate isn't installed (Debian: libdeflate0): only zlib was tried");
});

const inputs: [string, Buffer][] = [
  ["text", text(50_000)],
  ["one byte many times", Buffer.alloc(60_000, "x")],
  ["three bytes many times", Buffer.from("abc".repeat(20_000))],
  ["a hundred bytes", Buffer.from("0123456789".repeat(10))],
];

for (const [name, input] of inputs) {
  test(`lz4: ${name} comes back from what the lz4 command packed`, (t) => {
    for (const level of ["-1", "-12"]) {
      const frame = packed(t, "lz4", ["-B4", "--no-frame-crc", level], input);
      if (!frame) return;
      const target = Buffer.alloc(input.length);
      t.is(unpackLz4(lz4Block(frame), target), input.length);
      t.deepEqual(target, input);
      t.throws(() => unpackLz4(lz4Block(frame), target.subarray(1)), { message: /more than/ });
      t.throws(() => unpackLz4(lz4Block(frame).subarray(0, -1), target), { instanceOf: ImageError });
    }
  });

  test(`bzip2: ${name} comes back from what the bzip2 command packed, and what follows it is ignored`, (t) => {
    for (const level of ["-1", "-9"]) {
      const stream = packed(t, "bzip2", [level], input);
      if (!stream) return;
      const target = Buffer.from(new SharedArrayBuffer(input.length + 1));
      t.is(unpackBzip2(Buffer.concat([stream, Buffer.alloc(3)]), target), input.length);
      t.deepEqual(target.subarray(0, input.length), input);
      t.throws(() => unpackBzip2(stream, target.subarray(2)), { message: /more than/ });
      t.throws(() => unpackBzip2(stream.subarray(0, -1), target), { message: /ends in the middle/ });
    }
  });

  test(`lzma: ${name} comes back from what the xz command packed, and what follows it is ignored`, (t) => {
    const stream = packed(t, "xz", ["--format=lzma"], input);
    if (!stream) return;
    // With its length in the header, as LZMA's own tools write it, the stream ends without a mark.
    const sized = Buffer.from(stream);
    sized.writeBigUInt64LE(BigInt(input.length), 5);
    for (const bytes of [stream, sized]) {
      const target = Buffer.from(new SharedArrayBuffer(input.length + 1));
      t.is(unpackLzma(Buffer.concat([bytes, Buffer.alloc(3)]), target), input.length);
      t.deepEqual(target.subarray(0, input.length), input);
      t.is(unpackLzma(bytes, target.subarray(0, input.length)), input.length);
      t.throws(() => unpackLzma(bytes, target.subarray(2)), { message: /more than/ });
      t.throws(() => unpackLzma(bytes.subarray(0, -8), target), { message: /ends in the middle/ });
    }
  });

  test(`xz: ${name} comes back from what the xz command packed, with every filter and check`, (t) => {
    const filters = ["--x86", "--arm", "--armthumb", "--powerpc", "--ia64", "--sparc", "--delta=dist=3"];
    const variants = [[], ["--check=sha256"], ["--check=crc32"], ["--check=none"], ...filters.map((each) => [each])];
    for (const options of variants) {
      const bytes = packed(
        t,
        "xz",
        [...options, ...(/^--[a-z0-9]+(=dist.*)?$/.test(options[0] ?? "") ? ["--lzma2"] : [])],
        input,
      );
      if (!bytes) return;
      const larger = Buffer.alloc(input.length + 100, 1);
      t.is(unpackXz(bytes, larger), input.length, options.join(" "));
      t.deepEqual(larger.subarray(0, input.length), input);
      t.is(unpackXz(bytes, larger.subarray(0, input.length)), input.length);
      t.throws(() => unpackXz(bytes, larger.subarray(0, input.length - 1)), { message: /more than/ });
      t.throws(() => unpackXz(bytes.subarray(0, -4), larger), { instanceOf: ImageError });
    }
  });
}

test("lzma: a dictionary of a gigabyte and a header that is none are refused", (t) => {
  const large = packed(t, "xz", ["--format=lzma"], text(1000));
  if (!large) return;
  const target = Buffer.alloc(100_000);
  t.throws(() => unpackLzma(Buffer.from(large).fill(0, 0, 1), target), { instanceOf: ImageError });
  large.writeUInt32LE(1 << 30, 1);
  t.throws(() => unpackLzma(large, target), { message: /dictionary that is too large/ });
  t.throws(() => unpackLzma(Buffer.alloc(100, 0xff), target), { message: /no LZMA data/ });
});

test("xz: a dictionary of a gigabyte, two streams, and damage are refused", (t) => {
  const large = packed(t, "xz", ["--lzma2=dict=1GiB"], text(1000));
  if (!large) return;
  const target = Buffer.alloc(100_000);
  t.throws(() => unpackXz(large, target), { message: /dictionary of 1073741824 bytes/ });
  const one = packed(t, "xz", [], text(1000))!;
  t.throws(() => unpackXz(Buffer.concat([one, one]), target), { message: /one stream of one block/ });
  const blocks = packed(t, "xz", ["--block-size=10000"], text(50_000))!;
  t.throws(() => unpackXz(blocks, target), { message: /one stream of one block/ });
  const damaged = Buffer.from(one);
  damaged[60]! ^= 1;
  t.throws(() => unpackXz(damaged, target), { instanceOf: ImageError, message: /the xz data is damaged/ });
});

test("zlib: nothing is given beyond the room there is", (t) => {
  const input = text(50_000);
  const bytes = deflateSync(input);
  const target = Buffer.alloc(input.length);
  t.is(unpackZlib(bytes, target), input.length);
  t.deepEqual(target, input);
  t.throws(() => unpackZlib(bytes, target.subarray(1)), { instanceOf: ImageError, message: /more than 49999 bytes/ });
  t.throws(() => unpackZlib(bytes.subarray(0, -6), target), { instanceOf: ImageError });
});

test("zlib and deflate: what Node refuses is refused, and what it takes gives the same bytes", (t) => {
  const kinds = { zlib: [deflateSync, inflateSync], deflate: [deflateRawSync, inflateRawSync] } as const;
  for (const [kind, [pack, unpack]] of Object.entries(kinds)) {
    const good = pack(text(3000));
    const change = fc.record({ at: fc.nat(good.length - 1), xor: fc.integer({ min: 0, max: 255 }), cut: fc.nat(40) });
    fc.assert(
      fc.property(change, ({ at, xor, cut }) => {
        const bytes = Buffer.from(good.subarray(0, good.length - Math.max(0, cut - 30)));
        if (at < bytes.length) bytes[at]! ^= xor;
        let expected: Buffer | undefined;
        try {
          expected = unpack(bytes, { maxOutputLength: 4000 });
        } catch {} // refused
        const target = Buffer.alloc(4000);
        let got: Buffer | undefined;
        try {
          const { produced, ended } = inflateWhole(kind as keyof typeof kinds, bytes, target);
          if (ended) got = target.subarray(0, produced);
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
        }
        t.deepEqual(got, expected);
      }),
      { numRuns: 400 },
    );
  }
});

test("damaged data costs no memory, however often it is unpacked without the event loop turning", (t) => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const target = Buffer.alloc(1 << 20);
  const damaged = (bytes: Buffer) => bytes.fill(0xff, bytes.length >> 1, (bytes.length >> 1) + 8);
  const cases: [string, () => unknown][] = [
    ["zlib", () => unpackZlib(damaged(deflateSync(text(3000))), target)],
    ["zlib that ends early", () => unpackZlib(deflateSync(text(3000)).subarray(0, -6), target)],
    ["deflate", () => unpackDeflate(damaged(deflateRawSync(text(3000))), target)],
    ["bzip2", () => unpackBzip2(Buffer.from("BZh9 no such thing"), target)],
    ["zstd", () => unpackZstd(Buffer.from("28b52ffd04204100", "hex"), target)],
  ];
  for (const [name, unpack] of cases) {
    t.throws(unpack, { instanceOf: ImageError }, name);
    collect();
    const before = process.memoryUsage().external;
    for (let times = 0; times < 100; times++)
      try {
        unpack();
      } catch {}
    collect();
    const more = process.memoryUsage().external - before;
    t.true(more < 10 << 20, `${name}: ${more} bytes more`);
  }
});

test("zstd: frames that are unpacked one after another take one frame's memory", (t) => {
  const window = 16 << 20;
  const frame = packed(t, "zstd", ["-q", "--long=24", "--no-content-size"], Buffer.alloc(window + 4096, 7));
  if (!frame) return;
  const target = Buffer.alloc(1 << 20);
  const before = process.memoryUsage.rss();
  for (let times = 0; times < 16; times++) {
    const unpacking = new Unzstd();
    let total = 0;
    for (let at = 0; !unpacking.ended; at += unpacking.consumed) {
      unpacking.step(frame.subarray(at), target);
      total += unpacking.produced;
    }
    t.is(total, window + 4096);
    unpacking.close();
    unpacking.close();
    t.throws(() => unpacking.step(frame, target), { message: /after it was closed/ });
  }
  // One that is given up half-way doesn't spoil the next.
  const half = new Unzstd();
  half.step(frame.subarray(0, 20), target);
  half.close();
  t.is(unpackZstd(packed(t, "zstd", ["-q"], text(1000))!, target), 1000);
  const next = new Unzstd();
  next.step(packed(t, "zstd", ["-q"], text(1000))!, target);
  t.deepEqual([next.produced, next.ended], [1000, true]);
  const more = process.memoryUsage.rss() - before;
  t.true(more < 6 * window, `${more} bytes more`);
});

/** Instructions of LZO1X put together by hand from the kernel's description. */
test("lzo: each kind of instruction does what the kernel's description says", (t) => {
  const unpack = (...codes: (number | string)[]) => {
    const bytes = Buffer.concat(
      codes.map((code) => (typeof code === "string" ? Buffer.from(code) : Buffer.from([code]))),
    );
    const target = Buffer.alloc(70_000);
    return target.subarray(0, unpackLzo(bytes, target)).toString();
  };
  const end = [0x11, 0, 0];
  t.is(unpack(17 + 5, "abcde", ...end), "abcde");
  // A long run: 0000LLLL, and with further bytes.
  t.is(unpack(1, "abcd", ...end), "abcd");
  const twenty = "0123456789abcdefghij";
  t.is(unpack(0, 2, twenty, ...end), twenty);
  t.is(unpack(0, 0, 0, 20, "x".repeat(18 + 510 + 20), ...end), "x".repeat(548));
  // 1LLDDDSS: five bytes from 3 back, then a literal; 0000DDSS after it: two from 4 back.
  t.is(unpack(17 + 4, "abcd", 0b10001001, 0, "Z", 0b00001100, 0, ...end), "abcdbcdbcZdb");
  // 01LDDDSS: four bytes from 2 back.
  t.is(unpack(17 + 4, "abcd", 0b01100100, 0, ...end), "abcdcdcd");
  // 001LLLLL: with more length, from 1 back.
  t.is(unpack(17 + 4, "abcd", 0b00100000, 7, 0, 0, ...end), `abcd${"d".repeat(40)}`);
  // After a long run 0000DDSS goes 2049 and more back.
  t.is(unpack(0, ...Array(8).fill(0), 18, "y".repeat(18 + 8 * 255 + 18), 0, 6, ...end), "y".repeat(2079));
  for (const wrong of [[], [17 + 5, "abc"], [0x11, 0], [...end, 0], [17 + 4, "abcd", 0b01111100, 1], [0, 0, 0]])
    t.throws(() => unpack(...wrong), { instanceOf: ImageError });
});

test("whatever is given, only ImageErrors come out, and nothing is written beyond the target", (t) => {
  const seeds: Record<string, Buffer> = {
    bzip2: packed(t, "bzip2", [], text(200)) ?? Buffer.alloc(0),
    lz4: Buffer.from([0x4f, ...Buffer.from("abcd"), 2, 0, 9, 0x50, ...Buffer.from("12345")]),
    lzma: packed(t, "xz", ["--format=lzma"], text(200)) ?? Buffer.alloc(0),
    lzo: Buffer.from([22, ...Buffer.from("abcde"), 0x80, 0, 0x20, 3, 4, 0, 0x11, 0, 0]),
    zlib: deflateSync(text(200)),
    xz: packed(t, "xz", [], text(200)) ?? Buffer.alloc(0),
    zstd: Buffer.from("28b52ffd0420410000616263646566676804fa2a6d", "hex"),
  };
  for (const [name, unpack] of Object.entries(unpackers)) {
    const damaged = fc.array(fc.tuple(fc.nat(200), fc.integer({ min: 0, max: 255 })), { maxLength: 5 }).map((flips) => {
      const bytes = Buffer.from(seeds[name]!);
      for (const [at, value] of flips) if (at < bytes.length) bytes[at] = value;
      return bytes;
    });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 100 }), damaged), (bytes) => {
        const around = Buffer.alloc(400, 0xee);
        try {
          const count = unpack(bytes, around.subarray(50, 350));
          t.true(count >= 0 && count <= 300);
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
        }
        t.true(around.subarray(0, 50).every((byte) => byte === 0xee));
        t.true(around.subarray(350).every((byte) => byte === 0xee));
      }),
      { numRuns: 500 },
    );
  }
});
