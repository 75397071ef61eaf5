import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ExecutionContext } from "ava";
import {
  comesTrue,
  drivers,
  type Outcome,
  type Person,
  people,
  serialFor,
  spindleProgram,
  Workspace,
} from "./helpers.js";

// Everything happens in a mount namespace of its own, with a helper in /sbin and a /etc/fstab that nobody else sees.
const root = people.find(({ uid }) => uid === 0);
const user = people.find(({ uid }) => uid !== 0);
const serial = serialFor(root);

class Place extends Workspace {
  constructor(t: ExecutionContext, names = {}) {
    super(t, root!, "direct", names);
    const bin = dirname(spindleProgram());
    for (const [folder, name, target] of [
      ["sbin", "mount.fuse.spindle", join(bin, "mount.fuse.spindle")],
      ["local", "spindle", join(bin, "spindle.js")],
    ] as const) {
      mkdirSync(join(this.folder, folder));
      symlinkSync(target, join(this.folder, folder, name));
    }
    chmodSync(this.folder, 0o755);
  }

  /** The lines of an fstab: `[image, mountpoint, options]` of each. */
  fstab(...lines: readonly (readonly [string, string, string])[]): string {
    const path = join(this.folder, "fstab");
    const field = (text: string) =>
      text.replace(/[ \t\\]/g, (one) => `\\${one.charCodeAt(0).toString(8).padStart(3, "0")}`);
    writeFileSync(
      path,
      lines.map(([image, at, options]) => `${field(image)} ${field(at)} fuse.spindle ${options} 0 0\n`).join(""),
    );
    return path;
  }

  /** Runs a shell script as root in the namespace. $1 is the mount point, $2 the image, $3 the folder. */
  async script(
    lines: string,
    { helper = true, ...env }: { helper?: boolean } & Record<string, unknown> = {},
  ): Promise<Outcome> {
    const cover = (folder: string, what: string) =>
      `mount -t overlay -o lowerdir=${this.folder}/${what}:${folder} overlay ${folder}`;
    const set = [
      "set -e",
      helper ? cover(realpathSync("/sbin"), "sbin") : cover("/usr/local/bin", "local"),
      `[ ! -e ${this.folder}/fstab ] || mount --bind ${this.folder}/fstab /etc/fstab`,
      "set +e",
    ];
    return await this.run(
      "unshare",
      ["--mount", "sh", "-c", [...set, lines].join("\n"), "sh", this.mountpoint, this.image, this.folder],
      root,
      env as NodeJS.ProcessEnv,
    );
  }
}

for (const driver of drivers)
  serial(`mount -a mounts what fstab has, once, and umount ends it (${driver})`, async (t) => {
    const place = new Place(t, { mountpoint: "a mount", image: "my disk,1.img" });
    mkdirSync(join(place.folder, "by hand"));
    place.fstab(
      [
        place.image,
        place.mountpoint,
        `as=disk,driver=${driver},cache=16M,workers=2,_netdev,nofail,x-systemd.device-timeout=5`,
      ],
      [place.image, join(place.folder, "by hand"), `noauto,ro,as=disk,driver=${driver},allow_other`],
      [join(place.folder, "absent.img"), join(place.folder, "sbin"), "nofail"],
    );
    const { stdout, stderr } = await place.script(
      `mount -a -t fuse.spindle; echo $?
       mount -a -t fuse.spindle; echo $?
       grep fuse.spindle /proc/mounts | grep -F "$3" | wc -l
       cmp "$1/disk.raw" "$2" && echo same
       findmnt -no OPTIONS "$1"
       mount "$3/by hand"; echo $?
       findmnt -no OPTIONS "$3/by hand"
       umount "$3/by hand" "$1"; echo $?
       grep -F "$3" /proc/mounts | grep -c fuse.spindle`,
    );
    const lines = stdout.split("\n");
    t.deepEqual(lines.slice(0, 4), ["0", "0", "1", "same"], stderr);
    t.regex(lines[4]!, /^ro,nosuid,nodev,/);
    t.is(lines[5], "0", stderr);
    t.regex(lines[6]!, /^ro,nosuid,nodev,.*allow_other/);
    t.deepEqual(lines.slice(7, 9), ["0", "0"], stderr);
    t.is(stderr, "");
    t.true(await comesTrue(() => place.processes().length === 0));
  });

for (const driver of drivers)
  serial(`the plain form of mount.fuse3 works without a helper in /sbin (${driver})`, async (t) => {
    if (spawnSync("env", ["-i", "/bin/sh", "-c", "PATH=/bin:/usr/bin exec env node --version"]).status !== 0) {
      t.log("skipped: mount.fuse3 runs its programs without a PATH, and node is in neither /bin nor /usr/bin");
      return t.pass();
    }
    const place = new Place(t);
    const { stdout, stderr } = await place.script(
      `mount -t fuse.spindle "$2" "$1" -o as=disk,driver=${driver}; echo $?
     cmp "$1/disk.raw" "$2" && echo same
     umount "$1"; echo $?
     mount -t fuse.spindle "$2.none" "$1" -o noexec; echo $?`,
      { helper: false },
    );
    t.is(stdout, "0\nsame\n0\n32\n", stderr);
    t.regex(stderr, /disk\.img\.none: no such file/);
    return undefined;
  });

for (const driver of drivers)
  serial(`what fails has mount(8)'s exit codes and one sentence (${driver})`, async (t) => {
    const place = new Place(t);
    writeFileSync(join(place.folder, "bad.spin"), Buffer.from("5d2a4d18300000005350484400000000", "hex"));
    const { stdout, stderr } = await place.script(
      `try() { mount -t fuse.spindle "$@",driver=${driver}; echo $?; }
     try "$3/none" "$1" -o as=disk
     try "$2" "$1" -o as=everything
     try "$2" "$1" -o cache
     try "$2" "$1" -o as=disk,nosuch
     try "$2" "$1" -s -o as=disk,nosuch
     try "$2" "$1" -o as=disk
     umount "$1"
     try -f "$2" "$1" -o as=disk
     findmnt "$1"; echo $?`,
    );
    // Which options there are libfuse alone knows, and says when it is to mount.
    const [code, words] =
      driver === "direct" ? [1, "spindle: -o nosuch: the direct d"] : [32, `spindle: mounting at ${place.mountpoint}`];
    t.is(stdout, `32\n1\n1\n${code}\n0\n32\n0\n1\n`, stderr);
    t.deepEqual(
      stderr.split("\n").map((line) => line.slice(0, 30)),
      [
        `spindle: opening ${place.folder}/none`,
        `spindle: --as can't be "everyth`,
        "mount.fuse.spindle: -o cache: c",
        words,
        `spindle: ${place.mountpoint}`,
        "",
      ].map((line) => line.slice(0, 30)),
    );
  });

const both = serialFor(root, user);

for (const driver of drivers)
  both(`a normal user mounts and unmounts what fstab lets users mount (${driver})`, async (t) => {
    const place = new Place(t);
    const options = `noauto,user,as=disk,driver=${driver}`;
    const fstab = place.fstab(
      [place.image, place.mountpoint, options],
      [place.image, join(place.folder, "sbin"), "noauto"],
      [place.image, join(place.folder, "written"), `${options},writable=${place.folder}/own/overlay`],
    );
    for (const name of ["written", "own"]) mkdirSync(join(place.folder, name));
    const own = [place.image, place.mountpoint, join(place.folder, "written"), join(place.folder, "own")];
    spawnSync("chown", [`${user!.uid}:${user!.gid}`, ...own]);
    const as = ({ uid, gid }: Person) => `setpriv --reuid ${uid} --regid ${gid} --clear-groups env -u XDG_RUNTIME_DIR`;
    const { stdout, stderr } = await place.script(
      `${as(user!)} mount "$1"; echo $?
     ${as(user!)} cmp "$1/disk.raw" "$2" && echo same
     findmnt -no OPTIONS "$1"
     ${as({ ...user!, uid: 65534, gid: 65534 })} umount "$1"; echo $?
     ${as(user!)} umount "$1"; echo $?
     ${as(user!)} mount "$3/sbin"; echo $?
     for time in first second; do
       ${as(user!)} mount "$3/written"; echo $?
       [ $time = second ] || yes | ${as(user!)} dd of="$3/written/p1.raw" count=1 status=none conv=notrunc
       ${as(user!)} head -c 1048577 "$3/written/disk.raw" | tail -c 1
       findmnt -no OPTIONS "$3/written" | cut -d, -f1
       ${as(user!)} umount "$3/written"; echo $?
     done`,
    );
    const lines = stdout.split("\n");
    t.deepEqual(lines.slice(0, 2), ["0", "same"], stderr);
    t.regex(lines[2]!, new RegExp(`^ro,nosuid,nodev,noexec,.*user_id=${user!.uid},`));
    t.not(lines[3], "0");
    t.is(lines[4], "0", stderr);
    t.not(lines[5], "0");
    // What was written is there again, in an overlay of the user's own.
    t.deepEqual(lines.slice(6, 13), ["0", "yrw", "0", "0", "yrw", "0", ""], stderr);
    t.true(readFileSync(fstab, "utf8").includes("user"));
    t.true(await comesTrue(() => place.processes().length === 0));
  });

for (const driver of drivers)
  for (const person of people)
    serialFor(root, person)(
      `mount takes a dead mount away that is in its place, as ${person.title} (${driver})`,
      async (t) => {
        const place = new Place(t);
        place.fstab([place.image, place.mountpoint, `noauto,user,as=disk,workers=2,driver=${driver}`]);
        spawnSync("chown", [`${person.uid}:${person.gid}`, place.image, place.mountpoint]);
        const as = `setpriv --reuid ${person.uid} --regid ${person.gid} --clear-groups env -u XDG_RUNTIME_DIR`;
        const { stdout, stderr } = await place.script(
          `${as} mount "$1"; echo $?
       pkill -9 -f "spindle-watch[d]og $1 "; pkill -9 -f "^spindle mount $2 $1"
       for i in $(seq 200); do ${as} stat "$1" 2>&1 | grep "not connected" && break; sleep 0.05; done
       ${as} mount "$1"; echo $?
       ${as} cmp "$1/disk.raw" "$2" && echo same
       grep -c " $1 fuse.spindle " /proc/mounts
       ${as} umount "$1"; echo $?
       grep -c " $1 fuse.spindle " /proc/mounts`,
        );
        const lines = stdout.trim().split("\n");
        t.regex(lines[1]!, /Transport endpoint is not connected/);
        t.deepEqual([lines[0], ...lines.slice(2)], ["0", "0", "same", "1", "0", "0"], stderr);
        t.regex(stderr, /^.*mnt: the server of the mount that was there had died; it is taken away\n$/);
        t.true(await comesTrue(() => place.processes().length === 0));
      },
    );

serial("a dead mount of another program is left alone, and what to do is told", async (t) => {
  if (spawnSync("fuse2fs", ["--help"]).error) {
    t.log("skipped: fuse2fs is not installed (apt install fuse2fs)");
    return t.pass();
  }
  const place = new Place(t);
  const { stdout, stderr } = await place.script(
    `truncate -s 1M "$3/ext"; mke2fs -q -F "$3/ext"; fuse2fs -o ro "$3/ext" "$1"; echo $?
     pkill -9 -f "^fuse2fs -o ro $3/ext"
     for i in $(seq 200); do stat "$1" 2>&1 | grep -q "not connected" && break; sleep 0.05; done
     mount -t fuse.spindle "$2" "$1" -o as=disk; echo $?
     umount "$1"`,
  );
  t.is(stdout, "0\n32\n", stderr);
  t.true(
    stderr.includes(
      `${place.mountpoint}: what served the mount there (fuse.ext4) has died. Take that away first: umount`,
    ),
    stderr,
  );
  return undefined;
});

// By the direct driver alone: libfuse2 does not mount where something is mounted already, as autofs is here.
serial("mounting on demand, as x-systemd.automount has it, doesn't wait for itself", async (t) => {
  if (!readFileSync("/proc/filesystems", "utf8").includes("\tautofs\n") || spawnSync("python3", ["--version"]).error) {
    t.log("skipped: there is no autofs here, or no python3");
    return t.pass();
  }
  const place = new Place(t);
  const fstab = place.fstab([place.image, place.mountpoint, "as=disk,x-systemd.automount"]);
  // Compiled, this file is in dist/mount-tests; the program stays where it is.
  const program = fileURLToPath(new URL("../../mount-tests/autofs.py", import.meta.url));
  const { stdout, stderr } = await place.script(`python3 ${program} ${fstab} "$1"`);
  t.is(stdout, "0 disk.raw p1.raw\n", stderr);
  t.true(await comesTrue(() => place.processes().length === 0));
  return undefined;
});
