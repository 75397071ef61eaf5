/** Apple's sparse images and sparse bundles. No tool on Linux makes or reads them: what is expected follows libmodi's documentation. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import test from "ava";
import { readVolumes } from "../volumes/index.js";
import {
  isDisk,
  isRefused,
  numbers,
  opened,
  patched,
  readSome,
  survivesDamage,
  testFolder,
  wholeDisk,
} from "./qemu-test-tools.js";
import { openedImage, register, sharedRows, unpackShared } from "./shared-test-images.js";
import { sparsebundle } from "./sparsebundle.js";
import { sparseimage } from "./sparseimage.js";

register(sparseimage, sparsebundle);

function noise(length: number, seed: number): Buffer {
  const next = numbers(seed);
  return Buffer.from(Array.from({ length }, () => next(256)));
}

/** A sparse image of `disk`: its bands `order` in the order of the file, a new node where one is full. */
function makeSparse(disk: Buffer, sectors: number, order: readonly number[]): Buffer {
  const size = sectors * 512;
  const nodes: Buffer[] = [];
  const parts: Buffer[] = [];
  let at = 0;
  let slot = 0;
  const begin = () => {
    const node = Buffer.alloc(4096);
    node.write("sprs");
    if (nodes.length === 0) {
      node.writeUInt32BE(3, 4);
      node.writeUInt32BE(sectors, 8);
      node.writeUInt32BE(1, 12);
      node.writeUInt32BE(disk.length / 512, 16);
      node.writeUInt32BE(disk.length / 512, 32);
    } else {
      node.writeUInt32BE(nodes.length - 1, 4);
      node.writeUInt32BE(1, 8);
      nodes.at(-1)!.writeUInt32BE(at, nodes.length === 1 ? 24 : 16);
    }
    nodes.push(node);
    parts.push(node);
    at += 4096;
    slot = nodes.length === 1 ? 64 : 56;
  };
  begin();
  for (const band of order) {
    if (slot === 4096) begin();
    nodes.at(-1)!.writeUInt32BE(band + 1, slot);
    const bytes = Buffer.alloc(size);
    disk.copy(bytes, 0, band * size);
    parts.push(bytes);
    at += size;
    slot += 4;
  }
  return Buffer.concat(parts);
}

test("bands out of order, some missing, the last one in part, over three index nodes", (t) => {
  const path = testFolder(t);
  const bands = 2500;
  const disk = noise(bands * 1024 - 512, 3);
  const next = numbers(5);
  const order = Array.from({ length: bands }, (_, band) => band).filter((band) => {
    const kept = band > 1000 && band < 1100 ? false : next(30) > 0;
    if (!kept) disk.fill(0, band * 1024, (band + 1) * 1024);
    return kept;
  });
  for (let index = order.length - 1; index > 0; index--) {
    const other = next(index + 1);
    [order[index], order[other]] = [order[other]!, order[index]!];
  }
  t.true(order.length > 1008 + 1010);
  const image = makeSparse(disk, 2, order);
  writeFileSync(path("a"), image);
  isDisk(t, { path: path("a") }, disk, 512);
  opened({ path: path("a") }, ({ layers, disk: found }) => {
    t.deepEqual(layers[0]!.facts, { bandSize: 1024, bands: order.length });
    t.deepEqual(found.extentAt(1001 * 1024 + 5), { hole: true, length: 99 * 1024 - 5 });
  });
  const second = 4096 + 1008 * 1024;
  isRefused(t, "corrupt", { path: patched(path("a"), { [second]: [0] }) }, `at byte ${second}`, "is not there");
  isRefused(t, "corrupt", { path: patched(path("a"), { 20: [0, 0, 0, 0, 0, 0, 0x10, 0] }) }, "names byte 4096");
  isRefused(
    t,
    "corrupt",
    { path: patched(path("a"), { 20: [0x7f, 0, 0, 0, 0, 0, 0, 1] }) },
    "byte 9151314442816847873 for",
  );
  isRefused(
    t,
    "corrupt",
    { path: patched(path("a"), { [second + 12]: [0, 0, 0, 0, 0, 0, 0x10, 0] }) },
    "names byte 4096",
  );
});

test("sizes and bands that can't be are refused; a truncated file loses what is cut off", (t) => {
  const path = testFolder(t);
  const disk = noise(8 * 4096, 2);
  writeFileSync(path("a"), makeSparse(disk, 8, [3, 0, 7, 5, 1, 2, 4, 6]));
  isDisk(t, { path: path("a") }, disk, 4096);
  const refused = (
    changes: Record<number, readonly number[]>,
    words: string,
    code: "corrupt" | "unsupported" = "corrupt",
  ) => isRefused(t, code, { path: patched(path("a"), changes) }, path("a"), words);
  refused({ 10: [0, 0] }, "bands of 0 bytes");
  refused({ 8: [0xff] }, "tells of bands of");
  refused({ 28: [0xff, 0, 0, 0, 0, 0, 0, 1] }, "byte 28 tells of a disk of 9407839477591871324672 bytes");
  refused({ 31: [0xff] }, "more than this Spindle takes", "unsupported");
  refused({ 64: [0, 0, 0, 9] }, "lists band 8, but the disk has only 8");
  refused({ 64: [0, 0, 0, 1] }, "lists band 0 twice");
  refused({ 4: [0, 0, 0, 3], 64: [0, 0, 0, 0], 96: [0, 0, 0, 4] }, "band 3");
  writeFileSync(path("cut"), readFileSync(path("a")).subarray(0, -1));
  isRefused(t, "corrupt", { path: path("cut") }, path("cut"), "band 6");
  opened({ path: path("cut") }, ({ disk: found }) => {
    const target = Buffer.alloc(4096);
    t.is(found.read(7 * 4096, target), 4096);
    t.true(target.equals(disk.subarray(7 * 4096)));
  });
  writeFileSync(path("cut"), readFileSync(path("a")).subarray(0, 4095));
  isRefused(t, "corrupt", { path: path("cut") }, "the header");
  writeFileSync(path("empty"), Buffer.concat([readFileSync(path("a")).subarray(0, 64), Buffer.alloc(4096 - 64)]));
  t.true(wholeDisk({ path: path("empty") }).equals(Buffer.alloc(disk.length)));
});

test("a disk of 2 TiB and more tells its size in the second number", (t) => {
  const path = testFolder(t);
  const image = makeSparse(noise(4096, 1), 2048, [0]);
  image.writeUInt32BE(0, 16);
  image.writeBigUInt64BE(2n ** 33n, 28);
  writeFileSync(path("a"), image);
  opened({ path: path("a") }, ({ disk }) => {
    t.is(disk.size, 2 ** 42);
    t.deepEqual(disk.extentAt(2 ** 20), { hole: true, length: 2 ** 42 - 2 ** 20 });
  });
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  const image = makeSparse(noise(20 * 512, 6), 1, [5, 4, 19, 0, 7]);
  survivesDamage(t, image, (bytes) => readSome(sparseimage, bytes));
});

test("a sparse image of other people's: both copies of its partition table are where they should be", (t) => {
  const row = sharedRows().find(({ container }) => container === "sparseimage");
  if (!row) return void t.pass(t.log("skipped: there are no shared images") as undefined);
  // Its four bands lie in the file as 0, 3, 1, 2, so that the table's backup would not be at the disk's end otherwise.
  const { disk } = openedImage(t, unpackShared(t, row));
  const { scheme, volumes, warnings } = readVolumes(disk);
  t.deepEqual([scheme, warnings], ["gpt", []]);
  t.deepEqual(
    volumes.map(({ position, size }) => [position, size]),
    [[20480, 4153344]],
  );
});

const list = (
  size: number | string,
  bandSize: number | string,
  kind = "sparsebundle",
) => `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>CFBundleInfoDictionaryVersion</key>
	<string>6.0</string>
	<key>band-size</key>
	<integer>${bandSize}</integer>
	<key>bundle-backingstore-version</key>
	<integer>1</integer>
	<key>diskimage-bundle-type</key>
	<string>com.apple.diskimage.${kind}</string>
	<key>size</key>
	<integer>${size}</integer>
</dict>
</plist>
`;

test("a bundle is opened by its folder: bands by their hexadecimal numbers, some missing, some short", (t) => {
  const path = testFolder(t);
  const band = 4096;
  const disk = noise(40 * band - 700, 8);
  mkdirSync(path("A.sparsebundle/bands"), { recursive: true });
  writeFileSync(path("A.sparsebundle/Info.plist"), list(disk.length, band));
  writeFileSync(path("A.sparsebundle/token"), "");
  for (let number = 0; number < 40; number++) {
    const bytes = Buffer.from(disk.subarray(number * band, (number + 1) * band));
    const kept = [3, 4, 5, 17].includes(number) ? 0 : number === 9 ? 1000 : number === 12 ? 0 : bytes.length;
    disk.fill(0, number * band + kept, Math.min((number + 1) * band, disk.length));
    if (kept > 0 || number === 12)
      writeFileSync(path(`A.sparsebundle/bands/${number.toString(16)}`), bytes.subarray(0, kept));
  }
  isDisk(t, { path: path("A.sparsebundle") }, disk, 512);
  isDisk(t, { path: path("A.sparsebundle/Info.plist") }, disk, 4096);
  opened({ path: path("A.sparsebundle") }, ({ layers, disk: found }) => {
    t.is(layers[0]!.format, "sparsebundle");
    t.deepEqual(layers[0]!.facts, { bandSize: band, bands: 35 });
    t.deepEqual(found.extentAt(3 * band), { hole: true, length: 3 * band });
    t.deepEqual(found.extentAt(9 * band + 1000), { hole: true, length: band - 1000 });
  });
  execFileSync("truncate", ["-s", "4097", path("A.sparsebundle/bands/0")]);
  isDisk(t, { path: path("A.sparsebundle") }, disk, 4096);
  const image = path("A.sparsebundle/Info.plist");
  for (const [words, text, code] of [
    ["no size that can be", list("", band).replace("<integer></integer>", "<true/>"), "corrupt"],
    ["no size that can be", list(-1, band), "corrupt"],
    ["no band-size that can be", list(5, band).replace("band-size", "bands"), "corrupt"],
    ["bands of 0 bytes", list(5, 0), "corrupt"],
    ["more than 1048576", list(2 ** 50, 512), "unsupported"],
    ["damaged at byte 0", "something else", "corrupt"],
  ] as const) {
    writeFileSync(image, text);
    isRefused(t, code, { path: path("A.sparsebundle") }, image, words);
  }
  writeFileSync(image, list(disk.length, band));
  writeFileSync(path("A.sparsebundle/token"), Buffer.concat([Buffer.from("encrcdsa"), Buffer.alloc(100)]));
  isRefused(t, "unsupported", { path: path("A.sparsebundle") }, "an encrypted sparse bundle");
  rmSync(path("A.sparsebundle/bands"), { recursive: true });
  isRefused(t, "usage", { path: path("A.sparsebundle") }, "a folder");
});
