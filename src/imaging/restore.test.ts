import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import test, { type ExecutionContext } from "ava";
import { openLayers } from "../chain.js";
import { ImageError } from "../errors.js";
import { expectedDisk, partcloneImage } from "../images/partclone/writer-test-tools.js";
import { readSecondly } from "../images/spin/second-test-reader.js";
import {
  beside,
  contentOf,
  create,
  ended,
  loopDevice,
  noise,
  restore,
  root,
  spindle,
  tool,
  workspace,
  write,
} from "./imaging-test-tools.js";
import { restoreDisk } from "./restore.js";

const KiB = 1024;
const MiB = 1024 * KiB;

/** 13 MiB with data in three places; the rest is a hole. */
function sparseDisk(path: string): Buffer {
  const fd = openSync(path, "w+");
  ftruncateSync(fd, 13 * MiB + 5);
  writeSync(fd, noise(MiB), 0, MiB, 0);
  writeSync(fd, noise(300 * KiB, 2), 0, 300 * KiB, 6 * MiB + 64 * KiB);
  writeSync(fd, Buffer.from("last!"), 0, 5, 13 * MiB);
  const bytes = Buffer.alloc(13 * MiB + 5);
  readSync(fd, bytes, 0, bytes.length, 0);
  closeSync(fd);
  return bytes;
}

const allocated = (path: string) => statSync(path).blocks * 512;

test("a restored file has the bytes of the disk and takes no more room than its data", async (t) => {
  const path = workspace(t);
  const bytes = sparseDisk(path("disk"));
  await create(path("disk"), path("image"));
  const phases = new Set<string>();
  const done = await restore(path("image"), path("out"), {
    verify: true,
    threads: 2,
    progress: (phase, now, total) => phases.add(phase) && t.true(now <= total),
  });
  t.true(readFileSync(path("out")).equals(bytes));
  t.true(allocated(path("out")) <= allocated(path("disk")), `${allocated(path("out"))} of ${allocated(path("disk"))}`);
  t.like(done, { size: bytes.length, written: MiB + 300 * KiB + 5 });
  t.true(done.compared! >= done.written);
  t.deepEqual([...phases], ["writing", "reading back"]);
  t.deepEqual(beside(path("out")), ["disk", "image", "out"]);
});

test("a clone of a sparse file is as sparse and has its bytes", async (t) => {
  const path = workspace(t);
  const bytes = sparseDisk(path("disk"));
  const end = await ended(spindle("clone", path("disk"), path("out"), "--json"));
  t.is(end.code, 0, end.stderr);
  t.like(JSON.parse(end.stdout) as object, { size: bytes.length, verified: true });
  t.true(readFileSync(path("out")).equals(bytes));
  t.true(allocated(path("out")) <= allocated(path("disk")));
});

test("a clone of an image is the image's file, not its disk", async (t) => {
  const path = workspace(t);
  sparseDisk(path("disk"));
  await create(path("disk"), path("image"));
  const end = await ended(spindle("clone", path("image"), path("copy"), "--no-verify"));
  t.is(end.code, 0, end.stderr);
  t.true(readFileSync(path("copy")).equals(readFileSync(path("image"))));
});

test("the disk of a differential is restored over that of its base", async (t) => {
  const path = workspace(t);
  const bytes = sparseDisk(path("disk"));
  await create(path("disk"), path("base.spin"), { chunkSize: 16 * KiB });
  bytes.fill(0, 0, 100 * KiB);
  bytes.fill(9, 9 * MiB, 9 * MiB + 1000);
  write(path("changed"), bytes.subarray(0, 11 * MiB + 7));
  await create(path("changed"), path("top.spin"), { base: path("base.spin") });
  await restore(path("top.spin"), path("out"), { verify: true });
  t.true(readFileSync(path("out")).equals(readFileSync(path("changed"))));
});

test("chunks larger than what is written at once are restored whole", async (t) => {
  const path = workspace(t);
  const bytes = sparseDisk(path("disk"));
  await create(path("disk"), path("image"), { chunkSize: 4 * MiB });
  const done = await restore(path("image"), path("out"), { verify: true });
  t.true(readFileSync(path("out")).equals(bytes));
  t.is(done.written, MiB + 300 * KiB + 5);
});

test("an empty disk becomes an empty file", async (t) => {
  const path = workspace(t);
  write(path("disk"), Buffer.alloc(0));
  await create(path("disk"), path("image"));
  t.like(await restore(path("image"), path("out"), { verify: true }), { size: 0, written: 0, compared: 0 });
  t.is(statSync(path("out")).size, 0);
});

test("an existing file is replaced with force only, and only by a whole one", async (t) => {
  const path = workspace(t);
  const bytes = sparseDisk(path("disk"));
  await create(path("disk"), path("image"));
  write(path("out"), Buffer.from("old"));
  const error = await t.throwsAsync(restore(path("image"), path("out")), { instanceOf: ImageError });
  t.is(error.code, "usage");
  t.regex(error.message, /out: exists already.*--force/);
  t.is(readFileSync(path("out"), "utf8"), "old");
  await restore(path("image"), path("out"), { force: true });
  t.true(readFileSync(path("out")).equals(bytes));
});

test("a target that is the source, or a file that the source needs, is refused", async (t) => {
  const path = workspace(t);
  const bytes = sparseDisk(path("disk"));
  await create(path("disk"), path("base.spin"));
  await create(path("disk"), path("top.spin"), { base: path("base.spin") });
  symlinkSync("base.spin", path("link"));
  for (const target of ["top.spin", "base.spin", "link"])
    await t.throwsAsync(restore(path("top.spin"), path(target), { force: true }), { message: /is the source itself/ });
  const end = await ended(spindle("clone", path("disk"), path("disk"), "--force"));
  t.is(end.code, 2);
  t.true(readFileSync(path("disk")).equals(bytes));
});

test("a target that is a pipe, a folder or a device of bytes is refused at once", async (t) => {
  const path = workspace(t);
  sparseDisk(path("disk"));
  await create(path("disk"), path("image"));
  t.is(spawnSync("mkfifo", [path("fifo")]).status, 0);
  mkdirSync(path("folder"));
  for (const target of [path("fifo"), path("folder"), "/dev/null"])
    await t.throwsAsync(restore(path("image"), target, { force: true }), {
      message: /is a folder|neither a file nor a block device/,
    });
  await t.throwsAsync(restore(path("image"), path("no/out")), { message: /no such file or folder/ });
});

test("a changed byte in a partclone image, or a folder with one, is not copied: neither restored nor made an image of", async (t) => {
  const path = workspace(t);
  // A strip is larger than what is checked for who reads a few bytes.
  const disk = noise(8 * MiB);
  const used = Array.from({ length: 2048 }, (_, block) => block % 10 < 7);
  const spec = { version: 2, blockSize: 4096, used, disk, perChecksum: 400 } as const;
  const image = partcloneImage(spec);
  mkdirSync(path("folder"));
  for (const name of ["parts", "disk"]) writeFileSync(path(`folder/${name}`), "sda1\n");
  const put = () => {
    for (const name of ["image", "folder/sda1.ext4-ptcl-img.uncomp"]) writeFileSync(path(name), image);
  };
  const copied = async (name: string, target: string) => {
    const opened = openLayers({ path: path(name) });
    try {
      await restoreDisk(opened, { target: path(target), force: false, verify: false, threads: 2 });
    } finally {
      opened.close();
    }
  };
  put();
  for (const name of ["image", "folder"]) {
    await copied(name, `${name}.raw`);
    t.true(readFileSync(path(`${name}.raw`)).equals(expectedDisk(spec)));
    await create(path(name), path(`${name}.spin`));
    t.true((await contentOf(path(`${name}.spin`))).equals(expectedDisk(spec)));
  }
  image[image.length >> 1]! ^= 1;
  put();
  for (const name of ["image", "folder"]) {
    const damaged = {
      instanceOf: ImageError,
      code: "corrupt",
      message: /the strip of 400 blocks at byte \d+ does not/,
    };
    await t.throwsAsync(copied(name, "out"), damaged);
    await t.throwsAsync(create(path(name), path("out")), damaged);
    t.false(existsSync(path("out")));
  }
});

test("a damaged chunk is named, and neither a file nor a half of one is left", async (t) => {
  const path = workspace(t);
  sparseDisk(path("disk"));
  await create(path("disk"), path("image"));
  const file = readFileSync(path("image"));
  const chunk = readSecondly(file).chunks[97]!;
  if (chunk.kind !== "stored") return t.fail();
  file[chunk.at + 30]! ^= 1;
  write(path("image"), file);
  write(path("out"), Buffer.from("old"));
  const error = await t.throwsAsync(restore(path("image"), path("out"), { force: true }), { instanceOf: ImageError });
  t.is(error.code, "corrupt");
  t.true(error.message.startsWith(`${path("image")}: chunk 97 at byte `), error.message);
  t.is(readFileSync(path("out"), "utf8"), "old");
  t.deepEqual(beside(path("out")), ["disk", "image", "out"]);
});

test("a raw source that shrinks is told, and no file is left", async (t) => {
  const path = workspace(t);
  write(path("disk"), noise(40 * MiB));
  const opened = openLayers({ path: path("disk"), format: "raw" });
  const copying = restoreDisk(opened, {
    target: path("out"),
    force: false,
    verify: false,
    threads: 1,
    progress: () => truncateSync(path("disk"), 13 * MiB),
  });
  await t.throwsAsync(copying, { message: /shrank while it was read/ });
  opened.close();
  t.deepEqual(beside(path("out")), ["disk"]);
});

test("verification tells of a target that reads back otherwise, and leaves no file", async (t) => {
  const path = workspace(t);
  const bytes = sparseDisk(path("disk"));
  await create(path("disk"), path("image"));
  const restoring = restore(path("image"), path("out"), {
    verify: true,
    progress(phase, done, total) {
      if (phase !== "writing" || done < total) return;
      // What was written changes before it is read back: the temporary file is found by its name.
      const name = beside(path("out")).find((one) => one.endsWith(".partial"))!;
      const fd = openSync(path(name), "r+");
      writeSync(fd, Buffer.from([bytes[6 * MiB + 70000]! ^ 1]), 0, 1, 6 * MiB + 70000);
      closeSync(fd);
    },
  });
  const error = await t.throwsAsync(restoring, { instanceOf: ImageError });
  t.is(error.code, "corrupt");
  t.regex(error.message, /out: byte 6361456 reads back as \d+ where \d+ was written/);
  t.deepEqual(beside(path("out")), ["disk", "image"]);
});

/** An image of 13 MiB and 5 bytes, and a device of `size` bytes filled with 0xaa. */
async function withDevice(t: ExecutionContext, size: number, ...options: string[]) {
  const path = workspace(t);
  write(path("backing"), Buffer.alloc(size, 0xaa));
  const device = loopDevice(t, path("backing"), ...options);
  if (!device) return undefined;
  const bytes = sparseDisk(path("disk"));
  await create(path("disk"), path("image"));
  return { path, device, bytes };
}

test("a block device gets the disk, zeros where it has holes, and keeps what lies behind", async (t) => {
  const all = await withDevice(t, 16 * MiB);
  if (!all) return;
  const { path, device, bytes } = all;
  const done = await restore(path("image"), device, { verify: true });
  t.is(done.compared, bytes.length);
  spawnSync("blockdev", ["--flushbufs", device]);
  const written = readFileSync(path("backing"));
  t.true(written.subarray(0, bytes.length).equals(bytes));
  t.true(written.subarray(bytes.length).every((byte) => byte === 0xaa));
});

test("verification of a block device tells of bytes that changed in it", async (t) => {
  const all = await withDevice(t, 16 * MiB);
  if (!all) return;
  const { path, device } = all;
  const restoring = restore(path("image"), device, {
    verify: true,
    progress(phase, done, total) {
      if (phase !== "writing" || done < total) return;
      const fd = openSync(device, "r+");
      writeSync(fd, Buffer.from("?"), 0, 1, 3 * MiB); // in a hole of the disk
      closeSync(fd);
    },
  });
  await t.throwsAsync(restoring, { message: /byte 3145728 reads back as 63 where 0 was written/ });
});

test("a device that is too small is refused before a byte is written", async (t) => {
  const all = await withDevice(t, 13 * MiB);
  if (!all) return;
  const { path, device } = all;
  const error = await t.throwsAsync(restore(path("image"), device), { instanceOf: ImageError });
  t.regex(
    error.message,
    /has 13631488 bytes, and the disk needs 13631493: it is 5 bytes too small. Nothing was written/,
  );
  t.true(readFileSync(path("backing")).every((byte) => byte === 0xaa));
});

test("a mounted device is refused, naming where it is mounted", async (t) => {
  const all = await withDevice(t, 16 * MiB);
  if (!all) return;
  const { path, device } = all;
  const place = path("a mount point");
  mkdirSync(place);
  if (tool("mkfs.ext4", "-q", device) === undefined || tool("mount", device, place) === undefined)
    return void t.pass(t.log("skipped: no filesystem can be made and mounted here") as undefined);
  try {
    const error = await t.throwsAsync(restore(path("image"), device, { force: true }), { instanceOf: ImageError });
    t.is(error.code, "busy");
    t.true(error.message.includes(`is mounted on ${place}`), error.message);
  } finally {
    tool("umount", place);
  }
});

test("a disk of which a partition is mounted is refused, and so are a disk and its own partition", async (t) => {
  const all = await withDevice(t, 32 * MiB, "--partscan");
  if (!all) return;
  const { path, device } = all;
  const made = spawnSync("sfdisk", ["-q", device], { input: "label: gpt\nsize=20M\n" });
  tool("partx", "--update", device);
  const partition = `${device}p1`;
  const place = path("mounted");
  mkdirSync(place);
  if (made.status !== 0 || tool("mkfs.ext4", "-q", partition) === undefined)
    return void t.pass(t.log(`skipped: ${device} shows no partitions here`) as undefined);
  const own = await ended(spindle("clone", partition, device));
  t.is(own.code, 2);
  t.regex(own.stderr, /overlaps the source .*p1: one is a partition of the other/);
  const other = await ended(spindle("clone", device, partition));
  t.regex(other.stderr, /overlaps the source/);
  if (tool("mount", partition, place) === undefined) return t.log("not all: nothing can be mounted here");
  try {
    const error = await t.throwsAsync(restore(path("image"), device), { instanceOf: ImageError });
    t.is(error.code, "busy");
    t.regex(error.message, /p1 is mounted on .*mounted/);
  } finally {
    tool("umount", place);
  }
});

test("a device that another process holds is refused", async (t) => {
  const all = await withDevice(t, 16 * MiB);
  if (!all) return;
  const { path, device } = all;
  const { O_EXCL, O_RDONLY } = (await import("node:fs")).constants;
  const fd = openSync(device, O_RDONLY | O_EXCL);
  try {
    const error = await t.throwsAsync(restore(path("image"), device), { instanceOf: ImageError });
    t.is(error.code, "busy");
    t.regex(error.message, /is in use by the system/);
  } finally {
    closeSync(fd);
  }
});

test("a full filesystem is told, and no file is left", async (t) => {
  if (root) return void t.pass(t.log(`skipped: ${root}`) as undefined);
  const path = workspace(t);
  mkdirSync(path("small"));
  if (tool("mount", "-t", "tmpfs", "-o", "size=1m", "none", path("small")) === undefined)
    return void t.pass(t.log("skipped: no tmpfs can be mounted here") as undefined);
  try {
    sparseDisk(path("disk"));
    await create(path("disk"), path("image"));
    const error = await t.throwsAsync(restore(path("image"), path("small/out")), { instanceOf: ImageError });
    t.regex(error.message, /small\/out: writing at byte \d+: no space is left/);
    t.deepEqual(beside(path("small/out")), []);
  } finally {
    tool("umount", path("small"));
  }
});
