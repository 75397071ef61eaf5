import { spawnSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { Readable } from "node:stream";
import test from "ava";
import { openLayers } from "../chain.js";
import { ImageError } from "../errors.js";
import { contentRootOfBytes, readSecondly } from "../images/spin/second-test-reader.js";
import { zstdMissing, zstdUnpacks } from "../images/spin/spin-test-tools.js";
import {
  beside,
  contentOf,
  create,
  ended,
  loopDevice,
  noise,
  root,
  spindle,
  tool,
  until,
  verify,
  workspace,
  write,
} from "./imaging-test-tools.js";

const KiB = 1024;
const MiB = 1024 * KiB;

/** 9 MiB and some bytes, with zeros in the middle: more than two jobs. */
const disk = Buffer.concat([noise(5 * MiB + 300), Buffer.alloc(2 * MiB), noise(2 * MiB, 2), Buffer.from("end")]);

for (const threads of [1, 8])
  for (const stream of [false, true])
    test(`an image made of a ${stream ? "stream" : "file"} by ${threads} threads is the disk`, async (t) => {
      const path = workspace(t);
      write(path("disk"), disk);
      const parts = Readable.from([disk.subarray(0, 100), disk.subarray(100, 5 * MiB), disk.subarray(5 * MiB)]);
      const made = await create(path("disk"), path("image"), { threads, ...(stream ? { stream: parts } : {}) });
      const file = readFileSync(path("image"));
      const view = readSecondly(file);
      t.deepEqual(view.contentRoot, contentRootOfBytes(disk, 64 * KiB));
      t.true(made.contentRoot.equals(view.contentRoot));
      t.is(made.size, disk.length);
      t.is(made.fileSize, file.length);
      t.is(made.storedChunks, view.chunks.filter(({ kind }) => kind === "stored").length);
      t.true((await contentOf(path("image"))).equals(disk));
      if (zstdMissing) t.log(`zstd -d is not compared: ${zstdMissing}`);
      else t.true(zstdUnpacks(file).equals(disk));
      t.deepEqual(view.metadata.source, stream ? { path: "-", kind: "stream" } : { path: path("disk"), kind: "file" });
      t.deepEqual(beside(path("image")), ["disk", "image"]);
    });

test("the number of threads doesn't change the file's frames", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  await create(path("disk"), path("one"), { threads: 1 });
  await create(path("disk"), path("eight"), { threads: 8 });
  const [one, eight] = ["one", "eight"].map((name) => readSecondly(readFileSync(path(name))));
  t.deepEqual(one!.chunks, eight!.chunks);
  const frames = (name: string) => readFileSync(path(name)).subarray(56, readFileSync(path(name)).indexOf("SPLF") - 8);
  t.true(frames("one").equals(frames("eight")));
});

for (const length of [1, 16 * KiB, 16 * KiB + 1, 4 * MiB, 4 * MiB + 1])
  test(`a stream of ${length} bytes becomes a disk of as many`, async (t) => {
    const path = workspace(t);
    const bytes = noise(length).fill(7, 0, Math.min(length, 1));
    await create("-", path("image"), { stream: Readable.from(length ? [bytes] : []), chunkSize: 16 * KiB });
    t.is(readSecondly(readFileSync(path("image"))).size, length);
    t.true((await contentOf(path("image"))).equals(bytes));
    t.true((await verify(path("image"))).contentRoot);
  });

test("a differential of a stream, and one of a file, hold what differs", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  const changed = Buffer.concat([disk, noise(100 * KiB, 3)]);
  changed.fill(0, 64 * KiB, 192 * KiB);
  changed[6 * MiB] = 1;
  write(path("changed"), changed);
  await create(path("disk"), path("base.spin"));
  mkdirSync(path("sub"));
  await create(path("changed"), path("sub/file.spin"), { base: path("base.spin") });
  await create("-", path("stream.spin"), { base: path("base.spin"), stream: Readable.from([changed]) });
  const [file, stream] = ["sub/file.spin", "stream.spin"].map((name) => readSecondly(readFileSync(path(name))));
  t.deepEqual(file!.metadata.base, { path: "../base.spin" });
  t.deepEqual(
    file!.chunks.map(({ kind }) => kind),
    stream!.chunks.map(({ kind }) => kind),
  );
  // Chunks 1 and 2 are zero, 96 holds one byte, 144 to 146 are the old end and the new.
  const kinds = file!.chunks.map(({ kind }, i) => (kind === "absent" ? "" : `${i}:${kind}`)).filter(Boolean);
  t.deepEqual(kinds, ["1:zero", "2:zero", "96:stored", "144:stored", "145:stored"]);
  t.true((await contentOf(path("sub/file.spin"))).equals(changed));
  t.deepEqual(file!.contentRoot, contentRootOfBytes(changed, 64 * KiB));
  t.true((await verify(path("stream.spin"))).contentRoot);
});

test("a base whose own base was moved is given with parent, and so is a source", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  write(path("changed"), Buffer.concat([disk, noise(KiB, 3)]));
  await create(path("disk"), path("base.spin"));
  await create(path("changed"), path("top.spin"), { base: path("base.spin") });
  mkdirSync(path("moved"));
  renameSync(path("base.spin"), path("moved/other.spin"));
  await t.throwsAsync(create(path("disk"), path("new.spin"), { base: path("top.spin") }), {
    message: /base\.spin .*was not found at .*pass --parent PATH/,
  });
  const parent = path("moved/other.spin");
  const made = await create(path("changed"), path("new.spin"), { base: path("top.spin"), parent });
  t.is(made.storedChunks, 0);
  await create(path("top.spin"), path("full.spin"), { parent });
  t.true((await contentOf(path("full.spin"))).equals(readFileSync(path("changed"))));
  await t.throwsAsync(create(path("disk"), path("none.spin"), { parent }), {
    message: /--parent .*: every parent was found without it; leave it out/,
  });
});

test("a sparse source of 8 TiB is imaged by its data: holes are not read", async (t) => {
  const path = workspace(t);
  const TiB = 2 ** 40;
  const fd = openSync(path("disk"), "w");
  ftruncateSync(fd, 8 * TiB);
  for (const at of [0, 3 * TiB + 5 * MiB, 8 * TiB - 1]) writeSync(fd, Buffer.from("x"), 0, 1, at);
  closeSync(fd);
  write(path("nothing"), Buffer.alloc(0));
  await create(path("nothing"), path("base.spin"), { chunkSize: 4 * MiB });
  // A differential has no zero frames, which would take 32 MiB a TiB.
  const made = await create(path("disk"), path("image.spin"), { base: path("base.spin") });
  t.is(made.size, 8 * TiB);
  t.is(made.storedChunks, 3);
  t.true(made.fileSize < 200 * KiB, `${made.fileSize}`);
  const opened = openLayers({ path: path("image.spin") });
  const target = Buffer.alloc(2);
  t.is(opened.disk.read(3 * TiB + 5 * MiB, target), 2);
  t.deepEqual([...target], ["x".charCodeAt(0), 0]);
  t.is(opened.disk.dataBytes(0, 8 * TiB), 3 * 4 * MiB);
  opened.close();
});

test("a source that shrinks while it is read is told, and no image is left", async (t) => {
  for (const to of [MiB, 13 * MiB]) {
    const path = workspace(t);
    write(path("disk"), noise(48 * MiB));
    const making = create(path("disk"), path("image"), {
      threads: 1,
      progress: () => truncateSync(path("disk"), to),
    });
    const error = await t.throwsAsync(making, { instanceOf: ImageError });
    t.is(error.code, "system");
    t.regex(error.message, /disk: .*shrank while it was read/);
    t.deepEqual(beside(path("image")), ["disk"]);
  }
});

test("a source whose end is cut away after it was read is told all the same", async (t) => {
  const path = workspace(t);
  write(path("disk"), noise(6 * MiB));
  const making = create(path("disk"), path("image"), {
    threads: 1,
    progress: (done) => done === 6 * MiB && truncateSync(path("disk"), 5 * MiB),
  });
  await t.throwsAsync(making, { message: /was 6291456 bytes long at the start and is 5242880 now/ });
});

test("a read error of the source is told with its place, and no image is left", async (t) => {
  const path = workspace(t);
  write(path("backing"), noise(16 * MiB));
  const device = loopDevice(t, path("backing"), "--read-only");
  if (!device) return;
  // What lies beyond the backing file's end can't be read from the loop device, which keeps its size.
  truncateSync(path("backing"), 8 * MiB);
  spawnSync("blockdev", ["--flushbufs", device]);
  const error = await t.throwsAsync(create(device, path("image")), { instanceOf: ImageError });
  t.is(error.code, "system");
  t.true(error.message.startsWith(`${device}: reading at byte `), error.message);
  t.regex(error.message, /input\/output error \(EIO\)/);
  t.deepEqual(beside(path("image")), ["backing"]);
});

test("a block device is imaged whole, and its kind and sectors are recorded", async (t) => {
  const path = workspace(t);
  write(path("backing"), disk.subarray(0, 6 * MiB));
  const device = loopDevice(t, path("backing"), "--read-only", "--sector-size", "4096");
  if (!device) return;
  await create(device, path("image"));
  t.true((await contentOf(path("image"))).equals(disk.subarray(0, 6 * MiB)));
  const { metadata } = readSecondly(readFileSync(path("image")));
  t.like(metadata, { source: { path: device, kind: "block device" }, logicalSectorSize: 4096 });
});

test("a full disk is told; the half-made image goes and the old one stays", async (t) => {
  if (root) return void t.pass(t.log(`skipped: ${root}`) as undefined);
  const path = workspace(t);
  mkdirSync(path("small"));
  if (tool("mount", "-t", "tmpfs", "-o", "size=2m", "none", path("small")) === undefined)
    return void t.pass(t.log("skipped: no tmpfs can be mounted here") as undefined);
  try {
    write(path("disk"), noise(12 * MiB));
    write(path("small/image"), Buffer.from("the old one"));
    const error = await t.throwsAsync(create(path("disk"), path("small/image"), { force: true }), {
      instanceOf: ImageError,
    });
    t.is(error.code, "system");
    t.true(error.message.startsWith(`writing ${path("small/image")}: no space is left`), error.message);
    t.deepEqual(beside(path("small/image")), ["image"]);
    t.is(readFileSync(path("small/image"), "utf8"), "the old one");
  } finally {
    tool("umount", path("small"));
  }
});

test("an existing image is replaced with force only", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  write(path("image"), Buffer.from("old"));
  const error = await t.throwsAsync(create(path("disk"), path("image")), { instanceOf: ImageError });
  t.is(error.code, "usage");
  t.regex(error.message, /image: exists already.*--force/);
  t.is(readFileSync(path("image"), "utf8"), "old");
  await create(path("disk"), path("image"), { force: true });
  t.true((await contentOf(path("image"))).equals(disk));
});

test("an image that came while this one was made isn't replaced either", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  const making = create(path("disk"), path("image"), {
    progress: () => write(path("image"), Buffer.from("another's")),
  });
  await t.throwsAsync(making, { message: /exists already/ });
  t.is(readFileSync(path("image"), "utf8"), "another's");
  t.deepEqual(beside(path("image")), ["disk", "image"]);
});

test("an image in place of its source or of its base is refused, even with force and by another name", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  linkSync(path("disk"), path("hard"));
  symlinkSync("disk", path("soft"));
  for (const name of ["disk", "hard", "soft"])
    await t.throwsAsync(create(path("disk"), path(name), { force: true }), { message: /is the source itself/ });
  await create(path("disk"), path("a.spin"));
  await create(path("disk"), path("b.spin"), { base: path("a.spin") });
  for (const name of ["a.spin", "b.spin"])
    for (const stream of [undefined, Readable.from([disk])])
      await t.throwsAsync(create(path("disk"), path(name), { force: true, base: path("b.spin"), stream }), {
        message: /is the base/,
      });
  t.true(readFileSync(path("disk")).equals(disk));
  t.true((await contentOf(path("b.spin"))).equals(disk));
});

test("with force the file behind a link is replaced, and the link stays", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  mkdirSync(path("elsewhere"));
  write(path("elsewhere/real"), Buffer.from("old"));
  symlinkSync("elsewhere/real", path("image"));
  await create(path("disk"), path("image"), { force: true });
  t.is(statSync(path("elsewhere/real")).size, statSync(path("image")).size);
  t.true((await contentOf(path("elsewhere/real"))).equals(disk));
  t.deepEqual(beside(path("elsewhere/real")), ["real"]);
});

test("an image in place of a pipe, a device or a folder is refused at once", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  t.is(spawnSync("mkfifo", [path("fifo")]).status, 0);
  mkdirSync(path("folder"));
  for (const image of [path("fifo"), "/dev/null", path("folder")])
    await t.throwsAsync(create(path("disk"), image, { force: true }), {
      message: /is not a file and can't be replaced/,
    });
});

test("an image in a missing folder, of a missing source, over a base that is none: told in words", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  await t.throwsAsync(create(path("disk"), path("no/image")), {
    message: /creating .*no\/image: no such file or folder/,
  });
  await t.throwsAsync(create(path("none"), path("image")), { message: /opening .*none: no such file/ });
  await t.throwsAsync(create(path("disk"), path("image"), { base: path("disk") }), {
    message: /disk: can't be a base, since it is not a \.spin image \(raw\)/,
  });
  await create(path("disk"), path("base.spin"), { chunkSize: 16 * KiB });
  await t.throwsAsync(create(path("disk"), path("image"), { base: path("base.spin"), chunkSize: 64 * KiB }), {
    message: /has chunks of 16384 bytes, and a differential has its base's/,
  });
  for (const chunkSize of [0, 1000, 8 * KiB, 8 * MiB, 48 * KiB])
    await t.throwsAsync(create(path("disk"), path("image"), { chunkSize }), { message: /must be a power of two/ });
  t.deepEqual(beside(path("disk")), ["base.spin", "disk"]);
});

test("an image made of an image holds the same disk", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  await create(path("disk"), path("a.spin"));
  await create(path("a.spin"), path("b.spin"), { chunkSize: 4 * MiB });
  t.true((await contentOf(path("b.spin"))).equals(disk));
});

test("a stream that ends before its first byte makes no image, since what feeds it has failed", async (t) => {
  const path = workspace(t);
  await t.throwsAsync(create("-", path("image"), { stream: Readable.from([]) }), {
    instanceOf: ImageError,
    message: /ended before its first byte/,
  });
  t.deepEqual(beside(path("image")), []);
});

test("a base that is named by a link is recorded by its own name", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  await create(path("disk"), path("monday.spin"));
  symlinkSync("monday.spin", path("latest.spin"));
  await create(path("disk"), path("tuesday.spin"), { base: path("latest.spin") });
  rmSync(path("latest.spin"));
  symlinkSync("tuesday.spin", path("latest.spin"));
  t.true((await contentOf(path("tuesday.spin"))).equals(disk));
});

test("a failing stream is told, and no image is left", async (t) => {
  const path = workspace(t);
  const stream = Readable.from(
    (function* () {
      yield noise(5 * MiB);
      throw Object.assign(new Error("gone"), { code: "EIO" });
    })(),
  );
  await t.throwsAsync(create("-", path("image"), { stream }), {
    message: /reading the stream after byte 5242880: .*EIO/,
  });
  t.deepEqual(beside(path("image")), []);
});

for (const signal of ["SIGKILL", "SIGINT", "SIGTERM"] as const)
  test(`${signal} in the middle leaves no image, and the old one as it was`, async (t) => {
    const path = workspace(t);
    write(path("image"), Buffer.from("old"));
    const child = spindle("create", "-", path("image"), "--force");
    const end = ended(child);
    child.stdin.write(noise(9 * MiB));
    await until(() => beside(path("image")).some((name) => name.endsWith(".partial")) || child.exitCode !== null);
    child.kill(signal);
    const { code, signal: by, stderr } = await end;
    t.true(
      signal === "SIGKILL" ? by === signal : code === (signal === "SIGINT" ? 130 : 143),
      `${code} ${by} ${stderr}`,
    );
    t.is(readFileSync(path("image"), "utf8"), "old");
    const left = beside(path("image")).filter((name) => name !== "image");
    if (signal === "SIGKILL") t.true(left.every((name) => /^\.image\.[0-9a-f]{8}\.partial$/.test(name)));
    else t.deepEqual(left, []);
    for (const name of left) t.throws(() => readSecondly(readFileSync(path(name))));
    write(path("disk"), disk);
    await create(path("disk"), path("image"), { force: true });
    t.deepEqual(beside(path("image")).sort(), ["disk", "image"]);
  });

test("the command makes an image of standard input and tells of it", async (t) => {
  const path = workspace(t);
  const child = spindle("create", "-", path("image"), "--json", "--label", "a disk");
  const end = ended(child);
  child.stdin.end(disk);
  const { code, stdout, stderr } = await end;
  t.is(code, 0, stderr);
  const told = JSON.parse(stdout) as Record<string, unknown>;
  t.like(told, { kind: "full", size: disk.length, fileSize: statSync(path("image")).size });
  t.is(told.contentRoot, readSecondly(readFileSync(path("image"))).contentRoot.toString("hex"));
  t.true((await contentOf(path("image"))).equals(disk));
});
