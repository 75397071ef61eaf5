import { execFileSync } from "node:child_process";
import {
  chmodSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { FileSource } from "../../bytes/file.js";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import type { FileSystem } from "../filesystem.js";
import { hasTools, noise, run, scratchFolder } from "../image-test-tools.js";
import {
  compareManifest,
  type ManifestRow,
  openRecognised,
  openSharedImage,
  readManifest,
  readMtree,
  sharedImages,
  testSurroundings,
  type Walk,
  walk,
} from "../shared-test-images.js";
import { iso9660, openIso9660 } from "./iso9660.js";

const packages = "genisoimage xorriso libarchive-tools";

/** Files of many kinds below `folder`; devices where the test runs as root. */
function oddTree(folder: string): string {
  const top = join(folder, "tree");
  mkdirSync(join(top, "a folder/äöü ß/目录"), { recursive: true });
  const deep = Array.from({ length: 12 }, (_, level) => `level${level}`);
  mkdirSync(join(top, ...deep), { recursive: true });
  writeFileSync(join(top, ...deep, "at the bottom"), noise(5000, 9));
  writeFileSync(join(top, ...deep.slice(0, 9), "in between"), noise(50, 8));
  writeFileSync(join(top, "empty"), "");
  writeFileSync(join(top, "one sector"), noise(2048));
  writeFileSync(join(top, "Mixed.Case.tar.gz"), noise(100_001, 3));
  writeFileSync(join(top, "l".repeat(240)), "a long name, in a continuation area");
  writeFileSync(
    join(
      top,
      Buffer.concat([Buffer.from(`${top}/not utf-8 `), Buffer.from([0xff, 0xe9])])
        .toString("latin1")
        .slice(top.length + 1),
    ),
    "x",
  );
  writeFileSync(join(top, "a folder/äöü ß/目录/файл"), noise(70_000, 4));
  linkSync(join(top, "one sector"), join(top, "a folder/the same"));
  symlinkSync("../one sector", join(top, "a folder/relative"));
  symlinkSync("/absolute/./path//to/nothing", join(top, "absolute"));
  symlinkSync(`${"x".repeat(200)}/${"y".repeat(250)}/..`, join(top, "long link"));
  symlinkSync("..", join(top, "up"));
  symlinkSync("/", join(top, "the root"));
  execFileSync("mkfifo", [join(top, "a fifo")]);
  if (process.getuid?.() === 0) {
    execFileSync("mknod", [join(top, "a device"), "c", "259", "70000"]);
    execFileSync("mknod", [join(top, "a small device"), "b", "8", "3"]);
    execFileSync("chown", ["1234:70001", join(top, "empty")]);
  }
  chmodSync(join(top, "empty"), 0o4751);
  chmodSync(join(top, "a folder"), 0o1770);
  for (let index = 0; index < 60; index++)
    writeFileSync(join(top, "a folder", `number ${index}`), noise(index * 7, index));
  lutimesSync(join(top, "Mixed.Case.tar.gz"), 1e9, 1_234_567_890);
  lutimesSync(join(top, "up"), 1e9, 86_400 * 365);
  return top;
}

const letters: Record<string, string> = {
  file: "f",
  directory: "d",
  symlink: "l",
  character: "c",
  block: "b",
  fifo: "p",
};

interface Told {
  readonly owners: boolean;
}

/** What lstat tells of a folder's files, and a walk of its image, in the same words. */
function expected(top: string, { owners }: Told, path = "", found = new Map<string, string>()): Map<string, string> {
  for (const name of readdirSync(join(top, path))) {
    const child = `${path}/${name}`;
    const stat = lstatSync(join(top, child));
    const kind = stat.isDirectory()
      ? "directory"
      : stat.isSymbolicLink()
        ? "symlink"
        : stat.isFile()
          ? "file"
          : "other";
    const content =
      kind === "symlink"
        ? readlinkSync(join(top, child)).replace(/\/+/g, "/")
        : kind === "file"
          ? execFileSync("sha256sum", ["-b", join(top, child)], { encoding: "utf8" }).replace(/^\\?(\w+).*/s, "$1")
          : stat.isBlockDevice() || stat.isCharacterDevice()
            ? `${(stat.rdev >> 8) & 0xfff}:${(stat.rdev & 0xff) | ((stat.rdev >> 12) & 0xfff00)}`
            : "";
    const size = kind === "file" ? stat.size : "";
    const posix = owners
      ? `${(stat.mode & 0o7777).toString(8)} ${stat.uid} ${stat.gid} ${Math.floor(stat.mtimeMs / 1000)}`
      : "";
    found.set(child, `${kind} ${size} ${posix} ${content}`);
    if (stat.isDirectory()) expected(top, { owners }, child, found);
  }
  return new Map([...found].sort());
}

function told({ files }: Walk, { owners }: Told): Map<string, string> {
  const found = [...files].map(([path, { attributes, hash, link }]): [string, string] => {
    const { kind, size, mode, owner, group, modified, device } = attributes;
    const shown = kind === "directory" || kind === "symlink" || kind === "file" ? kind : "other";
    const posix = owners ? `${mode.toString(8)} ${owner} ${group} ${modified.seconds}` : "";
    const content = link?.replace(/\/+/g, "/") ?? hash ?? (device ? `${device.major}:${device.minor}` : "");
    return [path, `${shown} ${kind === "file" ? size : ""} ${posix} ${content}`];
  });
  return new Map(found.sort());
}

function open(t: ExecutionContext, path: string): FileSystem {
  const source = FileSource.open(path);
  t.teardown(() => source.close());
  return openRecognised(t, iso9660, source);
}

function noErrors(t: ExecutionContext, walked: Walk): Walk {
  t.deepEqual([...walked.errors], []);
  return walked;
}

test("a tree written by xorriso with Rock Ridge reads as it was: kinds, modes, owners, times, devices, links", (t) => {
  if (!hasTools(t, packages, "xorriso")) return;
  const folder = scratchFolder(t);
  const top = oddTree(folder);
  const path = join(folder, "x.iso");
  run("xorriso", ["-outdev", path, "-compliance", "new_rr", "-hardlinks", "on", "-volid", "ODD", "-map", top, "/"]);
  const fileSystem = open(t, path);
  const walked = noErrors(t, walk(fileSystem));
  t.deepEqual(told(walked, { owners: true }), expected(top, { owners: true }));
  t.is(fileSystem.label, "ODD");
  t.is(fileSystem.facts!.tree, "Rock Ridge");
  t.deepEqual(fileSystem.warnings, []);
  const one = walked.files.get("/one sector")!.attributes;
  const same = walked.files.get("/a folder/the same")!.attributes;
  t.is(one.links, 2);
  t.is(same.inode, one.inode);
  const others = [...walked.files.values()].filter(({ attributes }) => attributes.inode === one.inode);
  t.is(others.length, 2);
});

test("a tree written by genisoimage reads as it was, with deep directories in their place", (t) => {
  if (!hasTools(t, packages, "genisoimage")) return;
  const folder = scratchFolder(t);
  const top = oddTree(folder);
  const path = join(folder, "g.iso");
  run("genisoimage", ["-quiet", "-R", "-J", "-joliet-long", "-input-charset", "utf-8", "-V", "DEEP", "-o", path, top]);
  const fileSystem = open(t, path);
  const walked = noErrors(t, walk(fileSystem));
  // The folder to which genisoimage moves directories is a folder of the image; it is empty, as on Linux.
  t.is(walked.files.get("/rr_moved")!.attributes.kind, "directory");
  t.false([...walked.files.keys()].some((name) => name.startsWith("/rr_moved/")));
  walked.files.delete("/rr_moved");
  const tree = expected(top, { owners: true });
  // genisoimage cuts a link's name of more than 248 bytes at the edge of a record.
  for (const files of [walked.files, tree]) files.delete("/long link");
  t.deepEqual(told(walked, { owners: true }), tree);
  t.deepEqual(fileSystem.facts!.trees, ["plain", "Rock Ridge", "Joliet"]);
});

test("without Rock Ridge, Joliet's names are shown", (t) => {
  if (!hasTools(t, packages, "genisoimage", "bsdtar")) return;
  const folder = scratchFolder(t);
  const top = join(folder, "t");
  mkdirSync(join(top, "Ein Ordner/目录 ж"), { recursive: true });
  writeFileSync(join(top, "Ein Ordner/目录 ж/ÄÖÜ ß.text"), noise(3000));
  writeFileSync(join(top, "a name of 64 characters ".padEnd(60, "x").concat(".txt")), "64");
  writeFileSync(join(top, "dots.in.it.tar.gz"), noise(99));
  const path = join(folder, "j.iso");
  run("genisoimage", ["-quiet", "-J", "-input-charset", "utf-8", "-V", "PLAIN_NAME", "-o", path, top]);
  const fileSystem = open(t, path);
  t.deepEqual(told(noErrors(t, walk(fileSystem)), { owners: false }), expected(top, { owners: false }));
  t.is(fileSystem.facts!.tree, "Joliet");
  const names = run("bsdtar", ["-tf", path]).trim().split("\n").slice(1);
  t.deepEqual([...walk(fileSystem).files.keys()].sort(), names.map((name) => `/${name}`).sort());
});

test("plain names are shown as Linux shows them, in lower case and without version 1, and found as they are stored too", (t) => {
  if (!hasTools(t, packages, "genisoimage", "isoinfo")) return;
  const folder = scratchFolder(t);
  const top = join(folder, "t");
  mkdirSync(join(top, "Folder.ext"), { recursive: true });
  writeFileSync(join(top, "Folder.ext/A.TXT"), noise(300));
  writeFileSync(join(top, "NoExtension"), noise(301));
  writeFileSync(join(top, "a long name.html"), noise(302));
  const path = join(folder, "p.iso");
  run("genisoimage", ["-quiet", "-o", path, top]);
  const stored = run("isoinfo", ["-f", "-i", path]).trim().split("\n");
  t.true(stored.includes("/NOEXTENS.;1"), stored.join(" "));
  const fileSystem = open(t, path);
  const walked = noErrors(t, walk(fileSystem));
  const shown = stored.map((name) => name.replace(/\.?;1$/, "").toLowerCase());
  t.deepEqual([...walked.files.keys()].sort(), shown.sort());
  t.is(walked.files.get("/noextens")!.attributes.size, 301);
  t.is(walked.files.get("/noextens")!.attributes.mode, 0o644);
  for (const name of ["NOEXTENS.;1", "NOEXTENS", "NoExtens"])
    t.is(fileSystem.lookup(fileSystem.root, Buffer.from(name)), walked.files.get("/noextens")!.id, name);
});

for (const [what, parameters] of [
  ["zisofs", "default"],
  ["zisofs with blocks of 128 KiB", "block_size=128k:level=9"],
  ["zisofs2", "version_2=on:block_size_v2=64k"],
  ["zisofs2 with Z2", "version_2=on:susp_z2=on:block_size_v2=1m"],
] as const) {
  test(`files packed by xorriso as ${what} are unpacked`, (t) => {
    if (!hasTools(t, packages, "xorriso")) return;
    const folder = scratchFolder(t);
    const top = join(folder, "t");
    mkdirSync(top);
    const text = Buffer.from(Array.from({ length: 40_000 }, (_, line) => `line ${line} of many\n`).join(""));
    writeFileSync(join(top, "text"), text);
    writeFileSync(join(top, "short"), text.subarray(0, 5000));
    writeFileSync(join(top, "exact"), text.subarray(0, 131072));
    writeFileSync(
      join(top, "with zeros"),
      Buffer.concat([text.subarray(0, 70_000), Buffer.alloc(500_000), text.subarray(0, 10)]),
    );
    writeFileSync(join(top, "noise"), noise(3_000));
    const path = join(folder, "z.iso");
    const filter = ["-set_filter_r", "--zisofs", "/", "--"];
    run("xorriso", ["-outdev", path, "-zisofs", parameters, "-map", top, "/", ...filter]);
    const fileSystem = open(t, path);
    const walked = noErrors(t, walk(fileSystem));
    t.deepEqual(told(walked, { owners: true }), expected(top, { owners: true }));
    const file = walked.files.get("/text")!;
    t.true(file.attributes.allocated < file.attributes.size / 2, "it is packed");
    for (const [position, length] of [
      [0, 1],
      [32767, 2],
      [65535, 70_000],
      [text.length - 1, 10],
      [131_000, 200],
    ]) {
      const target = Buffer.alloc(length!);
      let filled = 0;
      for (let count = 1; count > 0 && filled < length!; filled += count)
        count = fileSystem.read(file.id, position! + filled, target.subarray(filled));
      t.deepEqual(target.subarray(0, filled), text.subarray(position, position! + length!));
    }
  });
}

test("a damaged packed block fails alone, and a wrong zisofs header fails the file", (t) => {
  if (!hasTools(t, packages, "xorriso")) return;
  const folder = scratchFolder(t);
  writeFileSync(join(folder, "noise"), Buffer.from(noise(100_000).toString("hex")));
  const path = join(folder, "z.iso");
  run("xorriso", ["-outdev", path, "-map", join(folder, "noise"), "/f", "-set_filter_r", "--zisofs", "/", "--"]);
  const bytes = readFileSync(path);
  const start = bytes.indexOf(Buffer.from("37e45396c9dbd607", "hex"));
  const second = start + bytes.readUInt32LE(start + 20);
  bytes.fill(0xff, second + 100, second + 200);
  const fileSystem = openIso9660(new MemorySource("damaged", bytes));
  const file = fileSystem.lookup(fileSystem.root, Buffer.from("f"))!;
  t.is(fileSystem.read(file, 0, Buffer.alloc(100)), 100);
  t.is(fileSystem.read(file, 65536, Buffer.alloc(100)), 100);
  const error = t.throws(() => fileSystem.read(file, 32768, Buffer.alloc(100)), { instanceOf: ImageError });
  t.regex(error!.message, /^damaged: byte \d+: a file begins here, and its packed block 1 does not unpack/);
  bytes[start] = 0;
  const other = openIso9660(new MemorySource("damaged", bytes));
  t.throws(() => other.read(file, 0, Buffer.alloc(1)), { message: /its zisofs header is not what/ });
});

test("boot images of El Torito are listed as xorriso reports them", (t) => {
  if (!hasTools(t, packages, "xorriso")) return;
  const folder = scratchFolder(t);
  const top = join(folder, "t");
  mkdirSync(top);
  writeFileSync(join(top, "bios.bin"), noise(2048));
  writeFileSync(join(top, "efi.img"), noise(65536));
  const path = join(folder, "boot.iso");
  const bios = ["-b", "bios.bin", "-no-emul-boot", "-boot-load-size", "4"];
  const efi = ["-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot"];
  run("xorriso", ["-as", "mkisofs", "-R", "-c", "boot.cat", ...bios, ...efi, "-o", path, top]);
  const report = run("xorriso", ["-indev", path, "-report_el_torito", "plain"]);
  const rows = [...report.matchAll(/^El Torito boot img : +\d+ +(\S+) +(y|n) +(\S+) +0x\w+ +0x\w+ +(\d+) +(\d+)$/gm)];
  t.is(rows.length, 2, report);
  const { bootImages } = open(t, path).facts as { bootImages: Record<string, unknown>[] };
  t.deepEqual(
    bootImages.map(({ platform, bootable, emulation, position, size }) => ({
      platform,
      bootable,
      emulation,
      position,
      size,
    })),
    rows.map(([, platform, bootable, emulation, sectors, block]) => ({
      platform: platform === "BIOS" ? "x86 BIOS" : platform,
      bootable: bootable === "y",
      emulation: emulation === "none" ? "none" : emulation,
      position: Number(block) * 2048,
      size: Number(sectors) * 512,
    })),
  );
  t.is(bootImages[0]!.loadSegment, 0x7c0);
});

test("an image that was added to shows the newest tree, and each session of one that was appended to can be opened", (t) => {
  if (!hasTools(t, packages, "xorriso", "genisoimage")) return;
  const folder = scratchFolder(t);
  writeFileSync(join(folder, "first"), noise(5000, 1));
  writeFileSync(join(folder, "second"), noise(6000, 2));
  const grown = join(folder, "grown.iso");
  run("xorriso", ["-dev", grown, "-map", join(folder, "first"), "/first"]);
  run("xorriso", ["-dev", grown, "-map", join(folder, "second"), "/second"]);
  t.deepEqual([...noErrors(t, walk(open(t, grown))).files.keys()].sort(), ["/first", "/second"]);

  const appended = join(folder, "appended.iso");
  run("genisoimage", ["-quiet", "-R", "-V", "ONE", "-o", appended, join(folder, "first")]);
  const end = lstatSync(appended).size / 2048;
  const more = join(folder, "more");
  run("genisoimage", [
    "-quiet",
    "-R",
    "-V",
    "TWO",
    "-C",
    `0,${end}`,
    "-M",
    appended,
    "-o",
    more,
    join(folder, "second"),
  ]);
  writeFileSync(appended, Buffer.concat([readFileSync(appended), readFileSync(more)]));
  const first = open(t, appended);
  t.is(first.label, "ONE");
  t.deepEqual([...noErrors(t, walk(first)).files.keys()], ["/first"]);
  t.deepEqual(first.facts!.sessions, [0, end * 2048]);
  t.regex(first.warnings![0]!, /2 sessions/);
  const source = FileSource.open(appended);
  t.teardown(() => source.close());
  const surroundings = (session: number) => ({ ...testSurroundings(), options: { session } });
  t.deepEqual([...walk(iso9660.open(source, surroundings(1))).files.keys()], ["/first"]);
  t.throws(() => iso9660.open(source, surroundings(3)), { message: /only 2 sessions were found, and session 3/ });
  const second = iso9660.open(source, surroundings(2));
  t.is(second.label, "TWO");
  const { files } = noErrors(t, walk(second));
  t.deepEqual([...files.keys()].sort(), ["/first", "/second"]);
  t.is(files.get("/first")!.hash, walk(first).files.get("/first")!.hash);
});

test("the shared images read as bsdtar, 7-Zip, sleuthkit and GRUB read them", (t) => {
  const images = sharedImages(
    t,
    ({ columns, class: kind }) => /iso9660/.test(columns.fs ?? "") && kind !== "corrupt" && !/odd/.test(kind),
  );
  for (const image of images) {
    const source = openSharedImage(t, image);
    if (!iso9660.recognises(source)) {
      t.log(`${image.file} is not bare ISO 9660: ${image.container}`);
      continue;
    }
    const fileSystem = iso9660.open(source, { path: image.file } as never);
    const hasOwners = fileSystem.facts!.tree === "Rock Ridge";
    for (const { volume, reader, path } of image.manifests) {
      if (volume !== "whole") continue;
      const walked = noErrors(t, walk(fileSystem));
      const plain = fileSystem.facts!.tree === "plain";
      // Of a tree without Rock Ridge, others show plain names as they are stored.
      const shown = (name: string) => (plain ? name.toLowerCase() : name);
      const rows = (reader === "mtree" ? readMtree(path) : readManifest(path)).map((row) => ({
        ...row,
        path: shown(row.path),
      }));
      // sleuthkit and 7-Zip show the Joliet tree, the folder of moved directories, or names without their continuation:
      // contents can be compared, names can't.
      // Nor does sleuthkit join the extents of a file.
      if (reader === "tsk" && image.file.includes("multi_extent")) continue;
      if (hasOwners && (reader === "tsk" || reader === "7zz")) {
        const hashes = new Set([...walked.files.values()].map(({ hash }) => hash));
        for (const row of rows)
          if (/^[0-9a-f]{64}$/.test(row.content) && row.size !== 0 && !row.path.startsWith("/[BOOT]"))
            t.true(hashes.has(row.content), `${image.file}: ${row.path}`);
        continue;
      }
      // Directories have their times from their own records, as Linux has them; others look at their parents' records.
      const files = plain ? rows.filter(({ type }) => type !== "d") : rows;
      const directories = plain ? rows.filter(({ type }) => type === "d") : [];
      for (const { path } of directories) {
        t.is(walked.files.get(path)?.attributes.kind, "directory");
        walked.files.delete(path);
      }
      // bsdtar lists the second name of a file as an empty link to the first.
      const isLink = ({ path, size }: ManifestRow) => size === 0 && (walked.files.get(path)?.attributes.links ?? 0) > 1;
      const rest = files.map((row) =>
        reader === "mtree" && isLink(row) ? { ...row, size: undefined, content: "-" } : row,
      );
      const differences = compareManifest(walked, rest, {
        reader,
        // bsdtar and 7-Zip don't list it as Linux does: 7-Zip shows boot images as files too.
        skip: (row) => row.path.startsWith("/[BOOT]") || row.type === "v" || row.path.startsWith("/$OrphanFiles"),
        owners: reader === "mtree" && hasOwners,
        times: reader !== "tsk" && reader !== "grub",
        seconds: true,
      });
      t.deepEqual(differences, [], `${image.file} by ${reader}`);
    }
    const label = /LABEL=((?:\\ |\S)+)/.exec(image.blkid)?.[1]?.replace(/\\ /g, " ");
    if (label !== undefined && !label.includes("M-")) t.is(fileSystem.label, label, image.file);
    const uuid = /UUID=(\S+)/.exec(image.blkid)?.[1];
    t.is(fileSystem.facts!.uuid, uuid, image.file);
  }
});

test("corrupt shared images are refused in words, or read in part", (t) => {
  for (const image of sharedImages(
    t,
    ({ columns, class: kind }) => /iso9660/.test(columns.fs ?? "") && kind === "corrupt",
  )) {
    const source = openSharedImage(t, image);
    try {
      const walked = walk(iso9660.open(source, { path: image.file } as never), { entries: 10_000 });
      t.true(walked.errors.size > 0);
    } catch (error) {
      t.true(error instanceof ImageError, String(error));
      t.regex((error as Error).message, /byte \d+/);
    }
  }
});

/** A small image with everything in its metadata, in memory. */
function smallImage(t: ExecutionContext): Buffer | undefined {
  if (!hasTools(t, packages, "genisoimage")) return undefined;
  const folder = scratchFolder(t);
  const path = join(folder, "small.iso");
  run("genisoimage", ["-quiet", "-R", "-J", "-joliet-long", "-input-charset", "utf-8", "-o", path, oddTree(folder)]);
  return readFileSync(path);
}

test("an image that is cut off anywhere gives what is there, and errors for the rest", (t) => {
  const image = smallImage(t);
  if (!image) return;
  const whole = walk(openIso9660(new MemorySource("whole", image)));
  for (let size = 0; size < image.length; size += 30_011) {
    const source = new MemorySource("cut", image.subarray(0, size));
    let fileSystem: FileSystem;
    try {
      fileSystem = openIso9660(source);
    } catch (error) {
      t.true(error instanceof ImageError, String(error));
      continue;
    }
    t.regex((fileSystem.warnings ?? []).join(), /it is cut off/);
    for (const [path, { hash }] of walk(fileSystem).files)
      if (hash !== undefined) t.is(whole.files.get(path)?.hash, hash);
  }
});

/** The plain tree of one directory, made by hand: `records` are what follows `.` and `..`. */
function handmade(records: Buffer, size = 64 * 2048, rootSize = 2048): Buffer {
  const image = Buffer.alloc(size);
  const both32 = (bytes: Buffer, at: number, value: number) => {
    bytes.writeUInt32LE(value, at);
    bytes.writeUInt32BE(value, at + 4);
  };
  const dots = (name: number) => record(Buffer.from([name]), 20, rootSize, 2);
  const descriptor = Buffer.alloc(2048);
  descriptor.write("\x01CD001\x01", 0, "latin1");
  both32(descriptor, 80, size / 2048);
  descriptor.writeUInt16LE(1, 120);
  descriptor.writeUInt16LE(1, 124);
  descriptor.writeUInt16LE(2048, 128);
  dots(0).copy(descriptor, 156);
  descriptor.copy(image, 16 * 2048);
  image.write("\xffCD001\x01", 17 * 2048, "latin1");
  Buffer.concat([dots(0), dots(1), records]).copy(image, 20 * 2048);
  return image;
}

/** A directory record of 2026-01-02 03:04:05 in the zone two hours east. */
function record(name: Buffer, block: number, size: number, flags: number, use = Buffer.alloc(0)): Buffer {
  const head = 33 + name.length + (name.length % 2 === 0 ? 1 : 0);
  const bytes = Buffer.alloc(head + use.length + (use.length % 2));
  bytes[0] = bytes.length;
  bytes.writeUInt32LE(block, 2);
  bytes.writeUInt32LE(size, 10);
  bytes.set([126, 1, 2, 3, 4, 5, 8, flags], 18);
  bytes.writeUInt16LE(1, 28);
  bytes[32] = name.length;
  name.copy(bytes, 33);
  use.copy(bytes, head);
  return bytes;
}

const named = (name: string) => Buffer.from(name, "latin1");
const shown = (fileSystem: FileSystem) =>
  [...fileSystem.list(fileSystem.root)].map(
    ({ name, kind }) => `${letters[kind]!} ${Buffer.from(name).toString("latin1")}`,
  );

test("times are told in UTC; hidden files are listed, associated ones not, and versions stay apart", (t) => {
  const image = handmade(
    Buffer.concat([
      record(named("A.TXT;1"), 30, 5, 0x04),
      record(named("A.TXT;1"), 31, 6, 0),
      record(named("A.TXT;2"), 32, 7, 0),
      record(named("HIDDEN.;1"), 33, 8, 1),
      record(named("AN/ACORN"), 33, 8, 0),
    ]),
  );
  const fileSystem = openIso9660(new MemorySource("handmade", image));
  t.deepEqual(shown(fileSystem), ["f a.txt", "f a.txt.2", "f hidden", "f an.acorn"]);
  const attributes = fileSystem.attributes(fileSystem.lookup(fileSystem.root, named("a.txt"))!);
  t.is(attributes.size, 6);
  t.is(attributes.modified.seconds, Date.UTC(2026, 0, 2, 1, 4, 5) / 1000);
});

test("a file in several extents, out of order and across a sector of its directory, is read across their edges", (t) => {
  const filler = record(named("F".repeat(200)), 30, 0, 0);
  const parts = [
    [40, 3000],
    [36, 2048],
    [50, 4097],
    [45, 1],
  ] as const;
  const extents = parts.map(([block, size], index) => record(named("BIG.BIN;1"), block, size, index < 3 ? 0x80 : 0));
  const firstSector = Buffer.alloc(2048 - 68);
  Buffer.concat([filler, ...Array.from({ length: 7 }, () => filler)]).copy(firstSector, 0, 0, filler.length * 7);
  extents[0]!.copy(firstSector, filler.length * 7);
  const image = handmade(
    Buffer.concat([firstSector, ...extents.slice(1), record(named("LAST.;1"), 30, 1, 0)]),
    64 * 2048,
    4096,
  );
  const content: Buffer[] = [];
  for (const [block, size] of parts) {
    const bytes = noise(size, block);
    bytes.copy(image, block * 2048);
    content.push(bytes);
  }
  const fileSystem = openIso9660(new MemorySource("handmade", image, 1000));
  t.deepEqual(shown(fileSystem).slice(-2), ["f big.bin", "f last"]);
  const file = fileSystem.lookup(fileSystem.root, named("big.bin"))!;
  const whole = Buffer.concat(content);
  t.is(fileSystem.attributes(file).size, whole.length);
  t.is(fileSystem.attributes(file).allocated, (2 + 1 + 3 + 1) * 2048);
  for (const position of [0, 2990, 3000, 5047, 5048, 9144, 9145]) {
    const target = Buffer.alloc(5000);
    let filled = 0;
    for (let count = 1; count > 0 && filled < target.length; filled += count)
      count = fileSystem.read(file, position + filled, target.subarray(filled));
    t.deepEqual(target.subarray(0, filled), whole.subarray(position, position + 5000));
  }
});

test("a file of more than 8 GiB in three extents has its bytes beyond every 4 GiB", (t) => {
  const [large, block] = [0xfffff800, 0x1fffff];
  const start = (index: number) => 64 + index * (block + 7);
  const extents = [0, 1, 2].map((index) =>
    record(named("HUGE.;1"), start(index), index < 2 ? large : 5000, index < 2 ? 0x80 : 0),
  );
  const image = handmade(Buffer.concat(extents));
  // Behind the image, each byte tells its sector.
  const source = {
    name: "huge",
    size: (start(2) + 3) * 2048,
    read(position: number, target: Uint8Array): number {
      const count = Math.min(target.length, source.size - position, 2048 - (position % 2048));
      if (position < image.length) target.set(image.subarray(position, position + count));
      else target.fill(Math.floor(position / 2048) % 251, 0, count);
      return count;
    },
  };
  const fileSystem = openIso9660(source);
  const file = fileSystem.lookup(fileSystem.root, named("huge"))!;
  t.is(fileSystem.attributes(file).size, 2 * large + 5000);
  const byte = Buffer.alloc(1);
  for (const [position, sector] of [
    [0, start(0)],
    [large - 1, start(0) + block - 1],
    [large, start(1)],
    [2 ** 32, start(1) + 1],
    [2 * large - 1, start(1) + block - 1],
    [2 * large, start(2)],
    [2 * large + 4999, start(2) + 2],
  ]) {
    t.is(fileSystem.read(file, position!, byte), 1);
    t.is(byte[0], sector! % 251, `byte ${position}`);
  }
  t.is(fileSystem.read(file, 2 * large + 5000, byte), 0);
});

test("interleaved files, missing further extents and extents beyond the end are refused when they are read", (t) => {
  const interleaved = record(named("MIXED.;1"), 30, 5, 0);
  interleaved[26] = 2;
  interleaved[27] = 3;
  const image = handmade(
    Buffer.concat([
      interleaved,
      record(named("BEYOND.;1"), 60, 20_000, 0),
      record(named("FAR.;1"), 0xffffffff, 0xffffffff, 0),
      record(named("ALONE.;1"), 30, 5, 0x80),
    ]),
  );
  const fileSystem = openIso9660(new MemorySource("handmade", image));
  const walked = walk(fileSystem);
  t.regex(walked.errors.get("/mixed")!, /^handmade: byte \d+: the file is interleaved/);
  t.regex(
    walked.errors.get("/beyond")!,
    /^handmade: byte 131072: a file goes on here, beyond the volume's 131072 bytes/,
  );
  t.truthy(walked.errors.get("/alone"));
  const far = fileSystem.lookup(fileSystem.root, named("far"))!;
  t.is(fileSystem.attributes(far).size, 0xffffffff);
  t.throws(() => fileSystem.read(far, 4e9, Buffer.alloc(1)), { instanceOf: ImageError });
});

test("directories that contain themselves, and continuation areas in a circle, end", (t) => {
  const use = Buffer.alloc(28);
  use.write("CE", 0, "latin1");
  use[2] = 28;
  use[3] = 1;
  use.writeUInt32LE(30, 4);
  use.writeUInt32LE(28, 20);
  const image = handmade(
    Buffer.concat([record(named("LOOP"), 20, 2048, 2), record(named("CIRCLE.;1"), 31, 3, 0, use)]),
  );
  use.copy(image, 30 * 2048);
  // The root says that Rock Ridge is used.
  const root = record(Buffer.from([0]), 20, 2048, 2, Buffer.from("SP\x07\x01\xbe\xef\x00RR\x05\x01\x81", "latin1"));
  const rest = image.subarray(20 * 2048 + 34, 20 * 2048 + 1000);
  Buffer.concat([root, Buffer.from(rest)]).copy(image, 20 * 2048);
  const fileSystem = openIso9660(new MemorySource("handmade", image));
  t.is(fileSystem.facts!.tree, "Rock Ridge");
  const walked = walk(fileSystem);
  t.is(walked.files.get("/loop")!.id, fileSystem.root);
  t.regex(walked.errors.get("/circle")!, /go in a circle/);
  t.regex(walked.errors.get("/")!, /go in a circle/);
});

test("names that no path can have are left out; others stay", (t) => {
  const entry = (name: string) => {
    const nm = Buffer.concat([Buffer.from(["N".charCodeAt(0), "M".charCodeAt(0), 5 + name.length, 1, 0]), named(name)]);
    return record(named("X.;1"), 30, 1, 0, nm);
  };
  const image = handmade(Buffer.concat(["..", ".", "a/b", "c\0d", "ok", "-\n\x1b[31m", " "].map(entry)));
  const root = record(Buffer.from([0]), 20, 2048, 2, Buffer.from("SP\x07\x01\xbe\xef\x00RR\x05\x01\x81", "latin1"));
  const rest = Buffer.from(image.subarray(20 * 2048 + 34, 21 * 2048 - 20));
  Buffer.concat([root, rest]).copy(image, 20 * 2048);
  t.deepEqual(shown(openIso9660(new MemorySource("handmade", image))), ["f ok", "f -\n\x1b[31m", "f  "]);
});

test("a directory of 20,000 entries is listed, and every name in it found", (t) => {
  if (!hasTools(t, packages, "genisoimage")) return;
  const folder = scratchFolder(t);
  const top = join(folder, "t");
  mkdirSync(top);
  for (let index = 0; index < 20_000; index++) writeFileSync(join(top, `file number ${index}`), "");
  const path = join(folder, "many.iso");
  run("genisoimage", ["-quiet", "-R", "-o", path, top]);
  const fileSystem = open(t, path);
  const names = [...fileSystem.list(fileSystem.root)];
  t.is(names.length, 20_000);
  for (const { name, file } of names) if (fileSystem.lookup(fileSystem.root, name) !== file) t.fail(String(name));
  t.is(fileSystem.lookup(fileSystem.root, named("file number 20000")), undefined);
});
