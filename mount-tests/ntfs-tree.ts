/** NTFS volumes that ntfs-3g makes and fills, and how what it shows of them compares with what a FileSystem of ours shows. */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { FileSource } from "../src/bytes/file.js";
import type { FileSystem, Time } from "../src/filesystems/filesystem.js";
import { ntfs } from "../src/filesystems/ntfs/ntfs.js";
import { testSurroundings } from "../src/filesystems/shared-test-images.js";

const isRoot = process.getuid?.() === 0;
const missing = ["mkntfs", "ntfs-3g", "setfattr", "getfattr"].filter((tool) => spawnSync(tool, ["--version"]).error);

/** Why ntfs-3g can't mount images for a test here; undefined where it can. */
export const noNtfs3g = !isRoot
  ? "mounting an image with ntfs-3g needs root"
  : !existsSync("/dev/fuse")
    ? "there is no /dev/fuse"
    : missing.length > 0
      ? `${missing.join(", ")} not installed (apt install ntfs-3g attr)`
      : undefined;

export class NtfsImage {
  readonly folder = mkdtempSync(join(tmpdir(), "spindle-ntfs-"));
  readonly path = join(this.folder, "image");
  readonly mountpoint = join(this.folder, "mnt");
  private mounted = false;

  constructor(
    private readonly t: ExecutionContext,
    size: number,
    options: readonly string[] = [],
  ) {
    t.teardown(() => this.remove());
    mkdirSync(this.mountpoint);
    writeFileSync(this.path, "");
    truncateSync(this.path, size);
    execFileSync("mkntfs", ["-F", "-q", "-L", "Prüfung", ...options, this.path], { stdio: "ignore" });
  }

  mount(options = "streams_interface=xattr,compression"): void {
    execFileSync("ntfs-3g", ["-o", `fmask=0133,dmask=022,${options}`, this.path, this.mountpoint], { stdio: "ignore" });
    this.mounted = true;
  }

  unmount(): void {
    execFileSync("umount", [this.mountpoint]);
    this.mounted = false;
  }

  /** Fills the volume through a mount of its own. */
  fill(write: (root: string) => void, options?: string): void {
    this.mount(options);
    write(this.mountpoint);
    this.unmount();
  }

  open(): FileSystem {
    const source = FileSource.open(this.path);
    this.t.teardown(() => source.close());
    this.t.true(ntfs.recognises(source));
    return ntfs.open(source, testSurroundings(this.path));
  }

  private remove(): void {
    if (this.mounted) this.unmount();
    rmSync(this.folder, { recursive: true });
  }
}

export function setAttribute(path: string, name: string, value: Buffer): void {
  execFileSync("setfattr", ["-h", "-n", name, "-v", `0x${value.toString("hex")}`, path]);
}

/** Text of which each line differs. */
export const text = (lines: number) =>
  Buffer.from(Array.from({ length: lines }, (_, line) => `line ${line} of a text, ${line % 7}\n`).join(""));

/** Data of which nothing can be compressed, the same each time it is asked for with this seed. */
export function noise(length: number, seed = 1): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < length; at += 32) parts.push(createHash("sha256").update(`${seed} ${at}`).digest());
  return Buffer.concat(parts).subarray(0, length);
}

/** A bit of everything that ntfs-3g can write. */
export function fillWithOddities(root: string, compression: boolean): void {
  const at = (...names: string[]) => join(root, ...names);
  for (const name of [
    "Foo",
    "foo",
    "FOO",
    "ÄÖÜ ß",
    "日本語",
    "emoji 😀",
    "x".repeat(255),
    "ж".repeat(255),
    " a ",
    "dot.",
  ])
    writeFileSync(at(name), name);
  writeFileSync(at("empty"), "");
  for (const size of [1, 100, 700, 4096, 65537]) writeFileSync(at(`noise ${size}`), noise(size));
  mkdirSync(at("deep", "a", "b", "c"), { recursive: true });
  writeFileSync(at("deep", "text"), text(5000));
  linkSync(at("deep", "text"), at("deep", "a", "b", "c", "hard link"));
  symlinkSync("deep/a/b", at("link"));
  symlinkSync("/etc/passwd", at("absolute link"));
  execFileSync("mkfifo", [at("fifo")]);
  execFileSync("mknod", [at("character"), "c", "1", "3"]);
  execFileSync("mknod", [at("block"), "b", "8", "17"]);

  const sparse = openSync(at("sparse"), "w");
  for (const position of [0, 3_000_000, 3_070_000]) writeSync(sparse, noise(70_000), 0, 70_000, position);
  closeSync(sparse);
  truncateSync(at("sparse"), 8_000_000);

  setAttribute(at("Foo"), "user.note", Buffer.from("a note"));
  setAttribute(at("Foo"), "user.larger", noise(30_000));
  setAttribute(at("deep"), "user.of a folder", Buffer.from("x"));
  setAttribute(at("empty"), "system.ntfs_attrib", Buffer.from([0x27, 0, 0, 0]));
  setAttribute(at("noise 100"), "system.ntfs_dos_name", Buffer.from("NOISE1~1"));
  utimesSync(at("noise 100"), 1.5e9 + 0.25, -1.5e9);

  // Streams and names enough for records of their own, and an attribute list that tells where they are.
  for (let index = 0; index < 60; index++) {
    setAttribute(at("noise 700"), `user.stream ${index}`, noise(150, index));
    linkSync(at("noise 4096"), at("deep", `${"a rather long name of a link ".repeat(4)}${index}`));
  }
  // A directory of several levels, from which much was removed again.
  mkdirSync(at("many"));
  for (let index = 0; index < 1500; index++) writeFileSync(at("many", `file of many ${index}`), `${index}`);
  for (let index = 0; index < 1500; index += 3) unlinkSync(at("many", `file of many ${index}`));
  for (let index = 0; index < 200; index++) writeFileSync(at("many", `Later ${index}`), `${index}`);

  if (compression) {
    mkdirSync(at("compressed"));
    setAttribute(at("compressed"), "system.ntfs_attrib", Buffer.from([0, 8, 0, 0]));
    writeFileSync(at("compressed", "text"), text(20_000));
    writeFileSync(at("compressed", "noise"), noise(200_000));
    writeFileSync(
      at("compressed", "mixed"),
      Buffer.concat([text(2000), noise(70_000), Buffer.alloc(300_000), text(3001), noise(5)]),
    );
    writeFileSync(at("compressed", "short"), text(40));
    const file = openSync(at("compressed", "with a hole"), "w");
    writeSync(file, text(1000), 0, 20_000, 0);
    writeSync(file, text(1000), 0, 20_000, 1_000_003);
    closeSync(file);
  }
}

/** Does what ntfs-3g finds room for: it gives up some time before the last piece is taken. */
function untilFull(write: () => void): void {
  try {
    write();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  }
}

function append(path: string, pieces: Iterable<Uint8Array>): void {
  const file = openSync(path, "w");
  untilFull(() => {
    for (const piece of pieces) writeSync(file, piece);
  });
  closeSync(file);
}

/** Leaves the volume's free space in pieces of one cluster, then writes: files, and $MFT itself, lie in many pieces. */
export function fillInPieces(root: string, clusterSize: number, pieces: number): void {
  mkdirSync(join(root, "filler"));
  const cluster = noise(clusterSize);
  const some = (count: number, seed: number) => Array.from({ length: count }, (_, at) => noise(clusterSize, seed + at));
  for (let index = 0; index < pieces * 2; index++) writeFileSync(join(root, "filler", `${index}`), cluster);
  append(join(root, "rest"), some(20_000, 0));
  for (let index = 0; index < pieces * 2; index += 2) unlinkSync(join(root, "filler", `${index}`));
  append(join(root, "in pieces"), some(pieces >> 1, 100));
  // More than records became free: $MFT has to grow.
  untilFull(() => {
    for (let index = 0; index < pieces * 1.3; index++) writeFileSync(join(root, `small ${index}`), `${index}`);
  });
}

const same = (ours: Time | undefined, theirs: bigint) =>
  ours !== undefined && BigInt(ours.seconds) * 1_000_000_000n + BigInt(ours.nanoseconds) === theirs;

/** Times of NTFS, in 100 ns since 1601, as ntfs-3g gives them. */
const asNtfs = (time: Time | undefined) =>
  time && (BigInt(time.seconds) + 11644473600n) * 10_000_000n + BigInt(time.nanoseconds) / 100n;

export interface NtfsDifferences {
  readonly list: string[];
  files: number;
}

/** Differences between our `fileSystem` and what ntfs-3g shows of the same volume, as sentences. */
export function compareWithNtfs3g(fileSystem: FileSystem, mountpoint: string): NtfsDifferences {
  const found: NtfsDifferences = { list: [], files: 0 };
  const streams = getAttributes(mountpoint, ["-d", "-m", "-"]);
  const system = new Map(
    ["acl", "attrib", "object_id", "ea", "reparse_data", "times"].map((name) => {
      return [`system.ntfs_${name}`, getAttributes(mountpoint, ["-n", `system.ntfs_${name}`])] as const;
    }),
  );
  const visit = (directory: number, path: string): void => {
    const theirs = new Set(readdirSync(join(mountpoint, path)));
    for (const { name, file, kind } of fileSystem.list(directory)) {
      const text = Buffer.from(name).toString();
      const child = path === "" ? text : `${path}/${text}`;
      if (!theirs.delete(text)) found.list.push(`${child}: ntfs-3g doesn't have it`);
      else {
        if (fileSystem.lookup(directory, name) !== file) found.list.push(`${child}: lookup finds another file`);
        compareFile(file, child, kind);
        if (kind === "directory") visit(file, child);
      }
    }
    for (const name of theirs) found.list.push(`${path}/${name}: only ntfs-3g has it`);
  };
  const compareFile = (file: number, path: string, kind: string): void => {
    found.files++;
    const full = join(mountpoint, path);
    const ours = fileSystem.attributes(file);
    const theirs = lstatSync(full, { bigint: true });
    const differ = (what: string, our: unknown, their: unknown) => {
      if (String(our) !== String(their)) found.list.push(`${path}: ${what} is ${our}, ntfs-3g has ${their}`);
    };
    const types = { file: 8, directory: 4, symlink: 10, character: 2, block: 6, fifo: 1, socket: 12 };
    differ("kind", ours.kind, kind);
    differ("type", types[ours.kind], Number(theirs.mode) >> 12);
    differ("inode", ours.inode, theirs.ino);
    // Of links it is compared below; of a device, ntfs-3g shows the size of what stands for it.
    if (["file", "directory"].includes(ours.kind)) differ("size", ours.size, theirs.size);
    // ntfs-3g counts short names too.
    if (!fileSystem.extendedAttributes!(file).has("system.ntfs_dos_name")) differ("links", ours.links, theirs.nlink);
    if (ours.kind === "file") differ("allocated", Math.ceil(ours.allocated / 512), theirs.blocks);
    for (const [what, our, their] of [
      ["accessed", ours.accessed, theirs.atimeNs],
      ["modified", ours.modified, theirs.mtimeNs],
      ["changed", ours.changed, theirs.ctimeNs],
    ] as const)
      if (!same(our, their)) found.list.push(`${path}: ${what} is ${JSON.stringify(our)}, ntfs-3g has ${their}`);
    if (ours.device)
      differ("device", `${ours.device.major}:${ours.device.minor}`, `${theirs.rdev >> 8n}:${theirs.rdev & 0xffn}`);

    const attributes = new Map(fileSystem.extendedAttributes!(file));
    const names = (wanted: (name: string) => boolean) =>
      [...attributes]
        .filter(([name]) => wanted(name))
        .map(([name, value]) => `${name}=${Buffer.from(value).toString("hex")}`)
        .sort();
    const theirStreams = [...(streams.get(path) ?? [])].map(([name, value]) => `${name}=${value}`).sort();
    differ("streams", names((name) => name.startsWith("user.")).join(), theirStreams.join());
    for (const [name, files] of system) {
      const their = files.get(path)?.get(name);
      if (name === "system.ntfs_times") {
        const bytes = Buffer.from(their ?? "", "hex");
        if (bytes.length >= 8) differ("birth", asNtfs(ours.born), bytes.readBigInt64LE(0));
      } else differ(name, names((each) => each === name).join(), their === undefined ? "" : `${name}=${their}`);
    }
    if (ours.kind === "symlink") {
      const target = readlinkSync(full);
      // What is on the volume, ntfs-3g names by its mount point, and we by the way from the link.
      const up = "../".repeat(path.split("/").length - 1);
      const expected = target.startsWith(`${mountpoint}/`) ? up + target.slice(mountpoint.length + 1) : target;
      differ("target", Buffer.from(fileSystem.readLink(file)), expected.replace(/(:)\/$/, "$1"));
      differ("size", ours.size, Buffer.byteLength(Buffer.from(fileSystem.readLink(file)).toString()));
    }
    if (ours.kind === "file") differ("content", ourHash(fileSystem, file, ours.size), theirHash(full));
  };
  visit(fileSystem.root, "");
  return found;
}

const buffer = Buffer.alloc(1 << 20);

export function ourHash(fileSystem: FileSystem, file: number, size: number): string {
  const hash = createHash("sha256");
  for (let position = 0; position < size; ) {
    // Uneven pieces: reads begin and end within clusters and chunks.
    const count = fileSystem.read(file, position, buffer.subarray(0, 100_003));
    if (count === 0) return `ends at ${position}`;
    hash.update(buffer.subarray(0, count));
    position += count;
  }
  return hash.digest("hex");
}

function theirHash(path: string): string {
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

/** By path (relative) what getfattr tells of all files. */
function getAttributes(mountpoint: string, options: string[]): Map<string, Map<string, string>> {
  const run = spawnSync("getfattr", ["-R", "-P", "-h", ...options, "-e", "hex", "."], {
    cwd: mountpoint,
    maxBuffer: 1 << 28,
    encoding: "latin1",
  });
  const files = new Map<string, Map<string, string>>();
  const unescaped = (text: string) =>
    Buffer.from(
      text.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
      "latin1",
    ).toString();
  for (const section of run.stdout.split("\n\n")) {
    const [head, ...lines] = section.split("\n");
    if (!head?.startsWith("# file: ")) continue;
    const attributes = lines
      .filter((line) => line !== "")
      .map((line): [string, string] => {
        const at = line.indexOf("=");
        return at < 0 ? [unescaped(line), ""] : [unescaped(line.slice(0, at)), line.slice(at + 3)];
      });
    files.set(unescaped(head.slice(8)), new Map(attributes));
  }
  return files;
}
