import test from "ava";
import type { Extent } from "../bytes/byte-source.js";
import { ImageError } from "../errors.js";
import type { Disk } from "../layers/disk.js";
import type { Volume, VolumeTable } from "../volumes/volume.js";
import { diskView } from "./disk-view.js";

const created = { seconds: 1700000000, nanoseconds: 123456789 };

/** Byte N is N modulo 251; from 1000 to 5000 there is a hole. */
class FakeDisk implements Disk {
  readonly name = "fake.spin";
  readonly size = 10_000;
  counted = 0;

  read(position: number, target: Uint8Array): number {
    const count = Math.max(0, Math.min(target.length, this.size - position, 700));
    for (let i = 0; i < count; i++) target[i] = byteAt(position + i);
    return count;
  }

  extentAt(position: number): Extent {
    if (position < 1000) return { hole: false, length: 1000 - position };
    if (position < 5000) return { hole: true, length: 5000 - position };
    return { hole: false, length: this.size - position };
  }

  zerosAt(position: number): number {
    return position >= 1000 && position < 5000 ? 5000 - position : 0;
  }

  dataBytes(from: number, to: number): number {
    this.counted++;
    return to - from - Math.max(0, Math.min(to, 5000) - Math.max(from, 1000));
  }
}

const byteAt = (position: number) => (position >= 1000 && position < 5000 ? 0 : position % 251);

const volume = (number: number, position: number, size: number): Volume => ({
  number,
  position,
  size,
  type: "Linux filesystem",
  typeCode: "0x83",
  label: "",
  id: "",
  bootable: false,
});

const table = (...volumes: Volume[]): VolumeTable => ({
  scheme: "mbr",
  sectorSize: 512,
  id: "",
  volumes,
  warnings: [],
});

const twoVolumes = table(volume(1, 512, 2000), volume(5, 4500, 3001));

const names = (view: ReturnType<typeof diskView>) =>
  [...view.list(view.root)].map(({ name }) => Buffer.from(name).toString());

function idOf(view: ReturnType<typeof diskView>, name: string): number {
  const id = view.lookup(view.root, Buffer.from(name));
  if (id === undefined) throw new Error(`no ${name}`);
  return id;
}

test("zeros are told for as far as the disk knows them, and no further than the file", (t) => {
  const view = diskView(new FakeDisk(), twoVolumes, { created });
  const zeros = (name: string, position: number) => view.zerosAt!(idOf(view, name), position);
  t.deepEqual([zeros("disk.raw", 999), zeros("disk.raw", 1000), zeros("disk.raw", 4999)], [0, 4000, 1]);
  t.deepEqual([zeros("p1.raw", 487), zeros("p1.raw", 488), zeros("p5.raw", 100)], [0, 1512, 400]);
});

test("the root lists the disk, then the volumes by number, in the same order each time", (t) => {
  const view = diskView(new FakeDisk(), twoVolumes, { created });
  t.deepEqual(names(view), ["disk.raw", "p1.raw", "p5.raw"]);
  t.deepEqual(names(view), names(diskView(new FakeDisk(), twoVolumes, { created })));
  t.deepEqual(names(diskView(new FakeDisk(), table(), { created })), ["disk.raw"]);
});

test("entries, lookup and attributes tell of the same files", (t) => {
  const view = diskView(new FakeDisk(), twoVolumes, { created });
  for (const { name, file, kind } of view.list(view.root)) {
    t.is(view.lookup(view.root, name), file);
    t.is(view.attributes(file).kind, kind);
    t.is(view.attributes(file).inode, file);
  }
  for (const name of ["p2.raw", "disk", "", ".", "DISK.RAW", "disk.raw\0"])
    t.is(view.lookup(view.root, Buffer.from(name)), undefined);
  t.is(view.lookup(idOf(view, "disk.raw"), Buffer.from("p1.raw")), undefined);
});

test("a volume's file id depends on its number alone", (t) => {
  const all = diskView(new FakeDisk(), twoVolumes, { created });
  const one = diskView(new FakeDisk(), table(volume(5, 4500, 3001)), { created });
  t.is(idOf(all, "p5.raw"), idOf(one, "p5.raw"));
});

test("files are read-only, the user's, and as large as their stretch of the disk", (t) => {
  const view = diskView(new FakeDisk(), twoVolumes, { created });
  const root = view.attributes(view.root);
  t.deepEqual([root.kind, root.mode, root.links], ["directory", 0o555, 2]);
  const shape = (name: string) => {
    const { kind, mode, links, owner, group, size, allocated, modified } = view.attributes(idOf(view, name));
    t.deepEqual([kind, mode, links, owner, group], ["file", 0o444, 1, process.getuid!(), process.getgid!()]);
    t.deepEqual(modified, created);
    return [size, allocated];
  };
  // 6000 bytes are stored: 12 blocks of 512. Of p1 488 bytes (512 to 1000), of p5 2501 (5000 to 7501).
  t.deepEqual(shape("disk.raw"), [10_000, 6144]);
  t.deepEqual(shape("p1.raw"), [2000, 512]);
  t.deepEqual(shape("p5.raw"), [3001, 2560]);
});

test("what is stored is counted once a file, and not before someone asks", (t) => {
  const disk = new FakeDisk();
  const view = diskView(disk, twoVolumes, { created });
  names(view);
  view.attributes(view.root);
  t.is(disk.counted, 0);
  const id = idOf(view, "p1.raw");
  t.is(view.attributes(id), view.attributes(id));
  t.is(disk.counted, 1);
});

test("reads give the disk's bytes at the volume's place, and end where it ends", (t) => {
  const view = diskView(new FakeDisk(), twoVolumes, { created });
  for (const [name, start, size] of [
    ["disk.raw", 0, 10_000],
    ["p1.raw", 512, 2000],
    ["p5.raw", 4500, 3001],
  ] as const) {
    const id = idOf(view, name);
    const expected = Buffer.from(Array.from({ length: size }, (_, index) => byteAt(start + index)));
    const got = Buffer.alloc(size + 100, 0xaa);
    let filled = 0;
    for (;;) {
      const count = view.read(id, filled, got.subarray(filled));
      if (count === 0) break;
      filled += count;
    }
    t.is(filled, size);
    t.deepEqual(got.subarray(0, size), expected);
    t.is(got[size], 0xaa);
    t.is(view.read(id, size, Buffer.alloc(10)), 0);
    t.is(view.read(id, size + 5000, Buffer.alloc(10)), 0);
    t.is(view.read(id, size - 3, Buffer.alloc(10)), 3);
  }
});

test("holes are those of the disk, moved and cut to the volume", (t) => {
  const view = diskView(new FakeDisk(), twoVolumes, { created });
  const extents = (name: string) => {
    const id = idOf(view, name);
    const found: [boolean, number][] = [];
    for (let position = 0; position < view.attributes(id).size; ) {
      const { hole, length } = view.extentAt!(id, position);
      found.push([hole, length]);
      position += length;
    }
    return found;
  };
  t.deepEqual(extents("disk.raw"), [
    [false, 1000],
    [true, 4000],
    [false, 5000],
  ]);
  t.deepEqual(extents("p1.raw"), [
    [false, 488],
    [true, 1512],
  ]);
  t.deepEqual(extents("p5.raw"), [
    [true, 500],
    [false, 2501],
  ]);
});

test("statistics are the disk's", (t) => {
  const { statistics } = diskView(new FakeDisk(), twoVolumes, { created });
  t.deepEqual(statistics, { blockSize: 4096, blocks: 3, freeBlocks: 0, files: 4, freeFiles: 0, nameLength: 255 });
});

test("numbers that name no file are refused, not answered with another file", (t) => {
  const view = diskView(new FakeDisk(), twoVolumes, { created });
  for (const id of [0, 4, 6, 7.5, -1, 2 ** 40]) {
    t.throws(() => view.attributes(id), { instanceOf: ImageError, code: "missing" });
    t.throws(() => view.read(id, 0, Buffer.alloc(1)), { instanceOf: ImageError });
    t.throws(() => view.extentAt!(id, 0), { instanceOf: ImageError });
  }
  t.throws(() => view.list(idOf(view, "disk.raw")), { instanceOf: ImageError });
  t.throws(() => view.read(view.root, 0, Buffer.alloc(1)), { instanceOf: ImageError });
  t.throws(() => view.readLink(idOf(view, "disk.raw")), { instanceOf: ImageError });
});
