import { createHash } from "node:crypto";
import { copyFileSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { readFully } from "../../bytes/byte-source.js";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import {
  hasQemu,
  mapsLike,
  noQemu,
  openedImage,
  qemuImg,
  qemuIo,
  readsLike,
  register,
  sha256OfDisk,
  shuffledWrites,
  surroundings,
  survives,
  temporaryFolder,
} from "../shared-test-images.js";
import { vhd } from "./index.js";
import { blockSize, makeVhd as make } from "./vhd-test-tools.js";

register(vhd);

for (const [subformat, ...options] of [
  ["dynamic"],
  ["fixed"],
  ["dynamic", "force_size=on"],
  ["fixed", "force_size=on"],
])
  test(`a ${subformat} disk that QEMU makes ${options.join()} is read as QEMU reads it`, (t) => {
    if (!hasQemu) {
      t.log(noQemu);
      t.pass();
      return;
    }
    const folder = temporaryFolder(t);
    const path = join(folder, "disk.vhd");
    qemuImg("create", "-q", "-f", "vpc", "-o", [`subformat=${subformat}`, ...options].join(), path, "11000320");
    const size = (JSON.parse(qemuImg("info", "-f", "vpc", "--output=json", path)) as { "virtual-size": number })[
      "virtual-size"
    ];
    qemuIo("vpc", path, ...shuffledWrites(size));
    qemuImg("convert", "-f", "vpc", "-O", "raw", path, join(folder, "raw"));
    const opened = openedImage(t, path);
    t.is(opened.layers[0]!.format, "vhd");
    readsLike(t, opened.disk, readFileSync(join(folder, "raw")), 2 << 20);
    if (subformat === "dynamic") mapsLike(t, opened, path, "-f", "vpc");
  });

const contentOf = (bytes: Buffer): Buffer => {
  const layer = vhd.open(new MemorySource("/images/test.vhd", bytes), surroundings());
  const content = Buffer.alloc(layer.size);
  for (let position = 0; position < layer.size; ) {
    const run = layer.locate(position);
    const part = content.subarray(position, Math.min(position + run.length, layer.size));
    if (run.kind === "stored") readFully(run.source, run.at, part);
    position += part.length;
  }
  return content;
};
const plain = (blocks: string) =>
  Buffer.concat([...blocks].map((letter) => Buffer.alloc(blockSize, letter === "." ? 0 : letter)));

test("blocks out of order, holes and a last block in part are read", (t) => {
  for (const reversed of [false, true])
    t.true(
      contentOf(make({ blocks: "ab..c.d", reversed, size: 7 * blockSize - 512 })).equals(
        plain("ab..c.d").subarray(0, -512),
      ),
    );
});

test("the footer of old Virtual PC is one byte shorter", (t) => {
  const fixed = make({ blocks: "abc", type: 2, oldFooter: true });
  t.is(fixed.length, 3 * blockSize + 511);
  t.true(vhd.recognises(new MemorySource("old", fixed)));
  t.true(contentOf(fixed).equals(plain("abc")));
  t.true(contentOf(make({ blocks: "a.c", oldFooter: true })).equals(plain("a.c")));
});

test("a fixed disk that holds a VHD itself is a fixed disk", (t) => {
  const inner = make({ blocks: "abc" });
  const padded = Buffer.concat([inner, Buffer.alloc(blockSize - (inner.length % blockSize))]);
  const outer = make({ blocks: ".".repeat(padded.length / blockSize), type: 2 });
  padded.copy(outer);
  t.true(contentOf(outer).equals(padded));
});

test("the copy at the start serves where the footer is cut off or damaged, and is complained of where it is damaged", (t) => {
  const whole = make({ blocks: "ab.c" });
  t.true(contentOf(whole.subarray(0, -512)).equals(plain("ab.c")));
  const damaged = Buffer.from(whole);
  damaged[damaged.length - 512 + 50]! ^= 1;
  t.true(contentOf(damaged).equals(plain("ab.c")));
  const layer = vhd.open(new MemorySource("x.vhd", damaged), surroundings());
  t.regex(layer.integrity!.check(0).damages[0]!.message, /x\.vhd: the footer at byte \d+ fails its checksum/);
  t.deepEqual(vhd.open(new MemorySource("x.vhd", whole), surroundings()).integrity!.check(0).damages, []);
  t.false(vhd.recognises(new MemorySource("x", whole.subarray(1, -2))));
});

test("Virtual PC means the geometry, others the current size, and so does the largest geometry", (t) => {
  const sizeOf = (creator: string, geometry: [number, number, number]) =>
    vhd.open(new MemorySource("x", make({ blocks: "abcd", creator, geometry })), surroundings()).size;
  t.is(sizeOf("vpc ", [1, 4, 7]), 28 * 512);
  t.is(sizeOf("qemu", [1, 4, 7]), 28 * 512);
  for (const creator of ["win ", "qem2", "d2v ", "tap\0", "CTXS", "vbox"]) t.is(sizeOf(creator, [1, 4, 7]), 32 * 512);
  t.is(sizeOf("vpc ", [65535, 16, 255]), 32 * 512);
});

const wide = (text: string) => Buffer.from(text, "utf16le");
const ids = { base: "base-base-base-1", middle: "middle-middle-22" };

test("a chain of three with other sizes is read sector by sector through its layers", (t) => {
  const folder = temporaryFolder(t);
  const path = (name: string) => join(folder, name);
  writeFileSync(path("base.vhd"), make({ blocks: "abcdef", id: ids.base }));
  writeFileSync(
    path("middle.vhd"),
    make({ blocks: ".3..", id: ids.middle, parent: { id: ids.base, name: "C:\\a\\base.vhd" } }),
  );
  const locators = { W2ku: wide("C:\\VMs\\gone.vhd"), W2ru: wide(".\\middle.vhd") };
  writeFileSync(
    path("top.vhd"),
    make({ blocks: "x..5...", reversed: true, parent: { id: ids.middle, name: "other", locators } }),
  );
  const { disk, layers } = openedImage(t, path("top.vhd"));
  t.is(layers.length, 3);
  const expected = Buffer.concat([plain("x"), Buffer.alloc(1536, "z"), plain("b").subarray(1536), plain("cd...")]);
  expected.fill("z", 3 * blockSize, 3 * blockSize + 2560);
  readsLike(t, disk, expected, blockSize);
});

test("the parent is found by each kind of locator", (t) => {
  for (const locators of [
    { W2ru: wide(".\\sub\\..\\base of all.vhd") },
    { W2ku: wide("D:\\x\\base of all.vhd") },
    { MacX: Buffer.from("file://localhost/nowhere/base%20of%20all.vhd") },
    { MacX: Buffer.from("file://./base of all.vhd") },
    { Wi2r: Buffer.from(".\\base of all.vhd") },
  ] as Record<string, Buffer>[]) {
    const folder = temporaryFolder(t);
    writeFileSync(join(folder, "base of all.vhd"), make({ blocks: "ab", id: ids.base }));
    writeFileSync(join(folder, "top.vhd"), make({ blocks: "..", parent: { id: ids.base, name: "nothing", locators } }));
    const { disk } = openedImage(t, join(folder, "top.vhd"));
    t.is(sha256OfDisk(disk), createHash("sha256").update(plain("ab")).digest("hex"));
  }
});

test("a parent that is missing, renamed, another or no VHD is told in words", (t) => {
  const folder = temporaryFolder(t);
  const [base, top] = ["base.vhd", "top.vhd"].map((name) => join(folder, name));
  writeFileSync(base!, make({ blocks: "ab", id: ids.base }));
  writeFileSync(top!, make({ blocks: "..", parent: { id: ids.base, name: "base.vhd" } }));
  openedImage(t, top!);
  const refused = (...words: RegExp[]) => {
    const error = t.throws(() => openedImage(t, top!), { instanceOf: ImageError });
    for (const word of [...words, /top\.vhd/, /base\.vhd/, /--parent/]) t.regex(error.message, word);
  };
  renameSync(base!, join(folder, "moved.vhd"));
  refused(/not found/, /moved\.vhd/);
  copyFileSync(top!, base!);
  refused(/is not the parent it was made from/);
  writeFileSync(base!, plain("ab"));
  refused(/not a VHD \(raw\)/);
  rmSync(join(folder, "moved.vhd"));
  rmSync(base!);
  refused(/not found/, /Put it there/);
});

test("a parent's time that isn't the recorded one is told, and no reason to refuse it", (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, "base.vhd"), make({ blocks: "ab", id: ids.base }));
  // The base tells 2000-01-01, the second 0; 0 in the child is no time.
  for (const [time, notes] of [
    [0, 0],
    [86400, 1],
  ] as const) {
    writeFileSync(join(folder, "top.vhd"), make({ blocks: "..", parent: { id: ids.base, time, name: "base.vhd" } }));
    const { layers, disk } = openedImage(t, join(folder, "top.vhd"));
    t.is(sha256OfDisk(disk), createHash("sha256").update(plain("ab")).digest("hex"));
    t.is(layers[0]!.integrity!.notes!.length, notes);
    if (notes > 0)
      t.regex(layers[0]!.integrity!.notes![0]!, /top\.vhd: records 2000-01-02T.* where .*base\.vhd tells 2000-01-01T/);
  }
});

test("truncated files are refused or end in words", (t) => {
  const whole = make({ blocks: "ab..c" });
  for (const length of [0, 7, 8, 511, 512, 600, 1535, 1536, 1540, 2047, 2048, 2560, 3000, 6000, whole.length - 600]) {
    const cut = whole.subarray(0, length);
    const error = t.throws(() => contentOf(cut), { instanceOf: ImageError }, `${length} bytes`);
    t.regex(error.message, /^\/images\/test\.vhd: /);
  }
  const fixed = make({ blocks: "abc", type: 2 });
  t.throws(() => contentOf(fixed.subarray(512)), { message: /should hold a fixed disk of 12288 bytes/ });
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, "x.vhd"), whole);
  truncateSync(join(folder, "x.vhd"), 4000);
  t.throws(() => sha256OfDisk(openedImage(t, join(folder, "x.vhd")).disk), { message: /truncated or damaged/ });
});

test("numbers that can't be are refused at once", (t) => {
  const lies: [(bytes: Buffer) => void, RegExp][] = [
    [(bytes) => bytes.writeUInt32BE(0xffffffff, 512 + 28), /goes beyond the end/],
    [(bytes) => bytes.writeBigUInt64BE(2n ** 63n, 512 + 16), /goes beyond the end/],
    [(bytes) => bytes.writeUInt32BE(0, 512 + 32), /blocks of 0 bytes/],
    [(bytes) => bytes.writeUInt32BE(1000, 512 + 32), /blocks of 1000 bytes/],
    [(bytes) => bytes.writeUInt32BE(2, 512 + 28), /has 2 entries/],
    [(bytes) => bytes.writeUInt32BE(0x20000, 512 + 24), /version/],
    [(bytes) => bytes.writeUInt32BE(0xfffffff0, 1536), /block 0 .* truncated/],
    [(bytes) => bytes.writeBigUInt64BE(2n ** 62n, 48), /impossible disk size/],
    [(bytes) => bytes.writeBigUInt64BE(2n ** 52n, 48), /has 5 entries/],
    [(bytes) => bytes.writeUInt32BE(7, 60), /disk type 7/],
    [(bytes) => bytes.writeBigUInt64BE(2n ** 60n, 16), /the dynamic header should take/],
  ];
  for (const [lie, message] of lies) {
    const bytes = Buffer.from(make({ blocks: "ab..c" }).subarray(0, -512));
    lie(bytes);
    t.throws(() => contentOf(bytes), { instanceOf: ImageError, message });
  }
});

test("a file with any bytes changed is refused or read in peace", (t) => {
  const files = [
    make({ blocks: "ab..c" }),
    make({ blocks: "abc", type: 2 }),
    make({ blocks: "a3..", parent: { id: ids.base, name: "b", locators: { W2ru: wide(".\\b") } } }),
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...files),
      fc.array(fc.record({ at: fc.nat(), byte: fc.nat(255) }), { minLength: 1, maxLength: 6 }),
      (file, changes) => {
        const bytes = Buffer.from(file);
        for (const { at, byte } of changes) bytes[at % 3 === 0 ? at % bytes.length : at % 2100] = byte;
        survives(vhd, bytes);
      },
    ),
    { numRuns: 1500 },
  );
  t.pass();
});
