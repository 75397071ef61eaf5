import { chmodSync, mkdirSync, readFileSync, readlinkSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { FileSource } from "../../bytes/file.js";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import type { FileSystem } from "../filesystem.js";
import { contentsOf, hasTools, noise, run, scratchFolder, sparseFile } from "../image-test-tools.js";
import {
  compareManifest,
  openRecognised,
  openSharedImage,
  readManifest,
  sharedImages,
  sharedVolume,
  type Walk,
  walk,
} from "../shared-test-images.js";
import { codePages } from "./code-pages.js";
import { fat, openFat } from "./fat.js";

const packages = "dosfstools mtools";
const MiB = 1024 * 1024;

/** What mtools is told: an image without a drive letter, whatever its boot sector. */
const mtools = { MTOOLS_SKIP_CHECK: "1", MTOOLS_NO_VFAT: "0" };

function tree(folder: string): string {
  const top = join(folder, "tree");
  mkdirSync(join(top, "deep/er/and deeper/äöü ß/目录"), { recursive: true });
  writeFileSync(join(top, "empty"), "");
  writeFileSync(join(top, "lower.txt"), "nt lower case bits");
  writeFileSync(join(top, "UPPER.TXT"), noise(513));
  writeFileSync(join(top, "Mixed.Case"), noise(4096));
  writeFileSync(join(top, "lower.EXT"), noise(4097));
  writeFileSync(join(top, `${"l".repeat(251)}.txt`), "255 characters");
  writeFileSync(join(top, "thirteen.char"), "exactly one entry");
  writeFileSync(join(top, "dots...and spaces  here.tar.gz"), noise(70000, 2));
  writeFileSync(join(top, "deep/er/and deeper/äöü ß/目录/файл"), noise(100_001, 3));
  for (let index = 0; index < 40; index++)
    writeFileSync(join(top, "deep", `a file with number ${index}`), noise(index * 37, index));
  utimesSync(join(top, "UPPER.TXT"), 1e9, 1e9 + 2);
  return top;
}

function make(t: ExecutionContext, size: number, options: readonly string[]): string {
  const path = sparseFile(scratchFolder(t), "fat.img", size);
  run("mkfs.vfat", [...options, path]);
  return path;
}

function open(t: ExecutionContext, path: string): FileSystem {
  const source = FileSource.open(path);
  t.teardown(() => source.close());
  return openRecognised(t, fat, source);
}

const openedPath = ({ fd }: FileSource) => readlinkSync(`/proc/self/fd/${fd}`);

const contents = ({ files }: Walk) =>
  new Map(
    [...files]
      .map(([path, { attributes, hash }]): [string, string] => [
        path,
        attributes.kind === "directory" ? "directory" : `${attributes.size} ${hash}`,
      ])
      .sort(),
  );

const sorted = (map: Map<string, string>) => new Map([...map].sort());

const kinds: readonly (readonly [string, number, ...string[]])[] = [
  ["fat12", 1440 * 1024, "-F", "12", "-n", "FLOPPY"],
  ["fat12", 4 * MiB, "-F", "12", "-s", "8", "-f", "1"],
  ["fat12", 2 * MiB, "-F", "12", "-S", "2048", "-s", "1"],
  ["fat16", 16 * MiB, "-F", "16", "-n", "SIXTEEN"],
  ["fat16", 64 * MiB, "-F", "16", "-S", "4096", "-s", "1", "-r", "512"],
  ["fat16", 40 * MiB, "-F", "16", "-S", "1024", "-s", "2", "-R", "7"],
  ["fat32", 40 * MiB, "-F", "32", "-s", "1", "-n", "THIRTY TWO"],
  ["fat32", 300 * MiB, "-F", "32", "-S", "4096", "-s", "1"],
  ["fat32", 64 * MiB, "-F", "32", "-s", "1", "-f", "3"],
];

for (const [type, size, ...options] of kinds) {
  test(`${type} made by mkfs.vfat ${options.slice(2).join(" ")} and filled by mcopy reads as it was filled`, (t) => {
    if (!hasTools(t, packages, "mkfs.vfat", "mcopy", "fsck.fat")) return;
    const path = make(t, size, [...options, "-i", "1234ABCD"]);
    const top = tree(scratchFolder(t));
    run("sh", ["-c", `cd '${top}' && mcopy -s -m -i '${path}' * ::`], mtools);
    const fileSystem = open(t, path);
    const walked = walk(fileSystem);
    t.deepEqual([...walked.errors], []);
    t.deepEqual(contents(walked), sorted(contentsOf(top)));
    t.is(fileSystem.type, type);
    t.is(fileSystem.facts!.uuid, "1234-ABCD");
    t.deepEqual(fileSystem.warnings, []);
    t.is(walked.files.get("/UPPER.TXT")!.attributes.modified.seconds, 1e9 + 2);
    const ids = new Set([...walked.files.values()].map(({ id }) => id));
    t.is(ids.size, walked.files.size);
    // fsck.fat takes no volume with three tables.
    if (!options.includes("3")) {
      const [, used, clusters] = /(\d+)\/(\d+) clusters/.exec(run("fsck.fat", ["-n", path])) ?? [];
      t.is(fileSystem.statistics.blocks, Number(clusters));
      t.is(fileSystem.statistics.freeBlocks, Number(clusters) - Number(used));
    }
    const label = /n (.+)$/.exec(options.join(" "))?.[1] ?? "";
    t.is(fileSystem.label, options.includes("-n") ? label : "");
  });
}

test("clusters out of order and in many pieces are read across every edge", (t) => {
  if (!hasTools(t, packages, "mkfs.vfat", "mcopy", "mdel")) return;
  const folder = scratchFolder(t);
  const path = make(t, 3 * MiB, ["-F", "12", "-s", "2"]);
  for (let index = 0; index < 60; index++) writeFileSync(join(folder, `f${index}`), noise(3000, index));
  run("sh", ["-c", `cd '${folder}' && mcopy -i '${path}' f* ::`], mtools);
  const every3 = Array.from({ length: 20 }, (_, index) => `::f${index * 3}`);
  run("mdel", ["-i", path, ...every3], mtools);
  const large = noise(100_000, 99);
  writeFileSync(join(folder, "large"), large);
  run("mcopy", ["-i", path, join(folder, "large"), "::"], mtools);
  // mtools says in which clusters a file lies: it has to be in pieces for this test to mean something.
  t.true(run("mshowfat", ["-i", path, "::large"], mtools).split(/[,>]/).length > 10);
  const fileSystem = open(t, path);
  const file = fileSystem.lookup(fileSystem.root, Buffer.from("large"))!;
  for (const [position, length] of [
    [0, 100_000],
    [1023, 2],
    [1024, 1024],
    [99_999, 10],
    [3071, 5000],
    [50_000, 1],
  ]) {
    const target = Buffer.alloc(length!, 0xaa);
    let filled = 0;
    for (let count = 1; count > 0 && filled < length!; filled += count)
      count = fileSystem.read(file, position! + filled, target.subarray(filled));
    t.deepEqual(target.subarray(0, filled), large.subarray(position, position! + length!));
  }
  t.is(fileSystem.read(file, 100_000, Buffer.alloc(1)), 0);
  t.is(fileSystem.read(file, 2 ** 40, Buffer.alloc(1)), 0);
});

test("the label is the root directory's, as blkid has it, though the boot sector keeps another", (t) => {
  if (!hasTools(t, packages, "mkfs.vfat", "blkid")) return;
  const path = sparseFile(scratchFolder(t), "volume", 2 * MiB);
  run("mkfs.vfat", ["-n", "REMOVED", path]);
  const bytes = readFileSync(path);
  const entry = bytes.lastIndexOf("REMOVED    \x08");
  t.true(entry > 512);
  const labels = () => /^ID_FS_LABEL=(.*)$/m.exec(run("blkid", ["-p", "-o", "udev", path]))?.[1] ?? "";
  for (const [first, label] of [
    ["S", "SEMOVED"],
    ["\xe5", ""],
  ] as const) {
    bytes.write(first, entry, "latin1");
    writeFileSync(path, bytes);
    t.is(labels(), label);
    const fileSystem = open(t, path);
    t.is(fileSystem.label, label);
    t.is(fileSystem.facts!.bootLabel, "REMOVED");
  }
});

test("names are found in any case and by their short alias; modes, hidden files and labels are kept", (t) => {
  if (!hasTools(t, packages, "mkfs.vfat", "mcopy", "mattrib", "mlabel", "mdir")) return;
  const folder = scratchFolder(t);
  const path = make(t, 16 * MiB, ["-F", "16", "-n", "OLD"]);
  writeFileSync(join(folder, "A long name with Ünicode.txt"), "long");
  writeFileSync(join(folder, "read.me"), "only");
  run("sh", ["-c", `cd '${folder}' && mcopy -i '${path}' * ::`], mtools);
  run("mattrib", ["-i", path, "+r", "+h", "::read.me"], mtools);
  run("mlabel", ["-i", path, "::NEW LABEL"], mtools);
  const fileSystem = open(t, path);
  const find = (name: string) => fileSystem.lookup(fileSystem.root, Buffer.from(name));
  const long = find("A long name with Ünicode.txt")!;
  t.truthy(long);
  t.is(find("a LONG name with üNICODE.TXT"), long);
  t.is(find("ALONGN~1.TXT"), long);
  t.is(find("alongn~2.txt"), undefined);
  t.is(fileSystem.lookup(fileSystem.root, Buffer.from([0xff, 0xfe])), undefined);
  const file = find("READ.ME")!;
  t.is(fileSystem.attributes(file).mode, 0o444);
  t.deepEqual([...fileSystem.extendedAttributes!(file)], [["system.dos_attrib", Uint8Array.of(0x23)]]);
  t.deepEqual([...fileSystem.extendedAttributes!(long)], []);
  t.is(fileSystem.label, "NEW LABEL");
});

test("flags and the short name are told as mattrib and mdir have them", (t) => {
  if (!hasTools(t, packages, "mkfs.vfat", "mcopy", "mattrib")) return;
  const folder = scratchFolder(t);
  const path = make(t, 1440 * 1024, ["-F", "12"]);
  writeFileSync(join(folder, "a long name.text"), "x");
  run("mcopy", ["-i", path, join(folder, "a long name.text"), "::"], mtools);
  run("mattrib", ["-i", path, "+h", "+s", "+r", "::a long name.text"], mtools);
  const fileSystem = open(t, path);
  const file = fileSystem.lookup(1, Buffer.from("a long name.text"))!;
  t.deepEqual(fileSystem.details!(file), {
    flags: ["read-only", "hidden", "system", "archive"],
    shortName: "ALONGN~1.TEX",
  });
});

test("the times of an entry: two seconds, hundredths for the birth, a date without a time for the last access", (t) => {
  if (!hasTools(t, packages, "mkfs.vfat", "mcopy")) return;
  const folder = scratchFolder(t);
  const path = make(t, 1440 * 1024, ["-F", "12"]);
  writeFileSync(join(folder, "FILE"), "x");
  run("mcopy", ["-i", path, join(folder, "FILE"), "::"], mtools);
  const bytes = readFileSync(path);
  const at = bytes.indexOf("FILE       ");
  const seen = (change: () => void) => {
    change();
    const fileSystem = openFat(new MemorySource("image", bytes));
    const { modified, accessed, born } = fileSystem.attributes(at / 32);
    const text = (time?: { seconds: number; nanoseconds: number }) =>
      time && `${new Date(time.seconds * 1000).toISOString().slice(0, 19)} ${time.nanoseconds / 1e7}`;
    return [text(modified), text(accessed), text(born)];
  };
  const date = (year: number, month: number, day: number) => ((year - 1980) << 9) | (month << 5) | day;
  const time = (hour: number, minute: number, second: number) => (hour << 11) | (minute << 5) | (second >> 1);
  t.deepEqual(
    seen(() => {
      bytes.writeUInt16LE(date(2024, 2, 29), at + 24);
      bytes.writeUInt16LE(time(23, 59, 58), at + 22);
      bytes.writeUInt16LE(date(2107, 12, 31), at + 18);
      bytes.writeUInt16LE(date(1980, 1, 1), at + 16);
      bytes.writeUInt16LE(time(0, 0, 0), at + 14);
      bytes[at + 13] = 199;
    }),
    ["2024-02-29T23:59:58 0", "2107-12-31T00:00:00 0", "1980-01-01T00:00:01 99"],
  );
  t.deepEqual(
    seen(() => bytes.fill(0, at + 13, at + 20).fill(0, at + 22, at + 26)),
    ["1980-01-01T00:00:00 0", "1980-01-01T00:00:00 0", undefined],
  );
  t.deepEqual(
    seen(() => bytes.writeUInt16LE(date(2100, 3, 1), at + 24)),
    ["2100-03-01T00:00:00 0", "2100-03-01T00:00:00 0", undefined],
  );
});

test("names in every code page of one byte a character are as iconv has them", (t) => {
  if (!hasTools(t, `${packages} libc-bin`, "mkfs.vfat", "iconv")) return;
  const folder = scratchFolder(t);
  const path = make(t, 1440 * 1024, ["-F", "12"]);
  const bytes = readFileSync(path);
  const fileSystem = openFat(new MemorySource("image", bytes));
  t.deepEqual([...fileSystem.list(1)], []);
  const root = (1 + 2 * 9) * 512;
  const upper: number[] = [];
  for (let byte = 0x80; byte <= 0xff; byte++) {
    const at = root + (byte - 0x80) * 32;
    bytes.fill(" ", at, at + 11);
    bytes[at] = 0x41;
    bytes[at + 1] = byte;
    upper.push(0x41, byte, 0x0a);
  }
  // A first byte of 5 stands for 0xe5.
  bytes.fill(" ", root + 128 * 32, root + 128 * 32 + 11).writeUInt8(5, root + 128 * 32);
  writeFileSync(join(folder, "oem"), Buffer.from([...upper, 0xe5, 0x0a]));
  const known = new Set(run("iconv", ["-l"]).match(/CP\d+/g));
  for (const codePage of codePages.filter((one) => one < 900 || one > 1000)) {
    if (!known.has(`CP${codePage}`)) {
      t.log(`skipped: iconv doesn't know code page ${codePage}`);
      continue;
    }
    // What iconv doesn't know is left out by it (-c).
    const expected = run("sh", ["-c", `iconv -c -f CP${codePage} -t UTF-8 '${join(folder, "oem")}' || true`])
      .trimEnd()
      .split("\n");
    const names = [...openFat(new MemorySource("image", bytes), codePage).list(1)].map(({ name }) =>
      Buffer.from(name)
        .toString()
        .replace(/[\uf780-\uf7ff]/, ""),
    );
    t.deepEqual(names, expected, `code page ${codePage}`);
  }
});

test("names in code pages of two bytes a character are read, and what no character is stays apart", (t) => {
  const names = { 932: "日本語", 936: "简体中文", 949: "한국어", 950: "繁體中文" };
  const encoded = {
    932: "93fa967b8cea",
    936: "bcf2cce5d6d0cec4",
    949: "c7d1b1b9beee",
    950: "c163c5e9a4a4a4e5",
  };
  for (const codePage of [932, 936, 949, 950] as const) {
    const name = Buffer.from(encoded[codePage], "hex").toString("latin1").padEnd(8);
    const strange = ["A\xff", "A\xfe"].map((bad) => short(bad));
    const fileSystem = openFat(new MemorySource("image", floppy([short(`${name}TXT`), ...strange])), codePage);
    const found = listed(fileSystem);
    t.is(found[0], `${names[codePage]}.TXT`);
    t.is(new Set(found).size, 3);
    t.is(new Set(found.map((each) => fileSystem.lookup(fileSystem.root, Buffer.from(each)))).size, 3);
  }
  t.throws(() => openFat(new MemorySource("image", floppy([])), 1234), { message: /1234 is not known.*437.*950/ });
});

/** A FAT12 floppy of one's own entries in the root directory. */
function floppy(entries: readonly Buffer[]): Buffer {
  const bytes = Buffer.alloc(160 * 1024);
  bytes.set([0xfe, 0xff, 0xff], 512);
  bytes.set([0xfe, 0xff, 0xff], 1024);
  Buffer.concat([...entries]).copy(bytes, 3 * 512);
  return bytes;
}

function short(name: string, attributes = 0x20, cluster = 0, size = 0): Buffer {
  const entry = Buffer.alloc(32);
  entry.write(name.padEnd(11), "latin1");
  entry[11] = attributes;
  entry.writeUInt16LE(cluster, 26);
  entry.writeUInt32LE(size, 28);
  return entry;
}

/** The specification's checksum of a short name, written as it is there. */
function checksum(name: string): number {
  let sum = 0;
  for (const byte of Buffer.from(name.padEnd(11), "latin1")) sum = ((sum & 1 ? 0x80 : 0) + (sum >> 1) + byte) & 0xff;
  return sum;
}

function long(name: string, of: string): Buffer[] {
  const units = Buffer.from(`${name}\0`, "utf16le");
  const count = Math.ceil(name.length / 13);
  return Array.from({ length: count }, (_, index) => {
    const number = count - index;
    const entry = Buffer.alloc(32, 0xff);
    entry[0] = number | (index === 0 ? 0x40 : 0);
    entry[11] = 0x0f;
    entry[12] = 0;
    entry[13] = checksum(of);
    entry.writeUInt16LE(0, 26);
    const part = Buffer.alloc(26, 0xff);
    units.copy(part, 0, (number - 1) * 26);
    part.copy(entry, 1, 0, 10);
    part.copy(entry, 14, 10, 22);
    part.copy(entry, 28, 22, 26);
    return entry;
  });
}

const listed = (fileSystem: FileSystem) =>
  [...fileSystem.list(fileSystem.root)].map(({ name }) => Buffer.from(name).toString());

test("a floppy from before DOS 2 has no parameters: its size and its table tell", (t) => {
  const data = noise(1000);
  const bytes = floppy([short("COMMAND COM", 0x20, 2, 1000), short("\xe5LD     TXT"), short("IO      SYS", 0x06)]);
  data.copy(bytes, (3 + 4) * 512);
  bytes.set([0xfe, 0xff, 0xff, 0x03, 0xf0, 0xff], 512);
  const fileSystem = openRecognised(t, fat, new MemorySource("floppy", bytes, 100));
  t.deepEqual(listed(fileSystem), ["COMMAND.COM", "IO.SYS"]);
  const file = fileSystem.lookup(1, Buffer.from("command.com"))!;
  const target = Buffer.alloc(1000);
  for (let filled = 0; filled < 1000; ) filled += fileSystem.read(file, filled, target.subarray(filled));
  t.deepEqual(target, data);
  t.is(fileSystem.statistics.blocks, 313);
  bytes[512] = 0xff;
  t.false(fat.recognises(new MemorySource("floppy", bytes)));
});

test("long names that are out of order, incomplete or another file's are not believed", (t) => {
  const parts = long("A name that takes three entries", "THREE~1");
  const names = listed(
    openFat(
      new MemorySource(
        "floppy",
        floppy([
          ...parts,
          short("THREE~1"),
          // An old DOS renamed it: the checksum is wrong.
          ...parts,
          short("FOUR~1"),
          // A part is missing.
          parts[0]!,
          parts[2]!,
          short("THREE~1", 0x21),
          ...parts.slice(1),
          short("THREE~1", 0x22),
          // Another entry is between.
          ...parts,
          short("\xe5HREE~1"),
          short("THREE~1", 0x23),
          ...parts,
          short("LABEL", 0x08),
          short("THREE~1", 0x24),
          // Names that no file can have: the short one is used.
          ...long("no/slash", "SLASH~1"),
          short("SLASH~1"),
          ...long("..", "DOTS~1"),
          short("DOTS~1"),
          ...long("lone \ud83c and \udf88\ud83c", "LONE~1"),
          short("LONE~1"),
          // And short ones that no file can have: left out.
          short(".", 0x10),
          short("..", 0x10),
          short("A/B"),
          short(" "),
          ...long("ok", "A/C"),
          short("A/C"),
          Buffer.alloc(32),
          short("BEHIND"),
        ]),
      ),
    ),
  );
  t.deepEqual(names, [
    "A name that takes three entries",
    "FOUR~1",
    "THREE~1",
    "THREE~1",
    "THREE~1",
    "THREE~1",
    "SLASH~1",
    "DOTS~1",
    "lone ��� and ������",
    "ok",
  ]);
});

test("a name with half a surrogate can be opened, and no two of them are the same", (t) => {
  const names = ["x\ud83c", "x\udf88", "x🎈", "x\ufffd"];
  const entries = names.flatMap((name, index) => [...long(name, `X~${index}`), short(`X~${index}`)]);
  const fileSystem = openFat(new MemorySource("floppy", floppy(entries)));
  const found = [...fileSystem.list(1)].map(({ name, file }) => {
    t.is(fileSystem.lookup(1, name), file);
    return Buffer.from(name).toString("hex");
  });
  t.deepEqual(found, ["78eda0bc", "78edbe88", "78f09f8e88", "78efbfbd"]);
});

test("broken chains give their good part, and then an error that names the entry and the reason", (t) => {
  const bytes = floppy([
    short("CIRCLE", 0x20, 2, 5000),
    short("FREE", 0x20, 5, 2000),
    short("NOWHERE", 0x20, 400, 10),
    short("SHORT", 0x20, 6, 2000),
    short("SELF", 0x10, 8),
    short("NONE", 0x20, 0, 5),
    short("DIR0", 0x10, 0),
  ]);
  // 2 → 3 → 4 → 3; 5 → 9, which is free; 6 → 7 → end; 8 → 8.
  const next: Record<number, number> = { 2: 3, 3: 4, 4: 3, 5: 9, 6: 7, 7: 0xfff, 8: 8 };
  for (const [cluster, value] of Object.entries(next)) {
    const at = 512 + Math.floor(Number(cluster) * 1.5);
    const pair = bytes.readUInt16LE(at);
    bytes.writeUInt16LE(Number(cluster) % 2 ? (pair & 0xf) | (value << 4) : (pair & 0xf000) | value, at);
  }
  short("LOOP", 0x10, 8).copy(bytes, (3 + 4 + 6) * 512);
  for (let at = 1; at < 16; at++) short(`F${at}`).copy(bytes, (3 + 4 + 6) * 512 + at * 32);
  const fileSystem = openFat(new MemorySource("floppy", bytes));
  const read = (name: string) => {
    const file = fileSystem.lookup(1, Buffer.from(name))!;
    const target = Buffer.alloc(10_000);
    let filled = 0;
    try {
      for (let count = 1; count > 0; filled += count) count = fileSystem.read(file, filled, target.subarray(filled));
      return String(filled);
    } catch (error) {
      return `${filled}: ${(error as Error).message}`;
    }
  };
  t.regex(
    read("CIRCLE"),
    /^1536: floppy: CIRCLE of 5000 bytes .*byte 1536\) has only 1536 bytes: .*circle after 3 clusters/,
  );
  t.regex(read("FREE"), /^1024: .*FREE of 2000 bytes .*breaks off at cluster 9, which is marked free/);
  t.regex(read("NOWHERE"), /^0: .*starts at cluster 400/);
  t.regex(read("SHORT"), /^1024: .*only 1024 bytes: its cluster chain ends/);
  t.regex(read("NONE"), /^0: .*starts at cluster 0/);
  const walked = walk(fileSystem);
  t.regex(walked.errors.get("/SELF")!, /SELF is a directory that .*circle after 1 clusters/);
  t.true(walked.files.has("/SELF/F15"));
  t.is(walked.files.get("/DIR0")!.attributes.size, 0);
});

test("a root directory of 32,000 entries is listed and searched in one pass", (t) => {
  if (!hasTools(t, packages, "mkfs.vfat")) return;
  const path = make(t, 16 * MiB, ["-F", "16", "-r", "32000"]);
  const bytes = readFileSync(path);
  const root = (bytes.readUInt16LE(14) + 2 * bytes.readUInt16LE(22)) * bytes.readUInt16LE(11);
  for (let index = 0; index < 32_000; index++) short(`FILE${index}`).copy(bytes, root + index * 32);
  const fileSystem = openFat(new MemorySource("image", bytes));
  t.is(walk(fileSystem).files.size, 32_000);
});

test("the shared images are as other readers list them", (t) => {
  const images = sharedImages(
    t,
    ({ fs, container, manifests }) => /(?<!ex)fat/.test(fs) && container === "raw" && manifests.length > 0,
  );
  for (const image of images) {
    const source = openSharedImage(t, image);
    for (const { volume, reader, path } of image.manifests) {
      if (reader === "mtree" || (image.file.includes("memtest") && volume !== "p2")) continue;
      const fileSystem = openRecognised(t, fat, sharedVolume(image, source, volume));
      const differences = compareManifest(walk(fileSystem), readManifest(path), {
        reader,
        // sleuthkit shows the label as a file.
        skip: ({ type }) => type === "v",
      });
      t.deepEqual(differences, [], `${image.file} ${volume} ${reader}`);
      const [, label, uuid] = /(?:LABEL=(.*) )?UUID=(\S+)/.exec(image.blkid) ?? [];
      if (volume === "whole") {
        t.is(fileSystem.facts!.uuid, uuid, image.file);
        if (!image.file.includes("cp850")) t.is(fileSystem.label, label ?? "", image.file);
      }
    }
  }
});

test("the images of dosfstools' tests are as fsck.fat counts them", (t) => {
  if (!hasTools(t, packages, "fsck.fat")) return;
  for (const image of sharedImages(t, ({ file }) => file.startsWith("dosfstools/"))) {
    const source = openSharedImage(t, image);
    const fileSystem = openRecognised(t, fat, source);
    const walked = walk(fileSystem);
    t.deepEqual([...walked.errors], [], image.file);
    const told = run("sh", ["-c", `fsck.fat -n '${openedPath(source)}' || true`]);
    const [, files, used, clusters] = /(\d+) files, (\d+)\/(\d+) clusters/.exec(told) ?? [];
    t.is(fileSystem.statistics.blocks, Number(clusters), image.file);
    t.is(fileSystem.statistics.freeBlocks, Number(clusters) - Number(used), image.file);
    // fsck.fat counts the label as a file.
    const names = walked.files.size + (fileSystem.label === "" ? 0 : 1);
    t.is(names, Number(files), image.file);
  }
});

test("what isn't FAT is not taken for it, and a truncated or absurd boot sector is an error", (t) => {
  t.false(fat.recognises(new MemorySource("empty", new Uint8Array(0))));
  t.false(fat.recognises(new MemorySource("zeros", new Uint8Array(4096))));
  t.false(fat.recognises(new MemorySource("noise", noise(4096))));
  const images = sharedImages(
    t,
    ({ fs, container, partition, class: kind }) =>
      !/(?<!ex)fat/.test(fs) && container === "raw" && partition === "none" && kind !== "corrupt",
  );
  for (const image of images.filter(({ rawSize }) => rawSize < 40e6))
    t.false(fat.recognises(openSharedImage(t, image)), image.file);
  if (!hasTools(t, packages, "mkfs.vfat")) return;
  const bytes = readFileSync(make(t, 1440 * 1024, ["-F", "12"])).subarray(0, 1000);
  const fileSystem = openFat(new MemorySource("cut", bytes));
  t.regex(fileSystem.warnings!.join(), /has 1474560 bytes and its volume only 1000/);
  t.throws(() => [...fileSystem.list(1)], { instanceOf: ImageError, message: /only 1000 bytes.*truncated/ });
  for (const [at, value] of [
    [11, 7],
    [13, 3],
    [14, 0],
    [16, 0],
    [19, 1],
    [22, 0],
  ]) {
    const broken = Buffer.from(bytes);
    broken.writeUInt8(value!, at!);
    if (at === 14 || at === 19 || at === 22 || at === 11) broken.writeUInt8(0, at! + 1);
    t.throws(() => openFat(new MemorySource("broken", broken)), {
      instanceOf: ImageError,
      message: /boot sector at byte 0/,
    });
  }
});

test("a read-only host file makes no difference to the modes shown", (t) => {
  if (!hasTools(t, packages, "mkfs.vfat", "mcopy")) return;
  const folder = scratchFolder(t);
  const path = make(t, 1440 * 1024, ["-F", "12"]);
  writeFileSync(join(folder, "file"), "x");
  run("mcopy", ["-i", path, join(folder, "file"), "::"], mtools);
  chmodSync(path, 0o400);
  const fileSystem = open(t, path);
  const file = fileSystem.lookup(1, Buffer.from("file"))!;
  const { mode, owner, group } = fileSystem.attributes(file);
  t.deepEqual([mode, owner, group], [0o644, process.getuid!(), process.getgid!()]);
  t.is(statSync(path).mode & 0o777, 0o400);
});
