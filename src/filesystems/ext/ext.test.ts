import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import type { FileSystem } from "../filesystem.js";
import { contentsOf, hasTools, noise, run, scratchFolder, sparseFile } from "../image-test-tools.js";
import { testSurroundings, walk } from "../shared-test-images.js";
import { ext } from "./ext.js";

const MiB = 2 ** 20;

/** A folder with what mke2fs -d can copy without root. */
function sampleFolder(t: ExecutionContext): string {
  const folder = join(scratchFolder(t), "content");
  mkdirSync(join(folder, "a/b/c"), { recursive: true });
  mkdirSync(join(folder, "many"));
  for (const size of [0, 1, 59, 60, 61, 150, 1023, 1024, 4097, 70_000, 1_500_001])
    writeFileSync(join(folder, `a/size ${size}`), noise(size, size + 1));
  for (let index = 0; index < 700; index++) writeFileSync(join(folder, "many", `entry number ${index}`), `${index}`);
  writeFileSync(join(folder, "a/b/c/bottom"), "bottom");
  return folder;
}

/** An image made by mke2fs from `folder`, in memory; undefined, with the reason logged, where this mke2fs can't. */
function make(t: ExecutionContext, size: number, options: string[], folder?: string): Buffer | undefined {
  const path = sparseFile(scratchFolder(t), "image", size);
  try {
    run("mke2fs", ["-q", "-F", "-N", "2000", ...options, ...(folder ? ["-d", folder] : []), path]);
  } catch (error) {
    t.log(`skipped: this mke2fs does not make it: ${(error as Error).message.trim().split("\n").at(-1)}`);
    return undefined;
  }
  return readFileSync(path);
}

const open = (bytes: Buffer, most?: number): FileSystem =>
  ext.open(new MemorySource("image", bytes, most), testSurroundings());

const makes: Record<string, string[]> = {
  ext2: ["-t", "ext2"],
  "ext3 with 2 KiB blocks": ["-t", "ext3", "-b", "2048"],
  "ext4 with 4 KiB blocks": ["-t", "ext4", "-b", "4096"],
  "ext4 with 64 KiB blocks": ["-t", "ext4", "-b", "65536"],
  "ext4 with 64 KiB blocks, without checksums and journal": [
    "-t",
    "ext4",
    "-b",
    "65536",
    "-O",
    "^metadata_csum,^has_journal",
  ],
  "ext4 with inline data and inodes of 512 bytes": ["-t", "ext4", "-O", "inline_data", "-I", "512"],
  "ext4 with casefold": ["-t", "ext4", "-O", "casefold"],
  "ext4 with encryption allowed": ["-t", "ext4", "-O", "encrypt"],
  "ext4 with quota, project and verity": ["-t", "ext4", "-O", "quota,project,verity"],
  "ext4 with bigalloc": ["-t", "ext4", "-O", "bigalloc"],
  "ext4 with multi-mount protection and stable inodes": ["-t", "ext4", "-O", "mmp,stable_inodes"],
};

for (const [title, options] of Object.entries(makes))
  test(`${title}, made by mke2fs from a folder, has what the folder has`, (t) => {
    if (!hasTools(t, "e2fsprogs", "mke2fs")) return;
    const folder = sampleFolder(t);
    const bytes = make(
      t,
      64 * MiB,
      [...options, "-L", "a label", "-U", "12345678-1234-5678-9abc-def012345678"],
      folder,
    );
    if (!bytes) return void t.pass();
    // Reads that end early are met at every structure.
    const fileSystem = open(bytes, 5000);
    t.is(fileSystem.type, title.slice(0, 4));
    t.is(fileSystem.label, "a label");
    t.is(fileSystem.facts?.uuid, "12345678-1234-5678-9abc-def012345678");
    const walked = walk(fileSystem);
    t.deepEqual([...walked.errors], []);
    walked.files.delete("/lost+found");
    const found = [...walked.files].map(([path, { attributes, hash }]) => [
      path,
      attributes.kind === "directory" ? "directory" : `${attributes.size} ${hash}`,
    ]);
    t.deepEqual(new Map(found.sort() as [string, string][]), new Map([...contentsOf(folder)].sort()));
  });

test("a feature that isn't known is named in the refusal", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs")) return;
  const bytes = make(t, 2 * MiB, ["-t", "ext2"])!;
  for (const [bit, name] of [
    [0x1, "compression"],
    [0x1000, "dirdata"],
    [0x40000000, "incompat 0x40000000"],
  ] as const) {
    const copy = Buffer.from(bytes);
    copy.writeUInt32LE(copy.readUInt32LE(1024 + 96) | bit, 1024 + 96);
    const error = t.throws(() => open(copy), { instanceOf: ImageError });
    t.is(error?.code, "unsupported");
    t.true(error?.message.includes(`uses ${name}, which`), error?.message);
  }
});

test("an external journal is told from a filesystem", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs")) return;
  const bytes = make(t, 8 * MiB, ["-O", "journal_dev", "-b", "4096"])!;
  t.true(ext.recognises(new MemorySource("image", bytes)));
  t.throws(() => open(bytes), { code: "unsupported" as never, message: /external journal/ });
});

test("with its journal on another device a filesystem is read when it is clean, and refused when that is to be replayed", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs", "debugfs")) return;
  const folder = scratchFolder(t);
  const path = sparseFile(folder, "image", 16 * MiB);
  run("mke2fs", ["-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-d", sampleFolder(t), path]);
  const uuid = "6d0c6a0e-47a5-4e0c-9d0f-3f6f5f0e2b11";
  const debugfs = (...commands: string[]) => {
    for (const command of commands) run("debugfs", ["-w", "-R", command, path]);
  };
  debugfs("feature has_journal", `ssv journal_uuid ${uuid}`, "ssv journal_dev 0x801");
  t.true(walk(open(readFileSync(path))).files.size > 1);
  debugfs("feature needs_recovery");
  const error = t.throws(() => open(readFileSync(path)), { code: "unsupported" as never });
  t.true(error?.message.includes(`its journal is on another device (UUID ${uuid})`), error?.message);
});

test("a directory in extents that are said to be unwritten has its names all the same, as the kernel and debugfs show them", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs", "debugfs")) return;
  const { files, errors } = walk(changed(t, ["sif /folder block[4] 0x00008001"]));
  t.deepEqual([...errors], []);
  t.true(files.has("/folder/inner"));
});

test("a root that is no directory is refused at once", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs", "debugfs")) return;
  t.throws(() => changed(t, ["sif / mode 0100644"]), {
    code: "corrupt" as never,
    message: /root directory, and is a file/,
  });
});

test("a truncated image opens with a warning, and reads what is left of it", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs")) return;
  const whole = make(t, 64 * MiB, ["-t", "ext4", "-b", "4096"], sampleFolder(t))!;
  const fileSystem = open(whole.subarray(0, 4 * MiB));
  t.regex(fileSystem.warnings!.join(), /has 67108864 bytes, but its volume ends after 4194304/);
  const { files, errors } = walk(fileSystem);
  t.true(files.size > 0);
  for (const message of errors.values()) t.regex(message, /truncated|ends/);
  for (const size of [0, 1000, 2047, 2048]) {
    const source = new MemorySource("image", whole.subarray(0, size));
    if (ext.recognises(source))
      t.throws(() => ext.open(source, testSurroundings()).statistics, { instanceOf: ImageError });
  }
});

/** An image with one field of an inode or a directory changed by debugfs, which also corrects checksums. */
function changed(t: ExecutionContext, commands: string[]): FileSystem {
  const folder = scratchFolder(t);
  const path = sparseFile(folder, "image", 16 * MiB);
  const content = join(folder, "content");
  mkdirSync(join(content, "folder/inner"), { recursive: true });
  writeFileSync(join(content, "file"), noise(20_000));
  writeFileSync(join(content, "other"), "other");
  symlinkSync("a/target", join(content, "link"));
  run("mke2fs", ["-q", "-F", "-t", "ext4", "-b", "4096", "-d", content, path]);
  for (const command of commands) run("debugfs", ["-w", "-R", command, path]);
  return open(readFileSync(path));
}

test("damage in one file is an error of that file, and the others read on", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs", "debugfs")) return;
  const cases: [string, string[], RegExp][] = [
    ["/file", ["sif /file size 0x7fffffffffffffff"], /impossible size/],
    ["/file", ["sif /file mode 0170000"], /unknown kind/],
    ["/file", ["sif /file links_count 0"], /deleted file/],
    ["/file", ["sif /file block[5] 0xfffffff0"], /outside the filesystem/],
    ["/file", ["sif /file block[0] 0x00050001"], /without its signature/],
    ["/file", ["sif /file block[1] 0x00030004"], /extent tree/],
    ["/file", ["sif /file extra_isize 250"], /further fields/],
    ["/file", ["sif /file flags 0x10080000"], /in itself and that it is in extents/],
    ["/file", ["sif /file flags 0x800"], /is encrypted/],
    ["/folder", ["sif /folder flags 0x80800"], /is encrypted/],
    ["/folder", ["sif /folder block[5] 0x20"], /checksum|damaged/],
    ["/file", ["sif /file file_acl 0x7fffffff"], /extended attributes at block/],
    ["/link", ["sif /link size 5000"], /a target of 5000 bytes/],
  ];
  for (const [path, commands, message] of cases) {
    const { errors, files } = walk(changed(t, commands));
    t.deepEqual([...errors.keys()], [path], commands.join());
    t.regex(errors.get(path) ?? "", message, commands.join());
    t.truthy(files.get("/other")?.hash);
  }
});

test("flags of a file are told by name", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs", "debugfs")) return;
  const fileSystem = changed(t, ["sif /file flags 0x80030", "sif /file generation 77", "sif /folder flags 0x40080000"]);
  const details = (name: string) => fileSystem.details!(fileSystem.lookup(fileSystem.root, Buffer.from(name))!);
  t.deepEqual(details("file"), { flags: ["immutable", "append only", "extents"], generation: 77 });
  t.deepEqual(details("folder").flags, ["extents", "casefold"]);
  t.deepEqual(details("link").flags, []);
});

test("the high half of an attribute block's number counts in a filesystem of 64 bits only, as for e2fsck", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs", "debugfs", "e2fsck")) return;
  for (const feature of ["^64bit", "64bit"]) {
    const bytes = make(t, 8 * MiB, ["-t", "ext4", "-O", `${feature},^metadata_csum`], sampleFolder(t))!;
    const path = sparseFile(scratchFolder(t), "image", 0);
    writeFileSync(path, bytes);
    const [, block, offset] = /block (\d+), offset (0x\w+)/.exec(run("debugfs", ["-R", "imap /a", path]))!;
    // Hurd, for one, keeps the high bits of the mode there.
    const blockSize = 1024 << bytes.readUInt32LE(1024 + 24);
    bytes.writeUInt16LE(4, Number(block) * blockSize + Number(offset) + 118);
    writeFileSync(path, bytes);
    const told = spawnSync("e2fsck", ["-fn", path], { encoding: "utf8" }).stdout;
    const counts = told.includes("Extended attribute block for inode");
    t.is(counts, feature === "64bit", told);
    t.deepEqual([...walk(open(bytes)).errors.keys()], counts ? ["/a"] : [], feature);
  }
});

test("a directory that contains itself is listed once", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs", "debugfs")) return;
  const fileSystem = changed(t, ["link /folder /folder/inner/again", "link / /folder/root"]);
  const { errors, files } = walk(fileSystem);
  t.deepEqual([...errors], []);
  t.true(files.has("/folder/inner/again") && files.has("/folder/root") && !files.has("/folder/root/file"));
});

test("a folder that ignores case, with e2fsck's index over folded names, lists as debugfs does, and its names are found as stored", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs", "debugfs", "e2fsck")) return;
  const folder = scratchFolder(t);
  const content = join(folder, "content");
  mkdirSync(join(content, "Dir"), { recursive: true });
  for (let index = 0; index < 600; index++) writeFileSync(join(content, "Dir", `Größe Number ${index}`), `${index}`);
  // Composed, decomposed, compatible characters, and what folding makes longer or leaves out.
  const odd = ["Ärger", "A\u030angstrom", "\u1e9b\u0323", "ﬃ", "Straße", "İ", "a\u00adb", "Å", "각", "ΐ"];
  for (const name of odd) writeFileSync(join(content, "Dir", name), name);
  const path = sparseFile(folder, "image", 16 * MiB);
  run("mke2fs", ["-q", "-F", "-t", "ext4", "-b", "1024", "-O", "casefold", "-d", content, path]);
  run("debugfs", ["-w", "-R", "sif /Dir flags 0x40080000", path]);
  spawnSync("e2fsck", ["-fyD", path]);
  t.true(run("debugfs", ["-R", "htree /Dir", path]).includes("Number of entries"));
  const fileSystem = open(readFileSync(path));
  const directory = fileSystem.lookup(fileSystem.root, Buffer.from("Dir"))!;
  const names = [...fileSystem.list(directory)].map(({ name }) => Buffer.from(name).toString());
  const listed = run("debugfs", ["-R", "ls -p /Dir", path])
    .match(/(?<=^\/(?:[^/\n]*\/){4})[^/\n]+/gm)
    ?.filter((name) => !/^\.+$/.test(name));
  t.deepEqual(names.sort(), listed?.sort());
  for (const name of names) t.not(fileSystem.lookup(directory, Buffer.from(name)), undefined);
  // As debugfs finds them: in the very bytes that are stored, in no other case and no other form of normalisation.
  const inode = (name: string) => Number(/Inode: (\d+)/.exec(run("debugfs", ["-R", `stat "/Dir/${name}"`, path]))?.[1]);
  for (const name of [
    "größe number 7",
    ...odd.flatMap((one) => [one, one.normalize("NFC"), one.normalize("NFD"), one.toLowerCase()]),
  ])
    t.is(fileSystem.lookup(directory, Buffer.from(name)) ?? Number.NaN, inode(name), name);
  for (const name of odd) t.false(Number.isNaN(inode(name)), name);
});

test("a directory that names one block many times ends", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs")) return;
  const bytes = make(t, 4 * MiB, ["-t", "ext2", "-b", "1024", "-I", "128"], sampleFolder(t))!;
  const fileSystem = open(bytes);
  const many = fileSystem.lookup(fileSystem.root, Buffer.from("many"))!;
  // The inode table of the first group is named at byte 8 of the first descriptor.
  const inode = bytes.readUInt32LE(2048 + 8) * 1024 + (many - 1) * 128;
  const indirect = bytes.readUInt32LE(inode + 40 + 12 * 4);
  for (let index = 0; index < 256; index++)
    bytes.writeUInt32LE(bytes.readUInt32LE(inode + 40), indirect * 1024 + index * 4);
  bytes.writeUInt32LE((12 + 256) * 1024, inode + 4);
  const again = open(bytes);
  const error = t.throws(() => [...again.list(many)], { instanceOf: ImageError });
  t.regex(error!.message, /has block \d+ twice/);
});

test("names with / and NUL, empty ones, and further . and .. are left out, all others stay", (t) => {
  if (!hasTools(t, "e2fsprogs", "mke2fs")) return;
  const folder = join(scratchFolder(t), "content");
  mkdirSync(folder);
  for (const name of ["name-slash", "name-zero", "..twodots", "name-bytes", "name-stays"])
    writeFileSync(join(folder, name), name);
  const bytes = make(t, 2 * MiB, ["-t", "ext2", "-b", "1024"], folder)!;
  const rename = (from: string, to: string) => Buffer.from(to, "latin1").copy(bytes, bytes.indexOf(from));
  rename("name-slash", "name/slash");
  rename("name-zero", "name\0zero");
  rename("name-bytes", "\xff\xfe\n\x01\\*?:\x7f ");
  bytes[bytes.indexOf("..twodots") - 2] = 2;
  const fileSystem = open(bytes);
  const names = [...fileSystem.list(fileSystem.root)].map(({ name }) => Buffer.from(name).toString("latin1")).sort();
  t.deepEqual(names, ["lost+found", "name-stays", "\xff\xfe\n\x01\\*?:\x7f "]);
  t.is(fileSystem.lookup(fileSystem.root, Buffer.from("name/slash")), undefined);
  t.is(fileSystem.lookup(fileSystem.root, Buffer.from("..")), undefined);
});
