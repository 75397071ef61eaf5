/** Tests only: small sound images of every filesystem, with every structure that their makers can be had to write. */
import { execFileSync } from "node:child_process";
import { linkSync, mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { readExactly } from "../bytes/byte-source.js";
import { updateCrc32c } from "../bytes/crc32c.js";
import { exfat } from "./exfat/exfat.js";
import { ExfatWriter, withChecksum } from "./exfat/writer-test-tools.js";
import { ext } from "./ext/ext.js";
import { fat } from "./fat/fat.js";
import type { ChangedBytes, Sample } from "./hostile-test-tools.js";
import { hasTools, noise, run, scratchFolder, sparseFile } from "./image-test-tools.js";
import { iso9660 } from "./iso9660/iso9660.js";
import { ntfs } from "./ntfs/ntfs.js";
import { openSharedImage, sharedImages, sharedVolume } from "./shared-test-images.js";
import { squashfs } from "./squashfs/squashfs.js";
import { udf } from "./udf/udf.js";
import { type Item, type Kind, sealTag, UdfWriter } from "./udf/udf-test-tools.js";

const MiB = 2 ** 20;

/** Words that pack well. */
const text = (lines: number) =>
  Buffer.from(Array.from({ length: lines }, (_, line) => `line ${line} of a text\n`).join(""));

/** A folder with a bit of everything that needs no root. */
function folderOf(t: ExecutionContext, links = true): string {
  const top = join(scratchFolder(t), "tree");
  mkdirSync(join(top, "a/b/c"), { recursive: true });
  mkdirSync(join(top, "many"));
  mkdirSync(join(top, "empty"));
  for (const size of [0, 1, 59, 61, 150, 1024, 4097, 40_000])
    writeFileSync(join(top, `a/size ${size}`), noise(size, size + 1));
  for (let index = 0; index < 130; index++)
    writeFileSync(join(top, "many", `an entry with the number ${index}`), `${index}`);
  writeFileSync(join(top, "a/b/c/text"), text(9000));
  writeFileSync(join(top, "a/b/ünï 🎈"), text(10));
  writeFileSync(join(top, "n".repeat(200)), "long");
  const holes = Buffer.concat([noise(5000), Buffer.alloc(200_000), noise(3000), Buffer.alloc(70_000), noise(10)]);
  writeFileSync(join(top, "holes"), holes);
  if (!links) return top;
  linkSync(join(top, "a/size 4097"), join(top, "a/b/again"));
  symlinkSync("b/c/text", join(top, "a/link"));
  symlinkSync(`/${"long/".repeat(40)}target`, join(top, "a/b/long link"));
  symlinkSync("..", join(top, "a/b/up"));
  execFileSync("mkfifo", [join(top, "a/fifo")]);
  return top;
}

const extMakes: Record<string, readonly string[]> = {
  "ext2 in blocks of 1 KiB": ["-t", "ext2", "-b", "1024"],
  "ext2 with inodes of 128 bytes": ["-t", "ext2", "-b", "1024", "-I", "128", "-O", "^filetype,^dir_index"],
  "ext4 without checksums": ["-t", "ext4", "-O", "^metadata_csum,^has_journal", "-b", "1024", "-g", "4096"],
  "ext4 with inline data": ["-t", "ext4", "-O", "inline_data,^metadata_csum,^has_journal", "-I", "512", "-b", "1024"],
  "ext4 with bigalloc and meta_bg": [
    ...["-t", "ext4", "-O", "bigalloc,meta_bg,^resize_inode,^metadata_csum,^has_journal"],
    ...["-b", "1024", "-C", "4096"],
  ],
  "ext4 with checksums": ["-t", "ext4", "-O", "^has_journal", "-b", "1024"],
  "ext4 with attributes in inodes": ["-t", "ext4", "-O", "ea_inode,^metadata_csum,^has_journal", "-b", "2048"],
};

function extSamples(t: ExecutionContext): Sample[] {
  if (!hasTools(t, "e2fsprogs", "mke2fs", "debugfs")) return [];
  const top = folderOf(t);
  const folder = scratchFolder(t);
  writeFileSync(join(folder, "large"), noise(700));
  writeFileSync(join(folder, "huge"), noise(5000));
  const made = (name: string, options: readonly string[], size = 6 * MiB): string => {
    const path = sparseFile(folder, name, size);
    run("mke2fs", ["-q", "-F", "-N", "400", "-L", "hostile", ...options, "-d", top, path]);
    const values = [
      "ea_set /holes user.small value",
      "ea_set /a/b trusted.folder x",
      `ea_set -f ${folder}/large /holes user.large`,
      ...(options.join().includes("ea_inode") ? [`ea_set -f ${folder}/huge /holes user.huge`] : []),
    ];
    for (const command of values) run("debugfs", ["-w", "-R", command, path]);
    return path;
  };
  const samples = Object.entries(extMakes).map(([name, options]): Sample => {
    return { name, format: ext, bytes: readFileSync(made(name, options)) };
  });
  for (const [name, options, journal] of [
    ["ext3 with a journal to replay", ["-t", "ext3", "-b", "1024"], "jo"],
    ["ext4 with a 64-bit journal to replay", ["-t", "ext4", "-O", "64bit,^metadata_csum", "-b", "1024"], "jo"],
    ["ext4 with a journal with checksums to replay", ["-t", "ext4", "-O", "^metadata_csum", "-b", "1024"], "jo -c"],
  ] as const)
    samples.push({ name, format: ext, bytes: withJournal(made(name, options, 10 * MiB), folder, journal) });
  for (const image of sharedImages(t, ({ file }) => file.endsWith("/j_recover_fast_commit.img.zst"))) {
    const source = openSharedImage(t, image);
    const bytes = readExactly(source, 0, source.size, "the volume");
    samples.push({ name: "ext4 with fast commits to replay", format: ext, bytes, mend: mendFastCommit(bytes) });
  }
  return samples;
}

/** The checksum of the notes of a fast commit, which begin with a head (tag 9, 8 bytes) at the start of a block. */
function mendFastCommit(sound: Buffer): (bytes: ChangedBytes) => void {
  let head = 0;
  while (sound.readUInt32LE(head) !== 0x00080009) head += 1024;
  return (bytes) => {
    let sum = 0;
    for (let at = head; at < head + 8 * 1024; ) {
      const [tag, length] = [bytes.bytesAt(at, 4).readUInt16LE(0), bytes.bytesAt(at, 4).readUInt16LE(2)];
      if (tag === 8) {
        sum = updateCrc32c(sum, bytes.bytesAt(at, 8));
        const stored = Buffer.alloc(4);
        stored.writeUInt32LE(sum);
        bytes.write(at + 8, stored);
        return;
      }
      sum = updateCrc32c(sum, bytes.bytesAt(at, 4 + length));
      at += 4 + length;
      // What fills a block up ends a byte before its end.
      if (tag === 7) at = Math.ceil(at / 1024) * 1024;
    }
  };
}

/** Moves the first blocks of the inode table to the journal: without its replay there is hardly a file. */
function withJournal(path: string, folder: string, open: string): Buffer {
  const before = readFileSync(path);
  const table = before.readUInt32LE(2048 + 8);
  // The first two have the root's inode and the journal's own.
  const numbers = [table + 2, table + 3, table + 4, table + 5];
  writeFileSync(
    join(folder, "blocks"),
    Buffer.concat(numbers.map((block) => before.subarray(block * 1024, block * 1024 + 1024))),
  );
  const commands = [
    open,
    `jw -b ${numbers.join()} ${folder}/blocks`,
    "jw -r 5000,5001",
    `jw -b ${table + 2} ${folder}/blocks`,
    "jc",
  ];
  writeFileSync(join(folder, "commands"), `${commands.join("\n")}\n`);
  run("debugfs", ["-w", "-f", join(folder, "commands"), path]);
  const bytes = readFileSync(path);
  for (const block of numbers) bytes.fill(0, block * 1024, block * 1024 + 1024);
  return bytes;
}

function fatSamples(t: ExecutionContext): Sample[] {
  if (!hasTools(t, "dosfstools mtools", "mkfs.vfat", "mcopy")) return [];
  const top = folderOf(t, false);
  return (
    [
      ["fat12", 1440 * 1024, ["-F", "12", "-n", "FLOPPY"]],
      ["fat16", 9 * MiB, ["-F", "16", "-s", "4"]],
      ["fat32", 34 * MiB, ["-F", "32", "-s", "1", "-n", "THIRTY TWO"]],
    ] as const
  ).map(([name, size, options]) => {
    const path = sparseFile(scratchFolder(t), name, size);
    run("mkfs.vfat", [...options, path]);
    run("sh", ["-c", `cd '${top}' && mcopy -s -m -i '${path}' * ::`], { MTOOLS_SKIP_CHECK: "1" });
    return { name, format: fat, bytes: readFileSync(path) };
  });
}

function exfatSamples(t: ExecutionContext): Sample[] {
  if (!hasTools(t, "exfatprogs", "mkfs.exfat")) return [];
  return ["512", "4096"].map((clusterSize) => {
    const path = sparseFile(scratchFolder(t), "exfat", 6 * MiB);
    run("mkfs.exfat", ["-c", clusterSize, "-L", "hostile", path]);
    const bytes = readFileSync(path);
    const writer = new ExfatWriter(bytes);
    const folders = [true, false].map((isContiguous) => {
      const entries = Array.from({ length: 40 }, (_, index) =>
        writer.file({
          name: `${"a name of its own ".repeat(index % 9)}${index}`,
          content: noise((index * index * 7) % 5001, index),
          isContiguous: index % 2 === 0,
        }),
      );
      entries.push(writer.directory("below", [writer.file({ name: "x", content: noise(3000), isContiguous })], true));
      return writer.directory(isContiguous ? "side by side" : "scattered", entries, isContiguous);
    });
    const lazy = writer.file({ name: "lazy", content: noise(20_000), valid: 5000, isContiguous: true });
    // The root directory is one cluster.
    writer.finish([...folders, lazy]);
    return { name: `exfat in clusters of ${clusterSize} bytes`, format: exfat, bytes, mend: mendExfat(bytes) };
  });
}

/** The checksums of the boot region, and of every set of entries that lies in one piece. */
function mendExfat(sound: Buffer): (bytes: ChangedBytes) => void {
  const sets: number[] = [];
  for (let at = 24 * 512; at + 96 <= sound.length; at += 32) {
    const length = 32 * (1 + sound[at + 1]!);
    if (sound[at] !== 0x85 || at + length > sound.length) continue;
    const set = withChecksum(Buffer.from(sound.subarray(at, at + length)));
    if (set.readUInt16LE(2) === sound.readUInt16LE(at + 2)) sets.push(at);
  }
  return (bytes) => {
    const boot = bytes.bytesAt(0, 12 * 512);
    let sum = 0;
    for (let at = 0; at < 11 * 512; at++)
      if (at !== 106 && at !== 107 && at !== 112) sum = (((sum << 31) | (sum >>> 1)) + boot[at]!) >>> 0;
    for (let at = 11 * 512; at < 12 * 512; at += 4) boot.writeUInt32LE(sum, at);
    bytes.write(11 * 512, boot.subarray(11 * 512));
    for (const at of sets) {
      const set = bytes.bytesAt(at, 32 * 19);
      const length = 32 * (1 + set[1]!);
      if (length <= set.length) bytes.write(at + 2, withChecksum(set.subarray(0, length)).subarray(2, 4));
    }
  };
}

function ntfsSamples(t: ExecutionContext): Sample[] {
  const windows = sharedImages(t, ({ file }) => file === "dfvfs/ntfs-fixed.vhd.zst").map((image): Sample => {
    const source = sharedVolume(image, openSharedImage(t, image), "p1");
    return { name: "ntfs by Windows", format: ntfs, bytes: readExactly(source, 0, source.size, "the volume") };
  });
  if (!hasTools(t, "ntfs-3g wimtools", "mkntfs", "ntfscp", "wimlib-imagex")) return windows;
  const folder = scratchFolder(t);
  const top = folderOf(t);
  const wim = join(folder, "tree.wim");
  run("wimlib-imagex", ["capture", top, wim, "--compress=none", "--unix-data"]);
  const made = (
    [
      ["ntfs in clusters of 512 bytes", ["-c", "512"]],
      ["ntfs in clusters of 4 KiB", []],
    ] as const
  ).map(([name, options]) => {
    const path = sparseFile(folder, name, 9 * MiB);
    run("mkntfs", ["-F", "-q", "-L", "hostile", ...options, path]);
    run("wimlib-imagex", ["apply", wim, "1", path]);
    // Streams enough for an attribute list.
    for (let index = 0; index < 12; index++)
      run("ntfscp", ["-f", "-N", `stream ${index} of many`, path, join(top, "a/size 150"), "holes"]);
    return { name, format: ntfs, bytes: readFileSync(path) };
  });
  return [...windows, ...made];
}

function isoSamples(t: ExecutionContext): Sample[] {
  if (!hasTools(t, "genisoimage xorriso", "xorriso", "genisoimage")) return [];
  const folder = scratchFolder(t);
  const top = folderOf(t);
  const boot = ["-b", "a/size 4097", "-no-emul-boot", "-c", "boot.cat"];
  const made = (name: string, act: (path: string) => void): Sample => {
    const path = join(folder, `${name}.iso`);
    act(path);
    return { name, format: iso9660, bytes: readFileSync(path) };
  };
  const packed = ["-set_filter_r", "--zisofs", "/a/b", "--"];
  return [
    made("iso9660 with Rock Ridge, zisofs and ACLs", (path) =>
      run("xorriso", ["-outdev", path, "-compliance", "new_rr", "-volid", "R", "-map", top, "/", ...packed]),
    ),
    made("iso9660 with Joliet and El Torito", (path) =>
      run("genisoimage", ["-quiet", "-J", "-input-charset", "utf-8", ...boot, "-V", "J", "-o", path, top]),
    ),
    made("iso9660 with all trees", (path) =>
      run("genisoimage", ["-quiet", "-R", "-J", "-joliet-long", "-input-charset", "utf-8", "-o", path, top]),
    ),
    made("iso9660 plain", (path) => run("genisoimage", ["-quiet", "-input-charset", "utf-8", "-o", path, top])),
  ];
}

const udfKinds: readonly (readonly [Kind, number, boolean])[] = [
  ["physical", 2048, false],
  ["physical", 512, true],
  ["sparable", 2048, true],
  ["virtual 1.50", 2048, false],
  ["virtual 2.00", 2048, true],
  ["metadata", 2048, true],
];

function udfSamples(t: ExecutionContext): Sample[] {
  const samples = udfKinds.map(([kind, blockSize, extended]): Sample => {
    const bytes = new UdfWriter(kind, blockSize, extended).write(udfTree(blockSize, extended), "hostile");
    return { name: `udf ${kind} in blocks of ${blockSize} bytes`, format: udf, bytes, mend: mendUdf(bytes) };
  });
  if (!hasTools(t, "genisoimage", "genisoimage")) return samples;
  const path = join(scratchFolder(t), "bridge.iso");
  run("genisoimage", ["-quiet", "-udf", "-R", "-input-charset", "utf-8", "-o", path, folderOf(t)]);
  const bytes = readFileSync(path);
  return [...samples, { name: "udf bridge", format: udf, bytes, mend: mendUdf(bytes) }];
}

function udfTree(blockSize: number, extended: boolean): Item {
  const piece = (blocks: number, seed: number) => noise(blocks * blockSize, seed);
  const parts = [piece(1, 1), piece(3, 2), piece(2, 3), piece(1, 4), noise(blockSize / 2 + 3, 6)];
  const many = Object.fromEntries(
    Array.from({ length: 20 }, (_, index): [string, Item] => [
      `${"long name ".repeat(8)}${index}`,
      { type: "file", pieces: [Buffer.from(`number ${index}`)], form: "inline" },
    ]),
  );
  const streams = { "Zone.Identifier": Buffer.from("3"), ж: parts[1]! };
  const link = Buffer.from([5, 4, 0, 0, 8, 0x61, 0x62, 0x63, 3, 0, 0, 0, 5, 2, 0, 0, 8, 0x64]);
  return {
    type: "directory",
    children: {
      inline: { type: "file", pieces: [Buffer.from("in the ICB")], form: "inline" },
      "in pieces": { type: "file", pieces: parts, form: "long", also: "a second name", links: 2 },
      chained: { type: "file", pieces: parts, form: "long", chained: 2 },
      holes: {
        type: "file",
        pieces: [{ hole: 2 * blockSize }, parts[0]!, { hole: blockSize, allocated: true }],
        form: "long",
      },
      "目录 😀": { type: "directory", children: { ...many, below: { type: "directory", children: many } } },
      rewritten: { type: "file", pieces: [Buffer.from("new")], form: "inline", rewritten: true },
      link: { type: "symlink", pieces: [link], form: "inline" },
      device: { type: "character", device: [259, 70_000] },
      ...(extended ? { streams: { type: "file", pieces: [parts[0]!], form: "long", streams } as Item } : {}),
    },
  };
}

/** The tags of descriptors, and of those of names in directories, which begin at every fourth byte. */
function mendUdf(sound: Buffer): (bytes: ChangedBytes) => void {
  const tags: number[] = [];
  for (let at = 32768; at + 16 <= sound.length; at += 4) {
    const identifier = sound.readUInt16LE(at);
    const end = at + 16 + sound.readUInt16LE(at + 10);
    if (identifier > 266 || (sound.readUInt16LE(at + 2) & ~1) !== 2 || end === at + 16 || end > sound.length) continue;
    const copy = Buffer.from(sound.subarray(at, end));
    sealAgain(copy);
    if (copy.equals(sound.subarray(at, end))) tags.push(at);
  }
  return (bytes) => {
    for (const at of tags) {
      const head = bytes.bytesAt(at, 16);
      const length = 16 + head.readUInt16LE(10);
      if (length > 8192 || at + length > bytes.size) continue;
      const descriptor = bytes.bytesAt(at, length);
      sealAgain(descriptor);
      bytes.write(at, descriptor.subarray(0, 16));
    }
  };
}

/** As sealTag, with the version that the tag has. */
function sealAgain(descriptor: Buffer): void {
  const version = descriptor.readUInt16LE(2);
  sealTag(descriptor, descriptor.readUInt16LE(0), descriptor.readUInt32LE(12));
  descriptor.writeUInt16LE(version, 2);
  descriptor[4] = descriptor.subarray(0, 16).reduce((sum, byte, at) => (at === 4 ? sum : sum + byte), 0) & 0xff;
}

const squashMakes: Record<string, readonly string[]> = {
  "squashfs, nothing packed": ["-noI", "-noD", "-noF", "-noX"],
  "squashfs, metadata not packed": ["-noI", "-noX", "-comp", "zstd"],
  "squashfs by gzip": ["-comp", "gzip"],
  "squashfs by xz": ["-comp", "xz", "-Xbcj", "x86"],
  "squashfs by lz4": ["-comp", "lz4"],
  "squashfs by lzo": ["-comp", "lzo"],
  "squashfs by zstd": ["-comp", "zstd", "-no-fragments"],
};

function squashSamples(t: ExecutionContext): Sample[] {
  if (!hasTools(t, "squashfs-tools attr", "mksquashfs", "setfattr")) return [];
  const top = folderOf(t);
  try {
    run("setfattr", ["-n", "user.note", "-v", "value".repeat(30), join(top, "holes")]);
    run("setfattr", ["-n", "user.note", "-v", "value".repeat(30), join(top, "a/b/c/text")]);
  } catch (error) {
    // A temporary folder without attributes (an older tmpfs): then without.
    t.log(`no extended attributes here: ${(error as Error).message}`);
  }
  truncateSync(join(top, "holes"), 3 * MiB);
  return Object.entries(squashMakes).map(([name, options]) => {
    const path = join(scratchFolder(t), "image");
    const devices = ["-p", "x c 600 0 0 1 3", "-p", "y b 600 5 6 8 17"];
    run("mksquashfs", [top, path, "-noappend", "-quiet", "-no-progress", "-b", "16K", ...devices, ...options]);
    return { name, format: squashfs, bytes: readFileSync(path) };
  });
}

/** Makers by filesystem; each skips, with the reason logged, where its tools are absent. */
export const sampleMakers: Record<string, (t: ExecutionContext) => Sample[]> = {
  "ext2, ext3 and ext4": extSamples,
  FAT: fatSamples,
  exFAT: exfatSamples,
  NTFS: ntfsSamples,
  "ISO 9660": isoSamples,
  UDF: udfSamples,
  SquashFS: squashSamples,
};
