/**
 * One disk in every form in which qemu-img can put it, and chains over each: what Spindle reads is what
 * `qemu-img convert` reads, and where it finds it is where `qemu-img map` does.
 */
import { execFileSync } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import test, { type ExecutionContext } from "ava";
import {
  haveQemu,
  isDisk,
  isMap,
  needsQemu,
  opened,
  qemuImg,
  qemuIo,
  qemuRaw,
  shuffledWrites,
  testFolder,
} from "./qemu-test-tools.js";

const KiB = 1024;
const MiB = 1024 * KiB;
const size = 5 * MiB + 3 * 512;

/** Noise that doesn't compress, text that does, bytes of zero that are kept, holes, and an end that no block size divides. */
function testDisk(): Buffer {
  const noise = createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16));
  const disk = Buffer.alloc(size);
  const put = (at: number, bytes: Buffer) => bytes.copy(disk, at);
  put(0, Buffer.from("a boot sector, or what one may take for it"));
  put(100 * KiB, noise.update(Buffer.alloc(300 * KiB)));
  put(MiB - 512, Buffer.alloc(70 * KiB, "text that goes on and on. "));
  put(2 * MiB + 17 * KiB, Buffer.alloc(1, 1));
  put(3 * MiB, noise.update(Buffer.alloc(64 * KiB)));
  for (let block = 0; block < 16; block++) put(4 * MiB + block * 64 * KiB, Buffer.alloc(4 * KiB, 65 + block));
  put(size - 700, noise.update(Buffer.alloc(700)));
  return disk;
}

interface Form {
  readonly format: string;
  readonly options?: string;
  /** Further words of qemu-img convert: `-c` packs. */
  readonly words?: readonly string[];
  /** QEMU calls all of it data, so that its map tells nothing. */
  readonly withoutMap?: boolean;
}

const forms: readonly Form[] = [
  { format: "raw", withoutMap: true },
  ...["512", "4k", "64k", "2M"].map((cluster) => ({ format: "qcow2", options: `cluster_size=${cluster}` })),
  { format: "qcow2", options: "compat=0.10" },
  { format: "qcow2", options: "compat=0.10", words: ["-c"] },
  ...["zlib", "zstd"].flatMap((type) =>
    ["512", "64k", "2M"].map((cluster) => ({
      format: "qcow2",
      options: `compression_type=${type},cluster_size=${cluster}`,
      words: ["-c"],
    })),
  ),
  ...["16k", "64k", "2M"].map((cluster) => ({ format: "qcow2", options: `extended_l2=on,cluster_size=${cluster}` })),
  { format: "qcow2", options: "extended_l2=on,compression_type=zstd", words: ["-c"] },
  { format: "qcow2", options: "lazy_refcounts=on,refcount_bits=1" },
  { format: "qcow2", options: "refcount_bits=64" },
  ...["metadata", "falloc", "full"].map((kind) => ({
    format: "qcow2",
    options: `preallocation=${kind}`,
    withoutMap: true,
  })),
  { format: "qcow2", options: "data_file=data" },
  { format: "qcow2", options: "data_file=data,data_file_raw=on", withoutMap: true },
  { format: "qcow" },
  { format: "qed" },
  { format: "qed", options: "cluster_size=4096,table_size=2" },
  { format: "qed", options: "cluster_size=1M,table_size=16" },
  { format: "vdi" },
  { format: "vdi", options: "static=on" },
  { format: "vpc" },
  { format: "vpc", options: "force_size=on" },
  { format: "vpc", options: "subformat=fixed", withoutMap: true },
  { format: "vpc", options: "subformat=fixed,force_size=on", withoutMap: true },
  { format: "vhdx", withoutMap: true },
  { format: "vhdx", options: "block_size=1M", withoutMap: true },
  { format: "vhdx", options: "block_size=1M,log_size=2M,block_state_zero=off", withoutMap: true },
  { format: "vhdx", options: "subformat=fixed", withoutMap: true },
  ...["monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized"].map((subformat) => ({
    format: "vmdk",
    options: `subformat=${subformat}`,
  })),
  { format: "vmdk", options: "zeroed_grain=on" },
  { format: "vmdk", options: "compat6=on,adapter_type=lsilogic,toolsversion=10" },
  { format: "vmdk", options: "hwversion=4,adapter_type=buslogic" },
  ...["monolithicFlat", "twoGbMaxExtentFlat"].map((subformat) => ({
    format: "vmdk",
    options: `subformat=${subformat}`,
    withoutMap: true,
  })),
  { format: "parallels" },
  { format: "parallels", options: "cluster_size=64k" },
];

for (const { format, options, words = [], withoutMap } of forms)
  test(`one disk as ${format} ${[...words, options].filter(Boolean).join(" ")}`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    writeFileSync(path("disk"), testDisk());
    const convert = ["convert", "-q", "-f", "raw", "-O", format, ...words, ...(options ? ["-o", options] : [])];
    // QEMU looks for data files from where it is.
    execFileSync("qemu-img", [...convert, "disk", "image"], { cwd: dirname(path("disk")), stdio: "pipe" });
    execFileSync("qemu-img", ["convert", "-f", format, "-O", "raw", "image", "raw"], { cwd: dirname(path("disk")) });
    const expected = readFileSync(path("raw"));
    t.true(expected.subarray(0, size).equals(testDisk()), "QEMU's own");
    isDisk(t, { path: path("image") }, expected);
    if (!withoutMap) isMap(t, { path: path("image") }, format, dirname(path("disk")));
  });

test("one disk as qcow, packed", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  writeFileSync(path("disk"), testDisk());
  // QEMU 7.2 writes all of it, and then ends with status 1 and no message.
  try {
    qemuImg("convert", "-q", "-f", "raw", "-c", "-O", "qcow", path("disk"), path("image"));
  } catch {}
  isDisk(t, { path: path("image") }, qemuRaw(path("image"), "qcow", path("raw")));
  isMap(t, { path: path("image") }, "qcow");
});

/** base ← middle, made larger ← top, smaller than the middle and larger than the base; writes in each. */
function chain(t: ExecutionContext, base: Form, middle: string, top: string): (name: string) => string {
  const path = testFolder(t);
  writeFileSync(path("disk"), testDisk());
  const options = base.options ? ["-o", base.options] : [];
  qemuImg(
    "convert",
    "-q",
    "-f",
    "raw",
    "-O",
    base.format,
    ...(base.words ?? []),
    ...options,
    path("disk"),
    path("base"),
  );
  rmSync(path("disk"));
  const create = (format: string, name: string, parent: string, parentFormat: string, ...words: string[]) =>
    qemuImg("create", "-q", "-f", format, "-b", parent, "-F", parentFormat, path(name), ...words);
  if (middle === "vmdk" || middle === "qcow") create(middle, "middle", "base", base.format, `${9 * MiB}`);
  else {
    create(middle, "middle", "base", base.format);
    qemuIo(path("middle"), middle, shuffledWrites(2, 5 * MiB, 6, 60_000));
    qemuImg("resize", "-q", "-f", middle, path("middle"), `${9 * MiB}`);
  }
  qemuIo(path("middle"), middle, shuffledWrites(3, 9 * MiB, 8, 60_000));
  create(top, "top", "middle", middle, `${7 * MiB + 512}`);
  qemuIo(path("top"), top, shuffledWrites(4, 7 * MiB, 8, 60_000));
  return path;
}

for (const [base, middle, top] of [
  [{ format: "raw" }, "qcow2", "qcow2"],
  [{ format: "qcow2", options: "compression_type=zstd", words: ["-c"] }, "qcow2", "qcow2"],
  [{ format: "raw" }, "qcow", "qcow"],
  [{ format: "qcow" }, "qed", "qcow2"],
  [{ format: "raw" }, "qed", "qed"],
  [{ format: "vmdk" }, "vmdk", "vmdk"],
  [{ format: "vmdk", options: "subformat=monolithicFlat" }, "qcow2", "qed"],
  [{ format: "vmdk", options: "subformat=streamOptimized" }, "qcow2", "qcow2"],
  [{ format: "vdi" }, "qcow2", "qcow2"],
  [{ format: "vpc", options: "force_size=on" }, "qcow2", "qcow2"],
  [{ format: "vhdx", options: "block_size=1M" }, "qcow2", "qcow2"],
  [{ format: "parallels", options: "cluster_size=64k" }, "qed", "qcow2"],
] as [Form, string, string][])
  test(`a chain of three with a resize in the middle: ${base.format} ${base.options ?? ""}, ${middle}, ${top}`, (t) => {
    if (!needsQemu(t)) return;
    const path = chain(t, base, middle, top);
    for (const [name, format] of [
      ["middle", middle],
      ["top", top],
    ] as const) {
      isDisk(t, { path: path(name) }, qemuRaw(path(name), format, path("raw")));
      // QEMU's map tells all of a VHDX and of a flat file for data.
      if (!["vhdx", "raw"].includes(base.format) && !base.options?.includes("Flat"))
        isMap(t, { path: path(name) }, format);
    }
    opened({ path: path("top") }, ({ layers }) =>
      t.deepEqual(
        layers.map(({ format }) => format),
        [top, middle, base.format === "vpc" ? "vhd" : base.format],
      ),
    );
  });

test("a chain lies in folders of its own, and is found by relative and absolute paths", (t) => {
  if (!haveQemu) return void needsQemu(t);
  const path = testFolder(t);
  for (const name of ["a", "b", "b/c"]) mkdirSync(path(name));
  writeFileSync(path("disk"), testDisk());
  qemuImg("convert", "-q", "-f", "raw", "-O", "qcow2", path("disk"), path("a/base.qcow2"));
  qemuImg("create", "-q", "-f", "qcow2", "-b", "../a/base.qcow2", "-F", "qcow2", path("b/middle.qcow2"));
  qemuImg("create", "-q", "-f", "qcow2", "-b", path("b/middle.qcow2"), "-F", "qcow2", path("b/c/top.qcow2"));
  isDisk(t, { path: join(path("b/c"), "top.qcow2") }, testDisk());
});
