/** EWF images as ewfacquire makes them and ewfexport reads them; and such as those don't make, from the specification. */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { deflateSync } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { FileSource } from "../../bytes/file.js";
import { MemorySource } from "../../bytes/memory.js";
import { isDisk, isRefused, opened, readSome, survivesDamage, testFolder, wholeDisk } from "../qemu-test-tools.js";
import {
  register,
  sha256OfDisk,
  sharedContainers,
  surroundings,
  survives,
  unpackShared,
} from "../shared-test-images.js";
import {
  ewfRaw,
  type Making1,
  type Making2,
  makeEwf1,
  makeEwf2,
  mixedDisk,
  needsEwf,
  Parts,
  resum,
  run,
} from "./ewf-test-tools.js";
import { ex01Bzip2, ex01Disk, ex01Zlib } from "./ex01-test-data.js";
import { ewf } from "./index.js";
import { segmentName } from "./segments.js";

register(ewf);

const MiB = 1 << 20;
const chunk = 32768;
/** Not a whole number of chunks, and a last sector of its own. */
const odd = 2 * MiB + 5 * 4096 + 512;

/** Writes the segments, and returns the first's path. */
function written(path: (name: string) => string, segments: readonly Parts[], extension = "E"): string {
  const first = `disk.${extension}01`;
  for (const [index, parts] of segments.entries()) parts.write(path(segmentName(first, index + 1)!));
  return path(first);
}

const make1 = (path: (name: string) => string, making: Making1) =>
  written(path, makeEwf1(making), making.kind === "S01" ? "s" : "E");
const make2 = (path: (name: string) => string, making: Making2) => written(path, makeEwf2(making), "Ex");

const hasBzip2 = spawnSync("bzip2", ["-h"]).status === 0;
const bzip2 = (data: Buffer) => execFileSync("bzip2", ["-c"], { input: data });

function damagesOf(path: string): string[] {
  return opened({ path }, ({ layers }) => {
    const { integrity } = layers[0]!;
    const messages: string[] = [];
    for (let piece = 0; piece < integrity!.pieces; ) {
      const { damages, pieces } = integrity!.check(piece);
      messages.push(...damages.map(({ position, length, message }) => `${position}+${length}: ${message}`));
      piece += pieces ?? 1;
    }
    return messages;
  });
}

const formats: Record<string, string> = {
  ewf: "e01",
  smart: "s01",
  ftk: "E01",
  encase2: "E01",
  encase3: "E01",
  encase4: "E01",
  encase5: "E01",
  encase6: "E01",
  encase7: "E01",
  linen5: "E01",
  linen6: "E01",
  linen7: "E01",
  ewfx: "e01",
};

for (const compression of ["none", "empty-block", "best"])
  test(`every format that ewfacquire writes, in segments of a MiB: compression ${compression}`, (t) => {
    if (!needsEwf(t)) return;
    const path = testFolder(t);
    const disk = mixedDisk(odd, 5);
    writeFileSync(path("disk.raw"), disk);
    for (const [format, extension] of Object.entries(formats)) {
      const words = ["-u", "-q", "-f", format, "-c", compression, "-d", "sha1", "-S", `${MiB}`, "-C", "case 5"];
      run("ewfacquire", ...words, "-e", "Ann Examiner", "-t", path(format), path("disk.raw"));
      const first = path(`${format}.${extension}`);
      isDisk(t, { path: first }, disk, chunk);
      t.deepEqual(damagesOf(first), []);
      opened({ path: first }, ({ layers }) => {
        const { facts } = layers[0]!;
        t.is(facts.md5, createHash("md5").update(disk).digest("hex"));
        if (/encase[67]|linen[67]|ewfx/.test(format))
          t.is(facts.sha1, createHash("sha1").update(disk).digest("hex"), format);
        t.is(facts.caseNumber, "case 5");
        t.is(facts.examiner, "Ann Examiner");
        t.true((facts.segments as number) > (compression === "none" ? 2 : 0));
        t.regex(String(facts.acquired), /^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ?$/);
      });
    }
  });

for (const sectors of [16, 256, 32768])
  test(`chunks of ${sectors} sectors, from a stream`, (t) => {
    if (!needsEwf(t)) return;
    const path = testFolder(t);
    const disk = mixedDisk(odd, 6);
    const words = ["-q", "-b", `${sectors}`, "-c", "fast", "-m", "optical", "-t", path("disk")];
    execFileSync("ewfacquirestream", words, { input: disk, stdio: ["pipe", "ignore", "ignore"] });
    isDisk(t, { path: path("disk.E01") }, disk, sectors * 512);
    opened({ path: path("disk.E01") }, ({ layers }) => {
      t.is(layers[0]!.chunkSize, sectors * 512);
      t.is(layers[0]!.facts.mediaType, "optical");
    });
  });

test("shared EWF images have the recorded sha256, and tell what they were made of", (t) => {
  for (const row of sharedContainers(t, "ewf"))
    opened({ path: unpackShared(t, row) }, ({ disk, layers }) => {
      t.is(layers[0]!.format, "ewf");
      t.is(disk.size, Number(row.raw_size));
      t.is(sha256OfDisk(disk), row.raw_sha256);
      t.is(layers[0]!.facts.segments, row.more_files ? 2 : 1);
      t.is(layers[0]!.facts.examiner, "examiner");
      t.regex(String(layers[0]!.facts.acquired), /^2021-07-22T15:33:..Z$/);
    });
});

for (const [kind, extra] of [
  ["E01", {}],
  ["E01", { base: true, order: (count: number) => [...Array(count).keys()].reverse() }],
  ["EnCase 1", {}],
  ["S01", {}],
] as const)
  test(`${kind} by the specification: ${Object.keys(extra).join(", ") || "plain"}`, (t) => {
    const path = testFolder(t);
    const disk = mixedDisk(odd, 7);
    const packed = (index: number) => index % 3 !== 0;
    const first = make1(path, { disk, kind, packed, perSegment: 29, perTable: 11, ...extra });
    isDisk(t, { path: first }, disk, chunk);
    t.deepEqual(damagesOf(first), []);
    // It takes chunks that lie in no order for damage.
    if (!("order" in extra) && needsEwf(t)) t.true(ewfRaw(first).equals(disk));
  });

for (const [how, making] of [
  ["counted from a base offset", { base: true, perTable: 9, hole: 2_100_000_000 }],
  ["with offsets of 32 bits, as EnCase 6.7.1 wrote them", { overflow: true, hole: 2 ** 31 - 700_000 }],
] as const)
  test(`a segment of more than 2 GiB, ${how}`, (t) => {
    const path = testFolder(t);
    const disk = mixedDisk(odd, 8);
    const first = make1(path, { disk, packed: (index) => index < 20, ...making });
    t.true(wholeDisk({ path: first }).equals(disk));
    if (needsEwf(t)) t.true(ewfRaw(first).equals(disk));
  });

for (const [kind, names] of [
  ["E01", ["E01", "E99", "EAA", "EAF"]],
  ["S01", ["s01", "s99", "saa", "saf"]],
] as const)
  test(`105 segments are found by the naming rule: ${names.join(", ")}`, (t) => {
    const path = testFolder(t);
    const disk = mixedDisk(105 * 8192, 9);
    const first = make1(path, { disk, kind, sectorsPerChunk: 16, perSegment: 1 });
    for (const name of names) t.notThrows(() => readFileSync(path(`disk.${name}`)));
    isDisk(t, { path: first }, disk, 8192);
    if (needsEwf(t)) t.true(ewfRaw(first).equals(disk));
    rmSync(path(`disk.${names[2]}`));
    isRefused(t, "missing", { path: first }, first, path(`disk.${names[2]}`), "segment 100");
  });

test("the naming rule goes on to the end of the alphabet, and has no names beyond", (t) => {
  const last = (first: string, number: number) => [segmentName(first, number), segmentName(first, number + 1)];
  t.deepEqual(last("a.E01", 99), ["a.E99", "a.EAA"]);
  t.deepEqual(last("a.E01", 99 + 26), ["a.EAZ", "a.EBA"]);
  t.deepEqual(last("a.E01", 99 + 676), ["a.EZZ", "a.FAA"]);
  t.deepEqual(last("a.E01", 99 + 22 * 676), ["a.ZZZ", undefined]);
  t.deepEqual(last("a.e01", 99 + 22 * 676), ["a.zzz", undefined]);
  t.deepEqual(last("a.s01", 99 + 8 * 676), ["a.zzz", undefined]);
  t.deepEqual(last("a.b.Ex01", 99), ["a.b.Ex99", "a.b.ExAA"]);
  t.deepEqual(last("a.Ex01", 99 + 676), ["a.ExZZ", "a.EyAA"]);
  t.deepEqual(last("a.Ex01", 99 + 3 * 676), ["a.EzZZ", undefined]);
  t.is(segmentName("evidence", 2), undefined);
  t.is(segmentName("evidence.001", 2), undefined);
});

test("a segment that is missing, misnamed or another's is refused in words that name it; mixed capitals are found", (t) => {
  const path = testFolder(t);
  const disk = mixedDisk(odd, 10);
  const making = { disk, perSegment: 30, setId: Buffer.alloc(16, 0x11) };
  const first = make1(path, making);
  isRefused(t, "usage", { path: path("disk.E02") }, path("disk.E02"), "segment 2", "first segment");
  copyFileSync(path("disk.E03"), path("third"));
  rmSync(path("disk.E03"));
  isRefused(t, "missing", { path: first }, first, path("disk.E03"), "segment 3");
  copyFileSync(path("disk.E02"), path("disk.E03"));
  isRefused(t, "mismatch", { path: first }, path("disk.E03"), "segment 2", "segment 3");
  makeEwf1({ ...making, setId: Buffer.alloc(16, 0x22) })[2]!.write(path("disk.E03"));
  isRefused(t, "mismatch", { path: first }, path("disk.E03"), "22222222-2222", "11111111-1111");
  makeEwf1({ ...making, disk: disk.subarray(0, -512) })[2]!.write(path("disk.E03"));
  isRefused(t, "mismatch", { path: first }, path("disk.E03"), "count of sectors");
  writeFileSync(path("disk.E03"), Buffer.alloc(5000));
  isRefused(t, "mismatch", { path: first }, path("disk.E03"), "no EWF segment");
  rmSync(path("disk.E03"));
  renameSync(path("third"), path("disk.e03"));
  t.true(wholeDisk({ path: first }).equals(disk));
  renameSync(first, path("evidence"));
  isRefused(t, "unsupported", { path: path("evidence") }, "no file name", ".E01");
});

/** Where sections of a type are in a segment, by walking it. */
function sectionsOf(bytes: Buffer, type: string): number[] {
  const found: number[] = [];
  for (let at = 13; ; ) {
    const name = bytes.toString("latin1", at, at + 16).replace(/\0.*$/s, "");
    if (name === type) found.push(at);
    const next = Number(bytes.readBigUInt64LE(at + 16));
    if (next === at) return found;
    at = next;
  }
}

test("a table that is damaged is replaced by its copy; without a sound one its chunks alone are lost", (t) => {
  const path = testFolder(t);
  const disk = mixedDisk(odd, 11);
  const first = make1(path, { disk, perTable: 20 });
  const image = readFileSync(first);
  const [tables, copies] = [sectionsOf(image, "table"), sectionsOf(image, "table2")];
  const damaged = (...places: number[]) => {
    const bytes = Buffer.from(image);
    for (const at of places) bytes[at] = bytes[at]! ^ 1;
    writeFileSync(first, bytes);
  };
  const entry = 76 + 24 + 5 * 4;
  damaged(tables[1]! + entry);
  t.true(wholeDisk({ path: first }).equals(disk));
  if (needsEwf(t)) t.true(ewfRaw(first).equals(disk));
  t.deepEqual(damagesOf(first), [
    `${20 * chunk}+${20 * chunk}: ${first}: the table in the section at byte ${tables[1]} is damaged: its checksum is wrong.`,
  ]);
  damaged(copies[1]! + entry);
  t.true(wholeDisk({ path: first }).equals(disk));
  t.is(damagesOf(first).length, 1);
  // The header alone: its count is used for nothing then.
  damaged(tables[1]! + 76);
  t.true(wholeDisk({ path: first }).equals(disk));
  damaged(tables[1]! + entry, copies[1]! + entry);
  isRefused(t, "corrupt", { path: first }, first, `byte ${tables[1]}`, "chunks 20 to 39", "so is its copy");
  opened({ path: first }, ({ disk: read }) => {
    const target = Buffer.alloc(1000);
    for (const at of [20 * chunk - 1000, 40 * chunk]) {
      t.is(readFully(read, at, target), 1000);
      t.true(target.equals(disk.subarray(at, at + 1000)));
    }
  });
  damaged(tables[1]! + 76, copies[1]! + 76);
  isRefused(t, "corrupt", { path: first }, first, `byte ${tables[1]}`, "no sound copy");
});

test("a damaged chunk is told with its file, its byte and the disk's bytes that it costs, and no other is lost", (t) => {
  const path = testFolder(t);
  const disk = mixedDisk(odd, 12);
  const first = make1(path, { disk, perSegment: 30, packed: (index) => index % 2 === 0 });
  const second = path("disk.E02");
  const image = readFileSync(second);
  const table = sectionsOf(image, "table")[0]! + 76 + 24;
  const at = (nth: number) => image.readUInt32LE(table + nth * 4) & 0x7fffffff;
  for (const [nth, words] of [
    [2, "zlib data"],
    [3, "checksum is wrong"],
  ] as const) {
    const bytes = Buffer.from(image);
    bytes[at(nth) + 10] = bytes[at(nth) + 10]! ^ 0x55;
    writeFileSync(second, bytes);
    const start = (30 + nth) * chunk;
    isRefused(
      t,
      "corrupt",
      { path: first },
      second,
      `byte ${at(nth)}`,
      words,
      `bytes ${start} to ${start + chunk - 1}`,
    );
    const damages = damagesOf(first);
    t.is(damages.length, 1);
    t.true(damages[0]!.startsWith(`${start}+${chunk}: ${second}`), damages[0]);
    opened({ path: first }, ({ disk: read }) => {
      const target = Buffer.alloc(chunk);
      readFully(read, start + chunk, target);
      t.true(target.equals(disk.subarray(start + chunk, start + 2 * chunk)));
    });
  }
});

test("case data in UTF-16 come before those in ASCII; errors of acquisition are listed as ewfinfo lists them", (t) => {
  const path = testFolder(t);
  const disk = mixedDisk(odd, 13);
  const codes = "a\tc\tn\te\tt\tmd\tsn\tav\tov\tm\tu\tp";
  const header = `1\r\nmain\r\n${codes}\r\nplain\t\t\t\t\t\t\t\t\t2002 3 4 10 19 9\t\t0\r\n\r\n`;
  const header2 = `\ufeff1\nmain\n${codes}\nDéscription\t7/26\t\tÄnn\tnone\tModel 5\tS-1\t8.1\tLinux\t1142163845\t0\t0\n\n`;
  const texts = {
    header2: deflateSync(Buffer.from(header2, "utf16le")),
    header: deflateSync(Buffer.from(header, "latin1")),
  };
  const errors = [
    [5, 3],
    [700, 1],
  ] as const;
  const facts = (making: Partial<Making1>) =>
    opened(
      { path: make1(path, { disk, errors, setId: Buffer.from("00112233445566778899aabbccddeeff", "hex"), ...making }) },
      (image) => image.layers[0]!.facts,
    );
  t.like(facts({ texts }), {
    description: "Déscription",
    caseNumber: "7/26",
    examiner: "Änn",
    model: "Model 5",
    serialNumber: "S-1",
    acquired: "2006-03-12T11:44:05Z",
    setId: "33221100-5544-7766-8899-aabbccddeeff",
    acquisitionErrors: {
      ranges: 2,
      unreadable: [
        { sector: 5, count: 3 },
        { sector: 700, count: 1 },
      ],
    },
  });
  if (needsEwf(t)) {
    const told = run("ewfinfo", path("disk.E01"));
    for (const words of ["sector(s): 5 - 7", "sector(s): 700 - 700", "33221100-5544-7766-8899-aabbccddeeff", "7/26"])
      t.true(told.includes(words), words);
  }
  t.like(facts({ texts: { header: texts.header } }), { description: "plain", acquired: "2002-03-04T10:19:09" });
  const damaged = facts({ texts: { header: Buffer.concat([Buffer.alloc(20), texts.header]) } });
  t.regex(String(damaged.damagedCaseData), /"header".*zlib/);
});

/** An image in memory with bytes changed, opened and read. */
function refused(t: ExecutionContext, bytes: Buffer, ...words: RegExp[]): void {
  const source = new MemorySource("/images/disk.E01", bytes);
  const error = t.throws(() => {
    const layer = ewf.open(source, surroundings("/images/disk.E01"));
    const run = layer.locate(0);
    if (run.kind === "stored") readFully(run.source, run.at, Buffer.alloc(layer.size));
  });
  for (const word of words) t.regex(error?.message ?? "", word);
}

test("sections that loop, overlap or lie, and measures that can't be, are refused in words", (t) => {
  const image = makeEwf1({ disk: mixedDisk(20 * chunk, 14) })[0]!.bytes;
  const changed = (at: number, write: (bytes: Buffer) => void, sum: readonly [number, number]) => {
    const bytes = Buffer.from(image);
    write(bytes.subarray(at));
    resum(bytes, at + sum[0], sum[1]);
    return bytes;
  };
  const [volume] = sectionsOf(image, "volume") as [number];
  const [sectors] = sectionsOf(image, "sectors") as [number];
  const [table] = sectionsOf(image, "table") as [number];
  const section = [0, 72] as const;
  const measures = [76, 1048] as const;
  const number = (value: bigint, at: number) => (bytes: Buffer) => bytes.writeBigUInt64LE(value, at);
  refused(t, changed(sectors, number(13n, 16), section), /sectors.*byte 13.*loop/);
  refused(t, changed(sectors, number(BigInt(sectors), 16), section), /loop/);
  refused(t, changed(sectors, number(BigInt(sectors) + 75n, 16), section), /loop/);
  refused(t, changed(sectors, number(2n ** 60n, 24), section), /length/);
  refused(
    t,
    changed(sectors, (bytes) => number(0n, 24)(bytes.fill(0xff, 16, 22).fill(0, 22, 24).subarray(0)), section),
    /truncated/,
  );
  refused(t, changed(sectors, number(2n ** 64n - 1n, 24), section), /length/);
  refused(
    t,
    changed(sectors, (bytes) => bytes.write("ltree\0\0\0"), section),
    /logical evidence/,
  );
  refused(
    t,
    changed(sectors, (bytes) => bytes.write("delta_chunk"), section),
    /delta_chunk/,
  );
  const damagedSection = Buffer.from(image);
  damagedSection[sectors + 40] = 1;
  refused(t, damagedSection, new RegExp(`section at byte ${sectors} is damaged`));
  refused(
    t,
    changed(volume, (bytes) => bytes.writeUInt32LE(0, 76 + 12), measures),
    /0 bytes/,
  );
  refused(
    t,
    changed(volume, (bytes) => bytes.writeUInt32LE(0, 76 + 8), measures),
    /0 a chunk/,
  );
  refused(
    t,
    changed(volume, (bytes) => bytes.writeUInt32LE(0xffffffff, 76 + 8), measures),
    /chunks of \d+ bytes/,
  );
  refused(t, changed(volume, number(0n, 76 + 16), measures), /0 sectors/);
  refused(t, changed(volume, number(2n ** 63n, 76 + 16), measures), /can't be/);
  refused(
    t,
    changed(volume, (bytes) => bytes.writeUInt8(14, 76), measures),
    /logical evidence/,
  );
  const damagedVolume = Buffer.from(image);
  damagedVolume[volume + 76 + 4] = 9;
  refused(t, damagedVolume, /no volume section/);
  // Far more entries than there is room for, in the table and in its copy.
  const huge = Buffer.from(image);
  for (const at of [table, ...sectionsOf(image, "table2")]) {
    huge.writeUInt32LE(0x7fffffff, at + 76);
    resum(huge, at + 76, 20);
  }
  refused(t, huge, /more entries/);
  // Entries that lead out of the file, with sums that hold.
  const astray = Buffer.from(image);
  for (const at of [table, ...sectionsOf(image, "table2")]) {
    astray.writeUInt32LE(0x7ffffff0, at + 76 + 24);
    resum(astray, at + 76 + 24, 80);
  }
  refused(t, astray, /chunk 0 should be at byte 2147483632/);
  for (const cut of [13, 40, volume + 80, sectors + 500, table + 90, image.length - 1])
    refused(t, image.subarray(0, cut), /truncated/);
});

test("an image whose tables end early gives what there is; the rest is refused, and told by verify at once", (t) => {
  const path = testFolder(t);
  const disk = mixedDisk(40 * chunk, 15);
  const image = makeEwf1({ disk, perTable: 20 })[0]!.bytes;
  const first = path("disk.E01");
  // A thousand times as many sectors as there are chunks for, in all sections that tell.
  const [volume] = sectionsOf(image, "volume") as [number];
  image.writeBigUInt64LE(2n ** 43n, volume + 76 + 16);
  resum(image, volume + 76, 1048);
  writeFileSync(first, image);
  opened({ path: first }, ({ disk: read, layers }) => {
    const target = Buffer.alloc(disk.length);
    t.is(readFully(read, 0, target), target.length);
    t.true(target.equals(disk));
    t.throws(() => read.read(disk.length, target), { message: /tables have no chunks for disk bytes 1310720 to/ });
    t.regex(String(layers[0]!.facts.incomplete), /chunks/);
  });
  const damages = damagesOf(first);
  t.is(damages.length, 1);
  t.true(damages[0]!.startsWith(`${disk.length}+${2 ** 52 - disk.length}: `), damages[0]);
});

/** Counts what is read of a file. */
class Counted implements ByteSource {
  bytes = 0;
  constructor(
    private readonly file: FileSource,
    readonly name = file.name,
    readonly size = file.size,
  ) {}

  read(position: number, target: Uint8Array): number {
    const count = this.file.read(position, target);
    this.bytes += count;
    return count;
  }
}

test("opening reads what tells of tables, not the tables: 1000 of them, for 2 TiB", (t) => {
  const path = testFolder(t);
  const file = new Parts();
  const model = makeEwf1({ disk: Buffer.alloc(chunk) })[0]!.bytes;
  const [volume] = sectionsOf(model, "volume") as [number];
  const tables = 1000;
  const entries = 65534;
  const measures = Buffer.from(model.subarray(0, volume + 76 + 1052));
  measures.writeBigUInt64LE(BigInt(tables * entries * 64), volume + 76 + 16);
  resum(measures, volume + 76, 1048);
  file.add(measures);
  const section = (type: string, size: number) => {
    const bytes = Buffer.alloc(76);
    bytes.write(type);
    bytes.writeBigUInt64LE(BigInt(size === 0 ? file.end : file.end + 76 + size), 16);
    bytes.writeBigUInt64LE(BigInt(size === 0 ? 0 : 76 + size), 24);
    resum(bytes, 0, 72);
    file.add(bytes);
  };
  const head = Buffer.alloc(24);
  head.writeUInt32LE(entries, 0);
  resum(head, 0, 20);
  for (let table = 0; table < tables; table++) {
    section("sectors", 1 << 20);
    file.skip(1 << 20);
    for (const type of ["table", "table2"]) {
      section(type, 24 + entries * 4 + 4);
      file.add(head);
      file.skip(entries * 4 + 4);
    }
  }
  section("done", 0);
  file.write(path("disk.E01"));
  const source = FileSource.open(path("disk.E01"));
  t.teardown(() => source.close());
  const counted = new Counted(source);
  const layer = ewf.open(counted, surroundings(counted.name));
  t.is(layer.size, tables * entries * chunk);
  t.true(counted.bytes < 3.2 * tables * 8192, `${counted.bytes} bytes were read`);
  t.true(counted.bytes * 10 < tables * entries * 8);
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  for (const kind of ["E01", "S01", "EnCase 1"] as const) {
    const image = makeEwf1({
      disk: mixedDisk(9 * chunk + 512, 16),
      kind,
      perTable: 4,
      packed: (index) => index > 2,
    })[0]!;
    survivesDamage(t, image.bytes, (bytes) => readSome(ewf, bytes), 150);
    survivesDamage(t, image.bytes, (bytes) => survives(ewf, bytes), 150);
  }
});

test("Ex01 as libewf writes it, with zlib and with bzip2", (t) => {
  const path = testFolder(t);
  writeFileSync(path("zlib.Ex01"), ex01Zlib);
  isDisk(t, { path: path("zlib.Ex01") }, ex01Disk, 8192);
  t.deepEqual(damagesOf(path("zlib.Ex01")), []);
  opened({ path: path("zlib.Ex01") }, ({ layers: [layer] }) => {
    t.like(layer!.facts, {
      subformat: "Ex01",
      caseNumber: "case 1",
      description: "déscription",
      examiner: "Eve",
      evidenceNumber: "N2",
      notes: "notes €",
      software: "20260627",
      compression: "zlib",
      mediaType: "fixed",
      physical: true,
      md5: createHash("md5").update(ex01Disk).digest("hex"),
      sha1: createHash("sha1").update(ex01Disk).digest("hex"),
    });
    t.is(layer!.locate(0).kind, "zero");
    t.is(layer!.locate(0).length, 8192);
    t.is(layer!.locate(8192).kind, "stored");
  });
  writeFileSync(path("bzip2.Ex01"), ex01Bzip2);
  isDisk(t, { path: path("bzip2.Ex01") }, ex01Disk, 8192);
  opened({ path: path("bzip2.Ex01") }, ({ layers }) => t.is(layers[0]!.facts.compression, "bzip2"));
});

const reversed = (count: number) => [...Array(count).keys()].reverse();

for (const [how, making] of [
  ["in segments", { perSegment: 29, perTable: 11 }],
  ["tables and chunks in no order", { perSegment: 40, perTable: 6, order: reversed, tableOrder: reversed }],
  ["chunks beyond 2 GiB", { perTable: 20, hole: 2_100_000_000 }],
  ["with bzip2", { perTable: 20, method: 2, pack: bzip2 }],
] as const)
  test(`Ex01 by the specification: ${how}`, (t) => {
    if ("pack" in making && !hasBzip2) return void t.pass(t.log("skipped: bzip2 is not installed") as undefined);
    const path = testFolder(t);
    const disk = mixedDisk(odd, 17);
    const errors = [[9, 2]] as const;
    const first = make2(path, { disk, packed: (index) => index % 3 !== 0, errors, ...making });
    isDisk(t, { path: first }, disk, chunk);
    t.deepEqual(damagesOf(first), []);
    opened({ path: first }, ({ layers }) =>
      t.like(layers[0]!.facts, {
        caseNumber: "case 7",
        description: "Ünïcode",
        notes: "two\nlines",
        serialNumber: "S\tN",
        acquired: "2001-09-09T01:46:40Z",
        acquisitionErrors: { ranges: 1, unreadable: [{ sector: 9, count: 2 }] },
      }),
    );
  });

test("Ex01: segments, tables and sections that can't be are refused in words", (t) => {
  const path = testFolder(t);
  const disk = mixedDisk(30 * chunk, 18);
  const first = make2(path, { disk, perSegment: 10, perTable: 5 });
  isRefused(t, "usage", { path: path("disk.Ex02") }, path("disk.Ex02"), "segment 2");
  makeEwf2({ disk, perSegment: 10, setId: Buffer.alloc(16, 9) })[1]!.write(path("disk.Ex02"));
  isRefused(t, "mismatch", { path: first }, path("disk.Ex02"), "09090909-", "07070707-");
  rmSync(path("disk.Ex02"));
  isRefused(t, "missing", { path: first }, path("disk.Ex02"), "segment 2");
  const one = (making: Partial<Making2>) => makeEwf2({ disk, perTable: 10, ...making })[0]!.bytes;
  refused(t, one({ flags: 2 }), /encrypted/);
  refused(t, one({ sections: [[11, Buffer.alloc(64)]] }), /encrypted/);
  refused(t, one({ sections: [[32, Buffer.alloc(64)]] }), /logical evidence/);
  refused(t, one({ method: 3 }), /method 3/);
  refused(t, one({ method: 2, pack: (data) => bzip2(data).subarray(4) }), /./);
  // EnCase's own bzip2 lacks the stream's header.
  const bare =
    hasBzip2 && one({ method: 2, pack: (data) => (data[0] === 0xff ? bzip2(data) : bzip2(data).subarray(4)) });
  if (bare) refused(t, bare, /without bzip2's header/);
  const image = one({});
  const last = image.length - 64;
  const loop = Buffer.from(image);
  loop.writeBigUInt64LE(BigInt(last), last + 8);
  resum(loop, last, 60);
  refused(t, loop, /loop/);
  const large = Buffer.from(image);
  large.writeBigUInt64LE(2n ** 62n, last + 16);
  resum(large, last, 60);
  refused(t, large, /should have/);
  for (const cut of [20, 90, 1000, image.length - 64, image.length - 1])
    refused(t, image.subarray(0, cut), /truncated/);
  const gap = path("gap.Ex01");
  writeFileSync(gap, one({ without: 1 }));
  isRefused(t, "corrupt", { path: gap }, `bytes ${10 * chunk} to ${20 * chunk - 1}`);
  opened({ path: gap }, ({ disk: read }) => {
    const target = Buffer.alloc(chunk);
    readFully(read, 20 * chunk, target);
    t.true(target.equals(disk.subarray(20 * chunk, 21 * chunk)));
  });
  t.true(damagesOf(gap)[0]!.startsWith(`${10 * chunk}+${10 * chunk}: `));
  survivesDamage(t, image, (bytes) => readSome(ewf, bytes), 200);
  survivesDamage(t, image, (bytes) => survives(ewf, bytes), 200);
});

test("chunks that are packed as the writer packed zeros are holes, and all others are not", (t) => {
  const disk = Buffer.alloc(40 * chunk + 512);
  // A chunk of another byte packs to as few bytes as one of zeros does; one has a single byte at its end.
  disk.fill(7, 3 * chunk, 4 * chunk);
  disk[10 * chunk - 1] = 1;
  disk.fill("data", 20 * chunk, 22 * chunk);
  const image = makeEwf1({ disk })[0]!.bytes;
  const layer = ewf.open(new MemorySource("/images/disk.E01", image), surroundings("/images/disk.E01"));
  const holes: number[] = [];
  const content = Buffer.alloc(disk.length);
  for (let position = 0; position < layer.size; ) {
    const run = layer.locate(position);
    if (run.kind === "stored") readFully(run.source, run.at, content.subarray(position, position + run.length));
    else for (let at = position; at < position + run.length; at += chunk) holes.push(at / chunk);
    position += run.length;
  }
  t.true(content.equals(disk));
  const zeros = [...Array(40).keys()].filter((nth) => ![3, 9, 20, 21].includes(nth));
  t.deepEqual(holes, zeros, "the last, in part, was packed to other bytes");
});
