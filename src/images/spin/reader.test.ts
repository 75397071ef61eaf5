import { createHash, randomBytes } from "node:crypto";
import test from "ava";
import fc from "fast-check";
import { readFully } from "../../bytes/byte-source.js";
import { ChainDigests } from "./chain-digests.js";
import { composed, contentRootOf, readSecondly } from "./second-test-reader.js";
import { chainOf, chunkOf, diskFrom, diskOf, imageOf, KiB, layerOf, pack, smallest } from "./spin-test-tools.js";
import { BatchKind, SpinWriter } from "./writer.js";

/** Five states of one disk, with growth, shrinkage, holes and leaf edges. */
const states = [
  `abc..d${".".repeat(1016)}ef.`,
  `aXc..d${".".repeat(1016)}e..gh`,
  "aXcY",
  `aXcY..........${".".repeat(1010)}ZZ`,
  `aXcY.....W....${".".repeat(1010)}.Zq`,
].map((letters) => diskOf(letters, smallest, 5001));

const zeros = Buffer.alloc(smallest);
const isZero = (bytes: Buffer) => bytes.compare(zeros, 0, bytes.length) === 0;

test("random stretches of a chain of five are those of the disk", (t) => {
  const { layers } = chainOf(states);
  for (const [i, state] of [...states].reverse().entries()) {
    const disk = diskFrom(layers.slice(i));
    t.is(disk.size, state.length);
    const edges = [0, smallest, 1024 * smallest, state.length, 14 * smallest];
    const near = fc.tuple(fc.constantFrom(...edges), fc.integer({ min: -9, max: 9 })).map(([edge, by]) => edge + by);
    const position = fc.oneof(near, fc.nat(state.length)).filter((at) => at >= 0 && at <= state.length);
    fc.assert(
      fc.property(
        position,
        fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 5 * smallest })),
        (at, length) => {
          const target = Buffer.alloc(length, 0xee);
          const got = readFully(disk, at, target);
          return (
            got === Math.min(length, state.length - at) &&
            target.subarray(0, got).equals(state.subarray(at, at + got)) &&
            target.subarray(got).every((byte) => byte === 0xee)
          );
        },
      ),
      { numRuns: 150 },
    );
  }
});

test("one read never crosses what it doesn't know, and gives at least a byte before the end", (t) => {
  const disk = diskFrom(chainOf(states).layers);
  for (let at = 0; at < disk.size; ) {
    const target = Buffer.alloc(disk.size);
    const got = disk.read(at, target);
    t.true(got > 0);
    t.true(target.subarray(0, got).equals(states[4]!.subarray(at, at + got)));
    at += got;
  }
  t.is(disk.read(disk.size, Buffer.alloc(5)), 0);
  t.is(disk.read(disk.size + 1e6, Buffer.alloc(5)), 0);
});

test("extents tell every chunk of data and every hole, whatever the layer that has it", (t) => {
  const { layers } = chainOf(states);
  for (const [i, state] of [...states].reverse().entries()) {
    const disk = diskFrom(layers.slice(i));
    for (let at = 0; at < disk.size; ) {
      const { hole, length } = disk.extentAt(at);
      t.true(length >= 1 && at + length <= disk.size);
      for (let chunk = Math.floor(at / smallest); chunk * smallest < at + length; chunk++) {
        const bytes = state.subarray(chunk * smallest, (chunk + 1) * smallest);
        t.is(hole, isZero(bytes), `state ${i}, chunk ${chunk}`);
      }
      at += length;
    }
  }
});

test("bytes of data in any stretch are those of its chunks that aren't zero", (t) => {
  const { layers } = chainOf(states);
  for (const [i, state] of [...states].reverse().entries()) {
    const disk = diskFrom(layers.slice(i));
    const data = Array.from(
      { length: Math.ceil(state.length / smallest) },
      (_, chunk) => !isZero(state.subarray(chunk * smallest, (chunk + 1) * smallest)),
    );
    const counted = (from: number, to: number) =>
      data.reduce((sum, is, chunk) => {
        const length = Math.min(to, (chunk + 1) * smallest) - Math.max(from, chunk * smallest);
        return sum + (is && length > 0 ? length : 0);
      }, 0);
    const place = fc
      .oneof(fc.nat(state.length), fc.constantFrom(0, 1024 * smallest, state.length))
      .map((at) => Math.min(at, state.length));
    fc.assert(
      fc.property(place, place, (a, b) => {
        const [from, to] = a < b ? [a, b] : [b, a];
        return disk.dataBytes(from, to) === counted(from, to);
      }),
      { numRuns: 200 },
    );
    t.is(disk.dataBytes(0, disk.size), counted(0, state.length));
  }
});

test("a base shorter than its child reads as zeros beyond its end", (t) => {
  const { layers } = chainOf([diskOf("ab", smallest, 100), diskOf("ab......", smallest, 200)]);
  const disk = diskFrom(layers);
  const bytes = Buffer.alloc(disk.size, 1);
  t.is(readFully(disk, 0, bytes), 7 * smallest + 200);
  t.true(bytes.equals(diskOf("ab......", smallest, 200)));
});

test("disks of any letters, over bases of any letters, compose", (t) => {
  const letters = fc.string({ unit: fc.constantFrom(".", ".", "a", "b"), maxLength: 12 });
  fc.assert(
    fc.property(fc.array(letters, { minLength: 1, maxLength: 4 }), fc.constantFrom(1, 777, smallest), (all, last) => {
      const disks = all.map((one) => diskOf(one, smallest, last));
      const { layers, files } = chainOf(disks);
      const top = disks.at(-1)!;
      const bytes = Buffer.alloc(top.length);
      readFully(diskFrom(layers), 0, bytes);
      return (
        bytes.equals(top) &&
        composed(files.map(readSecondly)).equals(top) &&
        new ChainDigests(layers).contentRoot().equals(layers[0]!.trailer.contentRoot)
      );
    }),
    { numRuns: 60 },
  );
  t.pass();
});

/** A disk of 1,025 leaves, all zero but three chunks: one at the start, one in leaf 600, one that is the last. */
function largeImage(): { file: Buffer; size: number; data: Map<number, Buffer> } {
  const data = new Map([
    [3, chunkOf("a")],
    [600 * 1024 + 5, chunkOf("b")],
    [1024 * 1024 + 7, chunkOf("c").subarray(0, 999)],
  ]);
  const parts: Buffer[] = [];
  const writer = new SpinWriter((bytes) => parts.push(Buffer.from(bytes)), randomBytes(16), smallest, undefined);
  const zeroDigest = createHash("sha256").update(Buffer.alloc(smallest)).digest();
  const leafWith = (leaf: number, chunks: number) => {
    for (let i = 0; i < chunks; i++) {
      const chunk = data.get(leaf * 1024 + i);
      const frames = chunk ? pack(chunk) : Buffer.alloc(0);
      writer.append({
        count: 1,
        length: chunk?.length ?? smallest,
        kinds: Uint8Array.of(chunk ? BatchKind.stored : BatchKind.zero),
        lengths: Uint32Array.of(frames.length),
        frames,
        digests: chunk ? createHash("sha256").update(chunk).digest() : zeroDigest,
      });
    }
  };
  leafWith(0, 1024);
  writer.appendZeroLeaves(599, false);
  leafWith(600, 1024);
  writer.appendZeroLeaves(423, false);
  leafWith(1024, 8);
  writer.finish({});
  return { file: Buffer.concat(parts), size: (1024 * 1024 + 7) * smallest + 999, data };
}

test("an index of two levels over 1,025 leaves leads to every chunk", (t) => {
  const { file, size, data } = largeImage();
  const view = readSecondly(file);
  const layer = layerOf(file);
  const disk = diskFrom([layer]);
  t.is(layer.trailer.rootLevel, 2);
  t.is(view.size, size);
  t.is(disk.size, size);
  t.is(view.data, 3);
  t.is(disk.dataBytes(0, size), 2 * smallest + 999);
  for (const [chunk, bytes] of data) {
    const target = Buffer.alloc(bytes.length + 10);
    readFully(disk, chunk * smallest, target);
    t.true(target.subarray(0, bytes.length).equals(bytes), `chunk ${chunk}`);
    t.true(view.bytes(chunk).equals(bytes), `chunk ${chunk} by the second reader`);
  }
  t.deepEqual(disk.extentAt(4 * smallest), { hole: true, length: (600 * 1024 + 5 - 4) * smallest });
  const zero = createHash("sha256").update(Buffer.alloc(smallest)).digest();
  const root = contentRootOf(size, smallest, (chunk) => {
    const bytes = data.get(chunk);
    return bytes ? createHash("sha256").update(bytes).digest() : zero;
  });
  t.deepEqual(layer.trailer.contentRoot, root);
  t.deepEqual(new ChainDigests([layer]).contentRoot(), root);
  t.is(layer.integrity.pieces, 1025);
  t.deepEqual(layer.integrity.check(1), { chunks: 0, bytes: 0, damages: [], pieces: 1 });
  t.deepEqual(layer.integrity.check(1024), { chunks: 1, bytes: 999, damages: [] });
});

test("a damaged chunk is named with its disk range, and its neighbours read on", (t) => {
  const disk = diskOf("abcd", smallest, 300);
  const file = imageOf(disk);
  const at = readSecondly(file).chunks.map((chunk) => (chunk.kind === "stored" ? chunk.at : -1));
  file[at[3]! - 8]! ^= 0x10;
  const layer = layerOf(file, "/images/disk.spin");
  const source = diskFrom([layer]);
  const target = Buffer.alloc(smallest);
  const error = t.throws(() => readFully(source, 2 * smallest, target));
  t.regex(error.message, /^\/images\/disk\.spin: chunk 2 at byte \d+ is damaged, .*disk bytes 32768 to 49151 are lost/);
  for (const chunk of [0, 1, 3]) {
    const part = target.subarray(0, chunk === 3 ? 300 : smallest);
    readFully(source, chunk * smallest, part);
    t.true(part.equals(disk.subarray(chunk * smallest, (chunk + 1) * smallest)));
  }
  const { damages, chunks } = layer.integrity.check(0);
  t.is(chunks, 4);
  t.deepEqual(
    damages.map(({ file, position, length }) => ({ file, position, length })),
    [{ file: "/images/disk.spin", position: 32768, length: smallest }],
  );
});

test("damaged chunks that follow each other are one damage, with how many they are", (t) => {
  const file = imageOf(diskOf("abcd.efg"));
  for (const [i, chunk] of readSecondly(file).chunks.entries())
    if (chunk.kind === "stored" && ![0, 6].includes(i)) file[chunk.at + 20]! ^= 1;
  const { damages, chunks } = layerOf(file).integrity.check(0);
  t.is(chunks, 7);
  t.deepEqual(
    damages.map(({ position, length }) => [position / smallest, length / smallest]),
    [
      [1, 3],
      [5, 1],
      [7, 1],
    ],
  );
  t.regex(damages[0]!.message, /chunk 1 .* So are the 2 chunks behind it\.$/);
});

test("a chunk that unpacks to other bytes than its digest tells is reported", (t) => {
  // The frame is sound in itself: of the same length as the right one, and of other bytes.
  const file = imageOf(diskOf("abcd"));
  const [a, b] = readSecondly(file).chunks.filter((chunk) => chunk.kind === "stored");
  if (a!.length !== b!.length) return t.fail("the two frames should have one length");
  file.copy(file, a!.at, b!.at, b!.at + b!.length);
  const { damages } = layerOf(file).integrity.check(0);
  t.is(damages.length, 1);
  t.regex(damages[0]!.message, /chunk 0 does not match its digest: disk bytes 0 to 16383 were changed/);
});

test("a damaged digest page is reported for its leaf, and doesn't keep a mount from reading", (t) => {
  const disk = diskOf("abcd");
  const file = imageOf(disk);
  file[file.indexOf("SPDG") + 30]! ^= 1;
  const layer = layerOf(file);
  const target = Buffer.alloc(disk.length);
  readFully(diskFrom([layer]), 0, target);
  t.true(target.equals(disk));
  const { damages, chunks } = layer.integrity.check(0);
  t.is(chunks, 4);
  t.is(damages.length, 1);
  t.regex(damages[0]!.message, /the digest page of chunk 0 at byte \d+ fails its checksum/);
  t.is(damages[0]!.length, disk.length);
});

test("the longest frame that a chunk may have is read", (t) => {
  // 16 KiB in raw blocks of 100 bytes: longer than zstd would make it, and still a frame.
  const chunk = randomBytes(smallest);
  // Magic number; a single segment with a content size of 2 bytes, which counts from 256 (RFC 8878 §3.1.1.1).
  const blocks: Buffer[] = [
    Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x60, (smallest - 256) & 0xff, (smallest - 256) >> 8]),
  ];
  const pieces = 60;
  const piece = Math.ceil(smallest / pieces);
  for (let at = 0; at < smallest; at += piece) {
    const bytes = chunk.subarray(at, at + piece);
    const head = Buffer.alloc(3);
    head.writeUIntLE((at + piece >= smallest ? 1 : 0) | (bytes.length << 3), 0, 3);
    blocks.push(head, bytes);
  }
  const frames = Buffer.concat(blocks);
  t.true(frames.length <= smallest + smallest / 256 + 128 && frames.length > smallest + 114);
  const parts: Buffer[] = [];
  const writer = new SpinWriter((bytes) => parts.push(Buffer.from(bytes)), randomBytes(16), smallest, undefined);
  const digests = createHash("sha256").update(chunk).digest();
  writer.append({
    count: 1,
    length: smallest,
    kinds: Uint8Array.of(2),
    lengths: Uint32Array.of(frames.length),
    frames,
    digests,
  });
  writer.finish({});
  const layer = layerOf(Buffer.concat(parts));
  const target = Buffer.alloc(smallest);
  readFully(diskFrom([layer]), 0, target);
  t.true(target.equals(chunk));
});

test("a damaged node is one damage over all that lies beneath it", (t) => {
  const { file, size } = largeImage();
  // The first node of level 1 covers 1,024 leaves; the second, the last.
  file[file.indexOf("SPND") + 100]! ^= 1;
  const { integrity } = layerOf(file);
  const report = integrity.check(0);
  t.is(report.pieces, 1024);
  t.deepEqual(
    report.damages.map(({ position, length }) => [position, length]),
    [[0, 1024 * 1024 * smallest]],
  );
  t.deepEqual(integrity.check(1024), { chunks: 1, bytes: 999, damages: [] });
  t.true(size > 1024 * 1024 * smallest);
});

test("facts hold what the format defines, whatever else the metadata says", (t) => {
  const metadata = {
    id: "another",
    chunkSize: 5,
    contentRoot: null,
    label: "kept",
    comment: ["no text"],
    logicalSectorSize: "512",
    physicalSectorSize: 4096,
    source: { path: "/dev/sda", serial: 5, more: {} },
    unknown: { deep: [] },
  };
  const layer = layerOf(imageOf(diskOf("a"), { metadata }));
  t.is(layer.facts.id, layer.trailer.id.toString("hex"));
  t.is(layer.facts.chunkSize, smallest);
  t.like(layer.facts, { label: "kept", physicalSectorSize: 4096, source: { path: "/dev/sda" } });
  for (const name of ["comment", "logicalSectorSize", "unknown"]) t.false(name in layer.facts, name);
});

test("the content root of a chain in which a middle layer is shorter is that of the disk's bytes", (t) => {
  // A top that leaves absent what lies beyond the middle's end, as another writer may: it reads as zeros there.
  const base = layerOf(imageOf(diskOf("abcd")), "base");
  const middle = layerOf(imageOf(diskOf("a"), { base: [base] }), "middle");
  const grown = imageOf(diskOf("a..."), { base: [layerOf(imageOf(diskOf("a...")), "grown base")], basePath: "middle" });
  const top = layerOf(grown, "top");
  const disk = diskFrom([top, middle, base]);
  const bytes = Buffer.alloc(disk.size);
  readFully(disk, 0, bytes);
  t.true(bytes.equals(diskOf("a...")));
  t.deepEqual(new ChainDigests([top, middle, base]).contentRoot(), top.trailer.contentRoot);
});

test("an image of 4 PiB without data is opened, counted and checked at once", (t) => {
  const parts: Buffer[] = [];
  const writer = new SpinWriter((bytes) => parts.push(Buffer.from(bytes)), randomBytes(16), 4096 * KiB, {
    id: randomBytes(16),
    contentRoot: randomBytes(32),
    size: 0,
  });
  writer.appendZeroLeaves(2 ** 20, false);
  writer.finish({ base: { path: "none" } });
  const layer = layerOf(Buffer.concat(parts));
  t.is(layer.size, 2 ** 52);
  t.is(diskFrom([layer]).dataBytes(0, layer.size), 0);
  t.deepEqual(diskFrom([layer]).extentAt(123), { hole: true, length: 2 ** 52 - 123 });
  t.deepEqual(new ChainDigests([layer]).contentRoot(), layer.trailer.contentRoot);
});

test("a chunk beyond the 2^31st is found, and so is its neighbour, which is zero", (t) => {
  const parts: Buffer[] = [];
  const writer = new SpinWriter((bytes) => parts.push(Buffer.from(bytes)), randomBytes(16), smallest, {
    id: randomBytes(16),
    contentRoot: randomBytes(32),
    size: 0,
  });
  writer.appendZeroLeaves(2 ** 21, false);
  const chunk = chunkOf("x").subarray(0, 777);
  const frames = pack(chunk);
  writer.append({
    count: 2,
    length: smallest + chunk.length,
    kinds: Uint8Array.of(BatchKind.zero, BatchKind.stored),
    lengths: Uint32Array.of(0, frames.length),
    frames,
    digests: Buffer.concat([Buffer.alloc(smallest), chunk].map((bytes) => createHash("sha256").update(bytes).digest())),
  });
  writer.finish({ base: { path: "none" } });
  const layer = layerOf(Buffer.concat(parts));
  const disk = diskFrom([layer]);
  const start = (2 ** 31 + 1) * smallest;
  t.is(disk.size, start + chunk.length);
  t.deepEqual(disk.extentAt(0), { hole: true, length: start });
  t.is(disk.dataBytes(0, disk.size), chunk.length);
  const target = Buffer.alloc(smallest + 777);
  t.is(readFully(disk, start - 100, target), 100 + 777);
  t.true(target.subarray(0, 100).equals(Buffer.alloc(100)));
  t.true(target.subarray(100, 877).equals(chunk));
  t.deepEqual(layer.integrity.check(2 ** 21), { chunks: 1, bytes: 777, damages: [] });
  t.deepEqual(new ChainDigests([layer]).contentRoot(), layer.trailer.contentRoot);
});
