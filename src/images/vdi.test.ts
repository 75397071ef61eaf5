/** VDI images as QEMU makes them; differencing images, which it doesn't make, from two of its own. */
import { copyFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import {
  isDisk,
  isMap,
  isRefused,
  needsQemu,
  opened,
  patched,
  qemuImg,
  qemuIo,
  qemuRaw,
  readSome,
  shuffledWrites,
  survivesDamage,
  testFolder,
  wholeDisk,
} from "./qemu-test-tools.js";
import { register } from "./shared-test-images.js";
import { vdi } from "./vdi.js";
import { vdiAt as At, makeDiffer as differ } from "./vdi-test-tools.js";

register(vdi);

const MiB = 1 << 20;

function make(path: string, options: string, size: number, seed: number, writes = 12): void {
  qemuImg("create", "-q", "-f", "vdi", ...(options ? ["-o", options] : []), path, `${size}`);
  qemuIo(path, "vdi", shuffledWrites(seed, size, writes));
}

for (const [options, size] of [
  ["", 25 * MiB + 1536],
  ["static=on", 9 * MiB + 512],
] as const)
  test(`blocks written in no order: ${options || "dynamic"}`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    make(path("a"), options, size, 3);
    isDisk(t, { path: path("a") }, qemuRaw(path("a"), "vdi", path("raw")), MiB);
    if (options === "") isMap(t, { path: path("a") }, "vdi");
  });

function chain(t: ExecutionContext) {
  const path = testFolder(t);
  make(path("base"), "", 7 * MiB, 1);
  const base = wholeDisk({ path: path("base") });
  make(path("middle"), "", 12 * MiB, 2, 4);
  const middle = differ(path("middle"), { path: path("base"), disk: base });
  make(path("top"), "", 10 * MiB, 5, 3);
  const top = differ(path("top"), { path: path("middle"), disk: middle });
  return { path, middle, top };
}

test("a chain of three of different sizes is found by its ids, in its folder and above it", (t) => {
  if (!needsQemu(t)) return;
  const { path, middle, top } = chain(t);
  isDisk(t, { path: path("middle") }, middle, MiB);
  isDisk(t, { path: path("top") }, top, MiB);
  mkdirSync(path("Snapshots"));
  renameSync(path("top"), path("Snapshots/top"));
  isDisk(t, { path: path("Snapshots/top") }, top, MiB);
  opened({ path: path("Snapshots/top") }, ({ layers }) => t.is(layers.length, 3));
});

test("a parent that is elsewhere is named; one that is gone, changed or another is refused in words", (t) => {
  if (!needsQemu(t)) return;
  const { path, middle } = chain(t);
  mkdirSync(path("away"));
  mkdirSync(path("away/far"));
  renameSync(path("base"), path("away/far/base"));
  isRefused(t, "missing", { path: path("middle") }, path("middle"), "VDI with id", "--parent");
  t.true(wholeDisk({ path: path("middle"), parent: path("away/far/base") }).equals(middle));
  isRefused(t, "mismatch", { path: path("middle"), parent: path("top") }, path("top"), path("middle"), "has id");
  qemuImg("create", "-q", "-f", "raw", path("raw"), "1M");
  isRefused(t, "mismatch", { path: path("middle"), parent: path("raw") }, "raw image");
  const changed = patched(path("away/far/base"), { [At.change]: [1, 2, 3, 4] });
  isRefused(t, "mismatch", { path: path("middle"), parent: changed }, changed, "was changed after");
});

test("a discarded block is zero though the parent has it, and extra bytes before blocks are skipped", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "vdi", path("base"), `${4 * MiB}`);
  qemuIo(path("base"), "vdi", ["write -P 1 0 4M"]);
  copyFileSync(path("base"), path("child"));
  const image = readFileSync(path("child"));
  const map = image.readUInt32LE(At.map);
  image.writeUInt32LE(0xfffffffe, map + 4);
  image.writeUInt32LE(0xffffffff, map + 8);
  image[At.id] = image[At.id]! ^ 1;
  writeFileSync(path("child"), image);
  const expected = wholeDisk({ path: path("child") });
  t.is(expected[MiB], 0);
  t.is(expected[2 * MiB], 0);
  differ(path("child"), { path: path("base"), disk: Buffer.alloc(4 * MiB, 1) });
  const disk = wholeDisk({ path: path("child") });
  t.deepEqual([disk[0], disk[MiB], disk[2 * MiB - 1], disk[2 * MiB], disk[3 * MiB]], [1, 0, 0, 1, 1]);
  const data = image.readUInt32LE(At.data);
  const spaced = [image.subarray(0, data)];
  for (let block = 0; block < 4; block++)
    spaced.push(Buffer.alloc(512, 0xee), image.subarray(data + block * MiB, data + (block + 1) * MiB));
  const whole = Buffer.concat(spaced);
  whole.writeUInt32LE(512, At.extra);
  writeFileSync(path("spaced"), whole);
  isDisk(t, { path: path("spaced") }, expected, MiB);
});

test("versions, kinds and maps that can't be are refused in words, and truncation where bytes are missing", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  make(path("a"), "", 5 * MiB, 3);
  isRefused(t, "unsupported", { path: patched(path("a"), { 68: [1, 0, 0, 0] }) }, "version 0.1");
  isRefused(t, "unsupported", { path: patched(path("a"), { [At.type]: [3] }) }, "undo");
  isRefused(t, "corrupt", { path: patched(path("a"), { [At.type]: [4] }) }, "names no parent");
  isRefused(t, "corrupt", { path: patched(path("a"), { [At.link]: [4] }) }, "names a parent");
  isRefused(t, "corrupt", { path: patched(path("a"), { 376: [1] }) }, "byte 376");
  isRefused(t, "corrupt", { path: patched(path("a"), { 372: [0, 0xff] }) }, "blocks don't hold");
  isRefused(t, "corrupt", { path: patched(path("a"), { [At.map]: [0, 0, 0, 0xff] }) }, "its map");
  isRefused(t, "corrupt", { path: patched(path("a"), { 512: [0xff, 0xff, 0, 0] }) }, "block 0", "truncated");
  const image = readFileSync(path("a"));
  for (const cut of [100, 511, 512, 520, MiB, image.length - 1]) {
    writeFileSync(path("cut"), image.subarray(0, cut));
    isRefused(t, "corrupt", { path: path("cut"), format: "vdi" }, path("cut"));
  }
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  make(path("a"), "", 3 * MiB, 3, 2);
  survivesDamage(t, readFileSync(path("a")), (bytes) => readSome(vdi, bytes));
});
