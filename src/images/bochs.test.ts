/** Growing disks of Bochs as bximage makes them and qemu-img reads them. */
import { execFileSync, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import { bochs } from "./bochs.js";
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
} from "./qemu-test-tools.js";
import { openedImage, register, sha256OfDisk, sharedContainers, unpackShared } from "./shared-test-images.js";

register(bochs);

const cylinder = 16 * 63 * 512;

/** A disk with written sectors here and there. */
function content(cylinders: number): Buffer {
  const next = numbers(6);
  const disk = Buffer.alloc(cylinders * cylinder);
  for (let nth = 0; nth < 40; nth++) {
    const at = next(disk.length / 512) * 512;
    const length = Math.min((1 + next(nth % 5 === 0 ? 300 : 3)) * 512, disk.length - at);
    for (let index = at; index < at + length; index++) disk[index] = 1 + next(255);
  }
  return disk;
}

function hasMaker(t: ExecutionContext): boolean {
  const found = spawnSync("sh", ["-c", "command -v bximage"]).status === 0;
  if (!found) t.pass(t.log("skipped: bximage (Debian package of the same name) is not installed") as undefined);
  return found;
}

function convert(disk: Buffer, path: (name: string) => string): string {
  writeFileSync(path("disk"), disk);
  execFileSync("bximage", ["-q", "-func=convert", "-imgmode=growing", path("disk"), path("a")], { stdio: "pipe" });
  return path("a");
}

test("sectors here and there, as bximage writes them and qemu-img reads them", (t) => {
  if (!needsQemu(t) || !hasMaker(t)) return;
  const path = testFolder(t);
  const disk = content(4);
  const image = convert(disk, path);
  t.true(qemuRaw(image, "bochs", path("raw")).equals(disk));
  isDisk(t, { path: image }, disk, 512);
  opened({ path: image }, ({ disk: found }) => {
    // What no sector was written of is a hole.
    let data = 0;
    for (let at = 0; at < found.size; at += found.extentAt(at).length)
      if (!found.extentAt(at).hole) data += found.extentAt(at).length;
    let written = 0;
    for (let at = 0; at < disk.length; at += 512)
      if (disk.subarray(at, at + 512).some((byte) => byte !== 0)) written += 512;
    t.is(data, written);
  });
});

test("an image that other tools made reads as INDEX.tsv says", (t) => {
  for (const row of sharedContainers(t, "bochs"))
    t.is(sha256OfDisk(openedImage(t, unpackShared(t, row)).disk), row.raw_sha256, row.file);
});

/** An image made here: of version 1 or 2, its extents in reverse, with every sector that isn't zero. */
function make(disk: Buffer, version: 1 | 2, extentSize: number): Buffer {
  const count = Math.ceil(disk.length / extentSize);
  const header = Buffer.alloc(512);
  header.write("Bochs Virtual HD Image");
  header.write("Redolog", 32);
  header.write("Growing", 48);
  const bitmapSize = Math.ceil(extentSize / 4096);
  for (const [index, value] of [version << 16, 512, count + 3, bitmapSize, extentSize].entries())
    header.writeUInt32LE(value, 64 + index * 4);
  header.writeBigUInt64LE(BigInt(disk.length), version === 1 ? 84 : 88);
  const catalog = Buffer.alloc((count + 3) * 4, 0xff);
  const extents: Buffer[] = [];
  for (let extent = count - 1; extent >= 0; extent--) {
    const bytes = Buffer.alloc(extentSize);
    disk.copy(bytes, 0, extent * extentSize);
    if (bytes.every((byte) => byte === 0)) continue;
    const bitmap = Buffer.alloc(Math.ceil(bitmapSize / 512) * 512);
    for (let sector = 0; sector < extentSize / 512; sector++)
      if (bytes.subarray(sector * 512, sector * 512 + 512).some((byte) => byte !== 0))
        bitmap[sector >> 3]! |= 1 << (sector & 7);
      // What a sector holds that wasn't written doesn't matter.
      else bytes.fill(0xee, sector * 512, sector * 512 + 512);
    catalog.writeUInt32LE(extents.length, extent * 4);
    extents.push(Buffer.concat([bitmap, bytes]));
  }
  return Buffer.concat([header, catalog, ...extents]);
}

for (const version of [1, 2] as const)
  for (const extentSize of [512, 4096, 4 << 20])
    test(`extents of ${extentSize} bytes in reverse, version ${version}, read as qemu-img reads them`, (t) => {
      if (!needsQemu(t)) return;
      const path = testFolder(t);
      const disk = content(2);
      writeFileSync(path("a"), make(disk, version, extentSize));
      t.true(qemuRaw(path("a"), "bochs", path("raw")).equals(disk));
      isDisk(t, { path: path("a") }, disk, Math.min(extentSize, 65536));
    });

test("sizes, kinds and places that can't be are refused in words", (t) => {
  const path = testFolder(t);
  const disk = content(1);
  const image = make(disk, 2, 4096);
  writeFileSync(path("a"), image);
  isDisk(t, { path: path("a") }, disk, 4096);
  const refused = (
    changes: Record<number, readonly number[]>,
    words: string,
    code: "corrupt" | "unsupported" = "corrupt",
  ) => isRefused(t, code, { path: patched(path("a"), changes) }, path("a"), words);
  refused({ 66: [3] }, "version 0x30000", "unsupported");
  refused({ 48: [...Buffer.from("Undoable")] }, 'kind "Redolog, Undoable"', "unsupported");
  refused({ 80: [0, 0] }, "extents of 0 bytes");
  refused({ 80: [0, 1] }, "extents of 256 bytes");
  refused({ 80: [0, 0x18] }, "extents of 6144 bytes");
  refused({ 83: [0x80] }, "byte 80");
  refused({ 76: [0] }, "bitmaps of 0 bytes");
  refused({ 72: [100, 0] }, "its catalog of 100 entries");
  refused({ 94: [1] }, "more than its catalog");
  refused({ 95: [1] }, "more than its catalog");
  refused({ 75: [0x10] }, "its catalog of");
  refused({ 71: [0x10] }, "its catalog of");
  const extent = Array.from({ length: 100 }, (_, index) => index).find(
    (index) => image.readUInt32LE(512 + index * 4) !== 0xffffffff,
  )!;
  const broken = patched(path("a"), { [512 + extent * 4]: [0, 0, 0, 0x10] });
  isRefused(t, "corrupt", { path: broken }, path("a"), `extent ${extent} (disk byte ${extent * 4096} and on)`);
  writeFileSync(path("cut"), image.subarray(0, -4096));
  isRefused(t, "corrupt", { path: path("cut") }, path("cut"), "truncated or damaged");
  for (const cut of [600, 511, 30]) {
    writeFileSync(path("cut"), image.subarray(0, cut));
    isRefused(t, "corrupt", { path: path("cut"), format: "bochs" }, path("cut"));
  }
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  survivesDamage(t, make(content(1).subarray(0, 40_960), 2, 4096), (bytes) => readSome(bochs, bytes));
});
