/**
 * The files of an image through `spindle mount`, beside the kernel's own mount of the same bytes: rsync in both
 * directions, what stat(1) prints of every file, holes, permissions, several filesystems, damage.
 */
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
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
import { repository } from "../src/filesystems/shared-test-images.js";
import { parseMountinfo } from "../src/fuse/mounts.js";
import { drivers, loopMount, type Person, people, serialFor, Workspace } from "./helpers.js";
import { kernelHoles, noKernelMount } from "./kernel-tree.js";

const MiB = 2 ** 20;
const oddTree = join(repository, "mount-tests/odd-tree.sh");
/** A good part of this machine's own tree. */
const sample = [
  "/etc",
  ...["doc", "perl", "perl5", "zoneinfo"].map((name) => `/usr/share/${name}`),
  "/usr/lib/python3",
];
const [root, user] = people.length > 1 ? people : [undefined, people[0]];

const missing =
  noKernelMount ||
  ["rsync", "sfdisk", "mke2fs"].filter((tool) => spawnSync(tool, ["--version"]).error).join(", ") ||
  undefined;
if (missing) console.log(`Skipped: ${missing}.`);
const besideKernel = missing ? test.serial.skip : serialFor(root);

function sh(command: string, ...parameters: string[]): string {
  return execFileSync("bash", ["-e", "-o", "pipefail", "-c", command, "bash", ...parameters], {
    encoding: "latin1",
    maxBuffer: 1 << 30,
    env: { ...process.env, LC_ALL: "C", PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  });
}

function mountLoop(image: string, mountpoint: string, options: string): void {
  const { status, stderr } = loopMount("-t", "ext4", "-o", options, image, mountpoint);
  if (status !== 0) throw new Error(`the kernel doesn't mount ${image}: ${stderr}`);
}

/** The kernel's own mount of a raw ext image, read-only and without replay; it goes with the test. */
function kernelMount(t: ExecutionContext, image: string, options = "ro,noload"): string {
  const mountpoint = mkdtempSync(join(tmpdir(), "spindle-kernel-"));
  mountLoop(image, mountpoint, `loop,${options}`);
  t.teardown(() => {
    execFileSync("umount", [mountpoint]);
    rmSync(mountpoint, { recursive: true });
  });
  return mountpoint;
}

/** An ext4 with this machine's files (put in by mke2fs) and the odd ones (by the kernel), made once. */
let full: { folder: string; raw: string; spin: string } | undefined;

async function fullImage(place: Workspace): Promise<{ raw: string; spin: string }> {
  if (full) return full;
  const folder = mkdtempSync(join(tmpdir(), "spindle-full-"));
  full = { folder, raw: join(folder, "full.raw"), spin: join(folder, "full.spin") };
  const { raw, spin } = full;
  const mountpoint = join(folder, "mnt");
  mkdirSync(mountpoint);
  const present = sample.filter((path) => existsSync(`/${path}`));
  sh('to=$1; shift; mkdir "$to"; cd /; cp -a --parents "$@" "$to"', join(folder, "tree"), ...present);
  writeFileSync(raw, "");
  truncateSync(raw, 1024 * MiB);
  execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", "-N", "300000", "-L", "full", "-d", join(folder, "tree"), raw]);
  mountLoop(raw, mountpoint, "loop");
  try {
    mkdirSync(join(mountpoint, "odd"));
    execFileSync(oddTree, [join(mountpoint, "odd")]);
    sh('mkdir "$1"; cd "$1"; seq -f "a file with number %06g" 200000 | xargs -d "\\n" touch', join(mountpoint, "many"));
    // mke2fs writes whole seconds: files with nanoseconds and times of birth.
    sh('cp -a /etc "$1"; truncate -s 2T "$1/very-sparse"; printf end >> "$1/very-sparse"', join(mountpoint, "odd"));
    // Nobody waits for two terabytes of zeros.
    sh('cd "$1"; mkdir ../sparse; mv very-sparse ../sparse', join(mountpoint, "odd"));
  } finally {
    execFileSync("umount", [mountpoint]);
  }
  const { code, stderr } = await place.spindle(["create", raw, spin]);
  if (code !== 0) throw new Error(stderr);
  return full;
}

test.after.always(() => {
  if (full) rmSync(full.folder, { recursive: true, force: true });
});

async function mount(t: ExecutionContext, place: Workspace, image: string, ...more: string[]): Promise<string> {
  const words = ["mount", image, place.mountpoint, "--driver", place.driver, ...more, "--json"];
  const { code, stdout, stderr } = await place.spindle(words);
  t.is(code, 0, stderr);
  t.teardown(() => {
    if (place.isMounted) execFileSync("umount", ["-l", place.mountpoint]);
  });
  return (JSON.parse(stdout || "{}") as { log: string }).log;
}

/** What rsync would do to make `to` like `from`. */
const rsync = (from: string, to: string, ...options: string[]) =>
  sh('rsync "$@"', ...options, "--checksum", "--itemize-changes", `${from}/`, `${to}/`);

/** A line for each file of a tree, in order. `format` is stat(1)'s. */
const dump = (tree: string, format: string, ...find: string[]) =>
  sh(
    'cd "$1"; format=$2; shift 2; find . "$@" -print0 | sort -z | xargs -0 stat --printf="$format\\n"',
    tree,
    format,
    ...find,
  ).split("\n");

function sameLines(t: ExecutionContext, ours: string[], theirs: string[]): void {
  const other = new Set(theirs);
  const known = new Set(ours);
  const differences = [
    ...ours.filter((line) => !other.has(line)).map((line) => `ours: ${line}`),
    ...theirs.filter((line) => !known.has(line)).map((line) => `kernel: ${line}`),
  ];
  t.deepEqual(differences.slice(0, 20), [], `${differences.length} differences`);
  t.is(ours.length, theirs.length);
  t.log(`${ours.length - 1} files are the same`);
}

function sameSpace(t: ExecutionContext, ours: string, theirs: string): void {
  const numbers = (path: string) => {
    const { bsize, blocks, bfree, bavail, files, ffree } = statfsSync(path);
    return { bsize, blocks, bfree, bavail, files, ffree };
  };
  t.deepEqual(numbers(ours), numbers(theirs));
  const names = (path: string) => sh('stat -f -c "%l %S" "$1"', path);
  t.is(names(ours), names(theirs));
}

besideKernel(
  "a whole tree and 200,000 odd files are as the kernel shows them: rsync finds nothing to do in either direction, and stat, holes and statfs are the same to the nanosecond (direct)",
  async (t) => {
    t.timeout(900_000);
    const place = new Workspace(t, root!, "direct");
    const { raw, spin } = await fullImage(place);
    const kernel = kernelMount(t, raw);
    await mount(t, place, spin);
    const { mountpoint } = place;
    // All that stat(1) can print of a file itself, the time of birth included.
    const format = "%n %f %u:%g %s %b*%B %h %i %t:%T %x %y %z %w %N";
    sameLines(t, dump(mountpoint, format), dump(kernel, format));
    sameSpace(t, mountpoint, kernel);
    const sparse = sh('cd "$1"; find . -type f -printf "%S %p\\0"', kernel)
      .split("\0")
      .filter((line) => Number.parseFloat(line) < 1 && !/\/size-|\/hello/.test(line))
      .map((line) => line.slice(line.indexOf(" ") + 1))
      .filter((name) => statSync(Buffer.from(join(kernel, name), "latin1")).size > 0);
    t.true(sparse.length > 5);
    const holes = (tree: string) =>
      sparse.map((name) => {
        const path = Buffer.from(join(tree, name), "latin1");
        return `${name} ${kernelHoles(path, statSync(path).size)}`;
      });
    t.deepEqual(holes(mountpoint), holes(kernel));
    for (const [from, to] of [
      [kernel, mountpoint],
      [mountpoint, kernel],
    ] as const)
      t.is(rsync(from, to, "-aHAXSn", "--delete", "--exclude=/sparse"), "", `from ${from} to ${to}`);
  },
);

besideKernel(
  "a whole tree is as the kernel shows it, but for what libfuse 2 can't tell: inode numbers, hard links, times below a millisecond, of birth and before 1970, SEEK_HOLE, names that are not UTF-8 (fuse-native)",
  async (t) => {
    t.timeout(900_000);
    const place = new Workspace(t, root!, "fuse-native");
    const { raw, spin } = await fullImage(place);
    const kernel = kernelMount(t, raw);
    await mount(t, place, spin);
    const { mountpoint } = place;
    // Bytes that aren't UTF-8, in a target and as a name, which has nine bytes when it is shown as U+FFFD.
    const untellable = ["times/19*", "links/odd-target", "names/???", "names/?????????"].map((name) => `./odd/${name}`);
    // 200,000 files by path, one at a time, take minutes: their names are counted instead.
    t.is(sh('ls -f "$1" | wc -l', join(mountpoint, "many")).trim(), "200002");
    untellable.push("./many");
    const pruned = ["(", ...untellable.flatMap((name) => ["-path", name, "-o"]), "-false"];
    const find = [...pruned, ")", "-prune", "-o"];
    const milliseconds = (lines: string[]) => lines.map((line) => line.replace(/(\.\d{3})\d{6}/g, "$1"));
    const lines = (tree: string) => milliseconds(dump(tree, "%n %f %u:%g %s %b*%B %h %t:%T %x %y %z %N", ...find));
    sameLines(t, lines(mountpoint), lines(kernel));
    sameSpace(t, mountpoint, kernel);
    const excluded = untellable.map((name) => `--exclude=${name.slice(1)}`);
    for (const [from, to] of [
      [kernel, mountpoint],
      [mountpoint, kernel],
    ] as const)
      t.is(rsync(from, to, "-aAXn", "--delete", "--modify-window=1", "--exclude=/sparse", ...excluded), "");
  },
);

for (const driver of drivers)
  besideKernel(
    `an image copied while it was mounted shows what it has after the kernel's replay (${driver})`,
    async (t) => {
      const place = new Workspace(t, root!, driver);
      const raw = join(place.folder, "live.raw");
      const live = join(place.folder, "live");
      const copies = ["copy.raw", "replayed.raw"].map((name) => join(place.folder, name)) as [string, string];
      writeFileSync(raw, "");
      truncateSync(raw, 64 * MiB);
      mkdirSync(live);
      execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", raw]);
      mountLoop(raw, live, "loop,commit=1000");
      try {
        sh('cd "$1"; cp -a /etc .; sync; mv etc/host* .; rm -r etc; for i in $(seq 500); do echo $i > f$i; done', live);
        const fd = openSync(join(live, "synced"), "w");
        writeSync(fd, "this was written with fsync");
        fsyncSync(fd);
        closeSync(fd);
        for (const copy of copies) execFileSync("cp", ["--sparse=always", raw, copy]);
      } finally {
        execFileSync("umount", [live]);
      }
      const before = sh('sha256sum < "$1"', copies[0]);
      await mount(t, place, copies[0]);
      t.true(readdirSync(place.mountpoint).includes("f500"));
      mountLoop(copies[1], live, "loop,noatime");
      execFileSync("umount", [live]);
      const kernel = kernelMount(t, copies[1]);
      const direct = driver === "direct";
      const format = direct ? "%n %f %u:%g %s %b %h %i %x %y %z %w %N" : "%n %f %u:%g %s %b %h %N";
      sameLines(t, dump(place.mountpoint, format), dump(kernel, format));
      t.is(rsync(kernel, place.mountpoint, "-aAXn", "--delete", ...(direct ? ["-H"] : ["--modify-window=1"])), "");
      t.is(sh('sha256sum < "$1"', copies[0]), before, "the image is not written to");
    },
  );

/** An ext4 made without root: files of a folder that `fill` fills. */
function smallImage(place: Workspace, fill: (folder: string) => void, size = 32 * MiB, label = "small"): string {
  const image = join(place.folder, `${label}.raw`);
  const folder = join(place.folder, `${label}-tree`);
  mkdirSync(folder);
  fill(folder);
  writeFileSync(image, "");
  truncateSync(image, size);
  const options = ["-q", "-F", "-t", "ext4", "-L", label, "-d", folder, "-E", "root_owner=0:0"];
  sh('mke2fs "$@"', ...options, image);
  chownSync(image, place.person.uid, place.person.gid);
  return image;
}

const files = (folder: string) => {
  for (const [name, mode] of [
    ["private", 0o600],
    ["public", 0o644],
    ["program", 0o4755],
  ] as const) {
    writeFileSync(join(folder, name), name === "program" ? "#!/bin/sh\nid -u\n" : `${name}\n`);
    chmodSync(join(folder, name), mode);
  }
  mkdirSync(join(folder, "closed"));
  writeFileSync(join(folder, "closed/inside"), "inside\n");
  chmodSync(join(folder, "closed"), 0o700);
};

const flagsOf = (mountpoint: string) =>
  parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8")).find((one) => one.mountpoint === mountpoint);
const mountOptionsOf = (mountpoint: string) =>
  readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .find((line) => line.split(" ")[4] === mountpoint)
    ?.split(" ")[5]
    ?.split(",") ?? [];

for (const driver of drivers) {
  serialFor(root, user)(
    `without allow_other the mounting user reads root's private files and nobody else reads any (${driver})`,
    async (t) => {
      const place = new Workspace(t, user!, driver);
      const image = smallImage(place, files);
      await mount(t, place, image);
      for (const name of ["private", "closed/inside"]) {
        const path = join(place.mountpoint, name);
        const { code, stderr } = await place.run("cat", [path]);
        t.is(code, 0, stderr);
      }
      const shown = await place.run("stat", ["-c", "%a %u %U", join(place.mountpoint, "private")]);
      t.is(shown.stdout, "600 0 root\n", "permissions and owners are shown as they are");
      const other = await place.run("cat", [join(place.mountpoint, "public")], root!);
      t.not(other.code, 0, "root, too, is another user");
      t.truthy(flagsOf(place.mountpoint));
      for (const option of ["ro", "nosuid", "nodev"]) t.true(mountOptionsOf(place.mountpoint).includes(option));
      t.is((await place.run(join(place.mountpoint, "program"), [])).stdout, `${user!.uid}\n`);
    },
  );

  serialFor(root, user)(`with allow_other the image's permissions hold for everybody (${driver})`, async (t) => {
    const place = new Workspace(t, root!, driver);
    chmodSync(place.folder, 0o755);
    const image = smallImage(place, files);
    await mount(t, place, image, "-o", "allow_other,noexec");
    const read = async (name: string, as: Person) =>
      (await place.run("cat", [join(place.mountpoint, name)], as)).code === 0;
    t.deepEqual(
      [await read("public", user!), await read("private", user!), await read("closed/inside", user!)],
      [true, false, false],
    );
    t.deepEqual([await read("private", root!), await read("closed/inside", root!)], [true, true]);
    for (const option of ["ro", "nosuid", "nodev", "noexec"]) t.true(mountOptionsOf(place.mountpoint).includes(option));
  });
}

besideKernel("with allow_other the image's access control lists hold as on the kernel's mount (direct)", async (t) => {
  const place = new Workspace(t, root!, "direct");
  chmodSync(place.folder, 0o755);
  const image = smallImage(place, (folder) => {
    for (const name of ["denied", "granted", "plain"]) writeFileSync(join(folder, name), name, { mode: 0o644 });
    sh('cd "$1"; chmod 600 granted; setfacl -m "u:$2:---" denied; setfacl -m "u:$2:r" granted', folder, `${user!.uid}`);
  });
  const kernel = kernelMount(t, image);
  chmodSync(tmpdir(), 0o1777);
  sh('chmod 755 "$1" 2>/dev/null || true', kernel);
  await mount(t, place, image, "-o", "allow_other");
  const allowed = async (tree: string) => {
    const names: string[] = [];
    for (const name of ["denied", "granted", "plain"])
      if ((await place.run("cat", [join(tree, name)], user!)).code === 0) names.push(name);
    return names;
  };
  t.deepEqual(await allowed(kernel), ["granted", "plain"]);
  t.deepEqual(await allowed(place.mountpoint), ["granted", "plain"]);
  t.is(sh('cd "$1"; getfacl -n *', place.mountpoint), sh('cd "$1"; getfacl -n *', kernel));
});

for (const driver of drivers) {
  const serial = serialFor(user);

  serial(
    `several filesystems are folders named by partition; --volume shows one at the root (${driver})`,
    async (t) => {
      const place = new Workspace(t, user!, driver);
      const one = smallImage(place, (folder) => writeFileSync(join(folder, "in-one"), "1\n"), 16 * MiB, "one");
      const two = smallImage(place, (folder) => writeFileSync(join(folder, "in-two"), "2\n"), 16 * MiB, "two");
      const disk = join(place.folder, "both.raw");
      writeFileSync(disk, "");
      truncateSync(disk, 64 * MiB);
      // The second partition is left empty.
      sh(
        'printf "label: gpt\\nstart=2048, size=32768\\nstart=36864, size=2048\\nstart=65536, size=32768\\n" | sfdisk -q "$1"; ' +
          'dd if="$2" of="$1" bs=1M seek=1 conv=notrunc,sparse status=none; dd if="$3" of="$1" bs=1M seek=32 conv=notrunc,sparse status=none',
        disk,
        one,
        two,
      );
      chownSync(disk, user!.uid, user!.gid);
      const seen = async () =>
        (await place.run("sh", ["-c", 'cd "$1" && find . | sort', "sh", place.mountpoint])).stdout;
      const content = async (name: string) => (await place.run("cat", [join(place.mountpoint, name)])).stdout;
      await mount(t, place, disk);
      t.is(await seen(), ". ./p1 ./p1/in-one ./p1/lost+found ./p3 ./p3/in-two ./p3/lost+found ".replaceAll(" ", "\n"));
      t.deepEqual([await content("p1/in-one"), await content("p3/in-two")], ["1\n", "2\n"]);
      const inodes = await place.run("sh", ["-c", 'cd "$1" && stat -c %i p1 p3', "sh", place.mountpoint]);
      t.is(new Set(inodes.stdout.trim().split("\n")).size, 2, "no two files of one mount have one inode number");
      place.unmountPlainly(t);
      for (const [volume, name] of [
        ["1", "in-one"],
        ["p1", "in-one"],
        ["two", "in-two"],
        ["3", "in-two"],
      ] as const) {
        await mount(t, place, disk, "--volume", volume);
        t.is(await seen(), `. ./${name} ./lost+found `.replaceAll(" ", "\n"), `--volume ${volume}`);
        place.unmountPlainly(t);
      }
      for (const [volume, code, words] of [
        ["2", 4, /no filesystem that Spindle reads in 2.*--as disk/],
        ["three", 2, /no volume three.*p1 \(ext4 "one"\).*p3 \(ext4 "two"\)/],
      ] as const) {
        const refused = await place.spindle(["mount", disk, place.mountpoint, "--driver", driver, "--volume", volume]);
        t.is(refused.code, code, refused.stderr);
        t.regex(refused.stderr, words);
        t.false(place.isMounted);
      }
    },
  );

  serial(`a damaged chunk is an error of that file's range alone; all else reads (${driver})`, async (t) => {
    const place = new Workspace(t, user!, driver);
    const bytes = (seed: string) =>
      Buffer.from(
        sh(`openssl enc -aes-128-ctr -K ${seed} -iv ${seed} < /dev/zero 2>/dev/null | head -c 1000000 || true`),
        "latin1",
      );
    const contents = { before: bytes("01".repeat(16)), hit: bytes("02".repeat(16)), behind: bytes("03".repeat(16)) };
    const raw = smallImage(place, (folder) => {
      for (const [name, content] of Object.entries(contents)) writeFileSync(join(folder, name), content);
    });
    const image = join(place.folder, "small.spin");
    const made = await place.spindle(["create", raw, image]);
    t.is(made.code, 0, made.stderr);
    // Random bytes are stored as they are: one of them is changed.
    const container = readFileSync(image);
    const at = container.indexOf(contents.hit.subarray(500_000, 500_032));
    t.true(at > 0);
    container[at]! ^= 1;
    writeFileSync(image, container);
    const disk = readFileSync(raw);
    const onDisk = disk.indexOf(contents.hit.subarray(500_000, 500_032));
    // The kernel asks for whole pages, and where the blocks are smaller a page may have only a part of the chunk.
    const start = 500_000 - (onDisk % 65536);
    const [first, last] = [start, start + 65535].map((byte) => Math.floor(byte / 4096) * 4096) as [number, number];
    const log = await mount(t, place, image);
    const script = `
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY); want = open(sys.argv[2], "rb").read(); bad = []
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
for at in range(0, len(want), 4096):
    try: got = os.pread(fd, 4096, at)
    except OSError as error:
        if error.errno != 5: print(at, error)
        bad.append(at); continue
    if got != want[at:at+4096]: print("wrong at", at)
print(bad[0], bad[-1], len(bad))`;
    const original = join(place.folder, "small-tree/hit");
    const read = await place.run("python3", ["-c", script, join(place.mountpoint, "hit"), original]);
    t.is(read.stdout, `${first} ${last} ${(last - first) / 4096 + 1}\n`, read.stderr);
    for (const name of ["before", "behind"] as const)
      t.is((await place.run("cmp", [join(place.mountpoint, name), join(place.folder, `small-tree/${name}`)])).code, 0);
    const lines = readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => line.includes("is damaged"));
    t.is(lines.length, 1, lines.join("\n"));
  });

  serial(`an image without a filesystem is refused in words that name --as disk (${driver})`, async (t) => {
    const place = new Workspace(t, user!, driver);
    const { code, stderr } = await place.spindle(["mount", place.image, place.mountpoint, "--driver", driver]);
    t.is(code, 4);
    t.regex(stderr, /holds no filesystem that Spindle reads\. Mount it with --as disk/);
    t.false(stderr.includes("    at "), "no stack");
    t.false(place.isMounted);
    t.is(await mount(t, place, place.image, "--as", "disk").then(() => true), true);
  });
}
