/** Appliances that tar packs from disks that qemu-img makes. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import test from "ava";
import { MemorySource } from "../../bytes/memory.js";
import { checkedParts } from "../../imaging/checked-parts.js";
import type { ImageSurroundings } from "../image-format.js";
import {
  isDisk,
  isRefused,
  needsQemu,
  numbers,
  opened,
  qemuImg,
  qemuIo,
  qemuRaw,
  shuffledWrites,
  survivesDamage,
  testFolder,
} from "../qemu-test-tools.js";
import { raw } from "../raw.js";
import { surroundings } from "../shared-test-images.js";
import { ova } from "./index.js";

const MiB = 1 << 20;

/** An appliance's descriptor with these disks, as virtualization programs write it. */
function descriptorOf(disks: readonly { file: string; more?: string; attributes?: string }[]): string {
  const files = disks.map(({ file, more }, n) => `    <File ovf:id="file${n}" ovf:href="${file}" ${more ?? ""}/>\n`);
  const list = disks.map(
    ({ attributes }, n) =>
      `    <Disk ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId='vmdisk${n}' ovf:fileRef="file${n}" ${attributes ?? ""}/>\n`,
  );
  return `<?xml version="1.0" encoding="UTF-8"?>
<!-- <File ovf:id="file0" ovf:href="wrong.vmdk"/> -->
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References>
${files.join("")}    <File ovf:href="nvram" ovf:id="nvram" ovf:size="4"/>
  </References>
  <DiskSection><Info>Virtual disks</Info>
${list.join("")}    <Disk ovf:capacity="1" ovf:diskId="empty"/>
  </DiskSection>
</Envelope>`;
}

function pack(archive: string, names: readonly string[], ...options: string[]): void {
  execFileSync("tar", ["-C", dirname(archive), ...options, "-cf", archive, ...names], { stdio: "pipe" });
}

function disk(path: (name: string) => string, name: string, seed: number, size = 3 * MiB): Buffer {
  qemuImg("create", "-q", "-f", "raw", path(name), `${size}`);
  qemuIo(path(name), "raw", shuffledWrites(seed, size, 12));
  return readFileSync(path(name));
}

const streamOptimized = (from: string, to: string) =>
  qemuImg("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", from, to);

const manifestOf = (path: (name: string) => string, algorithm: string, names: readonly string[]) =>
  names
    .map((name) => {
      const digest = createHash(algorithm)
        .update(readFileSync(path(name)))
        .digest("hex");
      return `${algorithm.toUpperCase()}(${name})= ${digest}\n`;
    })
    .join("");

/** What `verify` finds, by wrapping and layer. */
function damages(path: string, disk?: string): string[] {
  return opened({ path, disk }, (image) =>
    checkedParts(image).flatMap(({ integrity }) =>
      Array.from({ length: integrity?.pieces ?? 0 }, (_, piece) => integrity!.check(piece).damages)
        .flat()
        .map(({ message }) => message),
    ),
  );
}

for (const format of ["ustar", "gnu", "pax"])
  test(`the disk of an appliance is read where it lies in the archive: tar --format=${format}`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    const expected = disk(path, "raw", 3);
    streamOptimized(path("raw"), path("vm-disk1.vmdk"));
    writeFileSync(path("vm.ovf"), descriptorOf([{ file: "vm-disk1.vmdk" }]));
    writeFileSync(path("nvram"), "abcd");
    writeFileSync(path("vm.mf"), manifestOf(path, "sha256", ["vm.ovf", "vm-disk1.vmdk"]));
    pack(path("vm.ova"), ["vm.ovf", "vm.mf", "vm-disk1.vmdk", "nvram"], `--format=${format}`);
    t.true(qemuRaw(path("vm-disk1.vmdk"), "vmdk", path("again")).equals(expected));
    isDisk(t, { path: path("vm.ova") }, expected);
    opened({ path: path("vm.ova") }, ({ layers, wrappings }) => {
      t.is(layers[0]!.format, "vmdk");
      t.is(layers[0]!.name, `${path("vm.ova")} > vm-disk1.vmdk`);
      t.like(wrappings[0]![0], { format: "ova", facts: { member: "vm-disk1.vmdk", disks: ["vm-disk1.vmdk"] } });
    });
    t.deepEqual(damages(path("vm.ova")), []);
  });

test("of several disks one is chosen, by its file or its id; without a choice they are listed", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  const disks = ["one", "two", "three"].map((name, index) => disk(path, `${name}.raw`, index + 5, (index + 1) * MiB));
  streamOptimized(path("one.raw"), path("one.vmdk"));
  qemuImg("convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size=on", path("two.raw"), path("two.vhd"));
  writeFileSync(path("vm.ovf"), descriptorOf([{ file: "one.vmdk" }, { file: "two.vhd" }]));
  pack(path("vm.ova"), ["vm.ovf", "one.vmdk", "two.vhd", "three.raw"]);
  isRefused(t, "usage", { path: path("vm.ova") }, path("vm.ova"), "2 disks", "one.vmdk, two.vhd", "--disk");
  isRefused(t, "usage", { path: path("vm.ova"), disk: "four" }, "no disk four", "one.vmdk, two.vhd");
  isDisk(t, { path: path("vm.ova"), disk: "one.vmdk" }, disks[0]!);
  isDisk(t, { path: path("vm.ova"), disk: "vmdisk0" }, disks[0]!);
  isDisk(t, { path: path("vm.ova"), disk: "two.vhd" }, disks[1]!);
  isDisk(t, { path: path("vm.ova"), disk: "vmdisk1" }, disks[1]!);
  isDisk(t, { path: path("vm.ova"), disk: "three.raw" }, disks[2]!);
});

test("a disk that was cut into chunks is whole again, and one of several files finds them in the archive", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  const expected = disk(path, "raw", 3);
  streamOptimized(path("raw"), path("disk.vmdk"));
  execFileSync("split", ["-b", "10k", "-d", "-a", "9", path("disk.vmdk"), path("disk.vmdk.")]);
  writeFileSync(path("vm.ovf"), descriptorOf([{ file: "disk.vmdk", more: 'ovf:chunkSize="10240"' }]));
  const count = Math.ceil(statSync(path("disk.vmdk")).size / 10240);
  const chunks = Array.from({ length: count }, (_, n) => `disk.vmdk.${String(n).padStart(9, "0")}`);
  t.true(chunks.length > 2 && existsSync(path(chunks.at(-1)!)));
  pack(path("vm.ova"), ["vm.ovf", ...[...chunks].reverse()]);
  isDisk(t, { path: path("vm.ova") }, expected);
  qemuImg("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", path("raw"), path("flat.vmdk"));
  writeFileSync(path("flat.ovf"), descriptorOf([{ file: "flat.vmdk" }]));
  pack(path("flat.ova"), ["flat.ovf", "flat.vmdk", "flat-flat.vmdk"]);
  isDisk(t, { path: path("flat.ova") }, expected);
  // Beside the archive there is the file as well, and it must not be taken.
  pack(path("short.ova"), ["flat.ovf", "flat.vmdk"]);
  isRefused(t, "missing", { path: path("short.ova") }, path("short.ova"), "flat-flat.vmdk");
});

test("the manifest's digests are verified", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  disk(path, "raw", 3);
  streamOptimized(path("raw"), path("disk.vmdk"));
  writeFileSync(path("vm.ovf"), descriptorOf([{ file: "disk.vmdk" }]));
  for (const algorithm of ["sha1", "sha256", "sha512"]) {
    writeFileSync(path("vm.mf"), manifestOf(path, algorithm, ["vm.ovf", "disk.vmdk"]));
    pack(path("vm.ova"), ["vm.ovf", "vm.mf", "disk.vmdk"]);
    t.deepEqual(damages(path("vm.ova")), []);
    const bytes = readFileSync(path("vm.ova"));
    // In the padding behind a packed grain: only the digest can tell.
    const at = bytes.indexOf(Buffer.alloc(200), bytes.indexOf("KDMV") + 65536);
    bytes[at + 100] = 1;
    writeFileSync(path("vm.ova"), bytes);
    const told = damages(path("vm.ova"));
    t.is(told.length, 1);
    t.true(told[0]!.includes(path("vm.ova")) && told[0]!.includes("disk.vmdk"), told[0]);
  }
  writeFileSync(path("vm.mf"), manifestOf(path, "sha256", ["vm.ovf"]));
  pack(path("vm.ova"), ["vm.ovf", "vm.mf", "disk.vmdk"]);
  opened({ path: path("vm.ova") }, ({ wrappings }) => t.is(wrappings[0]![0]!.integrity, undefined));
});

test("any tar is taken: long names, names of pax, sizes of base 256, a raw disk", (t) => {
  const path = testFolder(t);
  const next = numbers(3);
  const bytes = Buffer.from(Array.from({ length: 100_000 }, () => next(256)));
  const long = `${"name".repeat(40)}-ä.raw`;
  writeFileSync(path(long), bytes);
  for (const format of ["gnu", "pax"]) {
    pack(path("a.tar"), [`./${long}`], `--format=${format}`);
    isDisk(t, { path: path("a.tar") }, bytes);
    isDisk(t, { path: path("a.tar"), disk: long }, bytes);
    opened({ path: path("a.tar") }, ({ wrappings }) => t.is(wrappings[0]![0]!.format, "tar"));
  }
  writeFileSync(path("disk"), bytes);
  pack(path("b.tar"), ["disk"], "--format=gnu");
  const archive = readFileSync(path("b.tar"));
  archive.fill(0, 124, 136);
  archive[124] = 0x80;
  archive.writeUInt32BE(bytes.length, 132);
  isDisk(t, { path: resummed(path("b.tar"), archive) }, bytes);
});

/** Writes an archive whose first header was changed, with its checksum put right. */
function resummed(path: string, archive: Buffer): string {
  archive.fill(" ", 148, 156);
  const sum = archive.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  archive.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  writeFileSync(path, archive);
  return path;
}

test("archives that can't be opened are refused in words", (t) => {
  const path = testFolder(t);
  const write = (name: string, content: string | Buffer) => writeFileSync(path(name), content);
  write("disk", Buffer.alloc(5000, 7));
  const refused = (code: Parameters<typeof isRefused>[1], ...words: string[]) =>
    isRefused(t, code, { path: path("a.tar") }, path("a.tar"), ...words);
  const repack = (descriptor: string) => {
    write("vm.ovf", descriptor);
    pack(path("a.tar"), ["vm.ovf", "disk"]);
  };
  repack(descriptorOf([{ file: "gone.vmdk" }]));
  refused("missing", "gone.vmdk");
  repack(descriptorOf([{ file: "gone.vmdk", more: 'ovf:chunkSize="9"' }]));
  refused("missing", "gone.vmdk");
  repack(descriptorOf([{ file: "disk", attributes: 'ovf:parentRef="vmdisk7"' }]));
  refused("unsupported", "vmdisk7");
  repack(descriptorOf([{ file: "disk" }]).replace('fileRef="file0"', 'fileRef="file9"'));
  refused("corrupt", "no file");
  repack(descriptorOf([]));
  refused("unsupported", "without a disk");
  repack("<other/>");
  refused("corrupt", "Envelope");
  execFileSync("truncate", ["-s", "1M", path("disk")]);
  pack(path("a.tar"), ["disk"], "--sparse", "--format=gnu");
  refused("unsupported", "holes left out", "disk");
  pack(path("a.tar"), ["disk"], "--sparse", "--format=pax");
  refused("unsupported", "holes left out", "disk");
  write("disk", Buffer.alloc(5000, 7));
  pack(path("a.tar"), ["disk"]);
  const whole = readFileSync(path("a.tar"));
  write("a.tar", whole.subarray(0, 3000));
  refused("corrupt", "truncated", "byte 0");
  write("a.tar", whole.subarray(0, 600));
  refused("corrupt", "truncated");
  const bad = Buffer.from(whole);
  bad[0] = 1;
  write("a.tar", bad);
  refused("corrupt", "byte 0");
  const empty = whole.subarray(0, 512);
  empty.write("00000000000\0", 124, "latin1");
  resummed(path("a.tar"), Buffer.from(empty));
  const header = readFileSync(path("a.tar"));
  write("a.tar", Buffer.concat(Array.from({ length: 10_001 }, () => header)));
  refused("unsupported", "10000 members");
  pack(path("a.tar"), [basename(path(""))], "-C", dirname(path("")), "--no-recursion");
  refused("unsupported", "without a disk");
});

test("a descriptor or a manifest made to be slow is not", (t) => {
  const path = testFolder(t);
  writeFileSync(path("disk"), Buffer.alloc(5000, 7));
  const fill = (piece: string) => piece.repeat(Math.floor((1 << 20) / piece.length));
  const head = "<Envelope>";
  for (const piece of ["<!--", "<File x='", '<File x="a" ', "<Disk ", "\n", "<![CDATA[", "<a:", "&", '="'])
    for (const text of [head + fill(piece), `${head}<File ${fill(piece)}`, `${head}<File id="${fill(piece)}">`]) {
      writeFileSync(path("vm.ovf"), text);
      writeFileSync(path("vm.mf"), fill(piece === "\n" ? "\n" : "SHA1(") + fill(")"));
      pack(path("a.ova"), ["vm.ovf", "vm.mf", "disk"]);
      isRefused(t, "unsupported", { path: path("a.ova") }, "without a disk");
      opened({ path: path("a.ova"), disk: "disk" }, ({ disk }) => t.is(disk.size, 5000));
    }
});

test("changed bytes and cut archives give refusals or other bytes, nothing else", (t) => {
  const path = testFolder(t);
  const name = "n".repeat(150);
  writeFileSync(path("vm.ovf"), descriptorOf([{ file: name }]));
  writeFileSync(path("vm.mf"), `SHA1(${name})= ${"0".repeat(40)}\n`);
  writeFileSync(path(name), Buffer.alloc(3000, 5));
  for (const format of ["gnu", "pax"]) {
    pack(path("a.tar"), ["vm.ovf", "vm.mf", name], `--format=${format}`, "-b", "1");
    survivesDamage(t, readFileSync(path("a.tar")), (bytes) => {
      const around: ImageSurroundings = {
        ...surroundings("/images/a.tar"),
        imageIn(source, wrapping) {
          for (let piece = 0; piece < (wrapping?.integrity?.pieces ?? 0); piece++) wrapping!.integrity!.check(piece);
          return raw.open(source, around);
        },
      };
      const layer = ova.open(new MemorySource("/images/a.tar", bytes), around);
      layer.locate(0);
    });
  }
});
