/** AFF images as affconvert makes them and affcat reads them; and such as it doesn't make, from the documentation. */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { deflateSync } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import { readFully } from "../../bytes/byte-source.js";
import { mixedDisk } from "../ewf/ewf-test-tools.js";
import { isDisk, isRefused, opened, readSome, survivesDamage, testFolder, wholeDisk } from "../qemu-test-tools.js";
import { register, survives } from "../shared-test-images.js";
import { aff } from "./index.js";

register(aff);

const MiB = 1 << 20;
const page = 65536;
const odd = 2 * MiB + 5 * 4096 + 512;

const haveAff = spawnSync("affconvert", ["-V"]).error === undefined && spawnSync("affcat", ["-V"]).error === undefined;

/** Whether the tools are here; the reason is logged where they aren't. */
function needsAff(t: ExecutionContext): boolean {
  if (!haveAff) t.pass(t.log("skipped: affconvert and affcat (package afflib-tools) are not installed") as undefined);
  return haveAff;
}

const affconvert = (...words: string[]) => execFileSync("affconvert", ["-q", ...words], { stdio: "ignore" });
const affcat = (path: string) =>
  execFileSync("affcat", ["-q", path], { maxBuffer: 1 << 26, stdio: ["ignore", "pipe", "ignore"] });

/** Zeros of some pages are in it, so that every way of keeping a page is met. */
function diskWithHoles(seed: number): Buffer {
  const disk = mixedDisk(odd, seed);
  disk.fill(0, 4 * page, 9 * page);
  return disk;
}

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

for (const [how, words] of [
  ["zlib", ["-s64k"]],
  ["zlib at its best", ["-s64k", "-X9"]],
  ["LZMA", ["-s64k", "-L"]],
  ["nothing packed", ["-s64k", "-x"]],
  ["pages of 16 MiB", []],
] as const)
  test(`as affconvert makes it: ${how}`, (t) => {
    if (!needsAff(t)) return;
    const path = testFolder(t);
    const disk = diskWithHoles(1);
    writeFileSync(path("disk.raw"), disk);
    affconvert(...words, path("disk.raw"));
    const image = path("disk.aff");
    t.true(affcat(image).equals(disk));
    isDisk(t, { path: image }, disk, page);
    t.deepEqual(damagesOf(image), []);
    opened({ path: image }, ({ layers: [layer] }) => {
      t.is(layer!.facts.md5, createHash("md5").update(disk).digest("hex"));
      t.is(layer!.facts.sha1, createHash("sha1").update(disk).digest("hex"));
      t.regex(String(layer!.facts.software), /^AFFLIB 3/);
      if (words.length === 0) return void t.is(layer!.chunkSize, 16 * MiB);
      t.is(layer!.chunkSize, page);
      // Pages of zeros are told apart without reading data.
      if (how !== "nothing packed") t.is(layer!.locate(5 * page).kind, "zero");
      else t.is(layer!.locate(5 * page).kind, "stored");
    });
  });

test("an AFD folder is opened by its first file; of one that lost files nothing is made up", (t) => {
  if (!needsAff(t)) return;
  const path = testFolder(t);
  const disk = diskWithHoles(2);
  writeFileSync(path("disk.raw"), disk);
  affconvert("-s64k", "-x", "-M1m", `-o${path("disk.afd")}`, path("disk.raw"));
  const files = readdirSync(path("disk.afd")).sort();
  t.true(files.length >= 3);
  const file = (number: number) => path(`disk.afd/${files[number]}`);
  t.true(affcat(path("disk.afd")).equals(disk));
  isDisk(t, { path: file(0) }, disk, page);
  opened({ path: file(0) }, ({ layers }) => t.is(layers[0]!.facts.files, files.length));
  isRefused(t, "usage", { path: file(1) }, file(1), "file_000.aff");
  const last = file(files.length - 1);
  renameSync(last, path("last"));
  isRefused(t, "missing", { path: file(0) }, file(0), files.at(-1)!);
  renameSync(path("last"), last);
  copyFileSync(path("disk.raw"), file(1));
  isRefused(t, "corrupt", { path: file(0) }, file(1), "no AFF file");
});

test("a file that only tells of a raw disk beside it (AFM) is refused in words", (t) => {
  if (!needsAff(t)) return;
  const path = testFolder(t);
  writeFileSync(path("disk.raw"), diskWithHoles(3));
  affconvert("-aafm", path("disk.raw"));
  isRefused(t, "unsupported", { path: path("disk.afm") }, path("disk.afm"), "AFM", "raw disk");
});

test("encrypted pages are refused in words", (t) => {
  if (!needsAff(t)) return;
  const path = testFolder(t);
  writeFileSync(path("disk.raw"), diskWithHoles(4));
  // affcrypto of AFFLIB 3.7.20 damages what it encrypts.
  const env = { ...process.env, AFFLIB_PASSPHRASE: "secret" };
  execFileSync("affconvert", ["-q", "-s64k", path("disk.raw")], { stdio: "ignore", env });
  isRefused(t, "unsupported", { path: path("disk.aff") }, path("disk.aff"), "encrypted", "affconvert");
});

type Value = readonly [name: string, argument: number, data: Buffer];

function segment([name, argument, data]: Value): Buffer {
  const bytes = Buffer.alloc(24 + name.length + data.length);
  bytes.write("AFF\0", 0, "latin1");
  bytes.writeUInt32BE(name.length, 4);
  bytes.writeUInt32BE(data.length, 8);
  bytes.writeUInt32BE(argument, 12);
  bytes.write(name, 16, "latin1");
  data.copy(bytes, 16 + name.length);
  bytes.write("ATT\0", bytes.length - 8, "latin1");
  bytes.writeUInt32BE(bytes.length, bytes.length - 4);
  return bytes;
}

const image = (...values: readonly Value[]) =>
  Buffer.concat([Buffer.from("AFF10\r\n\0", "latin1"), ...values.map(segment)]);

function quad(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32BE(value % 2 ** 32, 0);
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), 4);
  return bytes;
}

const none = Buffer.alloc(0);

/** Pages of 4096 bytes, in no order, kept in turn packed and as they are, with the names of the first versions. */
function shuffled(disk: Buffer): Value[] {
  const pages: Value[] = [];
  for (let number = 0; number * 4096 < disk.length; number++) {
    const data = disk.subarray(number * 4096, (number + 1) * 4096);
    pages.push(number % 2 === 0 ? [`page${number}`, 1, deflateSync(data)] : [`seg${number}`, 0, data]);
  }
  pages.sort((a, b) => ((Number(/\d+/.exec(a[0])![0]) * 7919) % 101) - ((Number(/\d+/.exec(b[0])![0]) * 7919) % 101));
  return [["segsize", 4096, none], ["", 0, Buffer.alloc(100)], ...pages, ["imagesize", 2, quad(disk.length)]];
}

test("pages in no order, by their old names too, around a deleted segment", (t) => {
  const path = testFolder(t);
  const disk = mixedDisk(40 * 4096 + 512, 5);
  const values = shuffled(disk);
  writeFileSync(path("a.aff"), image(...values));
  isDisk(t, { path: path("a.aff") }, disk, 4096);
  if (needsAff(t)) t.true(affcat(path("a.aff")).equals(disk));
  // Without its size, the disk ends with its last page.
  writeFileSync(path("unfinished.aff"), image(...values.slice(0, -1)));
  t.true(wholeDisk({ path: path("unfinished.aff") }).equals(disk));
  if (haveAff) t.true(affcat(path("unfinished.aff")).equals(disk));
  opened({ path: path("unfinished.aff") }, ({ layers }) =>
    t.regex(String(layers[0]!.facts.incomplete), /never finished/),
  );
});

test("verify compares pages with their recorded digests, and tells pages that are damaged or aren't there", (t) => {
  const path = testFolder(t);
  const disk = mixedDisk(6 * 4096, 6);
  const part = (number: number) => disk.subarray(number * 4096, (number + 1) * 4096);
  const digest = (name: string, number: number): Value => [
    `page${number}_${name}`,
    0,
    createHash(name).update(part(number)).digest(),
  ];
  const build = (changed: Readonly<Record<string, Value>>) => {
    const values: Value[] = [
      ["pagesize", 4096, none],
      ["page0", 1, deflateSync(part(0))],
      ["page1", 0, part(1)],
      digest("md5", 1),
      ["page2", 0, part(2)],
      digest("sha1", 2),
      ["page3", 1, deflateSync(part(3))],
      digest("sha256", 3),
      ["page5", 0, part(5)],
      ["imagesize", 2, quad(disk.length)],
    ];
    writeFileSync(path("a.aff"), image(...values.map((value) => changed[value[0]] ?? value)));
    return damagesOf(path("a.aff"));
  };
  const wrong = Buffer.from(part(1));
  wrong[77] = wrong[77]! ^ 1;
  const gap = `${4 * 4096}+4096: ${path("a.aff")}: has no pages for disk bytes 16384 to 20479`;
  const cases: [Readonly<Record<string, Value>>, RegExp | undefined][] = [
    [{}, undefined],
    [{ page1: ["page1", 0, wrong] }, /^4096\+4096: .*page 1 .*md5/],
    [{ page2: ["page2", 0, part(1)] }, /^8192\+4096: .*page 2 .*sha1/],
    [{ page3: ["page3", 1, deflateSync(part(2))] }, /^12288\+4096: .*page 3 .*sha256/],
    [{ page0: ["page0", 1, deflateSync(part(0)).fill(0x55, 4, 8)] }, /^0\+4096: .*page 0 .*zlib/],
    [{ page0: ["page0", 1, deflateSync(part(0).subarray(1))] }, /^0\+4096: .*4095 bytes instead of 4096/],
    [{ page1: ["page1", 0, part(1).subarray(1)] }, /^4096\+4096: .*only 4095 bytes/],
    [{ page1: ["page1", 0x31, Buffer.from([0, 0, 15, 255])] }, /^4096\+4096: .*4095 zeros/],
    [{ page1: ["page1", 0x11, part(1)] }, /^4096\+4096: .*method 1/],
  ];
  for (const [changed, expected] of cases) {
    const damages = build(changed).filter((message) => !message.startsWith(gap));
    t.is(damages.length, expected ? 1 : 0, damages.join());
    if (expected) t.regex(damages[0]!, expected);
  }
  t.true(build({})[0]!.startsWith(gap));
  isRefused(t, "corrupt", { path: path("a.aff") }, "disk bytes 16384 to 20479");
  opened({ path: path("a.aff") }, ({ disk: read }) => {
    const target = Buffer.alloc(4096);
    t.is(readFully(read, 5 * 4096, target), 4096);
    t.true(target.equals(part(5)));
  });
});

test("segments and sizes that can't be are refused in words, a disk of an absurd size is passed at once", (t) => {
  const path = testFolder(t);
  const disk = mixedDisk(8 * 4096, 7);
  const values = shuffled(disk);
  const whole = image(...values);
  const refused = (bytes: Buffer, ...words: (string | RegExp)[]) => {
    writeFileSync(path("a.aff"), bytes);
    isRefused(t, "corrupt", { path: path("a.aff"), format: "aff" }, path("a.aff"), ...words);
  };
  const changed = (at: number, ...bytes: number[]) => {
    const copy = Buffer.from(whole);
    copy.set(bytes, at);
    return copy;
  };
  for (const cut of [9, 20, 40, 200, whole.length - 1]) refused(whole.subarray(0, cut), /truncated/);
  refused(image(...values, ["page2", 0, Buffer.alloc(4096, 0xee)]), "page 2", "twice");
  refused(changed(8, 0x42), "byte 8", "affix");
  refused(changed(12, 0xff), "byte 8");
  refused(changed(16, 0xff), "truncated");
  refused(changed(8 + 16 + 7, 0x42), "byte 8");
  refused(changed(8 + 16 + 7 + 7, 9), "byte 8");
  for (const size of [0, 511, 0x7fffffff]) refused(image(["pagesize", size, none], ...values.slice(1)), "pages of");
  refused(image(...values.slice(0, -1), ["imagesize", 2, quad(0)]), "0 bytes");
  refused(image(...values.slice(0, -1), ["imagesize", 2, Buffer.alloc(8, 0xff)]), "can't be");
  writeFileSync(path("huge.aff"), image(...values.slice(0, -1), ["imagesize", 2, quad(2 ** 52)]));
  const damages = damagesOf(path("huge.aff"));
  t.is(damages.length, 1);
  t.true(damages[0]!.startsWith(`${disk.length}+${2 ** 52 - disk.length}: `), damages[0]);
  mkdirSync(path("only"));
  writeFileSync(path("only/file_003.aff"), whole);
  t.true(wholeDisk({ path: path("only/file_003.aff") }).equals(disk));
  rmSync(path("only"), { recursive: true });
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  const whole = image(...shuffled(mixedDisk(12 * 4096, 8)));
  survivesDamage(t, whole, (bytes) => readSome(aff, bytes));
  survivesDamage(t, whole, (bytes) => survives(aff, bytes));
});
