/** The disk as files of other formats: other programs, and the readers of this one, find the same disk in them. */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { MemorySource } from "../../bytes/memory.js";
import { openLayers } from "../../chain.js";
import { ImageError } from "../../errors.js";
import type { FileSystem } from "../../filesystems/filesystem.js";
import { needsQemu, wholeDisk } from "../../images/qemu-test-tools.js";
import { LayeredDisk } from "../../layers/disk.js";
import type { Layer } from "../../layers/layer.js";
import { OverlayDisk } from "../../layers/overlay.js";
import { bitmapLength, createOverlayMemory } from "../../layers/overlay-memory.js";
import { diskView, writableDiskView } from "../disk-view.js";
import type { Face } from "./face.js";
import { type FaceName, faceNames, facesOf } from "./index.js";

const MiB = 1 << 20;
const created = { seconds: 0, nanoseconds: 0 };
const noTable = { scheme: "none", sectorSize: 512, id: "", volumes: [], warnings: [] } as const;
const id = Buffer.from("0123456789abcdef");

/** Bytes that tell their position; zeros from 64 KiB to 1 MiB. */
function layer(bytes: Buffer): Layer {
  const source = new MemorySource("disk", bytes);
  return {
    name: "disk",
    format: "test",
    size: bytes.length,
    parent: undefined,
    facts: {},
    locate: (at) =>
      at >= 65536 && at < MiB && bytes.length > MiB
        ? { kind: "zero", length: MiB - at }
        : { kind: "stored", length: (at < 65536 && bytes.length > MiB ? 65536 : bytes.length) - at, source, at },
  };
}

function bytesOf(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += 4) bytes.writeUInt32LE(Math.imul(at + 1, 2654435761) >>> 0, at);
  if (size > MiB) bytes.fill(0, 65536, MiB);
  return bytes;
}

const view = (bytes: Buffer, names: readonly FaceName[] = faceNames) =>
  diskView(new LayeredDisk("disk", [layer(bytes)]), noTable, {
    created,
    faces: facesOf("disk", names, { size: bytes.length, id, created: 0 }),
  });

function folder(t: ExecutionContext): (name: string) => string {
  const made = mkdtempSync(join(tmpdir(), "spindle-faces-"));
  t.teardown(() => rmSync(made, { recursive: true, force: true }));
  return (name) => join(made, name);
}

/** Copies all files of a tree, holes as holes, in pieces of an odd length. */
function copyOut(tree: FileSystem, path: (name: string) => string): void {
  for (const { name, file } of tree.list(tree.root)) {
    const { size } = tree.attributes(file);
    const fd = openSync(path(Buffer.from(name).toString()), "w");
    const piece = Buffer.alloc(77_777);
    for (let at = 0; at < size; ) {
      const { hole, length } = tree.extentAt!(file, at);
      if (!hole) {
        const count = tree.read(file, at, piece.subarray(0, Math.min(piece.length, length)));
        if (count <= 0) throw new Error(`${name} ends at ${at}`);
        writeSync(fd, piece, 0, count, at);
        at += count;
      } else at += length;
    }
    ftruncateSync(fd, size);
    closeSync(fd);
  }
}

/** In the format's own name, and qemu's. */
const formats: Record<FaceName, string> = { vmdk: "vmdk", vdi: "vdi", vhd: "vpc" };

for (const size of [512, MiB, 3 * MiB + 5 * 512])
  test(`a disk of ${size} bytes is the same in each of its faces to qemu-img, and to the readers here`, (t) => {
    const path = folder(t);
    const bytes = bytesOf(size);
    copyOut(view(bytes), path);
    t.deepEqual(readFileSync(path("disk.raw")), bytes);
    for (const name of faceNames) {
      const opened = openLayers({ path: path(`disk.${name}`) });
      opened.close();
      t.is(opened.layers[0]!.format, name);
      t.true(
        wholeDisk({ path: path(`disk.${name}`) })
          .subarray(0, size)
          .equals(bytes),
        name,
      );
    }
    if (!needsQemu(t)) return;
    for (const name of faceNames) {
      const words = ["compare", "-f", "raw", "-F", formats[name], path("disk.raw"), path(`disk.${name}`)];
      const { stdout, stderr } = spawnSync("qemu-img", words, { encoding: "utf8" });
      t.regex(stdout, /Images are identical/, `${name}: ${stderr}`);
    }
  });

test("holes of the disk are holes of its faces, and what is asked of a header is told right at any position", (t) => {
  const tree = view(bytesOf(3 * MiB + 512));
  const file = tree.lookup(tree.root, Buffer.from("disk.vdi"))!;
  t.deepEqual(tree.extentAt!(file, MiB + 65536), { hole: true, length: MiB - 65536 });
  t.true(tree.extentAt!(file, 512 + 16).hole, "between the map and the disk");
  t.is(tree.zerosAt!(file, 512 + 16), MiB - 512 - 16);
  t.false(tree.extentAt!(file, 0).hole);
  const map = Buffer.alloc(16);
  t.is(tree.read(file, 512, map), 16);
  const odd = Buffer.alloc(7);
  t.is(tree.read(file, 512 + 3, odd), 7);
  t.deepEqual(odd, map.subarray(3, 10));
  t.is(map.readUInt32LE(12), 3);
  t.is(tree.read(file, tree.attributes(file).size, odd), 0);
});

test("a face of 16 TiB is made as it is read", (t) => {
  const [face] = facesOf("disk", ["vdi"], { size: 2 ** 44, id, created: 0 });
  const map = face!.parts[1]!;
  t.is(map.length, 2 ** 26);
  const last = Buffer.alloc(4);
  if (map.kind === "made") map.fill(2 ** 26 - 4, last);
  t.is(last.readUInt32LE(), 2 ** 24 - 1);
});

// Around 32 GiB and 128 GiB what cylinders, heads and sectors can say ends; then comes the largest VHD, and one beyond 2 TiB.
for (const size of [34 * 2 ** 30 + 512, 200 * 2 ** 30 + 512, 2040 * 2 ** 30, 3 * 2 ** 40 + 512])
  test(`of a disk of ${size} bytes qemu-img finds the size in each of its faces`, (t) => {
    if (!needsQemu(t)) return;
    const path = folder(t);
    writeFileSync(path("disk.raw"), "");
    truncateSync(path("disk.raw"), size);
    for (const name of faceNames.filter((each) => each !== "vhd" || size < 2 ** 41)) {
      const [{ file, parts }] = facesOf("disk", [name], { size, id, created: 0 }) as [Face];
      const fd = openSync(path(file), "w");
      let at = 0;
      for (const part of parts) {
        const bytes = Buffer.alloc(part.kind === "made" ? part.length : 0);
        if (part.kind === "made") part.fill(0, bytes);
        writeSync(fd, bytes, 0, bytes.length, at);
        at += part.length;
      }
      ftruncateSync(fd, at);
      closeSync(fd);
      const words = ["info", "--output=json", "-f", formats[name], path(file)];
      const { stdout, stderr } = spawnSync("qemu-img", words, { encoding: "utf8" });
      t.is((JSON.parse(stdout || "{}") as { "virtual-size"?: number })["virtual-size"], size, `${name}: ${stderr}`);
    }
  });

const TiB = 2 ** 40;
for (const [size, names] of [
  [3 * TiB + 512, ["vmdk", "vdi"]],
  [2040 * 2 ** 30, faceNames],
] as const)
  test(`a disk of ${size} bytes has its first and last sector, and those around block edges, where qemu-io finds them`, (t) => {
    if (!needsQemu(t)) return;
    const path = folder(t);
    // Where 31 and 32 bits of bytes and of sectors end, and some edges of blocks; each with a sector that no other place has.
    const edges = [
      MiB,
      5 * MiB,
      2 ** 31,
      2 ** 32,
      TiB,
      size / 2 - ((size / 2) % MiB),
      2 * TiB,
      size - (size % MiB || MiB),
    ];
    const places = [0, ...edges.filter((at) => at < size).flatMap((at) => [at - 512, at]), size - 512];
    const marks = [...new Set(places)].sort((a, b) => a - b).map((at, number) => ({ at, byte: number + 1 }));
    const source = new MemorySource("marks", Buffer.concat(marks.map(({ byte }) => Buffer.alloc(512, byte))));
    const sparse: Layer = {
      ...{ name: "disk", format: "test", size, parent: undefined, facts: {} },
      locate(position) {
        const next = marks.findIndex(({ at }) => position < at + 512);
        const { at } = marks[next] ?? { at: size };
        if (position < at) return { kind: "zero", length: at - position };
        return { kind: "stored", length: at + 512 - position, source, at: next * 512 + position - at };
      },
    };
    const faces = facesOf("disk", names, { size, id, created: 0 });
    copyOut(diskView(new LayeredDisk("disk", [sparse]), noTable, { created, faces }), path);
    // Each sector with what is around it: 1 KiB of zeros before and behind where no other mark is.
    const reads = marks.flatMap(({ at, byte }, number) => [
      `read -P ${byte} ${at} 512`,
      ...(at >= 1024 && marks[number - 1]!.at < at - 1024 ? [`read -P 0 ${at - 1024} 1024`] : []),
      ...(at + 1536 <= size && (marks[number + 1]?.at ?? size) >= at + 1536 ? [`read -P 0 ${at + 512} 1024`] : []),
    ]);
    for (const name of names) {
      const words = ["-r", "-f", formats[name], ...reads.flatMap((read) => ["-c", read]), path(`disk.${name}`)];
      const { status, stdout } = spawnSync("qemu-io", words, { encoding: "utf8" });
      t.is(status, 0, `${name}: ${stdout}`);
      t.is(stdout.match(/^read [0-9]+\/[0-9]+ bytes/gm)?.length, reads.length, `${name}: ${stdout}`);
      t.notRegex(stdout, /[Ff]ail|error/, name);
    }
  });

test("a disk that a format can't have is refused in words", (t) => {
  const refused = (name: FaceName, size: number, message: RegExp) =>
    t.throws(() => facesOf("d.img", [name], { size, id, created: 0 }), { instanceOf: ImageError, message });
  refused("vhd", 2041 * 2 ** 30, /d\.img: .* a vhd has 2190433320960 at most/);
  for (const name of faceNames) refused(name, 1000, /isn't whole sectors/);
});

test("what is written to a face is written to the disk, and what is written to its header is dropped", (t) => {
  const path = folder(t);
  const bytes = bytesOf(2 * MiB);
  const stores = { bitmap: Buffer.alloc(bitmapLength(bytes.length)), data: Buffer.alloc(bytes.length) };
  const store = (memory: Buffer) => ({
    ...{ name: "store", size: memory.length, flush: () => {}, reserve: () => {} },
    read: (at: number, target: Uint8Array) => memory.copy(target, 0, at),
    write: (at: number, data: Uint8Array) => memory.set(data, at),
    clear: (at: number, length: number) => void memory.fill(0, at, at + length),
  });
  const disk = new OverlayDisk(
    "disk",
    createOverlayMemory(bytes.length, 1),
    { data: store(stores.data), bitmap: store(stores.bitmap) },
    [layer(bytes)],
    0,
  );
  const faces = facesOf("disk", faceNames, { size: bytes.length, id, created: 0 });
  const tree = writableDiskView(disk, noTable, { created, faces });
  const changes = tree.changes!;
  const [raw, vdi, vhd] = ["disk.raw", "disk.vdi", "disk.vhd"].map(
    (name) => tree.lookup(tree.root, Buffer.from(name))!,
  );
  const before = Buffer.alloc(512);
  tree.read(vdi!, 0, before);
  changes.write(vdi!, MiB - 100, Buffer.alloc(300, 7)); // 100 of the gap, 200 of the disk
  changes.write(vdi!, 400, Buffer.alloc(16, 9));
  changes.clear(vhd!, 2 * MiB - 50, 562);
  bytes.fill(7, 0, 200);
  bytes.fill(0, 2 * MiB - 50);
  t.deepEqual(changes.others(vdi!, MiB + 5, 10), [
    { file: raw!, position: 5, length: 10 },
    { file: vhd!, position: 5, length: 10 },
  ]);
  t.deepEqual(changes.others(vdi!, 0, 512), [], "a header is nobody else's");
  const after = Buffer.alloc(512);
  tree.read(vdi!, 0, after);
  t.deepEqual(after, before);
  copyOut(tree, path);
  t.deepEqual(readFileSync(path("disk.raw")), bytes);
  for (const name of faceNames) t.true(wholeDisk({ path: path(`disk.${name}`) }).equals(bytes), name);
});
