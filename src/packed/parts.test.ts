/** Compressed files that split(1) cut up: read as if they were whole, and what is wrong with a part names it. */
import {
  copyFileSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import test from "ava";
import { readFully } from "../bytes/byte-source.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { openLayers, reopenLayers } from "../chain.js";
import { ImageError } from "../errors.js";
import { isDisk, isRefused, needsQemu, opened, qemuImg, qemuIo, shuffledWrites } from "../images/qemu-test-tools.js";
import { cacheFolderOfTests, disk, noise, packingFolder, packs } from "./packed-test-tools.js";

/** Its first part, and how it is made of `disk`. */
const variants: readonly (readonly [string, string, string])[] = [
  ["gzip", "d.gz.001", "gzip -c disk | split -b 31000 -d -a 3 --numeric-suffixes=1 - d.gz."],
  ["pigz of independent blocks, in parts of a few bytes at its ends", "d.aa", "pigz -ic disk | split -b 90001 - d."],
  ["BGZF", "d.img.part1", "bgzip -c disk > p && split -n 3 --numeric-suffixes=1 -a 1 p d.img.part"],
  ["bzip2", "d.bz2.aa", "bzip2 -3 -c disk | split -b 20000 - d.bz2."],
  ["xz of many blocks", "d.xz.aa", "xz -0 -T2 --block-size=700000 -c disk | split -b 20000 - d.xz."],
  [
    "xz of one block, its header apart",
    "d.xz.aa",
    "xz -0 -c disk > p && head -c 7 p > d.xz.aa && tail -c +8 p > d.xz.ab",
  ],
  ["zstd of a pipe", "d.zst.aa", "cat disk | zstd -qc | split -b 25001 - d.zst."],
  ["pzstd", "d.zst.aaa", "pzstd -q -1 -c disk | split -b 25000 -a 3 - d.zst."],
  ["lz4", "d.lz4.aa", "lz4 -qc disk | split -b 50000 - d.lz4."],
  ["zip", "d.zip.001", "zip -q - disk | split -b 50000 -d -a 3 --numeric-suffixes=1 - d.zip."],
];

for (const [name, first, command] of variants)
  test(`${name}: in parts it is what it was, anywhere, in other threads and the next time too`, (t) => {
    const path = packingFolder(t);
    if (!packs(t, path, command)) return;
    isDisk(t, { path: path(first) }, disk, 1 << 20);
    const image = openLayers({ path: path(first) });
    t.teardown(() => image.close());
    t.deepEqual(
      image.wrappings[0]!.map(({ format }) => format),
      [
        "split",
        name
          .split(" ")[0]!
          .replace(/^(pigz|BGZF)$/, "gzip")
          .replace("pzstd", "zstd"),
      ],
    );
    const other = reopenLayers(image.data, new LocalChunkCache(1 << 20)).disk;
    const bytes = Buffer.alloc(disk.length);
    t.is(readFully(other, 0, bytes), disk.length);
    t.true(bytes.equals(disk));
    const { integrity } = image.wrappings[0]!.at(-1)!;
    for (let piece = 0; piece < integrity!.pieces; piece++) t.deepEqual(integrity!.check(piece).damages, []);
  });

test("an image in a compressed file in parts is opened as what it is", (t) => {
  if (!needsQemu(t)) return;
  const path = packingFolder(t, Buffer.alloc(0));
  qemuImg("create", "-q", "-f", "qcow2", path("image"), "6M");
  qemuIo(path("image"), "qcow2", shuffledWrites(5, 6 << 20, 20));
  qemuImg("convert", "-f", "qcow2", "-O", "raw", path("image"), path("raw"));
  for (const program of ["gzip", "bzip2", "xz", "zstd -q"]) {
    if (!packs(t, path, `rm -f p.*; ${program} -c image > whole && split -n 5 -a 3 whole p.`)) return;
    isDisk(t, { path: path("p.aaa") }, readFileSync(path("raw")));
    opened({ path: path("p.aaa") }, ({ layers }) => t.is(layers[0]!.format, "qcow2"));
    isRefused(t, "usage", { path: path("p.aab") }, path("p.aab"), path("p.aaa"));
  }
});

for (const [program, end] of [
  ["gzip -1", "gz"],
  ["bzip2 -1", "bz2"],
  ["xz -0", "xz"],
  ["zstd -q", "zst"],
] as const)
  test(`${end}: a part that is missing, cut off or in another's place is told by its name`, (t) => {
    // Noise, so that every part has as much of it.
    const path = packingFolder(t, noise(600_000));
    if (!packs(t, path, `${program} -c disk | split -b 100000 - d.${end}. && mkdir kept && cp d.* kept`)) return;
    const names = readdirSync(path("kept")).sort();
    const [first, second, third, fourth] = names as [string, string, string, string];
    const afresh = () => {
      for (const name of names) copyFileSync(path(`kept/${name}`), path(name));
    };
    const refused = (...words: string[]) => {
      isRefused(t, "corrupt", { path: path(first) }, path(first), ...words);
      // What was found out is known the next time.
      isRefused(t, "corrupt", { path: path(first) }, path(first), ...words);
    };
    afresh();
    rmSync(path(third));
    isRefused(t, "missing", { path: path(first) }, path(third));
    afresh();
    rmSync(path(names.at(-1)!));
    refused(names.at(-2)!);
    afresh();
    truncateSync(path(third), 60_000);
    refused(`${third} has 60000 bytes, where others have 100000`);
    afresh();
    writeFileSync(path(third), "");
    refused(`${third} has 0 bytes`);
    // The bytes of the second are where those of the third belong.
    afresh();
    renameSync(path(second), path("other"));
    renameSync(path(third), path(second));
    renameSync(path("other"), path(third));
    const error = t.throws(() => openLayers({ path: path(first) }), { instanceOf: ImageError, code: "corrupt" });
    const named = [second, third, fourth, names.at(-1)!].some((name) => error?.message.includes(name));
    t.true(named, error?.message);
  });

test("what was found out belongs to all parts: a later one that is replaced has the file gone through anew", (t) => {
  const path = packingFolder(t, noise(300_000));
  // Stored, so that a byte can be changed, in a place that isn't sampled.
  if (!packs(t, path, "zip -q -0 -X d.zip disk && split -b 100000 d.zip d.zip. && rm d.zip disk")) return;
  const tables = () => readdirSync(cacheFolderOfTests).length;
  opened({ path: path("d.zip.aa") }, ({ disk: found }) => readFully(found, 0, Buffer.alloc(300_000)));
  const before = tables();
  opened({ path: path("d.zip.aa") }, ({ disk: found }) => readFully(found, 0, Buffer.alloc(300_000)));
  t.is(tables(), before);
  const bytes = readFileSync(path("d.zip.ac"));
  bytes[50_001]! ^= 1;
  writeFileSync(path("d.zip.ac"), bytes);
  utimesSync(path("d.zip.ac"), 5e9, 5e9);
  isRefused(t, "corrupt", { path: path("d.zip.aa") }, path("d.zip.aa"));
  t.is(tables(), before + 2);
});

test("files that are numbered like parts and compressed each by itself are neither joined nor taken alone", (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "head -c 100000 disk | gzip > b.001; tail -c 100000 disk | gzip > b.002")) return;
  isRefused(t, "usage", { path: path("b.001") }, path("b.001"), path("b.002"), "Rename");
  renameSync(path("b.002"), path("c.gz"));
  isDisk(t, { path: path("b.001") }, disk.subarray(0, 100_000));
  isDisk(t, { path: path("c.gz") }, disk.subarray(-100_000));
});
