/**
 * Writing to a mounted disk, through both drivers, by root and by a normal user, with the programs that people write to
 * drives with. What only one driver can is tested on that one, and the other is shown to refuse it.
 */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chownSync, existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { comesTrue, loopMount, loopOver, people, runs, serialFor } from "./helpers.js";
import { partitionAt, Written, ways } from "./written.js";

const MiB = 1024 * 1024;
const root = people.find(({ uid }) => uid === 0);
/** MiB of small files that are copied to a filesystem; more than the usual take SPINDLE_TEST_FILES=500. */
const filesMiB = Number(process.env.SPINDLE_TEST_FILES ?? 2);

for (const way of ways)
  for (const person of people) {
    const serial = serialFor(person);
    const { driver } = way;
    const as = `through ${way.title}, as ${person.title}`;

    serial(`what is written is read through both files, and again after a remount, ${as}`, async (t) => {
      const place = new Written(t, person, way);
      await place.mount(`--writable=${place.overlay}`);
      const long = randomBytes(3 * MiB);
      await place.dd(t, "disk.raw", 2 * MiB, long);
      await place.dd(t, "p1.raw", 4096 * 7, randomBytes(4096), "oflag=direct");
      await place.dd(t, "p1.raw", 512 * 1001, randomBytes(512), "oflag=direct");
      await place.dd(t, "disk.raw", 5 * MiB - 3, randomBytes(7), "conv=notrunc,fsync");
      await place.dd(t, "p1.raw", 6 * MiB + 1, randomBytes(10_000), "conv=notrunc,fdatasync");
      await place.isAsExpected(t, "while mounted");
      t.is(
        await place.works(t, "stat", "-c", "%s %a %U", place.file("p1.raw")),
        `${place.partition.length} 644 ${await owner(place)}\n`,
      );
      await place.ends(t);
      t.true(statSync(place.overlay).blocks * 512 < 8 * MiB, "it takes what was written");
      await place.mount(`--writable=${place.overlay}`);
      await place.isAsExpected(t, "after a remount");
      await place.ends(t);
    });

    serial(`a file keeps its size, and nothing is made, renamed or removed, ${as}`, async (t) => {
      const place = new Written(t, person, way);
      await place.mount("--writable");
      const disk = place.file("disk.raw");
      const fails = async (words: RegExp, command: string, ...parameters: string[]) => {
        const { code, stderr } = await place.run(command, parameters);
        t.not(code, 0, `${command} ${parameters.join(" ")}`);
        t.regex(stderr, words);
      };
      await fails(/failed to truncate .* No space left/, "truncate", "-s", "+1", disk);
      await fails(/failed to truncate .* Invalid argument/, "truncate", "-s", "-1", disk);
      await fails(/No space left/, "dd", "if=/dev/zero", `of=${disk}`, "bs=1M", "seek=16", "count=1", "conv=notrunc");
      writeFileSync(join(place.folder, "longer"), Buffer.alloc(place.disk.length + 1, 7));
      await fails(/No space left/, "cp", join(place.folder, "longer"), disk);
      for (const command of [
        ["rm", "-f", disk],
        ["mv", disk, place.file("new")],
        ["mkdir", place.file("new")],
        ["touch", place.file("new")],
        ["ln", "-s", "x", place.file("new")],
      ])
        await fails(/Read-only file system/, command[0]!, ...command.slice(1));
      t.deepEqual((await place.list()).sort(), ["disk.raw", "p1.raw"]);
      // As on a device: a copy onto it is one of its bytes.
      const copy = randomBytes(place.disk.length);
      writeFileSync(join(place.folder, "copy"), copy);
      await place.works(t, "cp", join(place.folder, "copy"), disk);
      copy.copy(place.expected);
      await place.isAsExpected(t, "after cp");
      await place.works(t, "touch", disk);
      await place.ends(t);
    });

    serial(`a temporary overlay vanishes, and a named one is refused to a second server, ${as}`, async (t) => {
      const place = new Written(t, person, way);
      await place.mount("--writable");
      await place.dd(t, "disk.raw", 2 * MiB, randomBytes(4096));
      await place.ends(t);
      place.disk.copy(place.expected);
      await place.mount(`--writable=${place.overlay}`);
      await place.isAsExpected(t, "without what a temporary overlay had");
      const second = join(place.folder, "second");
      mkdirSync(second);
      chownSync(second, person.uid, person.gid);
      const again = ["mount", place.image, second, "--as", "disk", "--driver", driver, `--writable=${place.overlay}`];
      const { code, stderr } = await place.spindle(again);
      t.not(code, 0);
      t.regex(stderr, /work\.overlay: another process has this overlay open/);
      const read = await place.spindle(["info", place.overlay]);
      t.regex(read.stderr, /work\.overlay: is written to by a mount just now/);
      await place.ends(t);
      t.is((await place.spindle(["info", place.overlay])).code, 0);
    });

    serial(`killed at once after fsync, or writes with O_DSYNC, it has everything again, ${as}`, async (t) => {
      const place = new Written(t, person, way);
      const { pid } = await place.mount(`--writable=${place.overlay}`);
      await place.dd(t, "disk.raw", 4 * MiB, randomBytes(MiB), "conv=notrunc,fsync");
      await place.dd(t, "p1.raw", 9 * MiB + 512, randomBytes(512), "conv=notrunc,fsync");
      await place.dd(t, "p1.raw", 12 * MiB, randomBytes(8192), "oflag=dsync");
      await place.dd(t, "disk.raw", 14 * MiB, randomBytes(8192), "oflag=direct,dsync");
      process.kill(pid, "SIGKILL");
      t.true(await comesTrue(() => !runs(pid) && !place.isMounted));
      await place.mount(`--writable=${place.overlay}`);
      await place.isAsExpected(t, "after the server was killed");
      await place.ends(t);
    });

    serial(`holes are punched and ranges zeroed where the driver can, ${as}`, async (t) => {
      const place = new Written(t, person, way);
      await place.mount(`--writable=${place.overlay}`);
      await place.dd(t, "disk.raw", 4 * MiB, randomBytes(4 * MiB));
      const fallocate = (...words: string[]) => place.run("fallocate", [...words, place.file("p1.raw")]);
      const punched = await fallocate("-p", "-o", `${3 * MiB + 700}`, "-l", `${2 * MiB}`);
      if (driver === "fuse-native") {
        t.not(punched.code, 0);
        t.regex(punched.stderr, /unsupported|not supported/);
      } else {
        t.is(punched.code, 0, punched.stderr);
        place.expected.fill(0, 4 * MiB + 700, 6 * MiB + 700);
        t.is((await fallocate("-z", "-o", "10000", "-l", "100000")).code, 0);
        place.expected.fill(0, partitionAt + 10_000, partitionAt + 110_000);
        t.true(statSync(place.overlay).blocks * 512 < 3 * MiB, "the room is given back");
        t.regex((await fallocate("-l", "4096")).stderr, /not supported/);
        t.regex((await fallocate("-z", "-o", "0", "-l", `${16 * MiB}`)).stderr, /No space left/);
      }
      await place.isAsExpected(t, "after fallocate");
      await place.ends(t);
      await place.mount(`--writable=${place.overlay}`);
      await place.isAsExpected(t, "after a remount");
      await place.ends(t);
    });

    if (root)
      serialFor(root, person)(
        `a full disk is told to whoever writes, and what was written stays readable, ${as}`,
        async (t) => {
          const place = new Written(t, person, way);
          const small = join(place.folder, "small");
          mkdirSync(small);
          spawnSync("mount", ["-t", "tmpfs", "-o", "size=4m,mode=777", "tmpfs", small]);
          t.teardown(() => spawnSync("umount", ["-l", small]));
          const overlay = join(small, "o");
          const { log } = await place.mount(`--writable=${overlay}`);
          await place.dd(t, "disk.raw", 2 * MiB, randomBytes(MiB), "conv=notrunc,fsync");
          const bytes = randomBytes(MiB);
          const program = `
          const { openSync, writeSync, fsyncSync } = require("node:fs");
          const fd = openSync(process.argv[1], "r+");
          const bytes = require("node:fs").readFileSync(process.argv[2]);
          let written = 0;
          try {
            for (let at = 4 * 1048576; at < 16 * 1048576; at += 4096) {
              writeSync(fd, bytes, at % 1048576, 4096, at);
              written = at + 4096;
            }
          } catch (error) {
            console.log(JSON.stringify({ written, code: error.code }));
          }
          fsyncSync(fd);`;
          writeFileSync(join(place.folder, "bytes"), bytes);
          const told = await place.works(
            t,
            process.execPath,
            "-e",
            program,
            place.file("disk.raw"),
            join(place.folder, "bytes"),
          );
          const { written, code } = JSON.parse(told) as { written: number; code: string };
          t.is(code, "ENOSPC");
          t.true(written > 6 * MiB && written < 8 * MiB, `${written}`);
          for (let at = 4 * MiB; at < written; at += 4096) bytes.copy(place.expected, at, at % MiB, (at % MiB) + 4096);
          await place.isAsExpected(t, "on a full disk");
          t.regex(place.log(log), /small\/o: .*ENOSPC|small\/o: .*no space left/i);
          await place.dd(t, "disk.raw", 2 * MiB + 100, randomBytes(MiB - 100), "conv=notrunc,fsync");
          await place.ends(t);
          await place.mount(`--writable=${overlay}`);
          await place.isAsExpected(t, "after a remount");
          await place.ends(t);
        },
      );
  }

const asRoot = serialFor(root);

for (const way of ways)
  asRoot(`a filesystem made on a loop device over pN.raw is whole after a remount, through ${way.title}`, async (t) => {
    const place = new Written(t, root!, way);
    if (filesMiB > 2) place.grow((filesMiB * 2 + 64) * MiB);
    await place.mount(`--writable=${place.overlay}`);
    const device = loopOver(t, place.file("p1.raw"));
    if (!device) return void t.log("skipped: no loop device can be had");
    await place.works(t, "mkfs.ext4", "-q", device);
    const inner = join(place.folder, "inner");
    mkdirSync(inner);
    t.is(loopMount(device, inner).status, 0);
    t.teardown(() => spawnSync("umount", ["-l", inner]));
    const source = join(place.folder, "files");
    const bytes = randomBytes(2 * MiB);
    let count = 0;
    for (let left = filesMiB * MiB; left > 0; count++) {
      const folder = join(source, `${count % 17}`);
      if (count < 17) mkdirSync(folder, { recursive: true });
      const length = Math.min(left, 1 + ((count * 7919) % 80_000));
      writeFileSync(join(folder, `file ${count}`), bytes.subarray(count % MiB, (count % MiB) + length));
      left -= length;
    }
    await place.works(t, "cp", "-a", source, inner);
    await place.works(t, "rm", join(inner, "files/3/file 3"), join(source, "3/file 3"));
    const trimmed = await place.run("fstrim", [inner]);
    if (way.driver === "direct") t.is(trimmed.code, 0, trimmed.stderr);
    else t.regex(trimmed.stderr, /not supported/);
    await place.works(t, "umount", inner);
    await place.works(t, "losetup", "-d", device);
    await place.works(t, "e2fsck", "-fn", place.file("p1.raw"));
    const before = await place.works(t, "sha256sum", place.file("p1.raw"));
    await place.ends(t);
    await place.mount(`--writable=${place.overlay}`);
    t.is(await place.works(t, "sha256sum", place.file("p1.raw")), before);
    t.is(loopMount("-o", "loop", place.file("p1.raw"), inner).status, 0);
    t.is(await place.works(t, "diff", "-r", source, join(inner, "files")), "");
    t.is((await place.works(t, "find", inner, "-type", "f")).trim().split("\n").length, count - 1);
    await place.works(t, "umount", inner);
    await place.ends(t);
  });

asRoot("a whole loop device is discarded, which gives the overlay's room back", async (t) => {
  const place = new Written(t, root!, ways[0]!);
  await place.mount(`--writable=${place.overlay}`);
  await place.dd(t, "p1.raw", MiB, randomBytes(8 * MiB), "conv=notrunc,fsync");
  const device = loopOver(t, place.file("p1.raw"));
  if (!device) return void t.log("skipped: no loop device can be had");
  await place.works(t, "blkdiscard", "-f", device);
  place.expected.fill(0, partitionAt);
  await place.works(t, "losetup", "-d", device);
  await place.isAsExpected(t, "after blkdiscard");
  t.true(statSync(place.overlay).blocks * 512 < MiB);
  await place.ends(t);
});

const first = serialFor(people[0]);
const haveQemu = spawnSync("qemu-img", ["--version"]).status === 0 && spawnSync("qemu-io", ["-V"]).status === 0;

for (const way of ways)
  first(`a disk's faces are identical to it for qemu-img, and are written through, through ${way.title}`, async (t) => {
    if (!haveQemu) return void t.log("skipped: qemu-img is not installed (apt install qemu-utils)");
    const place = new Written(t, people[0]!, way);
    await place.mount(`--writable=${place.overlay}`, "--face", "vmdk,vdi,vhd");
    t.deepEqual((await place.list()).sort(), ["disk.raw", "disk.vdi", "disk.vhd", "disk.vmdk", "p1.raw"]);
    const faces = [
      ["disk.vmdk", "vmdk"],
      ["disk.vdi", "vdi"],
      ["disk.vhd", "vpc"],
    ] as const;
    const identical = async () => {
      for (const [file, format] of faces) {
        const words = ["compare", "-f", "raw", "-F", format, place.file("disk.raw"), place.file(file)];
        t.regex(await place.works(t, "qemu-img", ...words), /identical/, file);
      }
    };
    await identical();
    for (const [index, [file, format]] of faces.entries()) {
      const at = (3 + index) * MiB + 512 * index;
      await place.works(t, "qemu-io", "-f", format, "-c", `write -P ${index + 1} ${at} 70144`, place.file(file));
      place.expected.fill(index + 1, at, at + 70_144);
    }
    await identical();
    await place.isAsExpected(t, "after writes to the faces");
    await place.ends(t);
    t.regex(
      (await place.spindle(place.mountArguments("--face", "vmdk,iso"))).stderr,
      /--face iso: there is no such face of a disk; there are vmdk, vdi, vhd/,
    );
  });

first("--writable is for disks, and excludes -o ro", async (t) => {
  const place = new Written(t, people[0]!, ways[0]!);
  const refused = async (words: RegExp, ...more: string[]) => {
    const { code, stderr } = await place.spindle(["mount", place.image, place.mountpoint, ...more]);
    t.is(code, 2, stderr);
    t.regex(stderr, words);
    t.false(place.isMounted);
  };
  await refused(/Add --as disk/, "--writable");
  await refused(/--page-cache: .* Add --writable/, "--as", "disk", "--page-cache");
  const native = ["--driver", "fuse-native"];
  await refused(/--page-cache: the fuse-native driver can't/, "--as", "disk", "--writable", "--page-cache", ...native);
  await refused(/-o ro and --writable exclude each other/, "--writable", "--as", "disk", "-o", "ro");
  t.regex(
    (await place.spindle(place.mountArguments(`--writable=${place.image}`))).stderr,
    /disk\.img: is there and is no overlay/,
  );
  t.regex(
    (await place.spindle(place.mountArguments(`--writable=${place.file("o")}`))).stderr,
    /lies beneath the mount point/,
  );
  t.false(existsSync(place.file("o")));
});

async function owner(place: Written): Promise<string> {
  return (await place.run("id", ["-un"])).stdout.trim();
}
