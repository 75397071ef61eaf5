/** Overlays of images: found again, refused for another image, opened by one at a time, damaged. */
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import { readFully } from "./bytes/byte-source.js";
import { openLayers } from "./chain.js";
import { type ErrorCode, ImageError } from "./errors.js";
import { needsQemu, qemuImg, qemuIo } from "./images/qemu-test-tools.js";
import { diskOf, imageOf, layerOf, smallest } from "./images/spin/spin-test-tools.js";
import { type OpenedWritable, openWritable } from "./open.js";

const disk = diskOf("abcd..e", smallest, 700);
const written = Buffer.from("written beside the image");
const at = 30_000;
const expected = Buffer.from(disk);
expected.set(written, at);

function folder(t: ExecutionContext): (name: string) => string {
  const made = mkdtempSync(join(tmpdir(), "spindle-writable-"));
  t.teardown(() => rmSync(made, { recursive: true, force: true }));
  return (name) => join(made, name);
}

function using<Result>(opened: OpenedWritable, act: (opened: OpenedWritable) => Result): Result {
  try {
    return act(opened);
  } finally {
    opened.close();
  }
}

const open = (image: string, overlay?: string, snapshot?: string) =>
  openWritable({ path: image, snapshot }, overlay, 1);

function writeSome(image: string, overlay: string): void {
  using(open(image, overlay), (opened) => {
    opened.overlay.disk.write(at, written);
    opened.overlay.disk.flush();
  });
}

function contents(source: { size: number; read(position: number, target: Uint8Array): number }): Buffer {
  const bytes = Buffer.alloc(source.size, 0xee);
  readFully({ name: "", ...source, read: source.read.bind(source) }, 0, bytes);
  return bytes;
}

function refused(t: ExecutionContext, code: ErrorCode, act: () => unknown, ...words: (string | RegExp)[]): void {
  const error = t.throws(act, { instanceOf: ImageError });
  t.is(error?.code, code, error?.message);
  for (const word of words)
    t.true(typeof word === "string" ? error?.message.includes(word) : word.test(error!.message), error?.message);
}

test("what was written is found again with the overlay, by whoever opens it as an image too, and the image is as it was", (t) => {
  const path = folder(t);
  for (const [name, bytes] of [
    ["base.spin", imageOf(disk)],
    ["raw.img", disk],
  ] as const) {
    writeFileSync(path(name), bytes);
    const overlay = path(`${name}.overlay`);
    writeSome(path(name), overlay);
    t.is(statSync(overlay).mode & 0o777, 0o600);
    using(open(path(name), overlay), (opened) => {
      t.true(opened.overlay.found);
      t.deepEqual(contents(opened.disk), expected);
      t.is(opened.overlay.disk.written, 4096);
    });
    const chain = openLayers({ path: overlay });
    t.deepEqual(contents(chain.disk), expected);
    t.deepEqual(
      chain.layers.map(({ format }) => format),
      ["overlay", name === "raw.img" ? "raw" : "spin"],
    );
    chain.close();
    t.deepEqual(readFileSync(path(name)), bytes);
  }
  t.deepEqual(readdirSync(dirname(path("x"))).sort(), ["base.spin", "base.spin.overlay", "raw.img", "raw.img.overlay"]);
});

test("a temporary overlay has no name, and nothing of it is left", (t) => {
  const path = folder(t);
  writeFileSync(path("raw.img"), disk);
  const before = process.env.TMPDIR;
  process.env.TMPDIR = dirname(path("x"));
  t.teardown(() => {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  });
  using(open(path("raw.img")), (opened) => {
    opened.overlay.disk.write(at, written);
    t.deepEqual(contents(opened.disk), expected);
    t.deepEqual(readdirSync(process.env.TMPDIR!), ["raw.img"]);
  });
});

test("an overlay and its image may move together, and the image alone may be renamed when it is named", (t) => {
  const path = folder(t);
  mkdirSync(path("a"));
  writeFileSync(path("a/base.spin"), imageOf(disk));
  writeSome(path("a/base.spin"), path("a/o"));
  renameSync(path("a"), path("b"));
  const moved = openLayers({ path: path("b/o") });
  t.deepEqual(contents(moved.disk), expected);
  moved.close();
  renameSync(path("b/base.spin"), path("b/other.spin"));
  using(open(path("b/other.spin"), path("b/o")), (opened) => t.deepEqual(contents(opened.disk), expected));
  refused(
    t,
    "missing",
    () => openLayers({ path: path("b/o") }),
    "base.spin",
    "--parent",
    "other.spin has the recorded content",
  );
});

test("another image is refused: of another size, content, id or format, and a raw one that was changed", (t) => {
  const path = folder(t);
  const id = layerOf(imageOf(disk)).trailer.id;
  writeFileSync(path("base.spin"), imageOf(disk, { id }));
  writeSome(path("base.spin"), path("o"));
  const over = (name: string, bytes: Buffer) => {
    writeFileSync(path(name), bytes);
    return () => open(path(name), path("o"));
  };
  const changed = Buffer.from(disk);
  changed[0] = 1;
  refused(
    t,
    "mismatch",
    over("changed.spin", imageOf(changed, { id })),
    path("o"),
    path("changed.spin"),
    "has the recorded id but other content",
  );
  refused(t, "mismatch", over("other.spin", imageOf(changed)), "its id is", `recorded is ${id.toString("hex")}`);
  refused(
    t,
    "mismatch",
    over("short.spin", imageOf(disk.subarray(0, smallest))),
    `has ${smallest} bytes, recorded are ${disk.length}`,
  );
  refused(t, "mismatch", over("raw.img", disk), "it is raw, recorded is spin");

  writeFileSync(path("raw.img"), disk);
  writeSome(path("raw.img"), path("p"));
  const { mtime, mtimeMs } = statSync(path("raw.img"));
  copyFileSync(path("raw.img"), path("copy.img"));
  utimesSync(path("copy.img"), mtime, new Date(Math.floor(mtimeMs) + 5000));
  refused(t, "mismatch", () => open(path("copy.img"), path("p")), "it was changed at", /touch -d @[0-9]+\.[0-9]{9} /);
  spawnSync("touch", ["-r", path("raw.img"), path("copy.img")]);
  using(open(path("copy.img"), path("p")), (opened) => t.deepEqual(contents(opened.disk), expected));
});

test("of an image of several files all are remembered, and of one with snapshots which of them", (t) => {
  if (!needsQemu(t)) return;
  const path = folder(t);
  writeFileSync(path("base.img"), diskOf("abcd"));
  qemuImg("create", "-q", "-f", "qcow2", "-b", path("base.img"), "-F", "raw", path("top.qcow2"));
  qemuImg("snapshot", "-c", "first", path("top.qcow2"));
  writeSome(path("top.qcow2"), path("o"));
  refused(
    t,
    "mismatch",
    () => open(path("top.qcow2"), path("o"), "first"),
    "shows its snapshot first",
    "Leave --snapshot out",
  );
  using(open(path("top.qcow2"), path("of-first"), "first"), () => {});
  refused(t, "mismatch", () => open(path("top.qcow2"), path("of-first")), "Mount it with --snapshot first");
  using(open(path("top.qcow2"), path("of-first"), "1"), (opened) => t.true(opened.overlay.found));
  qemuIo(path("base.img"), "raw", ["write -P 7 0 512"]);
  refused(t, "mismatch", () => open(path("top.qcow2"), path("o")), path("o"), "were changed since");
});

test("an overlay is open to one alone, to write or to read", (t) => {
  const path = folder(t);
  writeFileSync(path("raw.img"), disk);
  using(open(path("raw.img"), path("o")), () => {
    refused(t, "busy", () => open(path("raw.img"), path("o")), path("o"), "another process has this overlay open");
    refused(t, "busy", () => openLayers({ path: path("o") }), path("o"), "written to by a mount");
  });
  const reading = openLayers({ path: path("o") });
  refused(t, "busy", () => open(path("raw.img"), path("o")), "mounted, or read");
  reading.close();
  using(open(path("raw.img"), path("o")), (opened) => t.true(opened.overlay.found));
});

test("what is no overlay is left alone: another file, a folder, a pipe, the image itself", (t) => {
  const path = folder(t);
  writeFileSync(path("raw.img"), disk);
  writeFileSync(path("text"), "important");
  mkdirSync(path("folder"));
  spawnSync("mkfifo", [path("pipe")]);
  symlinkSync(path("nowhere"), path("link"));
  for (const name of ["text", "raw.img"])
    refused(t, "usage", () => open(path("raw.img"), path(name)), path(name), "left alone");
  for (const name of ["folder", "pipe", "link", "missing/o"])
    t.throws(() => open(path("raw.img"), path(name)), { instanceOf: ImageError, message: new RegExp(name) });
  t.is(readFileSync(path("text"), "latin1"), "important");
  t.false(readdirSync(dirname(path("x"))).some((name) => name.includes("partial")));
});

test("a damaged overlay is refused in words: truncated, with another version, checksum, layout, text or bitmap", (t) => {
  const path = folder(t);
  writeFileSync(path("raw.img"), disk);
  writeSome(path("raw.img"), path("o"));
  const good = readFileSync(path("o"));
  const length = good.readUInt32LE(40);
  const sealed = (bytes: Buffer) => {
    const end = 48 + Math.min(bytes.readUInt32LE(40), 1000);
    bytes.writeUInt32LE(crc32(bytes.subarray(48, end), crc32(bytes.subarray(0, 44))), 44);
    return bytes;
  };
  const damaged = (change: (bytes: Buffer) => void, seal = true) => {
    const bytes = Buffer.from(good);
    change(bytes);
    writeFileSync(path("o"), seal ? sealed(bytes) : bytes);
    return () => open(path("raw.img"), path("o")).close();
  };
  t.notThrows(damaged(() => {}));
  refused(
    t,
    "unsupported",
    damaged((bytes) => bytes.writeUInt32LE(2, 8)),
    "version 2",
    path("o"),
  );
  refused(
    t,
    "corrupt",
    damaged((bytes) => bytes.writeUInt8(1, 60), false),
    "checksum at byte 44",
  );
  refused(
    t,
    "corrupt",
    damaged((bytes) => bytes.writeUInt32LE(0xffffffff, 40), false),
    "byte 40",
  );
  refused(
    t,
    "corrupt",
    damaged((bytes) => bytes.writeUInt32LE(8192, 12)),
    "don't fit",
  );
  refused(
    t,
    "corrupt",
    damaged((bytes) => bytes.writeBigUInt64LE(2n ** 63n, 16)),
    "don't fit",
  );
  refused(
    t,
    "corrupt",
    damaged((bytes) => bytes.writeBigUInt64LE(0n, 16)),
    "don't fit",
  );
  refused(
    t,
    "corrupt",
    damaged((bytes) => bytes.writeBigUInt64LE(0n, 24)),
    "don't fit",
  );
  refused(
    t,
    "corrupt",
    damaged((bytes) => bytes.writeBigUInt64LE(BigInt(disk.length) + 1n, 16)),
    "and should have",
  );
  refused(
    t,
    "corrupt",
    damaged((bytes) => bytes.fill("x", 48, 48 + length)),
    "does not tell which image",
  );
  refused(
    t,
    "corrupt",
    damaged((bytes) => bytes.writeUInt8(0x80, 65536 + 4095)),
    "its bitmap tells of block 32767",
  );
  for (const size of [0, 40]) {
    writeFileSync(path("o"), good.subarray(0, size));
    refused(t, "usage", () => open(path("raw.img"), path("o")), "no overlay");
  }
  for (const size of [60, 65536, good.length - 1]) {
    writeFileSync(path("o"), good);
    truncateSync(path("o"), size);
    refused(t, "corrupt", () => open(path("raw.img"), path("o")), path("o"));
    refused(t, "corrupt", () => openLayers({ path: path("o") }), path("o"));
  }
});

test("a disk of 16 TiB takes no more memory than a small one, until it is written to", (t) => {
  const path = folder(t);
  const size = 2 ** 44 - 2 ** 31;
  writeFileSync(path("raw.img"), "");
  truncateSync(path("raw.img"), size);
  const before = process.memoryUsage().rss;
  let fits = true;
  try {
    using(open(path("raw.img"), path("o")), ({ overlay: { disk: overlay } }) => {
      overlay.write(size - 100, written);
      overlay.clear(0, size - 4096);
      overlay.flush();
      t.is(overlay.written, 4096);
    });
    using(open(path("raw.img"), path("o")), (opened) => {
      const found = Buffer.alloc(written.length);
      readFully(opened.disk, size - 100, found);
      t.deepEqual(found, written);
      t.is(opened.disk.dataBytes(0, size), 4096);
    });
  } catch (error) {
    if (!/allows no file of/.test((error as Error).message)) throw error;
    t.log("skipped: the filesystem of TMPDIR has no files so large");
    fits = false;
  }
  const taken = process.memoryUsage().rss - before;
  t.true(!fits || taken < 100 * 2 ** 20, `${taken} bytes of memory were taken`);
});
