/** Every file of a SquashFS against the kernel's own mount of it: all of stat, contents, link targets, xattrs and holes. */

import { createHash } from "node:crypto";
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { FileSource } from "../src/bytes/file.js";
import { hasTools, noise, run, scratchFolder } from "../src/filesystems/image-test-tools.js";
import { openRecognised, walk } from "../src/filesystems/shared-test-images.js";
import { squashfs } from "../src/filesystems/squashfs/squashfs.js";
import { DriverTrees } from "./driver-trees.js";
import { drivers, loopMount, people, serialFor, Workspace } from "./helpers.js";

const trees = new DriverTrees(["mode", "owner", "links", "size", "times", "device", "target", "xattrs", "content"]);

function tree(folder: string): string {
  const top = join(folder, "tree");
  mkdirSync(join(top, "a/b"), { recursive: true });
  const words = Buffer.from(Array.from({ length: 40_000 }, (_, index) => `w${(index * 7919) % 997} `).join(""));
  writeFileSync(join(top, "words"), words);
  writeFileSync(join(top, "noise"), noise(300_001));
  writeFileSync(
    join(top, "holes"),
    Buffer.concat([noise(1000), Buffer.alloc(500_000), noise(5000, 2), Buffer.alloc(131_072)]),
  );
  for (let index = 0; index < 400; index++)
    writeFileSync(join(top, "a/b", `file ${index}`), words.subarray(0, index * 31));
  run("ln", [join(top, "words"), join(top, "a/hard")]);
  run("ln", ["-s", "b/../../words", join(top, "a/soft")]);
  run("mknod", [join(top, "device"), "b", "259", "70000"]);
  run("mknod", [join(top, "null"), "c", "1", "3"]);
  run("mkfifo", [join(top, "pipe")]);
  run("chown", ["-h", "1000:100000", join(top, "a/soft")]);
  run("chmod", ["7751", join(top, "a")]);
  for (const name of ["words", "a", "device", "a/b/file 3"]) {
    run("setfattr", ["-n", "trusted.note", "-v", `of ${name}`, join(top, name)]);
    run("setfattr", ["-n", "security.long", "-v", "y".repeat(900), join(top, name)]);
  }
  run("setfattr", ["-n", "user.note", "-v", "", join(top, "words")]);
  run("touch", ["-d", "2038-01-20 00:00:00", join(top, "a/b/file 1")]);
  return top;
}

/** What the kernel tells of everything in `folder`, in lines. */
function kernelLines(folder: string, path = ""): string[] {
  return readdirSync(join(folder, path)).flatMap((name) => {
    const child = `${path}/${name}`;
    const full = join(folder, child);
    const stat = lstatSync(full, { bigint: true });
    const content = stat.isFile()
      ? createHash("sha256").update(readFileSync(full)).digest("hex")
      : stat.isSymbolicLink()
        ? readlinkSync(full)
        : "";
    const device = stat.isBlockDevice() || stat.isCharacterDevice() ? run("stat", ["-c", "%Hr:%Lr", full]).trim() : "";
    const line = `${child} ${stat.mode.toString(8)} ${stat.uid} ${stat.gid} ${stat.nlink} ${stat.ino} ${stat.size} ${stat.blocks} ${stat.mtimeNs} ${stat.ctimeNs} ${device} ${content}`;
    return stat.isDirectory() ? [line, ...kernelLines(folder, child)] : [line];
  });
}

const typeBits = {
  file: 0o100000,
  directory: 0o40000,
  symlink: 0o120000,
  character: 0o20000,
  block: 0o60000,
  fifo: 0o10000,
  socket: 0o140000,
};

for (const options of [
  ["-comp", "gzip"],
  ["-comp", "gzip", "-b", "4K", "-no-fragments"],
  ["-comp", "xz", "-Xbcj", "x86", "-b", "1M"],
  ["-comp", "lzo"],
  ["-comp", "lz4", "-always-use-fragments"],
  ["-comp", "zstd", "-noI", "-noX"],
])
  test.serial(`mksquashfs ${options.join(" ")}: all is as the kernel shows it`, (t) => {
    if (process.getuid?.() !== 0) {
      t.log("skipped: a loop mount takes root");
      t.pass();
      return;
    }
    if (!hasTools(t, "squashfs-tools attr", "mksquashfs", "setfattr", "getfattr")) return;
    const folder = scratchFolder(t);
    const image = join(folder, "image");
    run("mksquashfs", [tree(folder), image, "-noappend", "-quiet", "-no-progress", ...options]);
    const kernel = mount(t, image, folder);
    if (kernel === undefined) return;
    const source = FileSource.open(image);
    t.teardown(() => source.close());
    const walked = walk(openRecognised(t, squashfs, source));
    t.deepEqual([...walked.errors], []);
    const ours = [...walked.files].map(([path, { attributes, hash, link }]) => {
      const { kind, mode, owner, group, links, inode, size, allocated, modified, changed, device } = attributes;
      const time = ({ seconds, nanoseconds }: typeof modified) =>
        BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
      const told = device ? `${device.major}:${device.minor}` : "";
      return `${path} ${(typeBits[kind] | mode).toString(8)} ${owner} ${group} ${links} ${inode} ${size} ${allocated / 512} ${time(modified)} ${time(changed)} ${told} ${hash ?? link ?? ""}`;
    });
    t.deepEqual(ours.sort(), kernelLines(kernel).sort());
    t.deepEqual(
      [...walked.files]
        .flatMap(([path, { xattrs }]) =>
          [...xattrs].map(([name, value]) => `${path} ${name}=0x${Buffer.from(value).toString("hex")}`),
        )
        .sort(),
      kernelXattrs(kernel),
    );
    trees.keep(t, image, kernel);
  });

for (const driver of drivers)
  serialFor(people[0])(
    `all of these filesystems are shown by a mount as the kernel shows them (${driver})`,
    async (t) => {
      await trees.compare(t, new Workspace(t, people[0]!, driver));
    },
  );

function mount(t: ExecutionContext, image: string, folder: string): string | undefined {
  const at = join(folder, "mounted");
  mkdirSync(at);
  const { status, stderr } = loopMount("-t", "squashfs", "-o", "ro,loop", image, at);
  if (status !== 0) {
    t.log(`skipped: the kernel doesn't mount it (${stderr.trim()})`);
    t.pass();
    return undefined;
  }
  t.teardown(() => run("umount", [at]));
  closeSync(openSync(at, "r"));
  return at;
}

function kernelXattrs(folder: string): string[] {
  const told = run("getfattr", ["-R", "-h", "-d", "-m", "-", "-e", "hex", "--absolute-names", folder]);
  return told
    .split("\n\n")
    .flatMap((part) => {
      const [head, ...values] = part.trim().split("\n");
      const path = head?.replace(`# file: ${folder}`, "").replaceAll("\\040", " ");
      return values.map((value) => `${path} ${value.includes("=") ? value : `${value}=0x`}`);
    })
    .sort();
}
