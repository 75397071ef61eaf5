import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import {
  escapeMountpoint,
  liesBeneath,
  listMounts,
  mountAt,
  ourType,
  parseMountCommand,
  parseMountinfo,
  resolveMountpoint,
} from "./mounts.js";

test("the example line of proc_pid_mountinfo(5) is read", (t) => {
  const line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
  t.deepEqual(parseMountinfo(`${line}\n`), [
    {
      id: 36,
      parent: 35,
      device: "98:0",
      mountpoint: "/mnt2",
      options: ["rw", "noatime"],
      type: "ext3",
      source: "/dev/root",
      superOptions: ["rw", "errors=continue"],
    },
  ]);
});

test("no optional field, several of them, and escaped names are read; broken lines are left out", (t) => {
  const text = [
    "42 27 0:39 / /a\\040b\\134c\\011d\\012e ro,nosuid - fuse.spindle my\\040disk\\043,x ro,user_id=1000",
    "43 27 0:40 / /x rw shared:1 master:2 propagate_from:3 - tmpfs none rw",
    "44 27 0:41 / /y",
    "nonsense",
    "",
  ].join("\n");
  const [ours, other, ...rest] = parseMountinfo(text);
  t.is(ours!.mountpoint, "/a b\\c\td\ne");
  t.is(ours!.source, "my disk#,x");
  t.is(ours!.type, ourType);
  t.is(other!.mountpoint, "/x");
  t.is(other!.type, "tmpfs");
  t.deepEqual(rest, []);
});

test("a path is written as the kernel writes it", (t) => {
  t.is(escapeMountpoint("/a b\\c\td\ne#é,"), "/a\\040b\\134c\\011d\\012e#é,");
});

test("of mounts stacked at one place the topmost is found, wherever it stands in the list", (t) => {
  const mounts = parseMountinfo(
    [
      "1 0 8:1 / / rw - ext4 /dev/sda rw",
      "30 20 0:40 / /m rw - tmpfs upper rw",
      "20 1 0:39 / /m rw - tmpfs lower rw",
    ].join("\n"),
  );
  t.is(mountAt("/m", mounts)?.id, 30);
  t.is(mountAt("/", mounts)?.id, 1);
  t.is(mountAt("/m/n", mounts), undefined);
});

test("a mount that a later one on a folder above hides is not found", (t) => {
  const mounts = parseMountinfo(
    [
      "1 0 8:1 / / rw - ext4 /dev/sda rw",
      "20 1 0:39 / /a/b rw - fuse.spindle hidden rw",
      "21 1 0:40 / /a rw - tmpfs above rw",
    ].join("\n"),
  );
  t.is(mountAt("/a/b", mounts), undefined);
  t.is(mountAt("/a", mounts)?.source, "above");
});

test("where the root is no mount, as in a chroot, mounts are found all the same", (t) => {
  const mounts = parseMountinfo("20 1 0:39 / /m rw - tmpfs one rw\n30 20 0:40 / /m rw - tmpfs two rw\n");
  t.is(mountAt("/m", mounts)?.source, "two");
});

test("mounts that name each other as parent do not hang the search", (t) => {
  const mounts = parseMountinfo(
    "1 0 8:1 / / rw - ext4 a rw\n2 3 0:1 / / rw - tmpfs b rw\n3 1 0:2 / / rw - tmpfs c rw\n1 2 0:3 / / rw - tmpfs d rw\n",
  );
  t.notThrows(() => mountAt("/", mounts));
});

test("macOS's mount command is read", (t) => {
  const text = [
    "/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)",
    "spindle@macfuse0 on /Users/a/my (old) disk (macfuse, nodev, nosuid, read-only, synchronous, mounted by a)",
  ].join("\n");
  const [root, ours] = parseMountCommand(text);
  t.is(root!.mountpoint, "/");
  t.is(ours!.mountpoint, "/Users/a/my (old) disk");
  t.is(ours!.type, ourType);
  t.is(mountAt("/Users/a/my (old) disk", [root!, ours!])?.source, "spindle@macfuse0");
});

test("what findmnt names as the mounts of this machine is found", (t) => {
  if (process.platform !== "linux") {
    t.log("skipped: no /proc");
    return t.pass();
  }
  const { stdout, error } = spawnSync("findmnt", ["-n", "-o", "TARGET,FSTYPE", "--raw", "-T", "/proc"], {
    encoding: "utf8",
  });
  if (error) {
    t.log("skipped: findmnt is not installed");
    return t.pass();
  }
  t.is(mountAt("/proc", listMounts())?.type, stdout.trim().split(" ")[1]);
  return undefined;
});

test("a mount point is found through links, relative parts and a slash at its end", (t) => {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "spindle-mounts-")));
  t.teardown(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, "real/mnt"), { recursive: true });
  symlinkSync("real", join(folder, "link"));
  symlinkSync("link/mnt", join(folder, "to-mnt"));
  symlinkSync("loop", join(folder, "loop"));
  for (const path of ["real/mnt", "link/mnt/", "to-mnt", "real/../link/./mnt"])
    t.is(resolveMountpoint(join(folder, path)), join(folder, "real/mnt"));
  t.is(resolveMountpoint("/"), "/");
  t.throws(() => resolveMountpoint(join(folder, "loop")), { message: /symbolic links/ });
  t.throws(() => resolveMountpoint(join(folder, "none/mnt")), { message: /no such file or folder/ });
});

test("a folder is beneath itself, and a name that merely begins alike is not", (t) => {
  t.true(liesBeneath("/a/b", "/a/b"));
  t.true(liesBeneath("/a/b/c", "/a/b"));
  t.true(liesBeneath("/a", "/"));
  t.false(liesBeneath("/a/bc", "/a/b"));
});
