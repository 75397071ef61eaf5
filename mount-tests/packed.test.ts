/** Compressed disks through the mount: what isn't unpacked yet is waited for, and the rest is served meanwhile. */
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import ava from "ava";
import { expectedDisk, partcloneImage } from "../src/images/partclone/writer-test-tools.js";
import { comesTrue, drivers, makeDisk, people, serialFor, Workspace } from "./helpers.js";

const hasSevenZip = spawnSync("7zz", ["--help"]).error === undefined;

/** The test disk in a zip, packed with bzip2; made once. */
let folder: string | undefined;
function zipped(): string {
  if (folder === undefined) {
    folder = mkdtempSync(join(tmpdir(), "spindle-packed-"));
    chmodSync(folder, 0o755);
    writeFileSync(join(folder, "disk.img"), makeDisk());
    spawnSync("7zz", ["a", "-tzip", "-mm=bzip2", "-bd", "disk.zip", "disk.img"], { cwd: folder, stdio: "ignore" });
  }
  return join(folder, "disk.zip");
}

ava.after.always(() => {
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

/**
 * Eight readers of the end, as many as would hold up every worker, and one of the start; and, the first time, two writers of
 * parts of blocks in between, one through the partition's file.
 */
const readers = `
import os, sys, threading
fd, part = os.open(sys.argv[1], os.O_RDWR), os.open(sys.argv[3], os.O_RDWR)
with open(sys.argv[2], "rb") as file: disk = bytearray(file.read())
size, wrong = len(disk), []
def check(at, length):
    if os.pread(fd, length, at) != disk[at:at + length]: wrong.append((at, length))
def far(index): check(size - (index + 1) * 65536, 65536)
places = [len(disk) // 2 + 37777 * number for number in range(100)]
written = lambda number: bytes([number]) * (1 + number * 97)
def write(number):
    at, data = places[number], written(number)
    if number % 2: done = os.pwrite(fd, data, at)
    else: done = os.pwrite(part, data, at - 1048576)
    if done != len(data): wrong.append((at, done))
def writer(first):
    for number in range(first, 100, 2): write(number)
threads = [threading.Thread(target=far, args=(index,)) for index in range(8)]
if sys.argv[4] == "first": threads += [threading.Thread(target=writer, args=(first,)) for first in range(2)]
[thread.start() for thread in threads]
for step in range(20): check(step * 4096, 4096)
[thread.join() for thread in threads]
for number, at in enumerate(places): disk[at:at + len(written(number))] = written(number)
check(0, size)
if os.pread(part, size, 0) != disk[1048576:]: wrong.append("the partition")
print(wrong)
sys.exit(1 if wrong else 0)
`;

for (const driver of drivers) {
  const test = serialFor(people[0]);

  // zip tells the size, and bzip2 takes seconds to be gone through: the mount answers before.
  test(`${driver}: far and near reads and writes of a disk that is still unpacked are right`, async (t) => {
    if (!hasSevenZip) {
      t.log("skipped: 7zz is not installed (Debian: 7zip)");
      t.pass();
      return;
    }
    const place = new Workspace(t, people[0]!, driver);
    const packed = zipped();
    const env = { XDG_CACHE_HOME: join(place.folder, "cache") };
    mkdirSync(env.XDG_CACHE_HOME);
    for (const time of ["first", "second"]) {
      const mount = ["mount", packed, place.mountpoint, "--as", "disk", "--driver", driver];
      const { code, stderr } = await place.spindle([...mount, `--writable=${place.folder}/o`], undefined, env);
      t.is(code, 0, `${time}: ${stderr}`);
      const [disk, part] = ["disk.raw", "p1.raw"].map((name) => join(place.mountpoint, name)) as [string, string];
      const read = await place.run("python3", ["-c", readers, disk, place.image, part, time]);
      t.deepEqual([read.code, read.stdout.trim()], [0, "[]"], `${time}: ${read.stderr}`);
      t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
    }
  });

  // A size isn't told anywhere but in the image of partclone, and the mount answers before it is unpacked.
  test(`${driver}: a folder of Clonezilla with compressed pieces is the disk, far and near, while it is unpacked`, async (t) => {
    const place = new Workspace(t, people[0]!, driver);
    const folder = join(place.folder, "img");
    mkdirSync(folder);
    const at = place.disk.length - place.partition.length;
    const used = Array.from({ length: place.partition.length / 4096 }, (_, block) => block % 4 === 0);
    const saved = { version: 2, blockSize: 4096, used, disk: place.partition, perChecksum: 256 } as const;
    const image = partcloneImage({ ...saved, sum: "xxh128" });
    const command = "bzip2 -c > all && split -b 300000 -a 2 all sda1.ext4-ptcl-img.bz2. && rm all";
    spawnSync("bash", ["-c", command], { cwd: folder, input: image });
    const line = `/dev/sda1 : start= ${at / 512}, size= ${place.partition.length / 512}, type=83`;
    writeFileSync(join(folder, "sda-pt.sf"), `label: dos\nunit: sectors\nsector-size: 512\n\n${line}\n`);
    writeFileSync(join(folder, "sda-mbr"), place.disk.subarray(0, 512));
    writeFileSync(join(folder, "sda-hidden-data-after-mbr"), place.disk.subarray(512, at));
    for (const [name, text] of [
      ["disk", "sda"],
      ["parts", "sda1"],
    ] as const)
      writeFileSync(join(folder, name), `${text}\n`);
    writeFileSync(place.image, Buffer.concat([place.disk.subarray(0, at), expectedDisk(saved)]));
    const env = { XDG_CACHE_HOME: join(place.folder, "cache") };
    mkdirSync(env.XDG_CACHE_HOME);
    const mount = ["mount", folder, place.mountpoint, "--as", "disk", "--driver", driver];
    const { code, stderr } = await place.spindle([...mount, `--writable=${place.folder}/o`], undefined, env);
    t.is(code, 0, stderr);
    const [disk, part] = ["disk.raw", "p1.raw"].map((name) => join(place.mountpoint, name)) as [string, string];
    const read = await place.run("python3", ["-c", readers, disk, place.image, part, "first"]);
    t.deepEqual([read.code, read.stdout.trim()], [0, "[]"], read.stderr);
    t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
  });

  test(`${driver}: a mount that is taken away while reads wait ends, and leaves nothing`, async (t) => {
    if (!hasSevenZip) {
      t.log("skipped: 7zz is not installed (Debian: 7zip)");
      t.pass();
      return;
    }
    const place = new Workspace(t, people[0]!, driver);
    const packed = zipped();
    const env = { XDG_CACHE_HOME: join(place.folder, "cache") };
    mkdirSync(env.XDG_CACHE_HOME);
    const mount = ["mount", packed, place.mountpoint, "--as", "disk", "--driver", driver];
    t.is((await place.spindle(mount, undefined, env)).code, 0);
    const reading = place.run("sh", ["-c", `tail -c 100000 ${join(place.mountpoint, "disk.raw")} | sha256sum`]);
    t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
    // Lazily: what is open is served to its end.
    t.is((await reading).code, 0);
    t.true(await comesTrue(() => !place.isMounted && place.processes().length === 0, 30_000));
  });

  test(`${driver}: a compressed disk that is damaged is not mounted, and the reason is told`, async (t) => {
    const place = new Workspace(t, people[0]!, driver);
    const env = { XDG_CACHE_HOME: join(place.folder, "cache") };
    mkdirSync(env.XDG_CACHE_HOME);
    spawnSync("bash", ["-c", `gzip -1 < disk.img | head -c 3000000 > cut.gz`], { cwd: place.folder });
    rmSync(place.image);
    const packed = join(place.folder, "cut.gz");
    t.is(readFileSync(packed).length, 3_000_000);
    const { code, stderr } = await place.spindle(
      ["mount", packed, place.mountpoint, "--as", "disk", "--driver", driver],
      undefined,
      env,
    );
    t.is(code, 5);
    t.regex(stderr, /cut\.gz: ends at byte 3000000/);
    t.false(place.isMounted);
  });
}
