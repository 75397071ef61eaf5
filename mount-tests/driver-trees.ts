/**
 * Filesystems that other tests have compared file by file, once more through a mount by one driver: those of a file of tests
 * become the partitions of one disk, and each partition's folder is compared with what another program shows of the same
 * filesystem. One mount and one look at each file, so that it costs little.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { linkSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import type { DriverName, Workspace } from "./helpers.js";

/** What is looked at of each file, besides its kind. */
export type Aspect =
  | "mode"
  | "owner"
  | "links"
  | "size"
  | "times"
  | "modified"
  | "device"
  | "content"
  | "target"
  | "xattrs"
  | "streams";

/** Prints a line for each file beneath a folder: its path, and what was asked for. */
const program = `
import hashlib, os, re, stat, sys
top, aspects, skip = os.fsencode(sys.argv[1]), sys.argv[2].split(","), re.compile(os.fsencode(sys.argv[3] or "$^"))
kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFCHR: "character", stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}
def told(path, st):
    kind = kinds[stat.S_IFMT(st.st_mode)]
    yield kind
    for aspect in aspects:
        if aspect == "mode": yield "%o" % stat.S_IMODE(st.st_mode)
        if aspect == "owner": yield "%d:%d" % (st.st_uid, st.st_gid)
        if aspect == "links": yield "links %d" % st.st_nlink
        if aspect == "size" and kind == "file": yield "size %d" % st.st_size
        if aspect == "times": yield "times " + ",".join("%d.%09d" % divmod(ns, 10**9) for ns in (st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns))
        if aspect == "modified": yield "times %d.%09d" % divmod(st.st_mtime_ns, 10**9)
        if aspect == "device" and kind in ("character", "block"): yield "device %d:%d" % (os.major(st.st_rdev), os.minor(st.st_rdev))
        if aspect == "target" and kind == "link": yield "-> " + os.readlink(path).hex()
        if aspect in ("xattrs", "streams"):
            for name in sorted(os.listxattr(path, follow_symlinks=False)):
                if aspect == "xattrs" or name.startswith("user."):
                    yield os.fsencode(name).hex() + "=" + os.getxattr(path, name, follow_symlinks=False).hex()
        if aspect == "content" and kind == "file" and st.st_size < 64 << 20:
            with open(path, "rb") as file: yield hashlib.sha256(file.read()).hexdigest()
def visit(folder, path):
    for name in sorted(os.listdir(folder)):
        child = path + b"/" + name if path else name
        if skip.search(child): continue
        full = os.path.join(folder, name)
        st = os.lstat(full)
        sys.stdout.buffer.write(child.hex().encode() + b" " + " ".join(told(full, st)).encode() + b"\\n")
        if stat.S_ISDIR(st.st_mode): visit(full, child)
visit(top, b"")
`;

/** A line for each file beneath `folder`; a path that `skip`, a regular expression of Python's, finds something in is left out. */
export function linesOf(folder: string, aspects: readonly Aspect[], skip = ""): string[] {
  const options = { encoding: "latin1", maxBuffer: 1 << 28 } as const;
  return execFileSync("python3", ["-c", program, folder, aspects.join(), skip], options).trimEnd().split("\n");
}

interface Kept {
  readonly title: string;
  readonly image: string;
  readonly lines: readonly string[];
}

/** The filesystems of one file of tests, kept until all its tests have ended. */
export class DriverTrees {
  private readonly kept: Kept[] = [];
  private folder: string | undefined;

  /** @param skip what isn't looked at, a regular expression of Python's: of many files that are alike a few are enough */
  constructor(
    private readonly aspects: readonly Aspect[],
    private readonly skip = "",
  ) {
    test.after.always(() => {
      if (this.folder) rmSync(this.folder, { recursive: true, force: true });
    });
  }

  /** Keeps an image, which nobody may write to any more, with what another program shows of it at `mountpoint`. */
  keep(t: ExecutionContext, image: string, mountpoint: string): void {
    if (noPython) return;
    this.folder ??= mkdtempSync(join(tmpdir(), "spindle-trees-"));
    const link = join(this.folder, `${this.kept.length}.img`);
    linkSync(image, link);
    this.kept.push({ title: t.title, image: link, lines: linesOf(mountpoint, this.aspects, this.skip) });
  }

  /** Compares all that were kept through one mount by the workspace's driver. */
  async compare(t: ExecutionContext, place: Workspace): Promise<void> {
    if (this.kept.length === 0) {
      t.log(`skipped: ${noPython || "no filesystem was mounted by the tests before"}`);
      t.pass();
      return;
    }
    const disk = diskOf(place, this.kept);
    const { code, stderr } = await place.spindle([
      "mount",
      disk,
      place.mountpoint,
      "--driver",
      place.driver,
      "--workers",
      "2",
    ]);
    t.is(code, 0, stderr);
    let files = 0;
    for (const [index, { title, lines }] of this.kept.entries()) {
      // A single filesystem is shown at the root.
      const folder = this.kept.length === 1 ? place.mountpoint : join(place.mountpoint, `p${index + 1}`);
      const ours = linesOf(folder, this.aspects, this.skip);
      const [shown, expected] = tellable(ours, lines, place.driver);
      const [known, wanted] = [new Set(shown), new Set(expected)];
      const differences = [
        ...shown.filter((line) => !wanted.has(line)).map((line) => `ours: ${readable(line)}`),
        ...expected.filter((line) => !known.has(line)).map((line) => `theirs: ${readable(line)}`),
      ];
      t.deepEqual(differences.slice(0, 20), [], `${title}: ${differences.length} differences`);
      t.is(shown.length, expected.length, title);
      files += shown.length;
    }
    t.log(`${files} files of ${this.kept.length} filesystems are the same`);
    place.unmountPlainly(t);
  }
}

const noPython = spawnSync("python3", ["--version"]).error ? "python3 is not installed" : "";

/** A GPT disk with the images as its partitions. */
function diskOf(place: Workspace, kept: readonly Kept[]): string {
  const disk = join(place.folder, "trees.raw");
  const MiB = 2 ** 20;
  let at = MiB;
  const places = kept.map(({ image }) => {
    const start = at;
    const { size } = statSync(image);
    at += Math.ceil(size / MiB) * MiB;
    return { image, start, size };
  });
  writeFileSync(disk, "");
  truncateSync(disk, at + MiB);
  const table = ["label: gpt", ...places.map(({ start, size }) => `start=${start / 512}, size=${size / 512}`)].join(
    "\n",
  );
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
  execFileSync("sfdisk", ["-q", disk], { input: `${table}\n`, env, stdio: ["pipe", "ignore", "pipe"] });
  for (const { image, start } of places)
    execFileSync("dd", [
      `if=${image}`,
      `of=${disk}`,
      "bs=1M",
      `seek=${start / MiB}`,
      "conv=notrunc,sparse",
      "status=none",
    ]);
  return disk;
}

/**
 * What a driver can tell of these: libfuse 2 cuts times to milliseconds and has none before 1970, and the fuse-native package
 * takes names and targets for UTF-8.
 */
function tellable(ours: readonly string[], theirs: readonly string[], driver: DriverName): [string[], string[]] {
  if (driver === "direct") return [[...ours], [...theirs]];
  const isText = (hex: string) => Buffer.from(hex, "hex").equals(Buffer.from(Buffer.from(hex, "hex").toString()));
  const pathOf = (line: string) => line.slice(0, line.indexOf(" "));
  const untellable = new Set(
    theirs
      .filter((line) => / times \S*-/.test(line) || !isText(pathOf(line)) || !isText(/ -> (\S*)/.exec(line)?.[1] ?? ""))
      .map(pathOf),
  );
  const told = (lines: readonly string[]) =>
    lines
      .filter((line) => !untellable.has(pathOf(line)) && !Buffer.from(pathOf(line), "hex").includes("\ufffd"))
      .map((line) => line.replace(/ times \S+/, (times) => times.replace(/(\.\d{3})\d{6}/g, "$1")));
  return [told(ours), told(theirs)];
}

const readable = (line: string) =>
  line.replace(/^[0-9a-f]*/, (path) => JSON.stringify(Buffer.from(path, "hex").toString()));
