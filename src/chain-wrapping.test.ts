/** Images within other files: a format of this test's own, `box`, is four letters and then an image. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { readFully, Slice } from "./bytes/byte-source.js";
import { LocalChunkCache } from "./bytes/local-cache.js";
import { type ImageSpec, openLayers, reopenLayers } from "./chain.js";
import { type ErrorCode, ImageError } from "./errors.js";
import type { ImageFormat } from "./images/image-format.js";
import { register } from "./images/shared-test-images.js";
import { diskOf, imageOf, layerOf, smallest } from "./images/spin/spin-test-tools.js";
import { checkedParts } from "./imaging/checked-parts.js";

const startsWith = (mark: string): ImageFormat["recognises"] => {
  return (source) => {
    const start = Buffer.alloc(4);
    return readFully(source, 0, start) === 4 && start.toString("latin1") === mark;
  };
};

const box: ImageFormat = {
  name: "box",
  wraps: true,
  recognises: startsWith("BOX:"),
  open: (source, around) =>
    around.imageIn(new Slice(`${source.name} > inside`, source, 4, source.size - 4), {
      name: source.name,
      format: "box",
      facts: { letters: 4 },
      chunkSize: 77,
      integrity: { pieces: 1, check: () => ({ chunks: 1, bytes: 4, damages: [] }) },
    }),
};

/** Two halves, each an image, one of which is chosen. */
const pair: ImageFormat = {
  name: "pair",
  wraps: true,
  hasDisks: true,
  recognises: startsWith("TWO:"),
  open(source, around) {
    const half = (source.size - 4) / 2;
    const start = around.options?.disk === "second" ? 4 + half : 4;
    return around.imageIn(new Slice(`${source.name} > half`, source, start, half), {
      name: source.name,
      format: "pair",
      facts: {},
      companion(name) {
        throw new ImageError("missing", `${source.name}: has no ${name} in it.`);
      },
    });
  },
};

register(box, pair);

const boxed = (image: Buffer) => Buffer.concat([Buffer.from("BOX:"), image]);

function folder(t: ExecutionContext): (name: string) => string {
  const path = mkdtempSync(join(tmpdir(), "spindle-wrapping-"));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return (name) => join(path, name);
}

function contentOf(spec: ImageSpec): Buffer {
  const opened = openLayers(spec);
  try {
    const bytes = Buffer.alloc(opened.disk.size);
    readFully(reopenLayers(opened.data, new LocalChunkCache(0)).disk, 0, bytes);
    return bytes;
  } finally {
    opened.close();
  }
}

function refused(t: ExecutionContext, code: ErrorCode, spec: ImageSpec, words: RegExp): void {
  const error = t.throws(() => openLayers(spec), { instanceOf: ImageError })!;
  t.is(error.code, code, error.message);
  t.regex(error.message, words);
}

const disks = ["abcd..e", "aXcd..e"].map((letters) => diskOf(letters, smallest, 700));

test("an image within a file is recognised anew, and its base is looked for beside the file", (t) => {
  const path = folder(t);
  const image = imageOf(disks[0]!);
  const base = layerOf(image, "base.box");
  writeFileSync(path("base.box"), boxed(image));
  writeFileSync(path("top.box"), boxed(imageOf(disks[1]!, { base: [base] })));
  t.true(contentOf({ path: path("base.box") }).equals(disks[0]!));
  t.true(contentOf({ path: path("top.box") }).equals(disks[1]!));
});

test("what is around an image is told: its format, its checksums, its share of the cache", (t) => {
  const path = folder(t);
  writeFileSync(path("twice"), boxed(boxed(imageOf(disks[0]!))));
  const opened = openLayers({ path: path("twice") });
  t.teardown(() => opened.close());
  t.is(opened.layers[0]!.format, "spin");
  t.is(opened.layers[0]!.name, `${path("twice")} > inside > inside`);
  t.deepEqual(
    opened.wrappings.map((list) => list.map(({ name, format }) => [name, format])),
    [
      [
        [path("twice"), "box"],
        [`${path("twice")} > inside`, "box"],
      ],
    ],
  );
  t.true(opened.chunkSize >= 77);
  t.deepEqual(
    checkedParts(opened).map(({ format, wraps }) => [format, wraps]),
    [
      ["box", true],
      ["box", true],
      ["spin", false],
    ],
  );
});

test("boxes in boxes without end are refused", (t) => {
  const path = folder(t);
  writeFileSync(path("deep"), Buffer.from("BOX:".repeat(100)));
  refused(t, "unsupported", { path: path("deep") }, /within each other/);
});

test("the user's choices go on to what is within, and are refused where nothing heeds them", (t) => {
  const path = folder(t);
  const halves = [Buffer.alloc(1000, 1), Buffer.alloc(1000, 2)];
  writeFileSync(path("pair"), boxed(Buffer.concat([Buffer.from("TWO:"), ...halves])));
  t.true(contentOf({ path: path("pair") }).equals(halves[0]!));
  t.true(contentOf({ path: path("pair"), disk: "second" }).equals(halves[1]!));
  writeFileSync(path("box"), boxed(halves[0]!));
  refused(t, "usage", { path: path("box"), disk: "second" }, /one disk/);
  refused(t, "usage", { path: path("box"), snapshot: "old" }, /no snapshots/);
});

test("an image in an archive finds its other files there and nowhere else", (t) => {
  const path = folder(t);
  const descriptor = Buffer.from(
    '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2 FLAT "flat" 0\n',
  );
  writeFileSync(path("flat"), Buffer.alloc(1024, 3));
  writeFileSync(path("box"), boxed(descriptor));
  t.true(contentOf({ path: path("box") }).equals(Buffer.alloc(1024, 3)));
  writeFileSync(path("pair"), Buffer.concat([Buffer.from("TWO:"), descriptor, Buffer.alloc(descriptor.length)]));
  refused(t, "missing", { path: path("pair") }, /has no flat in it/);
});
