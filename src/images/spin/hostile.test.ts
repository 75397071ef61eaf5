/** Damaged and hostile files: an ImageError or the right bytes, never a crash, a hang, wrong bytes or much memory. */
import { crc32 } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { readFully } from "../../bytes/byte-source.js";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import { ChainDigests } from "./chain-digests.js";
import { type SpinLayer, spin } from "./reader.js";
import { chainOf, diskFrom, diskOf, imageOf, layerOf, smallest } from "./spin-test-tools.js";

const disk = diskOf("ab..c.d", smallest, 999);
const full = imageOf(disk, { metadata: { label: "a label" } });
const chain = chainOf([diskOf("ab..c.d", smallest, 500), disk]);
const wideDisk = diskOf(`ab${".".repeat(1030)}cd`);
const wide = imageOf(wideDisk);

/** Reads everything; an ImageError for any part of it is an answer, everything else that is thrown fails the test. */
function outcome(open: () => SpinLayer[], expected: Buffer): string {
  let layers: SpinLayer[];
  try {
    layers = open();
  } catch (error) {
    if (error instanceof ImageError) return "refused";
    throw error;
  }
  const source = diskFrom(layers);
  if (source.size !== expected.length) return "wrong size";
  const target = Buffer.alloc(smallest);
  let result = "right";
  for (let at = 0; at < expected.length; at += smallest) {
    const part = target.subarray(0, Math.min(smallest, expected.length - at));
    try {
      if (readFully(source, at, part) !== part.length) return `short at ${at}`;
      if (!part.equals(expected.subarray(at, at + part.length))) return `wrong bytes at ${at}`;
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      result = "refused";
    }
  }
  for (const ask of [
    () => source.extentAt(0),
    () => source.dataBytes(0, source.size),
    () => layers[0]!.integrity.check(0),
    () => new ChainDigests(layers).contentRoot(),
    () => JSON.stringify(layers[0]!.facts),
  ])
    try {
      ask();
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
    }
  return result;
}

function holds(t: ExecutionContext, what: string, result: string): void {
  if (result !== "right" && result !== "refused") t.fail(`${what}: ${result}`);
}

for (const mask of [0x01, 0x80])
  test(`any byte of a full image changed by ${mask}: refused, or the right bytes`, (t) => {
    for (let at = 0; at < full.length; at++) {
      const file = Buffer.from(full);
      file[at]! ^= mask;
      holds(
        t,
        `byte ${at}`,
        outcome(() => [layerOf(file)], disk),
      );
    }
    t.pass();
  });

test("any byte of a differential changed: refused, or the right bytes", (t) => {
  const [top, base] = chain.files;
  for (let at = 0; at < top!.length; at++) {
    const file = Buffer.from(top!);
    file[at]! ^= 0x04;
    holds(
      t,
      `byte ${at}`,
      outcome(() => [layerOf(file), layerOf(base!)], disk),
    );
  }
  t.pass();
});

test("a changed byte in the header, the trailer, the metadata or a page that is read is always noticed", (t) => {
  for (const type of ["SPHD", "SPTR", "SPMD", "SPLF", "SPND"]) {
    const start = full.indexOf(type);
    const end = start + full.readUInt32LE(start - 4);
    for (let at = start; at < end; at++) {
      const file = Buffer.from(full);
      file[at]! ^= 0x20;
      t.is(
        outcome(() => [layerOf(file)], disk),
        "refused",
        `${type}, byte ${at - start}`,
      );
    }
  }
});

test("a file cut anywhere is refused, saying that it is truncated", (t) => {
  for (let length = 0; length < full.length; length++) {
    const error = t.throws(() => layerOf(full.subarray(0, length), "/images/cut.spin"), { instanceOf: ImageError });
    t.regex(error.message, /^\/images\/cut\.spin: .*(truncated|no trailer|should take)/, `${length} bytes`);
  }
});

test("a file that is cut is not taken for a whole one by its signature either", (t) => {
  for (let length = 0; length < 56; length++)
    t.false(spin.recognises(new MemorySource("cut", full.subarray(0, length))), `${length} bytes`);
  t.true(spin.recognises(new MemorySource("whole", full)));
});

test("a file with a damaged header is known by its end", (t) => {
  for (let at = 0; at < 56; at++) {
    const file = Buffer.from(full);
    file[at]! ^= 0x40;
    t.true(spin.recognises(new MemorySource("damaged", file)), `byte ${at}`);
  }
  for (const length of [56, 240, 241, 5000]) t.false(spin.recognises(new MemorySource("zeros", Buffer.alloc(length))));
});

test("bytes added at the end are noticed, whatever they are", (t) => {
  const trailer = full.subarray(full.length - 248);
  for (const tail of [Buffer.from([0]), Buffer.alloc(248), trailer, full]) {
    const error = t.throws(() => layerOf(Buffer.concat([full, tail])), { instanceOf: ImageError });
    t.regex(error.message, /truncated|added/);
  }
});

test("a page of another image doesn't pass for one of this", (t) => {
  // The same disk and chunks, another id: the pages have the same lengths and differ in nothing but their CRC.
  const other = imageOf(disk, { metadata: { label: "a label" } });
  t.is(other.length, full.length);
  for (const type of ["SPTR", "SPMD", "SPLF", "SPND"]) {
    const at = full.indexOf(type);
    const file = Buffer.from(full);
    other.copy(file, at, at, at + full.readUInt32LE(at - 4));
    t.is(
      outcome(() => [layerOf(file)], disk),
      "refused",
      type,
    );
  }
});

/** Changes a page and makes its CRC right again, as someone who means harm does. */
function forged(file: Buffer, type: string, change: (page: Buffer) => void): Buffer {
  const copy = Buffer.from(file);
  const at = copy.indexOf(type);
  const page = copy.subarray(at, at + copy.readUInt32LE(at - 4));
  change(page);
  const id = type === "SPHD" ? Buffer.alloc(0) : copy.subarray(8 + 32, 8 + 48);
  page.writeUInt32LE(crc32(Buffer.concat([id, page.subarray(8)])), 4);
  return copy;
}

const lies: [string, string, (page: Buffer) => void, RegExp][] = [
  ["metadata of 1 GiB", "SPTR", (page) => page.writeUInt32LE(2 ** 30, 136), /impossible metadata length of 1073741824/],
  ["metadata beyond the file", "SPTR", (page) => page.writeBigUInt64LE(2n ** 60n, 128), /truncated or damaged/],
  ["a root page beyond the file", "SPTR", (page) => page.writeBigUInt64LE(2n ** 63n, 88), /truncated or damaged/],
  ["a root page of 4 GiB", "SPTR", (page) => page.writeUInt32LE(2 ** 32 - 1, 96), /impossible length/],
  ["a disk beyond 2^53 bytes", "SPTR", (page) => page.writeBigUInt64LE(2n ** 53n, 40), /impossible disk size/],
  ["a disk of 8 PiB", "SPTR", (page) => page.writeBigUInt64LE(2n ** 53n - 1n, 40), /levels where its size asks for/],
  ["five levels of index", "SPTR", (page) => page.writeUInt32LE(5, 120), /index of 5 levels/],
  [
    "another chunk size in the trailer",
    "SPTR",
    (page) => page.writeUInt32LE(2 ** 16, 48),
    /disagree about the chunk size/,
  ],
  ["another length of the file", "SPTR", (page) => page.writeBigUInt64LE(5n, 32), /should be 5 bytes long/],
  ["flags of the future", "SPTR", (page) => page.writeUInt32LE(2, 52), /newer Spindle/],
  ["a differential in the trailer alone", "SPTR", (page) => page.writeUInt32LE(1, 52), /kind of image/],
  ["an absent root in a full image", "SPTR", (page) => page.writeUInt32LE(0, 100), /leaves chunk 0 out/],
  ["a root of an unknown kind", "SPTR", (page) => page.writeUInt32LE(9, 100), /unknown kind 9/],
  ["a version of the future", "SPHD", (page) => page.writeUInt16LE(2, 16), /version 2/],
  ["flags of the future in the header", "SPHD", (page) => page.writeUInt32LE(4, 20), /newer Spindle/],
  ["chunks of 3 bytes", "SPHD", (page) => page.writeUInt32LE(3, 24), /chunk size 3 is not/],
  ["chunks of 4 GiB", "SPHD", (page) => page.writeUInt32LE(2 ** 31, 24), /is not a power of two/],
  ["a node of a million entries", "SPND", (page) => page.writeUInt32LE(1e6, 20), /is that of other chunks/],
  ["a node of another level", "SPND", (page) => page.writeUInt32LE(3, 16), /is that of other chunks/],
  ["a node that is its own child", "SPND", (page) => page.writeBigUInt64LE(BigInt(full.indexOf("SPND")), 24), /SPLF/],
  ["a leaf page of 4 GiB", "SPND", (page) => page.writeUInt32LE(2 ** 32 - 1, 32), /impossible length/],
  ["a leaf of other chunks", "SPLF", (page) => page.writeBigUInt64LE(1024n, 8), /is that of other chunks/],
  ["a leaf with more entries than chunks", "SPLF", (page) => page.writeUInt32LE(1024, 24), /is that of other chunks/],
  ["frames beyond the file", "SPLF", (page) => page.writeBigUInt64LE(2n ** 62n, 16), /beyond the end/],
  ["a frame of 1 GiB", "SPLF", (page) => page.writeUInt32LE(0xbfffffff, 32), /beyond the end/],
  ["a chunk of an unknown kind", "SPLF", (page) => page.writeUInt32LE(0xc0000001, 32), /unknown kind 3/],
  ["an absent chunk in a full image", "SPLF", (page) => page.writeUInt32LE(0, 40), /leaves chunks after 0 out/],
  ["fewer stored chunks than there are", "SPLF", (page) => page.writeUInt32LE(1, 28), /contradicts itself/],
  ["metadata that is no JSON", "SPMD", (page) => page.fill("{", 8), /not a JSON object/],
  ["metadata that is a list", "SPMD", (page) => page.fill("[]       ", 8), /not a JSON object/],
];
for (const [what, type, change, message] of lies)
  test(`a file that tells of ${what} is refused in words`, (t) => {
    const file = forged(full, type, change);
    const read = () => {
      const source = diskFrom([layerOf(file, "/images/forged.spin")]);
      for (let at = 0; at < disk.length; at += smallest) source.read(at, Buffer.alloc(1));
    };
    const error = t.throws(read, { instanceOf: ImageError });
    t.regex(error.message, /^\/images\/forged\.spin: /);
    t.regex(error.message, message);
  });

test("more data than chunks in the index is refused where it is counted", (t) => {
  const file = forged(full, "SPTR", (page) => page.writeBigUInt64LE(2n ** 50n, 104));
  t.throws(() => diskFrom([layerOf(file)]).dataBytes(0, 7 * smallest), { instanceOf: ImageError });
});

test("a disk of 8 PiB in a file of some hundred bytes costs nothing", (t) => {
  const zeros = imageOf(diskOf("."));
  const file = forged(zeros, "SPTR", (page) => {
    page.writeBigUInt64LE(2n ** 53n - 1n, 40);
    page.writeUInt32LE(3, 120);
  });
  const layer = layerOf(file);
  const source = diskFrom([layer]);
  t.is(source.dataBytes(0, source.size), 0);
  t.is(source.extentAt(5).length, 2 ** 53 - 6);
  t.false(new ChainDigests([layer]).contentRoot().equals(layer.trailer.contentRoot));
});

test("pages with any byte changed and the CRC made right end in an answer or an ImageError", (t) => {
  const types = ["SPHD", "SPTR", "SPMD", "SPLF", "SPND", "SPDG"];
  for (const [file, expected] of [
    [full, disk],
    [wide, wideDisk],
  ] as const)
    fc.assert(
      fc.property(
        fc.array(fc.record({ type: fc.constantFrom(...types), at: fc.nat(), byte: fc.nat(255) }), {
          minLength: 1,
          maxLength: 3,
        }),
        (changes) => {
          let copy = file;
          for (const { type, at, byte } of changes)
            copy = forged(copy, type, (page) => {
              page[8 + (at % (page.length - 8))] = byte;
            });
          // The bytes may be others than they were: this file is another one. It must be read in peace.
          outcome(() => [layerOf(copy)], expected);
        },
      ),
      { numRuns: file === full ? 700 : 200 },
    );
  t.pass();
});

test("random bytes after a header are refused", (t) => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 600 }),
      (tail) => outcome(() => [layerOf(Buffer.concat([full.subarray(0, 56), tail]))], disk) === "refused",
    ),
  );
  t.pass();
});

test("a differential whose metadata names no usable base is refused", (t) => {
  for (const path of ["", "a\0b"]) {
    const file = imageOf(disk, { base: chain.layers.slice(1), basePath: path });
    t.throws(() => layerOf(file), { message: /names no base/ });
  }
  const file = imageOf(disk, { base: chain.layers.slice(1), metadata: { base: { path: 5 } } });
  t.throws(() => layerOf(file), { message: /names no base/ });
});
