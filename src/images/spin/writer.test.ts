import { randomBytes } from "node:crypto";
import test from "ava";
import { composed, contentRootOfBytes, readSecondly } from "./second-test-reader.js";
import {
  chainOf,
  chunkOf,
  diskFrom,
  diskOf,
  imageOf,
  KiB,
  layerOf,
  smallest,
  zstdMissing,
  zstdUnpacks,
} from "./spin-test-tools.js";
import { SpinWriter } from "./writer.js";

/** 1,024 chunks: data at both ends, zeros between. */
const oneLeaf = `a${".".repeat(1022)}b`;

const disks: Record<string, Buffer> = {
  "data alone": diskOf("abc"),
  "zeros between data": diskOf("a..b.c...d"),
  "zeros at both ends": diskOf("..ab..."),
  "a short last chunk": diskOf("ab", smallest, 4999),
  "a short last chunk of zeros": diskOf("ab.", smallest, 4999),
  "one byte": Buffer.from("x"),
  "one zero byte": Buffer.alloc(1),
  "nothing but zeros": diskOf(".".repeat(70)),
  "no bytes at all": Buffer.alloc(0),
  "a leaf to the last chunk": diskOf(oneLeaf),
  "a leaf and a chunk": diskOf(`${oneLeaf}c`),
  "zeros across the edge of two leaves": diskOf(`a${".".repeat(1500)}b..`),
  "a leaf of zeros between two of data": diskOf(`${oneLeaf}${".".repeat(1024)}c.`),
  "a leaf of zeros and a short chunk of zeros": diskOf(".".repeat(1025), smallest, 100),
  "bytes that can't be compressed": randomBytes(3 * smallest + 17),
};

for (const [what, disk] of Object.entries(disks)) {
  test(`zstd -d of a full image gives the disk: ${what}`, (t) => {
    if (zstdMissing) return void t.pass(t.log(`skipped: ${zstdMissing}`) as undefined);
    t.true(zstdUnpacks(imageOf(disk)).equals(disk));
  });

  test(`a reader written from FORMAT.md finds the disk in a full image: ${what}`, (t) => {
    const file = imageOf(disk, { metadata: { label: "é" } });
    const view = readSecondly(file);
    t.true(composed([view]).equals(disk));
    t.deepEqual(view.contentRoot, contentRootOfBytes(disk, smallest));
    t.is(view.data, view.chunks.filter(({ kind }) => kind === "stored").length);
    t.deepEqual(view.metadata, { label: "é" });
    t.true(layerOf(file).trailer.contentRoot.equals(view.contentRoot));
  });
}

for (const chunkSize of [16 * KiB, 64 * KiB, 4096 * KiB])
  test(`zstd -d gives the disk with chunks of ${chunkSize / KiB} KiB`, (t) => {
    if (zstdMissing) return void t.pass(t.log(`skipped: ${zstdMissing}`) as undefined);
    const disk = Buffer.concat([
      diskOf("a.b..", chunkSize),
      randomBytes(chunkSize + 5),
      Buffer.alloc(3 * chunkSize + 7),
    ]);
    const file = imageOf(disk, { chunkSize });
    t.true(zstdUnpacks(file).equals(disk));
    t.deepEqual(readSecondly(file).contentRoot, contentRootOfBytes(disk, chunkSize));
  });

test("the file doesn't depend on how the chunks come in batches", (t) => {
  const disk = diskOf(`ab..c.${".".repeat(1100)}d.e`, smallest, 77);
  const id = randomBytes(16);
  const file = imageOf(disk, { id, batch: 1 });
  for (const batch of [2, 3, 7, 1024, 5000]) t.true(imageOf(disk, { id, batch }).equals(file), `batches of ${batch}`);
});

test("a differential holds the chunks that differ, and no others", (t) => {
  const { files } = chainOf([diskOf("abcdef.g."), diskOf("abXde..gY")]);
  const kinds = readSecondly(files[0]!).chunks.map(({ kind }) => kind[0]);
  // a a s(X) a a z(f is zero now) a(.) a s(Y)
  t.is(kinds.join(""), "aasaazaas");
});

test("a differential without a difference stores no chunk and has the base's content root", (t) => {
  const disk = diskOf(`abc${".".repeat(1030)}d`, smallest, 9);
  const { files } = chainOf([disk, disk]);
  const [top, base] = files.map(readSecondly);
  t.true(top!.chunks.every(({ kind }) => kind === "absent"));
  t.deepEqual(top!.contentRoot, base!.contentRoot);
  t.deepEqual(top!.base.contentRoot, base!.contentRoot);
  t.deepEqual(top!.base.id, base!.id);
  t.is(top!.data, 4);
});

const histories: Record<string, string[]> = {
  "five disks that grow and shrink": ["abcdef", "abXdefghij", "abX", "abX..fg", "aYX..fgh."],
  "what a shrunken layer cut off doesn't come back": ["abcdefgh", "ab", "ab......"],
  "to nothing and back": ["abc", "", "abc"],
  "over the edge of a leaf and back": [
    `a${".".repeat(1023)}bc`,
    `a${".".repeat(1000)}`,
    `a${".".repeat(1023)}bc`,
    `a${".".repeat(2048)}d`,
  ],
  "whole leaves of zeros where data was": [`${"a".repeat(1024)}bc`, `${".".repeat(1024)}bc`, `${"a".repeat(1024)}b.`],
};
for (const [what, letters] of Object.entries(histories))
  for (const lastLength of [smallest, 4999])
    test(`every layer of a chain composes to its disk and has its content root: ${what}, last chunk ${lastLength}`, (t) => {
      const all = letters.map((one) => diskOf(one, smallest, lastLength));
      const { layers, files } = chainOf(all);
      for (const [i, disk] of all.entries()) {
        const from = all.length - 1 - i;
        const views = files.slice(from).map(readSecondly);
        t.true(composed(views).equals(disk), `layer ${i} by the second reader`);
        t.deepEqual(views[0]!.contentRoot, contentRootOfBytes(disk, smallest), `content root of layer ${i}`);
        const read = Buffer.alloc(disk.length);
        const source = diskFrom(layers.slice(from));
        for (let at = 0; at < read.length; ) at += source.read(at, read.subarray(at));
        t.true(read.equals(disk), `layer ${i} by the reader`);
      }
    });

test("a batch after the disk's end is refused", (t) => {
  const writer = new SpinWriter(() => {}, randomBytes(16), smallest, undefined);
  const batch = {
    count: 1,
    length: 5,
    kinds: Uint8Array.of(1),
    lengths: new Uint32Array(1),
    frames: new Uint8Array(),
    digests: new Uint8Array(32),
  };
  writer.append(batch);
  t.throws(() => writer.append(batch), { message: /after the disk's end/ });
  t.throws(() => writer.appendZeroLeaves(1, false), { message: /whole leaves/ });
});

test("bytes of a chunk tell its letter and its place", (t) => {
  t.not(chunkOf("a").compare(chunkOf("b")), 0);
});
