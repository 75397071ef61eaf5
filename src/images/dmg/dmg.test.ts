import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { packLzfse } from "../../bytes/lzfse-test-tools.js";
import type { Damage } from "../../layers/layer.js";
import {
  isDisk,
  isRefused,
  needsQemu,
  numbers,
  opened,
  patched,
  qemuRaw,
  readSome,
  survivesDamage,
  testFolder,
  wholeDisk,
} from "../qemu-test-tools.js";
import { openedImage, register, sha256OfDisk, sharedContainers, unpackShared } from "../shared-test-images.js";
import { dmg } from "./index.js";
import { type Kind, kinds, makeDmg, type TableSpec } from "./writer-test-tools.js";

register(dmg);

const sector = 512;

/** Bytes that pack well in some places and not in others. */
function content(sectors: number, seed: number): Buffer {
  const next = numbers(seed);
  const bytes = Buffer.alloc(sectors * sector);
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(1 + next(3000), bytes.length - at);
    const way = next(4);
    for (let index = at; index < at + length; index++)
      bytes[index] = way === 0 ? next(256) : way === 1 ? 65 + next(4) : bytes[Math.max(0, index - 700)]!;
    at += length;
  }
  return bytes;
}

/**
 * A disk in the tables that hdiutil makes of one: the space before the partition is in small tables of their own, runs
 * are of odd lengths, some of nothing, and between two tables is a gap.
 */
function sample(kind: Kind, seed = 1): { disk: Buffer; tables: TableSpec[] } {
  const disk = content(1500, seed);
  const tables: TableSpec[] = [
    { name: "Driver Descriptor Map (DDM : 0)", first: 0, runs: [[kind, 1]] },
    { name: "Apple (Apple_partition_map : 1) & <more>", first: 1, runs: [[kind, 39]] },
    {
      name: "disk image (Apple_HFS : 2)",
      first: 40,
      runs: [
        [kind, 257],
        ["zero", 60],
        [kind, 13],
        ["raw", 101],
        [kind, 257],
        [kind, 1],
        ["unused", 200],
        [kind, 257],
      ],
    },
    { name: " (Apple_Free : 3)", first: 1200, runs: [["unused", 100]] },
    { name: "last", first: 1300, runs: [[kind, 200]] },
  ];
  for (const { first, runs } of tables) {
    let at = first;
    for (const [way, sectors] of runs) {
      if (way === "zero" || way === "unused") disk.fill(0, at * sector, (at + sectors) * sector);
      at += sectors;
    }
  }
  disk.fill(0, 1186 * sector, 1200 * sector);
  return { disk, tables };
}

const has = (command: string) => spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;

function needs(t: ExecutionContext, ...commands: string[]): boolean {
  const missing = commands.filter((command) => !has(command));
  if (missing.length > 0)
    t.pass(t.log(`skipped: ${missing.join(", ")} not installed (7zip, bzip2, xz-utils)`) as undefined);
  return missing.length === 0;
}

/** What 7zz takes out of an image, a file a table, put where the tables say. */
function of7zz(path: string, folder: string, tables: readonly TableSpec[], size: number): Buffer {
  execFileSync("7zz", ["x", "-tdmg", "-y", `-o${folder}`, path], { stdio: "pipe" });
  const disk = Buffer.alloc(size);
  const files = readdirSync(folder).sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
  if (files.length !== tables.length) throw new Error(`7zz made ${files.join(", ")}`);
  for (const [index, file] of files.entries())
    readFileSync(join(folder, file)).copy(disk, tables[index]!.first * sector);
  rmSync(folder, { recursive: true });
  return disk;
}

/** What the checks of an image find. */
function damagesOf(path: string): Damage[] {
  return opened({ path }, ({ layers }) => {
    const { integrity } = layers[0]!;
    return Array.from({ length: integrity!.pieces }, (_, piece) => integrity!.check(piece)).flatMap(
      ({ damages }) => damages,
    );
  });
}

for (const kind of ["raw", "zlib", "bzip2", "xz", "lzfse", "adc"] as const)
  test(`runs of odd lengths, stored in disorder, are read as 7zz reads them: ${kind}`, (t) => {
    if (!needs(t, "7zz", "bzip2", "xz")) return;
    const path = testFolder(t);
    const { disk, tables } = sample(kind);
    writeFileSync(path("a.dmg"), makeDmg(disk, tables, { reverse: true })[0]!);
    t.true(of7zz(path("a.dmg"), path("x"), tables, disk.length).equals(disk), "7zz");
    isDisk(t, { path: path("a.dmg") }, disk, sector);
    t.deepEqual(damagesOf(path("a.dmg")), []);
  });

test("tables in a resource fork, or with the trailer first, are read as 7zz reads them", (t) => {
  if (!needs(t, "7zz")) return;
  const path = testFolder(t);
  const { disk, tables } = sample("zlib", 4);
  for (const options of [{ fork: true }, { front: true }, { fork: true, front: true, reverse: true }]) {
    writeFileSync(path("a.dmg"), makeDmg(disk, tables, options)[0]!);
    t.true(of7zz(path("a.dmg"), path("x"), tables, disk.length).equals(disk), "7zz");
    isDisk(t, { path: path("a.dmg") }, disk, 4096);
    t.deepEqual(damagesOf(path("a.dmg")), []);
  }
});

test("a disk of many runs, of kinds in turn, reads as qemu-img reads it", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  const disk = content(3000, 9);
  const runs: [Kind, number][] = [];
  const next = numbers(3);
  for (let at = 0; at < 3000; ) {
    const sectors = Math.min(1 + next(3), 3000 - at);
    const kind = (["zlib", "raw", "zero", "zlib"] as const)[next(4)]!;
    if (kind === "zero") disk.fill(0, at * sector, (at + sectors) * sector);
    runs.push([kind, sectors]);
    at += sectors;
  }
  t.true(runs.length > 1200);
  writeFileSync(path("a.dmg"), makeDmg(disk, [{ name: "whole disk", first: 0, runs }], { reverse: true })[0]!);
  t.true(qemuRaw(path("a.dmg"), "dmg", path("raw")).equals(disk), "qemu-img");
  isDisk(t, { path: path("a.dmg") }, disk, sector);
  t.deepEqual(damagesOf(path("a.dmg")), []);
});

test("images that other tools made read as INDEX.tsv says, and their checksums hold", (t) => {
  for (const row of sharedContainers(t, "dmg", "raw-in-.dmg")) {
    const path = unpackShared(t, row);
    const image = openedImage(t, path);
    t.is(image.layers[0]!.format, row.container!.startsWith("dmg") ? "dmg" : "raw");
    if (row.raw_sha256) t.is(sha256OfDisk(image.disk), row.raw_sha256, row.file);
    if (row.container!.startsWith("dmg")) t.deepEqual(damagesOf(path), [], row.file);
  }
});

test("an image without tables is its data fork; a file without trailer is a plain disk", (t) => {
  const path = testFolder(t);
  const disk = content(50, 3);
  const [image] = makeDmg(disk, [{ name: "", first: 0, runs: [["raw", 50]] }]);
  const plain = Buffer.concat([disk, image!.subarray(-512)]);
  plain.fill(0, plain.length - 512 + 216, plain.length - 512 + 232);
  writeFileSync(path("a.dmg"), plain);
  opened({ path: path("a.dmg") }, ({ layers }) => t.is(layers[0]!.format, "dmg"));
  isDisk(t, { path: path("a.dmg") }, disk, sector);
  plain.writeUInt32BE(51, plain.length - 512 + 496);
  writeFileSync(path("b.dmg"), plain);
  isRefused(t, "corrupt", { path: path("b.dmg") }, "no block tables", "shorter than the disk");
  writeFileSync(path("c.dmg"), disk);
  opened({ path: path("c.dmg") }, ({ layers }) => t.is(layers[0]!.format, "raw"));
});

test("a disk in segments: one is missing, is another's, or is opened itself", (t) => {
  const path = testFolder(t);
  const { disk, tables } = sample("zlib", 6);
  const parts = makeDmg(disk, tables, { segmentLength: 50_001 });
  t.true(parts.length > 3);
  const name = (number: number) => path(number === 1 ? "Big.dmg" : `Big.00${number}.dmgpart`);
  for (const [index, part] of parts.entries()) writeFileSync(name(index + 1), part);
  isDisk(t, { path: name(1) }, disk, 4096);
  t.deepEqual(damagesOf(name(1)), []);
  isRefused(t, "unsupported", { path: name(2) }, name(2), "part 2", "first part");
  writeFileSync(name(2), parts[2]!);
  isRefused(t, "mismatch", { path: name(1) }, name(2), "part 3", "not part 2", name(1));
  const other = Buffer.from(parts[1]!);
  other[other.length - 512 + 64] = 8;
  writeFileSync(name(2), other);
  isRefused(t, "mismatch", { path: name(1) }, name(2), "of disk image 0807");
  const moved = Buffer.from(parts[1]!);
  moved.writeUInt32BE(7, moved.length - 512 + 20);
  writeFileSync(name(2), moved);
  isRefused(t, "corrupt", { path: name(1) }, name(2), "7 bytes of data in the parts before it");
  writeFileSync(name(2), parts[1]!.subarray(0, -1));
  isRefused(t, "corrupt", { path: name(1) }, name(2), "no UDIF trailer");
  rmSync(name(2));
  isRefused(t, "missing", { path: name(1) }, name(1), name(2));
});

test("encrypted images are refused by name", (t) => {
  const path = testFolder(t);
  writeFileSync(path("two.dmg"), Buffer.concat([Buffer.from("encrcdsa"), Buffer.alloc(9000)]));
  writeFileSync(path("one.dmg"), Buffer.concat([Buffer.alloc(9000, 3), Buffer.from("cdsaencr")]));
  for (const name of ["two.dmg", "one.dmg"])
    isRefused(t, "unsupported", { path: path(name) }, path(name), "an encrypted Apple disk image", "hdiutil");
});

test("a changed byte is found by the checks, with the range it lies in, and reads of the rest are right", (t) => {
  const path = testFolder(t);
  const { disk, tables } = sample("zlib", 2);
  const [image] = makeDmg(disk, tables);
  writeFileSync(path("a"), image!);
  // The 101 raw sectors of the third table begin 370 sectors into the disk.
  const rawAt = image!.indexOf(disk.subarray(370 * sector, 371 * sector));
  const inRaw = damagesOf(patched(path("a"), { [rawAt + 600]: [image![rawAt + 600]! ^ 1] }));
  t.deepEqual(
    inRaw.map(({ position, length }) => [position, length]),
    [
      [40 * sector, 1146 * sector],
      [0, disk.length],
    ],
  );
  t.regex(inRaw[0]!.message, /Apple_HFS : 2.*has checksum/);
  t.regex(inRaw[1]!.message, /Something in them was changed/);
  // The zlib run before them.
  const packed = patched(path("a"), { [rawAt - 100]: [image![rawAt - 100]! ^ 1] });
  const inPacked = damagesOf(packed);
  t.deepEqual(
    inPacked.map(({ position, length }) => [position, length]),
    [
      [357 * sector, 13 * sector],
      [0, disk.length],
    ],
  );
  isRefused(t, "corrupt", { path: packed }, "disk bytes 182784 to 189439 are lost", "spindle verify");
  opened({ path: packed }, ({ disk: damaged }) => {
    const target = Buffer.alloc(1000);
    damaged.read(370 * sector, target);
    t.true(target.equals(disk.subarray(370 * sector, 370 * sector + 1000)));
  });
  // A table's own checksum: the table and the master checksum tell of it.
  const list = image!.toString("latin1");
  const table = Buffer.from(/disk image.*?<data>([^<]*)/s.exec(list)![1]!, "base64");
  table[73]! ^= 1;
  const text = table.toString("base64").replace(/.{1,52}/g, "\t\t\t\t$&\n");
  writeFileSync(
    path("b"),
    Buffer.from(list.replace(/(disk image.*?<data>\n)[^<]*(\t\t\t\t<)/s, `$1${text}$2`), "latin1"),
  );
  t.deepEqual(
    damagesOf(path("b")).map(({ message }) => /checksums? of its block tables|has checksum/.exec(message)?.[0]),
    ["has checksum", "checksums of its block tables"],
  );
});

/** Numbers of 32 bits to be put into a table, by their place; `cut` bytes of it are left. */
interface Change {
  readonly table?: number;
  readonly cut?: number;
  readonly [at: number]: number;
}

/** A disk of 100 sectors in two tables, one of them changed before the image is written. */
function hostile({ table: which = 1, cut, ...numbers }: Change = {}, sectors = 100): Buffer {
  const tables: TableSpec[] = [
    { name: "one", first: 0, runs: [["zlib", 20]] },
    {
      name: "two",
      first: 20,
      runs: [
        ["zlib", 10],
        ["raw", 10],
        ["zlib", 60],
      ],
    },
  ];
  const [image] = makeDmg(content(100, 8), tables, { sectors });
  const start = image!.indexOf("<?xml");
  let index = 0;
  const list = image!
    .toString("latin1", start, image!.length - 512)
    .replace(/<data>([^<]*bWlz[^<]*)/g, (whole, text: string) => {
      if (index++ !== which) return whole;
      const table = Buffer.from(text, "base64");
      for (const [at, number] of Object.entries(numbers)) table.writeUInt32BE(number, Number(at));
      return `<data>${table.subarray(0, cut).toString("base64")}`;
    });
  const trailer = Buffer.from(image!.subarray(-512));
  trailer.writeUInt32BE(list.length, 228);
  return Buffer.concat([image!.subarray(0, start), Buffer.from(list, "latin1"), trailer]);
}

/** Where in a table its run `number` is: a comment is before the first. */
const run = (number: number) => 204 + (number + 1) * 40;

const wrongTables: readonly [words: string, change: Change][] = [
  ["doesn't begin as one", { table: 0, 0: 0x6d757368 }],
  ["doesn't begin as one", { 4: 2 }],
  ["the header of block table 0", { table: 0, cut: 203 }],
  ["tells of 4294967295 runs", { 200: 0xffffffff }],
  ["beyond any disk", { 8: 0xffffffff }],
  ["beyond any disk", { 16: 0x7fffffff }],
  ["overlap at disk byte 9728", { 12: 19 }],
  ["overlap at disk byte 0", { 12: 0 }],
  ["the one before ends at 15360", { [run(1) + 12]: 11 }],
  ["the one before ends at 15360", { [run(1) + 12]: 9 }],
  ["goes beyond its end", { [run(2) + 20]: 61 }],
  ["goes beyond its end", { [run(2) + 16]: 0xffffffff }],
  ["is of 81 sectors, but its runs are of 80", { 20: 81 }],
  ["beyond the end of", { [run(1) + 24]: 0xffffffff }],
  ["beyond the end of", { [run(0) + 32]: 0xffffffff }],
  ["in 5119 bytes, which are too few", { [run(1) + 36]: 5119 }],
  ["the zlib data is damaged", { [run(2) + 36]: 40 }],
  ["it unpacks to 30720 bytes instead of 31232", { 20: 81, [run(2) + 20]: 61 }],
  ["unpacks to more than 30208 bytes", { 20: 79, [run(2) + 20]: 59 }],
];

test("tables that overlap, have gaps, or tell of absurd sizes and places are refused in words", (t) => {
  const path = testFolder(t);
  const image = path("a");
  writeFileSync(image, hostile());
  t.is(wholeDisk({ path: image }).length, 51200);
  for (const [words, change] of wrongTables) {
    writeFileSync(image, hostile(change));
    isRefused(t, "corrupt", { path: image }, image, words);
  }
});

test("a run that can't be unpacked costs no other, and no memory", (t) => {
  const path = testFolder(t);
  const image = path("a");
  for (const [words, change] of [
    ["of kind 0x80000009", { [run(2)]: 0x80000009 }],
    ["as one piece of 20469760 bytes", { 20: 40_000, [run(2) + 20]: 39_980 }],
  ] as const) {
    writeFileSync(image, hostile(change));
    isRefused(t, "unsupported", { path: image }, image, words);
    opened({ path: image }, ({ disk, chunkSize }) => {
      t.is(disk.read(30 * sector, Buffer.alloc(5120)), 5120);
      t.is(chunkSize, 20 * sector);
    });
  }
});

test("a disk goes on behind its tables in zeros, and zeros without end are no work", (t) => {
  const path = testFolder(t);
  const image = path("a");
  writeFileSync(image, hostile({}, 150));
  t.is(wholeDisk({ path: image }).length, 150 * sector);
  // A table without sectors, alone, leaves all to the zeros.
  writeFileSync(image, makeDmg(Buffer.alloc(0), [{ name: "none", first: 0, runs: [] }], { sectors: 7 })[0]!);
  t.true(wholeDisk({ path: image }).equals(Buffer.alloc(7 * sector)));
  t.deepEqual(damagesOf(image), []);
  writeFileSync(image, hostile({}, 3));
  t.is(wholeDisk({ path: image }).length, 100 * sector);
  writeFileSync(image, hostile({ 16: 0xfff, [run(2)]: kinds.zero, [run(2) + 16]: 0xfff }));
  t.is(damagesOf(image).length, 1);
  opened({ path: image }, ({ disk }) => {
    t.is(disk.size, (0xfff * 2 ** 32 + 100) * sector);
    t.true(disk.extentAt(disk.size - 5).hole);
  });
});

test("a trailer or a list that is damaged is refused with its byte", (t) => {
  const path = testFolder(t);
  const image = hostile();
  writeFileSync(path("a"), image);
  const at = image.length - 512;
  const refused = (changes: Record<number, readonly number[]>, ...words: string[]) =>
    isRefused(t, "corrupt", { path: patched(path("a"), changes) }, path("a"), ...words);
  refused({ [at + 32]: [1] }, "its data fork");
  refused({ [at + 40]: [1], [at + 55]: [1] }, "its resource fork");
  refused({ [at + 224]: [1] }, "its property list");
  refused({ [at + 223]: [image[at + 223]! + 1] }, "damaged at byte", "a tag should begin here");
  refused({ [at + 230]: [image[at + 230]! - 1] }, "damaged at byte");
  refused({ [at + 492]: [0x10] }, "more than any disk");
  refused({ [image.indexOf("blkx")]: [0x41] }, "has no block tables");
  const list = image.subarray(image.indexOf("<?xml"), at).toString("latin1");
  const none = Buffer.from(list.replace(/(blkx<.key>\s*<array>).*?(?=<.array>)/s, "$1"), "latin1");
  const trailer = Buffer.from(image.subarray(at));
  trailer.writeUInt32BE(none.length, 228);
  writeFileSync(path("b"), Buffer.concat([image.subarray(0, image.indexOf("<?xml")), none, trailer]));
  isRefused(t, "corrupt", { path: path("b") }, "has no block tables");
  refused({ [image.indexOf("<key>Data") + 5]: [0x41] }, "block table 0", "has no data");
  refused({ [image.indexOf("bWlz")]: [0x21] }, "base64");
  for (const cut of [1, 511, 512, 513, 5000]) {
    writeFileSync(path("cut"), image.subarray(0, -cut));
    isRefused(t, "corrupt", { path: path("cut"), format: "dmg" }, path("cut"), "no UDIF trailer");
  }
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  if (!needs(t, "bzip2", "xz")) return;
  const disk = content(60, 5);
  disk.fill(0, 50 * sector);
  const runs: [Kind, number][] = [
    ["zlib", 10],
    ["bzip2", 10],
    ["xz", 10],
    ["lzfse", 10],
    ["adc", 10],
    ["zero", 10],
  ];
  for (const options of [{}, { fork: true }]) {
    const [image] = makeDmg(disk, [{ name: "disk", first: 0, runs }], {
      ...options,
      packLzfse: (input) => packLzfse(input, ["bvx2"]),
    });
    const at = image!.length - 512;
    survivesDamage(t, image!, (bytes) => readSome(dmg, bytes), 200);
    // The trailer and what is before it are where the tables are.
    const tail = Buffer.from(image!.subarray(Math.max(0, at - 3000)));
    survivesDamage(
      t,
      tail,
      (bytes) => readSome(dmg, Buffer.concat([image!.subarray(0, image!.length - tail.length), bytes])),
      200,
    );
  }
});
