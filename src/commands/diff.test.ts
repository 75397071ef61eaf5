import { spawnSync } from "node:child_process";
import { closeSync, copyFileSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { scratch, spindle } from "./image-files-test-tools.js";

const MiB = 1024 * 1024;

/** An ext4 image of some files, and one changed by debugfs; undefined, with the reason in the log, without those tools. */
function twoImages(t: ExecutionContext): { place: string; a: string; b: string } | undefined {
  if (spawnSync("mke2fs", ["-V"]).error || spawnSync("debugfs", ["-V"]).error) {
    t.log("skipped: mke2fs or debugfs is not installed");
    t.pass();
    return undefined;
  }
  const place = scratch(t);
  const [tree, a, b] = ["tree", "a.img", "b.img"].map((name) => join(place, name)) as [string, string, string];
  mkdirSync(join(tree, "etc"), { recursive: true });
  writeFileSync(join(tree, "big"), Buffer.alloc(3 * MiB, "some words "));
  for (const name of ["kept", "gone", "moded"]) writeFileSync(join(tree, "etc", name), name);
  spawnSync("mke2fs", ["-q", "-t", "ext4", "-O", "^metadata_csum", "-d", tree, a, "16M"]);
  copyFileSync(a, b);
  writeFileSync(join(place, "new"), "new");
  const orders = [
    "rm /etc/gone",
    "set_inode_field /etc/moded mode 0100600",
    "mkdir /dir",
    `write ${join(place, "new")} /dir/new`,
  ];
  writeFileSync(join(place, "orders"), `${orders.join("\n")}\n`);
  spawnSync("debugfs", ["-w", "-f", join(place, "orders"), b]);
  return { place, a, b };
}

const changed = ["added    /dir/", "added    /dir/new", "removed  /etc/gone", "changed  /etc/moded  (mode)"];

test("equal images end with 0, different ones with 1, and files are told", async (t) => {
  const images = twoImages(t);
  if (!images) return;
  const { a, b } = images;
  const same = await spindle("diff", a, a);
  t.is(same.code, 0, same.stderr);
  t.is(same.text, "The disks are equal: 16 MiB.\nThe files are equal.\n");
  const { code, text, stderr } = await spindle("diff", a, b);
  t.is(code, 1, stderr);
  t.regex(text, /^The disks differ in .* of 16 MiB, in \d+ ranges\.\n/);
  t.deepEqual(text.trimEnd().split("\n").slice(-4), changed);
  t.deepEqual((await spindle("diff", "--files", a, b)).text.trimEnd().split("\n"), changed);
});

test("with --json all of it is one document", async (t) => {
  const images = twoImages(t);
  if (!images) return;
  const { code, text } = await spindle("diff", "--json", images.a, images.b);
  const told = JSON.parse(text) as Record<string, unknown> & {
    differingBytes: number;
    files: { path: string }[];
    ranges: { length: number }[];
  };
  t.is(code, 1);
  t.like(told, { equal: false, filesEqual: false, problems: [], a: { format: "raw", size: 16 * MiB } });
  t.deepEqual(
    told.files.map(({ path }) => path),
    ["/dir", "/dir/new", "/etc/gone", "/etc/moded"],
  );
  t.is(
    told.ranges.reduce((sum, { length }) => sum + length, 0),
    told.differingBytes,
  );
});

test("--ranges tells of every sector that cmp finds, and --files counts the files alone", async (t) => {
  const images = twoImages(t);
  if (!images) return;
  const { place, a } = images;
  const other = join(place, "other.img");
  copyFileSync(a, other);
  // In blocks that no file has: the last of the filesystem.
  const fd = openSync(other, "r+");
  writeSync(fd, "unused", 16 * MiB - 600);
  closeSync(fd);
  const { code, text } = await spindle("diff", "--ranges", a, other);
  t.is(code, 1);
  t.regex(text, /in 1 range\.\n +16776192 +512\n$/);
  const files = await spindle("diff", "--files", a, other);
  t.is(files.code, 0, files.text);
  t.is(files.text, "The files are equal.\n");
});

test("the data of files that lie where they lay is not read", async (t) => {
  const images = twoImages(t);
  if (!images) return;
  const { place, a, b } = images;
  const [base, next] = [join(place, "a.spin"), join(place, "b.spin")];
  t.is((await spindle("create", "--chunk", "16K", a, base)).code, 0);
  t.is((await spindle("create", "--base", base, b, next)).code, 0);
  // A frame in the midst of the large file, which both have.
  const where = readFileSync(a).indexOf(Buffer.alloc(11 * 3000, "some words ")) + 1.5 * MiB;
  const info = JSON.parse((await spindle("verify", "--json", base)).text) as { sound: boolean };
  t.true(info.sound);
  const { readSecondly } = await import("../images/spin/second-test-reader.js");
  const chunk = readSecondly(readFileSync(base)).chunks[Math.floor(where / 16384)]!;
  if (chunk.kind !== "stored") return t.fail("the large file's chunk is not stored");
  const fd = openSync(base, "r+");
  writeSync(fd, Buffer.alloc(4, 0xee), 0, 4, chunk.at + 12);
  closeSync(fd);
  t.is((await spindle("cat", next, "/big")).code, 5);
  const { code, text, stderr } = await spindle("diff", base, next);
  t.is(code, 1, stderr);
  t.is(stderr, "");
  t.deepEqual(text.trimEnd().split("\n").slice(-4), changed);
});

test("damage that is met has its exit code, whatever else differs", async (t) => {
  const images = twoImages(t);
  if (!images) return;
  const { place, a } = images;
  const spin = join(place, "a.spin");
  t.is((await spindle("create", a, spin)).code, 0);
  const { readSecondly } = await import("../images/spin/second-test-reader.js");
  const stored = readSecondly(readFileSync(spin)).chunks.findLast(({ kind }) => kind === "stored") as { at: number };
  const fd = openSync(spin, "r+");
  writeSync(fd, Buffer.alloc(4, 0xee), 0, 4, stored.at + 12);
  closeSync(fd);
  // The raw disk has no digests: everything is read.
  const { code, stderr } = await spindle("diff", a, spin);
  t.is(code, 5);
  t.regex(stderr, /a\.spin: chunk \d+ .* damaged/);
});

/** A disk of 4 MiB with two MBR partitions: p1 from 1 MiB, p2 from 2 MiB on. */
function partitioned(p1: string, p2: string, at = 0): Buffer {
  const disk = Buffer.alloc(4 * MiB);
  for (const [number, start, sectors] of [
    [0, 2048, 2048],
    [1, 4096, 4096],
  ] as const) {
    disk[446 + 16 * number + 4] = 0x83;
    disk.writeUInt32LE(start, 446 + 16 * number + 8);
    disk.writeUInt32LE(sectors, 446 + 16 * number + 12);
  }
  disk.writeUInt16LE(0xaa55, 510);
  disk.write(p1, MiB);
  disk.write(p2, 2 * MiB + at);
  return disk;
}

test("of a filesystem that isn't read, whose bytes differ, it isn't said that its files are equal", async (t) => {
  const place = scratch(t);
  const [a, b] = [join(place, "a.img"), join(place, "b.img")];
  writeFileSync(a, partitioned("XFSB", ""));
  const changed = partitioned("XFSB", "");
  changed.write("changed", 2 * MiB - 512);
  writeFileSync(b, changed);
  const said = "p1: an XFS filesystem; its bytes differ, and its files can't be compared\n";
  const both = await spindle("diff", a, b);
  t.is(both.code, 1);
  t.is(both.text, `The disks differ in 512 B of 4 MiB, in 1 range.\n          2096640            512  p1\n${said}`);
  const files = await spindle("diff", "--files", a, b);
  t.is(files.text, said);
  t.is(files.code, 4);
  const told = JSON.parse((await spindle("diff", "--files", "--json", a, b)).text) as object;
  t.like(told, { equal: null, filesEqual: null });
  const same = await spindle("diff", "--files", a, a);
  t.deepEqual([same.code, same.text], [0, ""]);
});

test("swap space and what has no signature hold no files, unless there is nothing else", async (t) => {
  const images = twoImages(t);
  if (!images) return;
  const { place, a } = images;
  const [one, other] = [join(place, "one"), join(place, "other")];
  writeFileSync(one, Buffer.concat([partitioned("boot loader", "SWAPSPACE2", 4086)]));
  const changed = partitioned("another", "SWAPSPACE2", 4086);
  changed.write("swapped out", 3 * MiB);
  writeFileSync(other, changed);
  const alone = await spindle("diff", "--files", one, other);
  t.is(alone.code, 4);
  t.regex(alone.text, /^p1: no filesystem that is read; its bytes differ.*\np2: Linux swap space; its bytes differ/);
  // With a filesystem in a third partition, from 4 MiB on.
  for (const path of [one, other]) {
    const disk = Buffer.concat([readFileSync(path), readFileSync(a)]);
    disk[446 + 32 + 4] = 0x83;
    disk.writeUInt32LE(8192, 446 + 32 + 8);
    disk.writeUInt32LE(16 * 2048, 446 + 32 + 12);
    writeFileSync(path, disk);
  }
  const { code, text } = await spindle("diff", "--files", one, other);
  t.deepEqual([code, text], [0, "The files are equal.\n"]);
});
