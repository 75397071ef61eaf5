/**
 * What the kernel shows of a mounted filesystem, and how that compares with what a FileSystem of ours shows: every file's
 * attributes to the nanosecond, extended attributes, content, holes, targets of links.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, lstatSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import type { FileSystem, Time } from "../src/filesystems/filesystem.js";
import { errno, lseek, SEEK_DATA, SEEK_HOLE } from "../src/libc.js";

const isRoot = process.getuid?.() === 0;

/** Why the kernel can't mount images for a test here; undefined where it can. */
export const noKernelMount = !isRoot
  ? "mounting an image with the kernel needs root"
  : !existsSync("/dev/loop-control")
    ? "there are no loop devices"
    : ["getfattr", "setfattr", "setfacl", "setcap", "mke2fs"].filter((tool) => spawnSync(tool, ["-h"]).error).join();

const same = (ours: Time | undefined, theirs: bigint) =>
  ours !== undefined && BigInt(ours.seconds) * 1_000_000_000n + BigInt(ours.nanoseconds) === theirs;

interface Differences {
  readonly list: string[];
  files: number;
}

/**
 * Differences between the tree mounted at `mountpoint` and `fileSystem`, as sentences. File contents of up to
 * `hashedBytes` are compared.
 */
export function compareWithKernel(fileSystem: FileSystem, mountpoint: string, hashedBytes = 64 << 20): Differences {
  const found: Differences = { list: [], files: 0 };
  const xattrs = kernelAttributes(mountpoint);
  compareDirectory(fileSystem, fileSystem.root, mountpoint, "", found, xattrs, hashedBytes);
  return found;
}

function compareDirectory(
  fileSystem: FileSystem,
  directory: number,
  mountpoint: string,
  path: string,
  found: Differences,
  xattrs: Map<string, Map<string, string>>,
  hashedBytes: number,
): void {
  const folder = Buffer.from(`${mountpoint}${path}`, "latin1");
  const theirs = new Set(readdirSync(folder, { encoding: "buffer" }).map((name) => name.toString("latin1")));
  if (path === "") compareFile(fileSystem, directory, folder, ".", found, xattrs, hashedBytes);
  for (const { name, file, kind } of fileSystem.list(directory)) {
    const text = Buffer.from(name).toString("latin1");
    const child = `${path}/${text}`;
    if (!theirs.delete(text)) found.list.push(`${child}: the kernel doesn't have it`);
    else {
      if (fileSystem.lookup(directory, name) !== file) found.list.push(`${child}: lookup finds another file`);
      if (fileSystem.attributes(file).kind !== kind) found.list.push(`${child}: listed as ${kind}`);
      const full = Buffer.from(`${mountpoint}${child}`, "latin1");
      compareFile(fileSystem, file, full, child.slice(1), found, xattrs, hashedBytes);
      if (kind === "directory") compareDirectory(fileSystem, file, mountpoint, child, found, xattrs, hashedBytes);
    }
  }
  for (const name of theirs) found.list.push(`${path}/${name}: only the kernel has it`);
}

function compareFile(
  fileSystem: FileSystem,
  file: number,
  full: Buffer,
  path: string,
  found: Differences,
  xattrs: Map<string, Map<string, string>>,
  hashedBytes: number,
): void {
  found.files++;
  const ours = fileSystem.attributes(file);
  const theirs = lstatSync(full, { bigint: true });
  const differ = (what: string, our: unknown, their: unknown) => {
    if (String(our) !== String(their)) found.list.push(`${path}: ${what} is ${our}, the kernel has ${their}`);
  };
  const type = { file: 8, directory: 4, symlink: 10, character: 2, block: 6, fifo: 1, socket: 12 }[ours.kind];
  differ("mode", ((type << 12) | ours.mode).toString(8), theirs.mode.toString(8));
  differ("inode", ours.inode, theirs.ino);
  differ("links", ours.links, theirs.nlink);
  differ("owner", ours.owner, theirs.uid);
  differ("group", ours.group, theirs.gid);
  differ("size", ours.size, theirs.size);
  differ("allocated", ours.allocated, theirs.blocks * 512n);
  for (const [what, our, their] of [
    ["accessed", ours.accessed, theirs.atimeNs],
    ["modified", ours.modified, theirs.mtimeNs],
    ["changed", ours.changed, theirs.ctimeNs],
  ] as const)
    if (!same(our, their)) found.list.push(`${path}: ${what} is ${JSON.stringify(our)}, the kernel has ${their}`);
  // Where there is none, statx leaves it out and Node shows 0 or the time of change.
  if (ours.born ? !same(ours.born, theirs.birthtimeNs) : ![0n, theirs.ctimeNs].includes(theirs.birthtimeNs))
    found.list.push(`${path}: born is ${JSON.stringify(ours.born)}, the kernel has ${theirs.birthtimeNs}`);
  if (ours.device)
    differ(
      "device",
      ours.device.major * 2 ** 20 + ours.device.minor,
      major(theirs.rdev) * 2 ** 20 + minor(theirs.rdev),
    );

  const ourAttributes = [...(fileSystem.extendedAttributes?.(file) ?? [])]
    .map(([name, value]) => `${Buffer.from(name).toString("latin1")}=${Buffer.from(value).toString("hex")}`)
    .sort();
  const theirAttributes = [...(xattrs.get(path) ?? [])].map(([name, value]) => `${name}=${value}`).sort();
  differ("extended attributes", ourAttributes.join(), theirAttributes.join());
  if (ours.kind === "symlink")
    differ(
      "target",
      Buffer.from(fileSystem.readLink(file)).toString("hex"),
      readlinkSync(full, { encoding: "buffer" }).toString("hex"),
    );
  if (ours.kind === "file") {
    differ("holes", ourHoles(fileSystem, file, ours.size), kernelHoles(full, ours.size));
    if (ours.size <= hashedBytes) differ("content", ourHash(fileSystem, file, ours.size), kernelHash(full));
  }
}

const major = (device: bigint) => Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n));
const minor = (device: bigint) => Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n));

/** Data stretches as `from-to`. */
function ourHoles(fileSystem: FileSystem, file: number, size: number): string {
  const data: [number, number][] = [];
  for (let position = 0; position < size; ) {
    const { hole, length } = fileSystem.extentAt!(file, position);
    const last = data.at(-1);
    if (!hole && last?.[1] === position) last[1] += length;
    else if (!hole) data.push([position, position + length]);
    position += length;
  }
  return data.map((ends) => ends.join("-")).join();
}

/** Data stretches of a file as the kernel tells them, as `from-to`. */
export function kernelHoles(path: Buffer, size: number): string {
  const fd = openSync(path, "r");
  try {
    const data: string[] = [];
    for (let position = 0; position < size; ) {
      const from = lseek(fd, position, SEEK_DATA);
      if (from < 0) {
        if (errno() !== 6) throw new Error(`SEEK_DATA failed with ${errno()}`);
        break;
      }
      position = Math.min(size, lseek(fd, from, SEEK_HOLE));
      data.push(`${from}-${position}`);
    }
    return data.join();
  } finally {
    closeSync(fd);
  }
}

const buffer = Buffer.alloc(1 << 20);

function ourHash(fileSystem: FileSystem, file: number, size: number): string {
  const hash = createHash("sha256");
  for (let position = 0; position < size; ) {
    // Uneven pieces: reads begin and end within blocks.
    const count = fileSystem.read(file, position, buffer.subarray(0, 100_003));
    if (count === 0) return `ends at ${position}`;
    hash.update(buffer.subarray(0, count));
    position += count;
  }
  return hash.digest("hex");
}

function kernelHash(path: Buffer): string {
  const fd = openSync(path, "r");
  try {
    const hash = createHash("sha256");
    for (let count = readSync(fd, buffer); count > 0; count = readSync(fd, buffer))
      hash.update(buffer.subarray(0, count));
    return hash.digest("hex");
  } finally {
    closeSync(fd);
  }
}

/** By path (latin1, relative, `.` for the root) what getfattr tells of all files. */
function kernelAttributes(mountpoint: string): Map<string, Map<string, string>> {
  const run = spawnSync("getfattr", ["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."], {
    cwd: mountpoint,
    maxBuffer: 1 << 28,
    encoding: "latin1",
  });
  const files = new Map<string, Map<string, string>>();
  for (const section of run.stdout.split("\n\n")) {
    const [head, ...lines] = section.split("\n");
    if (!head?.startsWith("# file: ")) continue;
    const path = head.slice(8).replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
    const attributes = lines.filter((line) => line !== "").map((line) => line.split(/=(?:0x)?/) as [string, string?]);
    files.set(path, new Map(attributes.map(([name, value]) => [name, value ?? ""])));
  }
  return files;
}
