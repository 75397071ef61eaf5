/** Bases: found, moved, renamed, replaced, changed and missing. Messages name both files and what to do. */
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { readFully } from "./bytes/byte-source.js";
import { LocalChunkCache } from "./bytes/local-cache.js";
import { openLayers, reopenLayers } from "./chain.js";
import { type ErrorCode, ImageError } from "./errors.js";
import { readSecondly } from "./images/spin/second-test-reader.js";
import { diskOf, imageOf, layerOf, smallest } from "./images/spin/spin-test-tools.js";
import { openImage } from "./open.js";

const root = mkdtempSync(join(tmpdir(), "spindle-open-"));
test.after.always(() => rmSync(root, { recursive: true, force: true }));

const disks = ["abcd..e", "aXcd..e", "aXcYZ.e"].map((letters) => diskOf(letters, smallest, 700));
const images: Buffer[] = [];
{
  const base = layerOf(imageOf(disks[0]!), "base.spin");
  images.push(imageOf(disks[0]!, { id: base.trailer.id }));
  const middle = imageOf(disks[1]!, { base: [base] });
  images.push(middle);
  images.push(imageOf(disks[2]!, { base: [layerOf(middle, "middle.spin"), base] }));
}

/** A folder of its own with base.spin, middle.spin and top.spin. */
function chain(t: ExecutionContext): { folder: string; path: (name: string) => string } {
  const folder = mkdtempSync(join(root, "chain-"));
  const path = (name: string) => join(folder, name);
  for (const [i, name] of ["base.spin", "middle.spin", "top.spin"].entries()) writeFileSync(path(name), images[i]!);
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return { folder, path };
}

function contentOf(path: string, parent?: string): Buffer {
  const opened = openLayers({ path, parent });
  try {
    const bytes = Buffer.alloc(opened.disk.size);
    readFully(opened.disk, 0, bytes);
    return bytes;
  } finally {
    opened.close();
  }
}

function refusal(t: ExecutionContext, code: ErrorCode, path: string, ...words: (string | RegExp)[]): string {
  const error = t.throws(() => openLayers({ path }), { instanceOf: ImageError })!;
  t.is(error.code, code, error.message);
  for (const word of words)
    t.true(
      typeof word === "string" ? error.message.includes(word) : word.test(error.message),
      `${word} in: ${error.message}`,
    );
  return error.message;
}

test("a chain is opened by the paths that it records", (t) => {
  const { path } = chain(t);
  t.true(contentOf(path("top.spin")).equals(disks[2]!));
  t.true(contentOf(path("middle.spin")).equals(disks[1]!));
});

test("a base is also found beside the image when the recorded folder is gone", (t) => {
  const { path } = chain(t);
  const base = layerOf(images[0]!, "../elsewhere/base.spin");
  writeFileSync(path("other.spin"), imageOf(disks[1]!, { base: [base] }));
  t.true(contentOf(path("other.spin")).equals(disks[1]!));
});

test("a base that was replaced by another image is refused, naming both and what differs", (t) => {
  const { path } = chain(t);
  writeFileSync(path("base.spin"), imageOf(diskOf("zzz")));
  refusal(
    t,
    "mismatch",
    path("middle.spin"),
    path("middle.spin"),
    path("base.spin"),
    "is another image",
    "content root",
    "--parent",
  );
});

test("a base that was replaced by a plain file is refused", (t) => {
  const { path } = chain(t);
  writeFileSync(path("base.spin"), disks[0]!);
  refusal(
    t,
    "mismatch",
    path("middle.spin"),
    path("middle.spin"),
    path("base.spin"),
    "is not a .spin image (raw)",
    "--parent",
  );
});

test("a base made anew with the same id and other content is refused", (t) => {
  const { path } = chain(t);
  writeFileSync(path("base.spin"), imageOf(disks[2]!, { id: layerOf(images[0]!).trailer.id }));
  refusal(t, "mismatch", path("middle.spin"), "it was changed after the differential was made");
});

test("a base with the same content and another id is taken", (t) => {
  const { path } = chain(t);
  writeFileSync(path("base.spin"), imageOf(disks[0]!));
  t.true(contentOf(path("top.spin")).equals(disks[2]!));
});

test("a base that was edited in one chunk opens; reads of the chunk and verification name it", (t) => {
  const { path } = chain(t);
  const base = readFileSync(path("base.spin"));
  const chunk = readSecondly(base).chunks[2]!;
  if (chunk.kind !== "stored") return t.fail();
  base[chunk.at + 20]! ^= 1;
  writeFileSync(path("base.spin"), base);
  const opened = openLayers({ path: path("top.spin") });
  const target = Buffer.alloc(smallest);
  readFully(opened.disk, smallest, target);
  t.true(target.equals(disks[2]!.subarray(smallest, 2 * smallest)));
  const error = t.throws(() => readFully(opened.disk, 2 * smallest, target), { instanceOf: ImageError });
  t.is(error.code, "corrupt");
  t.true(error.message.startsWith(`${path("base.spin")}: chunk 2 `), error.message);
  t.regex(error.message, /disk bytes 32768 to 49151/);
  const damages = opened.layers.flatMap((layer) => [...layer.integrity!.check(0).damages]);
  t.deepEqual(
    damages.map(({ file, position }) => [file, position]),
    [[path("base.spin"), 32768]],
  );
  opened.close();
});

test("a base that was truncated is refused, naming both files", (t) => {
  const { path } = chain(t);
  truncateSync(path("base.spin"), images[0]!.length - 100);
  refusal(t, "corrupt", path("middle.spin"), path("middle.spin"), path("base.spin"), "truncated", "Copy it again");
});

test("a base that was renamed is found and suggested", (t) => {
  const { path } = chain(t);
  renameSync(path("base.spin"), path("sunday.spin"));
  refusal(
    t,
    "missing",
    path("middle.spin"),
    path("middle.spin"),
    path("base.spin"),
    `pass --parent ${path("sunday.spin")}`,
  );
  t.true(contentOf(path("middle.spin"), path("sunday.spin")).equals(disks[1]!));
});

test("a base that was renamed is suggested also where another took its name", (t) => {
  const { path } = chain(t);
  renameSync(path("base.spin"), path("sunday.spin"));
  writeFileSync(path("base.spin"), imageOf(diskOf("q")));
  refusal(t, "mismatch", path("middle.spin"), "is another image", `pass --parent ${path("sunday.spin")}`);
});

test("a missing base is named, with where it was looked for and what to do", (t) => {
  const { path } = chain(t);
  rmSync(path("base.spin"));
  refusal(t, "missing", path("middle.spin"), path("middle.spin"), path("base.spin"), "was not found", "--parent PATH");
});

test("a moved base is given with --parent, for whichever layer of the chain it is the base of", (t) => {
  const { path } = chain(t);
  const other = mkdtempSync(join(root, "moved-"));
  renameSync(path("base.spin"), join(other, "b"));
  t.true(contentOf(path("middle.spin"), join(other, "b")).equals(disks[1]!));
  // The base of the middle layer is missing: --parent helps there too.
  t.true(contentOf(path("top.spin"), join(other, "b")).equals(disks[2]!));
  renameSync(path("middle.spin"), join(other, "m"));
  renameSync(join(other, "b"), join(other, "base.spin"));
  t.true(contentOf(path("top.spin"), join(other, "m")).equals(disks[2]!));
});

test("a --parent that isn't there, fits nothing, or isn't asked for is refused", (t) => {
  const { folder, path } = chain(t);
  writeFileSync(path("else.spin"), imageOf(diskOf("q")));
  const open = (name: string, parent: string) =>
    t.throws(() => openLayers({ path: path(name), parent }), { instanceOf: ImageError });
  t.regex(open("top.spin", path("nothing")).message, /--parent .*nothing: there is no such file/);
  const unfit = open("top.spin", path("else.spin"));
  t.is(unfit.code, "mismatch");
  t.regex(unfit.message, /else\.spin: is not the base of any layer of .*top\.spin.*leave it out/);
  t.regex(open("base.spin", path("top.spin")).message, /whole image without parent/);
  rmSync(path("middle.spin"));
  const wrong = open("top.spin", path("else.spin"));
  t.regex(wrong.message, /top\.spin: .*else\.spin is not the base it was made from/);
  t.regex(open("top.spin", folder).message, /is a folder/);
});

test("the layers are the same for a worker, over the descriptors alone", (t) => {
  const { path } = chain(t);
  const other = mkdtempSync(join(root, "moved-"));
  renameSync(path("base.spin"), join(other, "b"));
  const opened = openLayers({ path: path("top.spin"), parent: join(other, "b") });
  rmSync(other, { recursive: true });
  rmSync(path("middle.spin"));
  const again = reopenLayers(structuredClone(opened.data), new LocalChunkCache(0));
  const bytes = Buffer.alloc(again.disk.size);
  readFully(again.disk, 0, bytes);
  t.true(bytes.equals(disks[2]!));
  opened.close();
});

/** A differential that records `path` as its base and takes whatever is there for the right one. */
function differentialOn(path: string, content = images[0]!): Buffer {
  return imageOf(disks[1]!, { base: [layerOf(content, path)] });
}

test("a base that is a pipe, a device, a socket's folder or a loop of links is refused and doesn't hang", (t) => {
  const { folder, path } = chain(t);
  t.is(spawnSync("mkfifo", [path("fifo")]).status, 0);
  mkdirSync(path("folder"));
  symlinkSync("loop", path("loop"));
  for (const [base, word] of [
    ["fifo", "neither a file nor a block device"],
    ["/dev/zero", "neither a file nor a block device"],
    ["/dev/tty", "neither a file nor a block device"],
    ["folder", "is a folder"],
    ["..", "is a folder"],
    ["loop", "was not found"],
    ["../../../../../../../../../../etc/passwd", "is not a .spin image (raw)"],
    ["/proc/self/mem", "is not a .spin image (raw)"],
  ] as const) {
    const file = path("hostile.spin");
    writeFileSync(file, differentialOn(base));
    // The right base under its own name would only be a hint here.
    const error = t.throws(() => openLayers({ path: file }), { instanceOf: ImageError });
    t.true(error.message.startsWith(file) && error.message.includes(word), `${base}: ${error.message}`);
  }
  t.is(dirname(path("x")), folder);
});

/** Writes `content root` into the trailer's record of the base, with the CRC made right: only a forger can make a loop. */
async function forgeBase(file: Buffer, contentRoot: Buffer): Promise<Buffer> {
  const { crc32 } = await import("node:zlib");
  const trailer = file.subarray(file.length - 240);
  contentRoot.copy(trailer, 176);
  trailer.writeUInt32LE(crc32(Buffer.concat([file.subarray(40, 56), trailer.subarray(8)])), 4);
  return file;
}

test("an image that is its own base, by any path, is a loop", async (t) => {
  const { folder, path } = chain(t);
  symlinkSync(".", path("here"));
  for (const base of ["self.spin", "here/self.spin", "./here/../here/self.spin", path("self.spin")]) {
    const file = differentialOn(base);
    writeFileSync(path("self.spin"), await forgeBase(file, layerOf(file).trailer.contentRoot));
    refusal(t, "corrupt", path("self.spin"), "a loop");
  }
  t.truthy(folder);
});

test("two images that are each other's base are a loop", async (t) => {
  const { path } = chain(t);
  const [a, b] = [differentialOn("b.spin"), differentialOn("a.spin", imageOf(diskOf("q")))];
  writeFileSync(path("a.spin"), await forgeBase(a, layerOf(b).trailer.contentRoot));
  writeFileSync(path("b.spin"), await forgeBase(b, layerOf(a).trailer.contentRoot));
  refusal(t, "corrupt", path("a.spin"), path("a.spin"), path("b.spin"), "a loop");
});

test("an image given as a folder, a missing file or an unknown format is refused in words", (t) => {
  const { folder, path } = chain(t);
  refusal(t, "usage", folder, "is a folder");
  refusal(t, "missing", path("nothing"), "no such file");
  t.throws(() => openLayers({ path: path("base.spin"), format: "zip" }), {
    message: /no image format zip; known are spin, /,
  });
  // The row for what is known and not read is no format that one could name.
  t.throws(() => openLayers({ path: path("base.spin"), format: "unread" }), {
    message: /no image format unread; known are spin, (?!.*unread)/,
  });
});

test("no descriptor stays open, whether opening succeeds or fails", async (t) => {
  const { path } = chain(t);
  const { readdirSync } = await import("node:fs");
  writeFileSync(path("wrong.spin"), differentialOn("nothing.spin", imageOf(diskOf("q"))));
  const count = () => readdirSync("/proc/self/fd").length;
  contentOf(path("top.spin"));
  const before = count();
  for (let i = 0; i < 20; i++) {
    contentOf(path("top.spin"));
    t.throws(() => openLayers({ path: path("wrong.spin") }));
    openImage({ path: path("top.spin") }).close();
  }
  t.is(count(), before);
});

test("a raw file is a disk of one layer, whatever its name, and an image can be read as one", (t) => {
  const { path } = chain(t);
  writeFileSync(path("disk.spin"), disks[0]!);
  t.true(contentOf(path("disk.spin")).equals(disks[0]!));
  copyFileSync(path("base.spin"), path("copy"));
  const opened = openLayers({ path: path("copy"), format: "raw" });
  t.is(opened.disk.size, images[0]!.length);
  t.is(opened.layers[0]!.format, "raw");
  opened.close();
});

test("the base of an image that is reached by a link is found from the image's own folder", (t) => {
  const { folder, path } = chain(t);
  mkdirSync(path("links"));
  symlinkSync("../top.spin", path("links/link.spin"));
  const opened = openLayers({ path: path("links/link.spin") });
  t.teardown(() => opened.close());
  t.deepEqual(
    opened.layers.map(({ name }) => name),
    ["top.spin", "middle.spin", "base.spin"].map((name) => join(folder, name)),
  );
});
