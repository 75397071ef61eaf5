/** The ext reader against the kernel: the same images, mounted through loop devices. */
import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { FileSource } from "../src/bytes/file.js";
import { ext } from "../src/filesystems/ext/ext.js";
import type { FileSystem } from "../src/filesystems/filesystem.js";
import { repository, testSurroundings, walk } from "../src/filesystems/shared-test-images.js";
import { DriverTrees } from "./driver-trees.js";
import { drivers, loopMount, people, serialFor, Workspace } from "./helpers.js";
import { compareWithKernel, noKernelMount } from "./kernel-tree.js";

if (noKernelMount) console.log(`Skipped: ${noKernelMount}.`);
const serial = noKernelMount ? test.serial.skip : test.serial;
/** Of the many files that are alike one in a hundred. */
const trees = new DriverTrees(
  ["mode", "owner", "links", "size", "times", "device", "target", "xattrs", "content"],
  "^(many|r[0-9]|folded|old)/.*([1-9]|[1-9]0)$|^deep(/level-[0-9]+){4}",
);
const oddTree = join(repository, "mount-tests/odd-tree.sh");

class Image {
  readonly folder = mkdtempSync(join(tmpdir(), "spindle-ext-"));
  readonly path = join(this.folder, "image");
  readonly mountpoint = join(this.folder, "mnt");
  private mounted = 0;

  constructor(
    private readonly t: ExecutionContext,
    size: number,
    options: readonly string[],
  ) {
    t.teardown(() => this.remove());
    mkdirSync(this.mountpoint);
    writeFileSync(this.path, "");
    truncateSync(this.path, size);
    execFileSync("mke2fs", ["-q", "-F", "-N", "8000", ...options, this.path]);
  }

  /** Whether the kernel mounts it; if not, its reason is logged. */
  mount(options: string, path = this.path): boolean {
    const run = loopMount("-t", "ext4", "-o", `loop,${options}`, path, this.mountpoint);
    if (run.status === 0) this.mounted++;
    else this.t.log(`skipped: the kernel doesn't mount this: ${run.stderr.trim()}`);
    return run.status === 0;
  }

  unmount(): void {
    execFileSync("umount", [this.mountpoint]);
    this.mounted--;
  }

  open(path = this.path): FileSystem {
    const source = FileSource.open(path);
    this.t.teardown(() => source.close());
    this.t.true(ext.recognises(source));
    return ext.open(source, testSurroundings(path));
  }

  private remove(): void {
    while (this.mounted > 0) this.unmount();
    rmSync(this.folder, { recursive: true });
  }
}

function equalsKernel(t: ExecutionContext, fileSystem: FileSystem, mountpoint: string): void {
  const { list, files } = compareWithKernel(fileSystem, mountpoint);
  t.deepEqual(list, [], `${list.length} differences`);
  t.log(`${files} files are the same`);
  const theirs = statfsSync(mountpoint);
  const { blockSize, blocks, freeBlocks, files: inodes, freeFiles } = fileSystem.statistics;
  t.deepEqual(
    { blockSize, blocks, freeBlocks, inodes, freeFiles },
    {
      blockSize: theirs.bsize,
      blocks: theirs.blocks,
      freeBlocks: theirs.bfree,
      inodes: theirs.files,
      freeFiles: theirs.ffree,
    },
    "statistics",
  );
}

const MiB = 2 ** 20;

/** What mke2fs is told, by what it makes. */
const makes: Record<string, readonly string[]> = {
  "ext4 in blocks of 4 KiB": ["-t", "ext4", "-b", "4096"],
  "ext4 as it is by default in a small image": ["-t", "ext4"],
  "ext2 in blocks of 1 KiB": ["-t", "ext2", "-b", "1024"],
  "ext2 in blocks of 2 KiB": ["-t", "ext2", "-b", "2048"],
  "ext2 in blocks of 4 KiB with inodes of 128 bytes": ["-t", "ext2", "-b", "4096", "-I", "128"],
  "ext2 of revision 0": ["-t", "ext2", "-r", "0"],
  "ext3 in blocks of 1 KiB": ["-t", "ext3", "-b", "1024"],
  "ext4 without extents": ["-t", "ext4", "-O", "^extent,^64bit"],
  "ext4 with inline data": ["-t", "ext4", "-O", "inline_data"],
  "ext4 with inline data in inodes of 1 KiB": ["-t", "ext4", "-O", "inline_data", "-I", "1024"],
  "ext4 in blocks of 1 KiB with inodes of 128 bytes": ["-t", "ext4", "-b", "1024", "-I", "128"],
  "ext4 in blocks of 2 KiB": ["-t", "ext4", "-b", "2048"],
  "ext4 with meta_bg": ["-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"],
  "ext4 with bigalloc": ["-t", "ext4", "-O", "bigalloc", "-C", "65536"],
  "ext4 with bigalloc in blocks of 1 KiB": ["-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"],
  "ext4 with checksums of group descriptors only": ["-t", "ext4", "-O", "^metadata_csum,uninit_bg"],
  "ext4 without any checksums": ["-t", "ext4", "-O", "^metadata_csum,^uninit_bg"],
  "ext4 in 32 bits": ["-t", "ext4", "-O", "^64bit"],
  "ext4 with casefold": ["-t", "ext4", "-O", "casefold"],
  "ext4 with a checksum seed": ["-t", "ext4", "-O", "metadata_csum_seed"],
  "ext4 with attributes in inodes": ["-t", "ext4", "-O", "ea_inode"],
  "ext4 with sparse_super2": ["-t", "ext4", "-b", "1024", "-O", "sparse_super2,^resize_inode"],
  "ext4 without flex_bg": ["-t", "ext4", "-b", "1024", "-O", "^flex_bg"],
  "ext4 with large_dir": ["-t", "ext4", "-O", "large_dir"],
  "ext4 without kinds in directories": ["-t", "ext4", "-O", "^filetype"],
  "ext4 without hashed directories": ["-t", "ext4", "-O", "^dir_index"],
  "ext4 without a journal": ["-t", "ext4", "-O", "^has_journal"],
  "ext4 with an orphan file": ["-t", "ext4", "-O", "orphan_file"],
};

for (const [title, options] of Object.entries(makes))
  serial(`${title} is as the kernel shows it`, (t) => {
    const image = new Image(t, 64 * MiB, options);
    if (!image.mount("user_xattr,acl")) return void t.pass();
    execFileSync(oddTree, [image.mountpoint]);
    if (title.includes("casefold")) {
      const folded = join(image.mountpoint, "folded");
      mkdirSync(folded);
      execFileSync("chattr", ["+F", folded]);
      for (let index = 0; index < 500; index++) writeFileSync(join(folded, `MiXed CASE ${index}`), "x");
    }
    image.unmount();
    if (!image.mount("ro,noload")) return void t.pass();
    equalsKernel(t, image.open(), image.mountpoint);
    trees.keep(t, image.path, image.mountpoint);
  });

/** Options of mke2fs and of mount under which the journal looks different. */
const journals: Record<string, readonly [readonly string[], string]> = {
  "as it is by default": [["-t", "ext4"], "defaults"],
  "in blocks of 4 KiB": [["-t", "ext4", "-b", "4096"], "defaults"],
  "in 32 bits": [["-t", "ext4", "-O", "^64bit"], "defaults"],
  "without checksums": [["-t", "ext3"], "defaults"],
  "with checksums of whole transactions": [["-t", "ext4", "-O", "^metadata_csum"], "journal_checksum"],
  "with data in it": [["-t", "ext4"], "data=journal"],
  "with fast commits that a full one has made void": [["-t", "ext4", "-O", "fast_commit"], "defaults"],
};

for (const [title, [make, options]] of Object.entries(journals))
  serial(`an image copied while it is mounted, its journal ${title}, reads as after the kernel's replay`, (t) => {
    const image = new Image(t, 64 * MiB, make);
    const copy = `${image.path}.copy`;
    // Freeing and using blocks again makes revoke records.
    if (!image.mount(`${options},commit=1000`)) return void t.pass();
    execFileSync(oddTree, [image.mountpoint]);
    for (let round = 0; round < 3; round++) {
      execFileSync("bash", [
        "-c",
        `cd "$1"; mkdir r${round}; for i in $(seq 300); do echo $i > r${round}/f$i; done; rm -rf many; sync; mkdir many
         # The journal's own signature as data: such blocks are escaped.
         printf '\\xc0\\x3b\\x39\\x98 and more' > magic-${round}; sync; rm -rf r$((${round} - 1)) plain/random`,
        "-",
        image.mountpoint,
      ]);
      const fd = openSync(join(image.mountpoint, `synced-${round}`), "w");
      writeSync(fd, "this was written with fsync");
      fsyncSync(fd);
      closeSync(fd);
    }
    // A full commit makes the fast commits before it void.
    if (title.includes("fast commits")) execFileSync("sync", ["-f", image.mountpoint]);
    execFileSync("cp", ["--sparse=always", image.path, copy]);
    image.unmount();

    const fileSystem = image.open(copy);
    const told = fileSystem.warnings?.find((warning) => warning.includes("journal"));
    t.regex(told ?? "", /\d+ transactions? of its journal (is|are) applied in memory \([1-9]\d* blocks\)/);
    t.log(told);
    const replayed = `${image.path}.replayed`;
    copyFileSync(copy, replayed);
    // A loop device made for a read-only mount can't be written, and the kernel replays on the device.
    t.true(image.mount("noatime", replayed));
    image.unmount();
    t.true(image.mount("ro,noload", replayed));
    equalsKernel(t, fileSystem, image.mountpoint);
    trees.keep(t, copy, image.mountpoint);
  });

for (const options of [
  ["-t", "ext4"],
  ["-t", "ext3"],
  ["-t", "ext4", "-O", "^64bit"],
])
  serial(
    `blocks that were freed and used again (${options.slice(1).join(" ")}) are not overwritten from the journal`,
    (t) => {
      const image = new Image(t, 24 * MiB, [...options, "-b", "1024"]);
      if (!image.mount("commit=1000")) return void t.pass();
      const command = `cd "$1"; mkdir old; for i in $(seq 100); do : > old/${"n".repeat(200)}$i; done; sync; rm -r old; sync
      head -c 30M /dev/urandom > fills-all 2>/dev/null; sync`;
      spawnSync("bash", ["-c", command, "-", image.mountpoint]);
      const copy = `${image.path}.copy`;
      execFileSync("cp", ["--sparse=always", image.path, copy]);
      image.unmount();
      const fileSystem = image.open(copy);
      t.log(fileSystem.warnings?.join());
      t.true(image.mount("noatime", copy.replace(".copy", "")));
      const { list } = compareWithKernel(fileSystem, image.mountpoint);
      t.deepEqual(list, []);
      trees.keep(t, copy, image.mountpoint);
    },
  );

/** What fast commits don't tell of directories: the kernel's replay makes it up as it goes. */
const madeUp = /: (modified|changed|allocated|size|links) is /;
const isReplays = (difference: string, directories: ReadonlySet<string>) =>
  madeUp.test(difference) && directories.has(difference.replace(/: .*$/s, ""));

for (const [title, options] of Object.entries({
  "with checksums": [],
  "without checksums": ["-O", "^metadata_csum"],
  "in blocks of 1 KiB": ["-b", "1024"],
  "with inline data": ["-O", "inline_data"],
}))
  serial(`an image copied while its journal holds fast commits, ${title}, reads as after the kernel's replay`, (t) => {
    const image = new Image(t, 64 * MiB, ["-t", "ext4", "-O", "fast_commit", ...options]);
    const copy = `${image.path}.copy`;
    if (!image.mount("commit=1000")) return void t.pass();
    const script = `
      cd "$1"; mkdir old; for i in $(seq 40); do head -c $((i * 700)) /dev/urandom > old/file-$i; done
      head -c 300000 /dev/urandom > grows; head -c 300000 /dev/urandom > shrinks; head -c 300000 /dev/urandom > punched
      ln old/file-1 old/linked; sync -f .`;
    execFileSync("bash", ["-c", script, "-", image.mountpoint]);
    // Links and special files make the kernel do a full commit instead.
    const synced = (command: string, path: string) =>
      execFileSync("bash", ["-c", `cd "$1"; ${command}; sync "${path}"`, "-", image.mountpoint]);
    synced("echo new > new; mkdir folder; echo in > folder/in", "new");
    synced("mkdir folder/deeper; head -c 5000 /dev/urandom > folder/deeper/file", "folder/deeper/file");
    synced("head -c 100000 /dev/urandom >> grows; chmod 640 grows; touch -d 2001-02-03T04:05:06.789 grows", "grows");
    synced("truncate -s 100001 shrinks", "shrinks");
    synced("fallocate -p -o 50000 -l 100000 punched; fallocate -l 400000 -o 0 reserved", "punched");
    synced(
      "ln old/file-2 another; rm old/linked; rm old/file-3; mv old/file-4 moved; mv old/file-5 old/file-6",
      "another",
    );
    synced("rm new; echo again > new; chown 1234:70000 old/file-7", "new");
    execFileSync("cp", ["--sparse=always", image.path, copy]);
    image.unmount();

    const fileSystem = image.open(copy);
    t.regex(fileSystem.warnings!.join(), /Fast commits of later changes \(\d+ notes\) are applied too/);
    t.log(fileSystem.warnings!.join());
    const replayed = `${image.path}.replayed`;
    copyFileSync(copy, replayed);
    t.true(image.mount("noatime", replayed));
    image.unmount();
    t.true(image.mount("ro,noload", replayed));
    const { list, files } = compareWithKernel(fileSystem, image.mountpoint);
    const directories = new Set([".", "old", "folder", "folder/deeper", "lost+found"]);
    const differences = list.filter((difference) => !isReplays(difference, directories));
    t.deepEqual(differences, []);
    t.log(`${files} files are the same`);
    const { errors } = walk(fileSystem);
    t.deepEqual([...errors], []);
  });

/** Adds a key to the filesystem of a folder, makes a folder in it, and encrypts that: ioctls of linux/fscrypt.h. */
const encrypt = `
import fcntl, os, struct, sys
top = os.open(sys.argv[1], os.O_RDONLY); key = bytes(range(64))
added = bytearray(struct.pack("<II32sII32s", 2, 0, bytes(32), len(key), 0, bytes(32)) + key)
fcntl.ioctl(top, (3 << 30) | (80 << 16) | (ord("f") << 8) | 23, added)
os.mkdir(sys.argv[2])
policy = struct.pack("<BBBB4s16s", 2, 1, 4, 3, bytes(4), bytes(added[8:24]))
fcntl.ioctl(os.open(sys.argv[2], os.O_RDONLY), (2 << 30) | (12 << 16) | (ord("f") << 8) | 19, policy)`;

serial("a directory that the kernel encrypted is refused in words, and all else reads", (t) => {
  const image = new Image(t, 64 * MiB, ["-t", "ext4", "-O", "encrypt"]);
  if (!image.mount("noatime")) return void t.pass();
  const secret = join(image.mountpoint, "secret");
  const made = spawnSync("python3", ["-c", encrypt, image.mountpoint, secret], { encoding: "utf8" });
  if (made.status !== 0) {
    t.log(`skipped: this kernel does not encrypt: ${made.error?.message ?? made.stderr.trim().split("\n").at(-1)}`);
    return void t.pass();
  }
  mkdirSync(join(secret, "folder"));
  for (const path of ["file", "folder/file"]) writeFileSync(join(secret, path), "hidden");
  writeFileSync(join(image.mountpoint, "plain"), "plain");
  const hidden = statSync(join(secret, "file")).ino;
  image.unmount();
  const fileSystem = image.open();
  const { files, errors } = walk(fileSystem);
  t.deepEqual([...files.keys()].sort(), ["/lost+found", "/plain", "/secret"]);
  t.deepEqual([...errors.keys()], ["/secret"]);
  t.regex(
    errors.get("/secret")!,
    /encrypted \(fscrypt\), and the key is not in the image: the names in it can't be read/,
  );
  t.deepEqual(fileSystem.details!(files.get("/secret")!.id).flags, ["encrypted", "extents"]);
  // Whoever comes by number (NFS) gets no ciphertext either.
  t.throws(() => fileSystem.read(hidden, 0, Buffer.alloc(10)), { message: /its content can't be read/ });
});

// Of blocks of 4 KiB its index has two levels from some 45,000 such names on; the mounted tree has 200,000 in files-view.test.ts.
serial("a directory of 60,000 entries is as the kernel shows it", (t) => {
  const image = new Image(t, 96 * MiB, ["-t", "ext4", "-N", "70000", "-I", "256", "-b", "4096"]);
  if (!image.mount("noatime")) return void t.pass();
  const folder = join(image.mountpoint, "large");
  mkdirSync(folder);
  for (let index = 0; index < 60_000; index++) closeSync(openSync(join(folder, `a file with number ${index}`), "w"));
  image.unmount();
  if (!image.mount("ro,noload")) return void t.pass();
  const fileSystem = image.open();
  const large = fileSystem.lookup(fileSystem.root, Buffer.from("large"))!;
  let listed = 0;
  let right = 0;
  const started = performance.now();
  for (const { name, file } of fileSystem.list(large)) {
    listed++;
    if (fileSystem.lookup(large, name) === file) right++;
  }
  t.log(`listed and looked up in ${(performance.now() - started).toFixed()} ms`);
  t.deepEqual([listed, right], [60_000, 60_000]);
  t.is(fileSystem.lookup(large, Buffer.from("a file with number 60000")), undefined);
  equalsKernel(t, fileSystem, image.mountpoint);
});

serial(
  "with a journal on another device: refused while that holds what is newest, the kernel's tree when it was unmounted",
  (t) => {
    const folder = mkdtempSync(join(tmpdir(), "spindle-ext-"));
    const journal = join(folder, "journal");
    writeFileSync(journal, "");
    truncateSync(journal, 8 << 20);
    execFileSync("mke2fs", ["-q", "-F", "-O", "journal_dev", "-b", "4096", journal]);
    const loop = execFileSync("losetup", ["-f", "--show", journal], { encoding: "utf8" }).trim();
    t.teardown(() => {
      execFileSync("losetup", ["-d", loop]);
      rmSync(folder, { recursive: true });
    });
    const image = new Image(t, 32 << 20, ["-t", "ext4", "-b", "4096", "-J", `device=${loop}`]);
    if (!image.mount("rw")) return;
    writeFileSync(join(image.mountpoint, "new"), "of the journal");
    execFileSync("sync", ["-f", image.mountpoint]);
    const dirty = join(image.folder, "dirty");
    copyFileSync(image.path, dirty);
    image.unmount();
    t.throws(() => image.open(dirty), { message: /its journal is on another device \(UUID \S{36}\)/ });
    if (image.mount("ro,noload")) equalsKernel(t, image.open(), image.mountpoint);
  },
);

for (const driver of drivers)
  serialFor(people[0])(
    `all of these filesystems are shown by a mount as the kernel shows them (${driver})`,
    async (t) => {
      await trees.compare(t, new Workspace(t, people[0]!, driver));
    },
  );
