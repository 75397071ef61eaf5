import test from "ava";
import fc from "fast-check";
import { readFully } from "../bytes/byte-source.js";
import type { ByteStore } from "../bytes/byte-store.js";
import { MemorySource } from "../bytes/memory.js";
import { ImageError } from "../errors.js";
import type { Layer, Run } from "./layer.js";
import { OverlayDisk } from "./overlay.js";
import { bitmapLength, createOverlayMemory, DIRTY, largestDisk, zones } from "./overlay-memory.js";

const sector = 512;
/** Not whole blocks: the last one is short. */
const size = 3 * 1024 * 1024 + 5 * sector;

/** Byte N is N modulo 250, plus 1; holes lie from 100,000 to 300,000 and from 2,000,000 on. */
class Base implements Layer {
  readonly name = "base";
  readonly format = "test";
  readonly parent = undefined;
  readonly facts = {};
  readonly size = size;
  private readonly source = new MemorySource("base", baseBytes);

  locate(position: number): Run {
    for (const [from, to] of holes) {
      if (position < from) return { kind: "stored", length: from - position, source: this.source, at: position };
      if (position < to) return { kind: "zero", length: to - position };
    }
    throw new Error("not reached");
  }
}

const holes = [
  [100_000, 300_000],
  [2_000_000, size],
] as const;
const baseBytes = Buffer.from(Array.from({ length: size }, (_, at) => (at % 250) + 1));
for (const [from, to] of holes) baseBytes.fill(0, from, to);

/** A file in a machine that may lose its power: what isn't flushed may be there or not, sector by sector. */
class Device {
  readonly durable: Buffer;
  pending: { at: number; bytes: Buffer }[] = [];
  fails: NodeJS.ErrnoException | undefined;

  constructor(length: number, durable?: Buffer) {
    this.durable = durable ?? Buffer.alloc(length);
  }

  get present(): Buffer {
    const all = Buffer.from(this.durable);
    for (const { at, bytes } of this.pending) bytes.copy(all, at);
    return all;
  }

  store(start: number, length: number): ByteStore {
    const write = (position: number, bytes: Uint8Array) => {
      if (this.fails) throw new ImageError("system", "writing", { cause: this.fails });
      // A part of a sector goes to the device with the rest of it, as the page cache has it.
      const from = Math.floor((start + position) / sector) * sector;
      const to = Math.min(this.durable.length, Math.ceil((start + position + bytes.length) / sector) * sector);
      const whole = this.present.subarray(from, to);
      whole.set(bytes, start + position - from);
      for (let at = 0; at < whole.length; at += sector)
        this.pending.push({ at: from + at, bytes: Buffer.from(whole.subarray(at, at + sector)) });
    };
    return {
      name: "store",
      size: length,
      read: (position, target) =>
        this.present.copy(target, 0, start + position, start + Math.min(length, position + target.length)),
      write,
      clear: (position, count) => write(position, Buffer.alloc(count)),
      reserve: () => {
        if (this.fails) throw new ImageError("system", "taking room", { cause: this.fails });
      },
      flush: () => {
        if (this.fails) throw new ImageError("system", "flushing", { cause: this.fails });
        this.durable.set(this.present);
        this.pending = [];
      },
    };
  }

  /** What is found after the power was lost: of what is pending, what `keeps` says, in order. */
  afterLoss(keeps: (index: number) => boolean): Buffer {
    const left = Buffer.from(this.durable);
    for (const [index, { at, bytes }] of this.pending.entries()) if (keeps(index)) bytes.copy(left, at);
    return left;
  }
}

const bitmap = bitmapLength(size);

function open(device: Device, saved = false) {
  const stores = { bitmap: device.store(0, bitmap), data: device.store(bitmap, size) };
  return new OverlayDisk("d", createOverlayMemory(size, 1, saved ? stores.bitmap : undefined), stores, [new Base()], 0);
}

function contents(disk: OverlayDisk): Buffer {
  const all = Buffer.alloc(size, 0xff);
  if (readFully(disk, 0, all) !== size) throw new Error("it ends early");
  return all;
}

type Step =
  | { readonly act: "write" | "clear"; readonly position: number; readonly length: number; readonly byte: number }
  | { readonly act: "flush" };

/** Many near edges: of sectors, blocks, zones, holes and the end. */
const edges = [
  0,
  sector,
  4096,
  8192,
  100_000,
  102_400,
  300_000,
  1 << 20,
  2_000_000,
  2 << 20,
  size - 4096,
  size - 2560,
  size,
];
const positions = fc
  .tuple(fc.constantFrom(...edges), fc.integer({ min: -700, max: 700 }))
  .map(([edge, by]) => Math.max(0, Math.min(size - 1, edge + by)));
const lengths = fc.oneof(fc.integer({ min: 1, max: 600 }), fc.constantFrom(sector, 4096, 12_288, 70_000, 1_100_000));
const steps = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        act: fc.constant("write" as const),
        position: positions,
        length: lengths,
        byte: fc.integer({ min: 0, max: 255 }),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        act: fc.constant("clear" as const),
        position: positions,
        length: lengths,
        byte: fc.constant(0),
      }),
    },
    { weight: 1, arbitrary: fc.constant({ act: "flush" as const }) },
  ),
  { minLength: 1, maxLength: 12 },
) as fc.Arbitrary<Step[]>;

function perform(disk: OverlayDisk, step: Step): { from: number; to: number } | undefined {
  if (step.act === "flush") {
    disk.flush();
    return undefined;
  }
  const length = Math.min(step.length, size - step.position);
  if (step.act === "write") disk.write(step.position, Buffer.alloc(length, step.byte));
  else disk.clear(step.position, length);
  return { from: step.position, to: step.position + length };
}

test("what was written and isn't flushed yet is counted, whoever flushes", (t) => {
  const device = new Device(bitmap + size);
  const disk = open(device);
  t.deepEqual([disk.bytesWritten, disk.unflushed, disk.written], [0, 0, 0]);
  disk.write(4000, Buffer.alloc(200, 7));
  disk.write(4000, Buffer.alloc(10_000, 8));
  t.deepEqual([disk.bytesWritten, disk.unflushed, disk.writes], [10_200, 10_200, 2]);
  disk.flush();
  t.deepEqual([disk.bytesWritten, disk.unflushed], [10_200, 0]);
  disk.clear(8192, 4096);
  t.is(disk.unflushed, 4096);
  // What is a hole, and was never written, is zeros already.
  disk.clear(2_200_000 - (2_200_000 % 4096), 40_960);
  t.is(disk.unflushed, 4096);
  t.is(disk.written, 4 * 4096);
  t.true(disk.tryFlush());
  t.is(disk.unflushed, 0);
  disk.write(0, Buffer.alloc(1));
  device.fails = Object.assign(new Error("no"), { code: "EIO" });
  t.throws(() => disk.flush());
  t.is(disk.unflushed, 1, "what could not be flushed is told as not flushed");
});

test("reads give what was written last, and the base where nothing was, after a reopening too", (t) => {
  fc.assert(
    fc.property(steps, (all) => {
      const device = new Device(bitmap + size);
      const disk = open(device);
      const expected = Buffer.from(baseBytes);
      for (const step of all) {
        const changed = perform(disk, step);
        if (changed && step.act !== "flush") expected.fill(step.byte, changed.from, changed.to);
      }
      if (!contents(disk).equals(expected)) return false;
      disk.flush();
      const again = open(new Device(0, device.durable), true);
      return contents(again).equals(expected) && again.written === disk.written;
    }),
    { numRuns: 80 },
  );
  t.pass();
});

test("after a loss of power every sector holds what it held at the last flush, or something written since", (t) => {
  fc.assert(
    fc.property(steps, fc.nat(), (all, seed) => {
      const device = new Device(bitmap + size);
      const disk = open(device);
      const now = Buffer.from(baseBytes);
      /** By sector, all that it held since the last flush. */
      let held = new Map<number, Buffer[]>();
      for (const step of all) {
        const changed = perform(disk, step);
        if (step.act === "flush") held = new Map();
        if (!changed || step.act === "flush") continue;
        const first = Math.floor(changed.from / sector);
        for (let at = first; at * sector < changed.to; at++) {
          if (!held.has(at)) held.set(at, [Buffer.from(now.subarray(at * sector, (at + 1) * sector))]);
        }
        now.fill(step.byte, changed.from, changed.to);
        for (let at = first; at * sector < changed.to; at++)
          held.get(at)!.push(Buffer.from(now.subarray(at * sector, (at + 1) * sector)));
      }
      const found = contents(
        open(
          new Device(
            0,
            device.afterLoss((index) => (Math.imul(index + seed, 0x9e3779b1) & 0x8000) !== 0),
          ),
          true,
        ),
      );
      for (let at = 0; at * sector < size; at++) {
        const is = found.subarray(at * sector, (at + 1) * sector);
        const allowed = held.get(at) ?? [now.subarray(at * sector, (at + 1) * sector)];
        if (!allowed.some((one) => one.equals(is))) return false;
      }
      return true;
    }),
    { numRuns: 80 },
  );
  t.pass();
});

const noSpace = Object.assign(new Error("no space"), { code: "ENOSPC" });

test("what could not be written is as it was, and the rest is written on", (t) => {
  const device = new Device(bitmap + size);
  const disk = open(device);
  disk.write(5000, Buffer.from("kept"));
  device.fails = noSpace;
  t.throws(() => disk.write(900_000, Buffer.from("lost")), { instanceOf: ImageError });
  device.fails = undefined;
  t.is(contents(disk)[900_000], baseBytes[900_000]);
  disk.flush();
  t.is(contents(open(new Device(0, device.durable), true)).toString("latin1", 5000, 5004), "kept");
});

test("a write of which only a part succeeded is one to be flushed", (t) => {
  const device = new Device(bitmap + size);
  const stores = { bitmap: device.store(0, bitmap), data: device.store(bitmap, size) };
  const to = 1 << 20;
  const refuse = (position: number) => {
    if (position >= to) throw new ImageError("system", "writing", { cause: noSpace });
  };
  const data: ByteStore = {
    ...stores.data,
    write(position, bytes) {
      refuse(position);
      stores.data.write(position, bytes);
    },
    clear(position, length) {
      refuse(position);
      stores.data.clear(position, length);
    },
  };
  const disk = new OverlayDisk("d", createOverlayMemory(size, 1), { ...stores, data }, [new Base()], 0);
  t.throws(() => disk.write(to - 8192, Buffer.alloc(16_384, 7)), { message: "writing" });
  t.deepEqual([disk.writes, disk.bytesWritten, disk.written], [1, 8192, 8192]);
  t.throws(() => disk.clear(to - 8192, 16_384), { message: "writing" });
  t.deepEqual([disk.writes, disk.bytesWritten, disk.written], [2, 16_384, 8192]);
});

test("bits that could not be written are left to the next flush", (t) => {
  const device = new Device(bitmap + size);
  const stores = { bitmap: device.store(0, bitmap), data: device.store(bitmap, size) };
  let full = true;
  const write = (position: number, bytes: Uint8Array) => {
    if (full) throw new ImageError("system", "writing", { cause: noSpace });
    stores.bitmap.write(position, bytes);
  };
  const memory = createOverlayMemory(size, 1);
  const disk = new OverlayDisk("d", memory, { ...stores, bitmap: { ...stores.bitmap, write } }, [new Base()], 0);
  disk.write(5000, Buffer.from("kept"));
  t.throws(() => disk.flush(), { message: "writing" });
  full = false;
  t.true(disk.tryFlush());
  t.is(contents(open(new Device(0, device.durable), true)).toString("latin1", 5000, 5004), "kept");
});

test("after bytes could not be made durable no flush succeeds, and none of their bits is written", (t) => {
  const device = new Device(bitmap + size);
  const disk = open(device);
  disk.write(5000, Buffer.from("kept"));
  disk.flush();
  disk.write(900_000, Buffer.from("lost"));
  device.fails = noSpace;
  t.throws(() => disk.flush(), { message: "flushing" });
  device.fails = undefined;
  for (let times = 0; times < 2; times++) t.throws(() => disk.flush(), { message: /could not be made durable before/ });
  t.is(contents(disk).toString("latin1", 900_000, 900_004), "lost", "it can still be read");
  const found = contents(open(new Device(0, device.durable), true));
  t.deepEqual([found.toString("latin1", 5000, 5004), found[900_000]], ["kept", baseBytes[900_000]]);
});

test("after bits could not be made durable no flush succeeds either: bytes written meanwhile may be what failed", (t) => {
  const device = new Device(bitmap + size);
  const stores = { bitmap: device.store(0, bitmap), data: device.store(bitmap, size) };
  let fails = true;
  const flush = () => {
    if (!fails) return stores.bitmap.flush();
    fails = false;
    // As in one file: what was pending is forgotten, and told to this caller alone.
    device.pending = [];
    throw new ImageError("system", "flushing the bitmap", { cause: noSpace });
  };
  const disk = new OverlayDisk(
    "d",
    createOverlayMemory(size, 1),
    { ...stores, bitmap: { ...stores.bitmap, flush } },
    [new Base()],
    0,
  );
  disk.write(5000, Buffer.from("kept"));
  t.throws(() => disk.flush(), { message: "flushing the bitmap" });
  t.throws(() => disk.flush(), { message: /could not be made durable before/ });
  t.throws(() => disk.tryFlush(), { message: /could not be made durable before/ });
});

test("a block that another thread is only just making present is flushed with what was written into it", (t) => {
  const device = new Device(bitmap + size);
  const stores = { bitmap: device.store(0, bitmap), data: device.store(bitmap, size) };
  const memory = createOverlayMemory(size, 2);
  const [one, two] = [0, 1].map((owner) => new OverlayDisk("d", memory, stores, [new Base()], owner)) as [
    OverlayDisk,
    OverlayDisk,
  ];
  one.write(4096, Buffer.alloc(4096, 1));
  // As if thread 0 had been stopped after it set the bit and before it marked the page.
  new Uint8Array(memory.pages)[0]! &= ~DIRTY;
  new Int32Array(memory.setting)[0] = 1;
  two.write(4096, Buffer.from("kept"));
  two.flush();
  t.is(contents(open(new Device(0, device.durable), true)).toString("latin1", 4096, 4100), "kept");

  new Uint8Array(memory.pages)[0]! &= ~DIRTY;
  OverlayDisk.releaseDead(memory, 0);
  t.is(new Int32Array(memory.setting)[0], 0);
  t.true(
    (new Uint8Array(memory.pages)[0]! & DIRTY) !== 0,
    "a thread that died there leaves the page to the next flush",
  );
});

test("who may not wait doesn't flush while another does", (t) => {
  const device = new Device(bitmap + size);
  const stores = { bitmap: device.store(0, bitmap), data: device.store(bitmap, size) };
  const memory = createOverlayMemory(size, 2);
  const waiting = new OverlayDisk("d", memory, stores, [new Base()], 1);
  const flush = () => t.false(waiting.tryFlush());
  const flushing = new OverlayDisk("d", memory, { ...stores, data: { ...stores.data, flush } }, [new Base()], 0);
  flushing.write(0, Buffer.from("x"));
  flushing.flush();
  t.true(waiting.tryFlush());
  t.is(waiting.writes, 1);
});

test("a thread that died in the middle holds no lock, and the pages that it was flushing are flushed by the next", (t) => {
  const device = new Device(bitmap + size);
  const stores = { bitmap: device.store(0, bitmap), data: device.store(bitmap, size) };
  const memory = createOverlayMemory(size, 3);
  let dies = true;
  const bitmapOfDead = {
    ...stores.bitmap,
    write() {
      if (dies) throw new Error("it dies here");
    },
  };
  const dead = new OverlayDisk("d", memory, { ...stores, bitmap: bitmapOfDead }, [new Base()], 0);
  dead.write(5000, Buffer.from("kept"));
  t.throws(() => dead.flush(), { message: /dies/ });
  dies = false;
  // As it would stand had the thread ended there: locked by number 0.
  const words = new Int32Array(memory.locks, 0, zones + 1);
  words.fill(2);
  OverlayDisk.releaseDead(memory, 0);
  t.true(words.every((word) => word === 0));
  const living = new OverlayDisk("d", memory, stores, [new Base()], 1);
  living.write(100, Buffer.from("more"));
  living.flush();
  const found = contents(open(new Device(0, device.durable), true));
  t.deepEqual([found.toString("latin1", 5000, 5004), found.toString("latin1", 100, 104)], ["kept", "more"]);
});

test("zeros are zeros where a hole of the base ends within a block that a lost write left bytes in", (t) => {
  const device = new Device(bitmap + size);
  const disk = open(device);
  // The block of byte 300,000, where a hole ends, gets bytes; then the power is lost before its bit is written.
  disk.write(299_008, Buffer.alloc(4096, 0xaa));
  const found = new Device(
    0,
    device.afterLoss(() => true),
  );
  t.is(found.durable[bitmap + 299_008], 0xaa, "its bytes are on the device");
  found.durable.fill(0, 0, bitmap);
  const again = open(found, true);
  t.true(contents(again).equals(baseBytes));
  again.clear(200_000, 150_000);
  const expected = Buffer.from(baseBytes).fill(0, 200_000, 350_000);
  const wrong = contents(again).findIndex((byte, at) => byte !== expected[at]);
  t.is(wrong, -1, "the first wrong byte");
});

test("who waits for the bytes beneath holds no lock, and what the waiting ends with leaves nothing half-written", (t) => {
  const device = new Device(bitmap + size);
  const memory = createOverlayMemory(size, 1);
  const stores = { bitmap: device.store(0, bitmap), data: device.store(bitmap, size) };
  const wait = new Error("not yet");
  let there = 50_000;
  const held: number[] = [];
  const base = {
    name: "base",
    size,
    isFar: (position: number) => position >= there,
    read(position: number, target: Uint8Array) {
      if (position + target.length <= there) return baseBytes.copy(target, 0, position);
      held.push(...new Int32Array(memory.locks).filter((word) => word !== 0));
      throw wait;
    },
  };
  const disk = new OverlayDisk("d", memory, stores, [new Base()], 0, base);
  const expected = Buffer.from(baseBytes);
  const write = (position: number, length: number) => {
    const bytes = Buffer.alloc(length, 251);
    bytes.copy(expected, position);
    disk.write(position, bytes);
  };
  // Of the second the end can't be completed, nor of the third, whose end lies in another stretch that is locked by itself.
  const tried = [
    [60_000, 10],
    [48_000, 3_000],
    [40_000, 1_100_000],
  ] as const;
  for (const [position, length] of tried)
    t.is(
      t.throws(() => write(position, length)),
      wait,
    );
  t.deepEqual(held, []);
  // What lies within what was tried is written by others meanwhile.
  disk.write(45_000, Buffer.alloc(20, 252));
  disk.write(1_048_576, Buffer.alloc(4096, 253));
  there = size;
  for (const [position, length] of tried) write(position, length);
  t.true(contents(disk).equals(expected));
});

test("zeros over what is a hole of the base and was never written take no room", (t) => {
  const disk = open(new Device(bitmap + size));
  disk.clear(0, size);
  t.true(contents(disk).every((byte) => byte === 0));
  const data = size - holes.reduce((sum, [from, to]) => sum + to - from, 0);
  t.true(disk.written < data + 4 * 4096, `${disk.written} bytes were taken`);
});

test("a bitmap that tells of blocks beyond the disk, or ends early, is refused; and a disk over 64 TiB", (t) => {
  const bytes = Buffer.alloc(bitmap);
  bytes[bitmap - 1] = 0x80;
  t.throws(() => createOverlayMemory(size, 1, new MemorySource("o", bytes)), {
    message: /tells of block 32767, but the disk has 769/,
  });
  t.throws(() => createOverlayMemory(size, 1, new MemorySource("o", bytes.subarray(0, 100))), { message: /truncated/ });
  t.throws(() => createOverlayMemory(largestDisk + 1, 1), { message: /64 TiB/ });
});
