/** qcow2 images as QEMU makes them, in all their kinds, and what QEMU reads from them. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, renameSync, truncateSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import test, { type ExecutionContext } from "ava";
import { readFully } from "../../bytes/byte-source.js";
import { LocalChunkCache } from "../../bytes/local-cache.js";
import { MemorySource } from "../../bytes/memory.js";
import { unsupported } from "../../errors.js";
import { LayeredDisk } from "../../layers/disk.js";
import {
  isDisk,
  isMap,
  isRefused,
  needsQemu,
  opened,
  qemuImg,
  qemuIo,
  qemuRaw,
  shuffledWrites,
  survivesDamage,
  testFolder,
  wholeDisk,
} from "../qemu-test-tools.js";
import { register, sharedRows, survives, unpackShared } from "../shared-test-images.js";
import { qcow2 } from "./reader.js";

register(qcow2);

const MiB = 1 << 20;

/** An image in which `count` writes came in no order, and then some stretches were zeroed. */
function make(path: string, options: string, size: number, count = 40): void {
  qemuImg("create", "-q", "-f", "qcow2", ...(options ? ["-o", options] : []), path, `${size}`);
  qemuIo(path, "qcow2", [
    ...shuffledWrites(3, size, count),
    `write -z ${Math.floor(size / 3 / 512) * 512} ${64 * 1024}`,
    `write -zu ${Math.floor(size / 2 / 65536) * 65536} ${256 * 1024}`,
    ...shuffledWrites(5, size, 10, 5000),
  ]);
}

const odd = 10 * MiB + 1536;
for (const [options, size] of [
  ["compat=v3", odd],
  ["compat=0.10", odd],
  ["cluster_size=512", 3 * MiB + 512],
  ["cluster_size=2M", 40 * MiB + 512],
  ["cluster_size=4k,refcount_bits=1", odd],
  ["cluster_size=64k,lazy_refcounts=on", odd],
  ["extended_l2=on,cluster_size=16k", odd],
  ["extended_l2=on,cluster_size=128k", odd],
  ["extended_l2=on,cluster_size=2M", 40 * MiB + 512],
  ["preallocation=metadata", odd],
  ["preallocation=falloc", odd],
  ["preallocation=full,cluster_size=16k", odd],
] as const)
  test(`clusters written in no order: ${options}`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    make(path("a"), options, size);
    isDisk(t, { path: path("a") }, qemuRaw(path("a"), "qcow2", path("raw")));
    if (!options.includes("preallocation")) isMap(t, { path: path("a") }, "qcow2");
  });

for (const type of ["zlib", "zstd"])
  for (const cluster of ["512", "4k", "64k", "2M"])
    test(`packed clusters, some of them overwritten: ${type}, ${cluster}`, (t) => {
      if (!needsQemu(t)) return;
      const path = testFolder(t);
      const size = cluster === "512" ? 2 * MiB + 512 : odd;
      make(path("plain"), "", size);
      const options = `compression_type=${type},cluster_size=${cluster}`;
      qemuImg("convert", "-q", "-c", "-O", "qcow2", "-o", options, path("plain"), path("a"));
      isDisk(t, { path: path("a") }, qemuRaw(path("plain"), "qcow2", path("raw")));
      qemuIo(path("a"), "qcow2", shuffledWrites(9, size, 8, 9000));
      isDisk(t, { path: path("a") }, qemuRaw(path("a"), "qcow2", path("raw")));
      isMap(t, { path: path("a") }, "qcow2");
    });

test("packed clusters that do not compress, and some with subclusters", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  const noise = execFileSync("openssl", ["enc", "-aes-128-ctr", "-K", "00".repeat(16), "-iv", "00".repeat(16)], {
    input: Buffer.alloc(3 * MiB),
    maxBuffer: 8 * MiB,
  });
  const text = Buffer.from(Array.from({ length: MiB }, (_, i) => noise[i >> 2]! & 0x33));
  const disk = Buffer.concat([noise, text, Buffer.alloc(MiB)]);
  writeFileSync(path("raw"), disk);
  for (const options of ["compression_type=zstd", "compression_type=zlib", "extended_l2=on,compression_type=zstd"]) {
    qemuImg("convert", "-q", "-f", "raw", "-c", "-O", "qcow2", "-o", options, path("raw"), path("a"));
    isDisk(t, { path: path("a") }, disk);
  }
});

/** base ← middle (larger) ← top (smaller than middle, larger than base), of three formats. */
function chain(t: ExecutionContext, base: string, middle = "qcow2"): (name: string) => string {
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", base, path("base"), `${4 * MiB}`);
  qemuIo(path("base"), base, shuffledWrites(1, 4 * MiB, 20));
  qemuImg("create", "-q", "-f", middle, "-b", "base", "-F", base, path("middle"));
  qemuIo(path("middle"), middle, shuffledWrites(2, 4 * MiB, 10));
  qemuImg("resize", "-q", "-f", middle, path("middle"), `${9 * MiB}`);
  qemuIo(path("middle"), middle, shuffledWrites(4, 9 * MiB, 12));
  qemuImg(
    "create",
    "-q",
    "-f",
    "qcow2",
    "-o",
    "extended_l2=on",
    "-b",
    "middle",
    "-F",
    middle,
    path("top"),
    `${7 * MiB + 512}`,
  );
  qemuIo(path("top"), "qcow2", shuffledWrites(6, 7 * MiB + 512, 10));
  return path;
}

for (const base of ["raw", "qcow2"])
  test(`a chain of three with a resize in the middle, over ${base}`, (t) => {
    if (!needsQemu(t)) return;
    const path = chain(t, base);
    for (const name of ["middle", "top"]) {
      isDisk(t, { path: path(name) }, qemuRaw(path(name), "qcow2", path("raw")));
      isMap(t, { path: path(name) }, "qcow2");
    }
    const before = qemuRaw(path("top"), "qcow2", path("raw"));
    qemuImg("rebase", "-q", "-u", "-f", "qcow2", "-b", path("middle"), "-F", "qcow2", path("top"));
    isDisk(t, { path: path("top") }, before); // an absolute path
    qemuImg(
      "rebase",
      "-q",
      "-u",
      "-f",
      "qcow2",
      "-b",
      `json:{"driver":"qcow2","file":{"driver":"file","filename":"${path("middle")}"}}`,
      "-F",
      "qcow2",
      path("top"),
    );
    isDisk(t, { path: path("top") }, before);
    qemuImg(
      "rebase",
      "-q",
      "-u",
      "-f",
      "qcow2",
      "-b",
      `json:{"driver":"qcow2","file.filename":"${path("middle")}"}`,
      "-F",
      "qcow2",
      path("top"),
    );
    isDisk(t, { path: path("top") }, before);
  });

test("a raw parent that looks like an image is read as raw where that is recorded", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  make(path("base"), "", 4 * MiB);
  qemuImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", path("top"));
  const expected = qemuRaw(path("top"), "qcow2", path("raw"));
  t.is(expected.toString("latin1", 0, 3), "QFI");
  isDisk(t, { path: path("top") }, expected);
});

test("a parent that is gone is missing by name; one that is named stands in for it, and only for it", (t) => {
  if (!needsQemu(t)) return;
  const path = chain(t, "qcow2");
  const expected = qemuRaw(path("top"), "qcow2", path("raw"));
  renameSync(path("base"), path("renamed"));
  isRefused(t, "missing", { path: path("top") }, path("middle"), path("base"), "--parent");
  t.true(wholeDisk({ path: path("top"), parent: path("renamed") }).equals(expected));
  renameSync(path("renamed"), path("base"));
  copyFileSync(path("base"), path("other"));
  isRefused(t, "mismatch", { path: path("top"), parent: path("other") }, "leave it out");
  isRefused(t, "usage", { path: path("base"), parent: path("other") }, "without parent");
  qemuImg("rebase", "-q", "-u", "-f", "qcow2", "-b", "nbd://host/disk", "-F", "raw", path("middle"));
  isRefused(t, "missing", { path: path("top") }, path("middle"), "nbd://host/disk", "not a file", "--parent");
});

test("a chain that bites its tail is a loop", (t) => {
  if (!needsQemu(t)) return;
  const path = chain(t, "qcow2");
  qemuImg("rebase", "-q", "-u", "-f", "qcow2", "-b", "top", "-F", "qcow2", path("base"));
  isRefused(t, "corrupt", { path: path("top") }, "loop");
});

for (const raw of ["off", "on"])
  test(`a data file, raw ${raw}, beside the image or gone`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    mkdirSync(path("folder"));
    const image = path("folder/a");
    const create = ["create", "-q", "-f", "qcow2", "-o", `data_file=data,data_file_raw=${raw}`, "a", `${odd}`];
    execFileSync("qemu-img", create, { cwd: dirname(image) });
    const folder = dirname(image);
    qemuIo(image, "qcow2", [...shuffledWrites(3, odd, 30), "write -z 1M 512k"], folder);
    execFileSync("qemu-img", ["convert", "-O", "raw", "a", path("raw")], { cwd: folder });
    isDisk(t, { path: image }, readFileSync(path("raw")));
    opened({ path: image }, ({ layers }) => t.is(layers[0]!.facts.dataFile, "data"));
    truncateSync(path("folder/data"), 4 * MiB);
    isRefused(t, "corrupt", { path: image }, "folder/data", "truncated");
    renameSync(path("folder/data"), path("folder/gone"));
    isRefused(t, "missing", { path: image }, path("folder/data"), image);
  });

test("snapshots by id and by name, of other sizes, with the rest listed where one isn't there", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  const image = path("a");
  make(image, "cluster_size=4k", 5 * MiB);
  qemuImg("snapshot", "-c", "first", image);
  qemuIo(image, "qcow2", [...shuffledWrites(8, 5 * MiB, 20), "write -z 1M 1M"]);
  qemuImg("snapshot", "-c", "second", image);
  qemuImg("resize", "-q", "-f", "qcow2", image, `${9 * MiB}`);
  qemuIo(image, "qcow2", shuffledWrites(12, 9 * MiB, 20));
  for (const [id, name] of [
    ["1", "first"],
    ["2", "second"],
  ] as const) {
    const expected = qemuRaw(image, "qcow2", path("raw"), ["-l", `snapshot.name=${name}`]);
    isDisk(t, { path: image, snapshot: name }, expected.subarray(0, 5 * MiB));
    isDisk(t, { path: image, snapshot: id }, expected.subarray(0, 5 * MiB));
  }
  isDisk(t, { path: image }, qemuRaw(image, "qcow2", path("raw")));
  isRefused(t, "usage", { path: image, snapshot: "third" }, "no snapshot third", "first (id 1)", "second (id 2)");
  opened({ path: image }, ({ layers }) => {
    const list = layers[0]!.facts.snapshots as { name: string; size: number }[];
    t.deepEqual(
      list.map(({ name, size }) => [name, size]),
      [
        ["first", 5 * MiB],
        ["second", 5 * MiB],
      ],
    );
  });
  writeFileSync(path("raw"), Buffer.alloc(1024));
  isRefused(t, "usage", { path: path("raw"), snapshot: "x" }, "raw image", "no snapshots");
});

/** The image `path` with bytes at some places replaced. */
function patched(path: string, changes: Record<number, readonly number[]>): string {
  const bytes = readFileSync(path);
  for (const [at, values] of Object.entries(changes)) bytes.set(values, Number(at));
  writeFileSync(`${path}.patched`, bytes);
  return `${path}.patched`;
}

test("unknown encryptions, features, versions and sizes are refused in words; dirty and damaged marks are told", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  make(path("a"), "", 4 * MiB);
  const expected = wholeDisk({ path: path("a") });
  isRefused(t, "corrupt", { path: patched(path("a"), { 32: [0, 0, 0, 2] }) }, "LUKS", "no LUKS header");
  isRefused(t, "unsupported", { path: patched(path("a"), { 32: [0, 0, 0, 3] }) }, "encrypted", "number 3");
  isRefused(t, "unsupported", { path: patched(path("a"), { 4: [0, 0, 0, 4] }) }, "version 4");
  isRefused(t, "unsupported", { path: patched(path("a"), { 76: [0, 0, 0, 0x20] }) }, "bit 5");
  isRefused(t, "unsupported", { path: patched(path("a"), { 72: [0x80] }) }, "bit 63");
  // The table of features begins with type and bit: the dirty bit's name is told for bit 7 here.
  const names = readFileSync(path("a")).indexOf("dirty bit") - 2;
  t.true(names > 100);
  isRefused(t, "unsupported", { path: patched(path("a"), { 79: [0x80], [names]: [0, 7] }) }, '"dirty bit" (bit 7)');
  isRefused(t, "corrupt", { path: patched(path("a"), { 20: [0, 0, 0, 8] }) }, "byte 20", "2^8");
  isRefused(t, "corrupt", { path: patched(path("a"), { 20: [0, 0, 0, 22] }) }, "2^22");
  isRefused(t, "corrupt", { path: patched(path("a"), { 24: [0, 0x10] }) }, "entries");
  isRefused(t, "corrupt", { path: patched(path("a"), { 24: [0x10] }) }, "byte 24");
  isRefused(t, "corrupt", { path: patched(path("a"), { 36: [0xff] }) }, "too many");
  isRefused(t, "corrupt", { path: patched(path("a"), { 40: [0, 1] }) }, "table", "truncated");
  isRefused(t, "corrupt", { path: patched(path("a"), { 47: [1] }) }, "begin with a cluster");
  isRefused(t, "corrupt", { path: patched(path("a"), { 100: [0, 0, 0, 8] }) }, "byte 100");
  isRefused(t, "corrupt", { path: patched(path("a"), { 79: [8] }) }, "byte 104");
  isRefused(t, "corrupt", { path: patched(path("a"), { 79: [4] }) }, "another file");
  for (const [bit, fact] of [
    [1, "dirty"],
    [2, "corrupt"],
  ] as const) {
    const marked = patched(path("a"), { 79: [bit] });
    t.true(wholeDisk({ path: marked }).equals(expected));
    opened({ path: marked }, ({ layers }) => t.is(typeof layers[0]!.facts[fact], "string"));
  }
});

test("tables that lead astray cost the blocks they lead to, and no others", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "qcow2", path("a"), `${8 * MiB}`);
  qemuIo(path("a"), "qcow2", ["write -P 1 0 64k", "write -P 2 1M 64k", "write -P 3 2M 64k"]);
  const image = readFileSync(path("a"));
  const l1 = Number(image.readBigUInt64BE(40));
  const l2 = Number(image.readBigUInt64BE(l1) & 0x00fffffffffffe00n);
  const readable = (file: string) =>
    opened({ path: file }, ({ disk }) => {
      const target = Buffer.alloc(65536);
      readFully(disk, 0, target);
      return target.equals(Buffer.alloc(65536, 1));
    });
  for (const [what, changes, word] of [
    ["beyond the end", { [l2 + 16 * 8]: [0x80, 0, 0xff, 0xff] }, "truncated"],
    ["between clusters", { [l2 + 16 * 8 + 6]: [2, 0] }, "multiple of the cluster"],
    ["packed, beyond the end", { [l2 + 16 * 8]: [0x40, 0, 0xff, 0xff] }, "truncated"],
    ["packed, but isn't", { [l2 + 16 * 8]: [0x40] }, "deflate"],
  ] as const) {
    const file = patched(path("a"), changes);
    isRefused(t, "corrupt", { path: file }, "cluster 16", "1048576", word);
    t.true(readable(file), what);
  }
  isRefused(t, "corrupt", { path: patched(path("a"), { [l1]: [0x80, 0, 0xff] }) }, "table");
  isRefused(t, "corrupt", { path: patched(path("a"), { [l1 + 6]: [2] }) }, "table", "multiple");
  const long = qemuImg("info", "--output=json", path("a"));
  t.true(long.includes("virtual-size"));
});

test("a version 2 image with a zero mark, and one with subclusters both kept and zero, are damaged", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  for (const [options, at, value, word] of [
    ["compat=0.10", 7, 1, "version 2"],
    ["extended_l2=on", 11, 1, "subclusters"],
  ] as const) {
    qemuImg("create", "-q", "-f", "qcow2", "-o", options, path("a"), `${8 * MiB}`);
    qemuIo(path("a"), "qcow2", ["write -P 1 0 64k"]);
    const image = readFileSync(path("a"));
    const l1 = Number(image.readBigUInt64BE(40));
    const l2 = Number(image.readBigUInt64BE(l1) & 0x00fffffffffffe00n);
    isRefused(t, "corrupt", { path: patched(path("a"), { [l2 + at]: [value] }) }, word);
  }
});

test("a truncated image is refused where its bytes would be, and not where they are", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  make(path("a"), "", 4 * MiB);
  const { length } = readFileSync(path("a"));
  for (const cut of [4, 71, 72, 103, 65536, 3 * 65536, 4 * 65536 + 5, length - 65536, length - 1]) {
    const bytes = readFileSync(path("a")).subarray(0, cut);
    writeFileSync(path("cut"), bytes);
    isRefused(t, "corrupt", { path: path("cut"), format: "qcow2" }, path("cut"));
  }
});

test("a disk of 16 TiB opens and is read at its end, from a sparse image", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  const size = 16 * 2 ** 40;
  for (const [options, unit] of [
    ["cluster_size=64k", 65536],
    ["cluster_size=2M", 2 * MiB],
    ["cluster_size=64k,extended_l2=on", 65536],
  ] as const) {
    qemuImg("create", "-q", "-f", "qcow2", "-o", options, path("a"), `${size}`);
    qemuIo(path("a"), "qcow2", [`write -P 7 ${size - 65536} 65536`, "write -P 8 9T 64k"]);
    opened({ path: path("a") }, ({ disk }) => {
      const target = Buffer.alloc(100_000);
      t.is(readFully(disk, size - 65536, target), 65536);
      t.true(target.subarray(0, 65536).equals(Buffer.alloc(65536, 7)));
      t.is(disk.dataBytes(0, size), 2 * unit);
    });
  }
});

/** A layer's whole disk from bytes in memory. */
function readMemory(bytes: Buffer, snapshot?: string): void {
  const layer = qcow2.open(new MemorySource("hostile.qcow2", bytes), {
    path: "/hostile.qcow2",
    cache: new LocalChunkCache(1 << 20),
    options: { snapshot },
    companion: () => {
      throw unsupported("no companion here");
    },
  });
  JSON.stringify(layer.facts);
  const disk = new LayeredDisk(layer.name, [layer]);
  const target = Buffer.alloc(MiB);
  for (let position = 0, reads = 0; position < disk.size && reads < 8; reads++) {
    const got = readFully(disk, position, target);
    position += Math.max(got, Math.floor(disk.size / 7));
  }
  disk.extentAt(Math.floor(disk.size / 2));
}

for (const options of ["", "compression_type=zstd", "extended_l2=on,cluster_size=16k", "compat=0.10,cluster_size=512"])
  test(`changed bytes and cut files give refusals or other bytes, nothing else: ${options || "defaults"}`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    make(path("plain"), options, MiB, 8);
    qemuImg("convert", "-q", ...(options ? ["-o", options] : []), "-c", "-O", "qcow2", path("plain"), path("a"));
    qemuIo(path("a"), "qcow2", ["write -P 9 3k 5k", "write -z 100k 100k"]);
    qemuImg("snapshot", "-c", "first", path("a"));
    const image = readFileSync(path("a"));
    survivesDamage(t, image, (bytes) => readMemory(bytes));
    survivesDamage(t, image, (bytes) => readMemory(bytes, "first"), 100);
  });

test("an image that a fuzzer made fails cleanly", (t) => {
  const rows = sharedRows().filter(({ file }) => file!.endsWith("afl5.img"));
  if (rows.length === 0) t.log("skipped: there are no shared images");
  for (const row of rows) survives(qcow2, readFileSync(unpackShared(t, row)));
  t.pass();
});
