import { spawn } from "node:child_process";
import { mkdtempSync, realpathSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { describeHolders, findHolders } from "./holders.js";
import { listMounts } from "./mounts.js";

test("a process that has a file open, stands in a folder and is named by what it holds", async (t) => {
  if (process.platform !== "linux") {
    t.log("skipped: no /proc");
    return t.pass();
  }
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "spindle-holders-")));
  t.teardown(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "file"), "words");
  // The mount that the folder lies on, narrowed to the folder: another program tells which one that is.
  const device = statSync(folder).dev;
  const number = `${(device >> 8) & 0xfff}:${(device & 0xff) | ((device >> 12) & 0xfff00)}`;
  const mount = listMounts().filter((each) => each.device === number)[0];
  if (!mount) {
    t.log("skipped: the temporary folder lies on no mount that is listed");
    return t.pass();
  }
  const child = spawn("sh", ["-c", "exec 3< file; echo; exec sleep 100"], { cwd: folder });
  t.teardown(() => child.kill());
  await new Promise((done) => child.stdout.once("data", done));
  const { processes } = findHolders({ ...mount, mountpoint: folder });
  const holder = processes.find(({ pid }) => pid === child.pid);
  t.is(holder?.command, "sleep");
  t.true(holder?.holds.includes(`open file ${folder}/file`));
  t.true(holder?.holds.includes(`working folder ${folder}`));
  t.false(processes.some(({ pid }) => pid === process.pid));
  return undefined;
});

test("holders are told with what to do about them", (t) => {
  const words = describeHolders({
    processes: [{ pid: 7, command: "cat", holds: ["open file /m/disk.raw", "working folder /m"] }],
    loops: [{ device: "/dev/loop3", file: "/m/p1.raw", mountpoints: ["/mnt/root"] }],
    mounts: ["/m/sub"],
    hidden: 2,
  });
  t.is(
    words,
    "held by process 7 (cat: open file /m/disk.raw and 1 more); loop device /dev/loop3 is over /m/p1.raw " +
      "(umount /mnt/root; losetup -d /dev/loop3); another filesystem is mounted at /m/sub (umount /m/sub)",
  );
  t.is(describeHolders({ processes: [], loops: [], mounts: [], hidden: 0 }), "");
  t.regex(describeHolders({ processes: [], loops: [], mounts: [], hidden: 2 }), /2 processes of other users/);
});
