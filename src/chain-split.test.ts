/** Split images, cut by split(1): their parts are told by name, and joined before anything is recognised. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { readFully } from "./bytes/byte-source.js";
import { openLayers } from "./chain.js";
import { isDisk, isRefused, needsQemu, numbers, qemuImg, qemuIo, shuffledWrites } from "./images/qemu-test-tools.js";
import { diskOf, imageOf, smallest } from "./images/spin/spin-test-tools.js";

function folder(t: ExecutionContext): (name: string) => string {
  const path = mkdtempSync(join(tmpdir(), "spindle-parts-"));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return (name) => join(path, name);
}

const split = (file: string, prefix: string, ...options: string[]) =>
  execFileSync("split", [...options, file, prefix], { stdio: ["ignore", "ignore", "pipe"] });

/** Bytes that differ everywhere. */
function noise(size: number): Buffer {
  const next = numbers(5);
  return Buffer.from(Array.from({ length: size }, () => next(256)));
}

test("a raw disk in parts is one disk, read across every edge; parts may have any size", (t) => {
  const path = folder(t);
  const disk = noise(300_001);
  writeFileSync(path("disk.raw"), disk);
  split(path("disk.raw"), path("disk.raw."), "-b", "7000", "-d", "-a", "3");
  isDisk(t, { path: path("disk.raw.000") }, disk, 7000);
  split(path("disk.raw"), path("disk.raw.part"), "-n", "5");
  isDisk(t, { path: path("disk.raw.partaa") }, disk, 60_000);
  for (const [index, [from, to]] of [
    [0, 1],
    [1, 1],
    [1, 100_000],
    [100_000, 100_700],
    [100_700, 300_001],
    [300_001, 300_001],
  ].entries())
    writeFileSync(path(`odd.00${index + 1}`), disk.subarray(from, to));
  isDisk(t, { path: path("odd.001") }, disk, 100_700);
  const opened = openLayers({ path: path("odd.001") });
  t.teardown(() => opened.close());
  t.deepEqual(opened.wrappings, [[{ name: path("odd.001"), format: "split", facts: { parts: 6 } }]]);
});

test("holes of the parts are holes of the disk", (t) => {
  const path = folder(t);
  for (const name of ["d.001", "d.002"]) {
    writeFileSync(path(name), Buffer.alloc(4096, 1));
    truncateSync(path(name), 1 << 20);
  }
  const opened = openLayers({ path: path("d.001") });
  t.teardown(() => opened.close());
  const extents: [boolean, number][] = [];
  for (let position = 0; position < opened.disk.size; ) {
    const { hole, length } = opened.disk.extentAt(position);
    extents.push([hole, length]);
    position += length;
  }
  t.deepEqual(extents, [
    [false, 4096],
    [true, (1 << 20) - 4096],
    [false, 4096],
    [true, (1 << 20) - 4096],
  ]);
});

test("a container in parts is what it was whole, whether its beginning or its end tells it", (t) => {
  if (!needsQemu(t)) return;
  const path = folder(t);
  const size = 3 << 20;
  qemuImg("create", "-q", "-f", "raw", path("raw"), `${size}`);
  qemuIo(path("raw"), "raw", shuffledWrites(3, size, 20));
  const expected = readFileSync(path("raw"));
  for (const [format, options] of [
    ["qcow2", "compat=1.1"],
    ["vmdk", "subformat=streamOptimized"],
    ["vpc", "subformat=dynamic,force_size=on"],
    ["vpc", "subformat=fixed,force_size=on"],
  ] as const)
    for (const parts of [2, 7]) {
      qemuImg("convert", "-f", "raw", "-O", format, "-o", options, path("raw"), path("whole"));
      mkdirSync(path("parts"));
      split(path("whole"), path("parts/disk."), "-n", `${parts}`);
      isDisk(t, { path: path("parts/disk.aa") }, expected);
      isRefused(t, "usage", { path: path("parts/disk.ab") }, path("parts/disk.ab"), path("parts/disk.aa"));
      rmSync(path("parts"), { recursive: true });
    }
});

test("a part that is missing is named, and so is the first where another is given", (t) => {
  const path = folder(t);
  for (const name of ["d.001", "d.002", "d.003"]) writeFileSync(path(name), Buffer.alloc(700, 5));
  isRefused(t, "usage", { path: path("d.003") }, path("d.003"), path("d.001"));
  renameSync(path("d.002"), path("else"));
  isRefused(t, "missing", { path: path("d.001") }, path("d.001"), path("d.002"));
  isRefused(t, "missing", { path: path("d.003") }, path("d.003"), path("d.002"));
  renameSync(path("d.001"), path("d.002"));
  isRefused(t, "missing", { path: path("d.002") }, path("d.001"), "Rename");
});

test("images that are whole each are not joined, though numbered like parts", (t) => {
  const path = folder(t);
  const disks = ["abc", "xyz"].map((letters) => diskOf(letters, smallest, 700));
  for (const [index, disk] of disks.entries()) writeFileSync(path(`backup.00${index + 1}`), imageOf(disk));
  for (const [index, disk] of disks.entries()) isDisk(t, { path: path(`backup.00${index + 1}`) }, disk);
  if (!needsQemu(t)) return;
  for (const name of ["vm.01", "vm.02"])
    qemuImg("create", "-q", "-f", "vpc", "-o", "subformat=fixed,force_size=on", path(name), "1M");
  for (const name of ["vm.01", "vm.02"]) {
    const opened = openLayers({ path: path(name) });
    t.is(opened.disk.size, 1 << 20);
    t.is(opened.data.files.length, 1);
    opened.close();
  }
});

test("a file of a format that is asked for is taken alone", (t) => {
  const path = folder(t);
  for (const name of ["d.001", "d.002"]) writeFileSync(path(name), Buffer.alloc(700, 5));
  const opened = openLayers({ path: path("d.001"), format: "raw" });
  t.is(opened.disk.size, 700);
  t.is(readFully(opened.disk, 0, Buffer.alloc(2000)), 700);
  opened.close();
});
