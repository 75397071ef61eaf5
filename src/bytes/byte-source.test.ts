/** What wraps other bytes tells and asks them what it is told and asked itself, at their positions. */
import test from "ava";
import { type ByteSource, type Extent, Slice } from "./byte-source.js";
import { DecryptedSource } from "./decrypted.js";
import { JoinedSource } from "./joined.js";
import { sectorCipher } from "./sector-cipher.js";
import { StridedSource } from "./strided.js";

/** Bytes of which those from `near` on are still to be unpacked, and of which a part is a hole. */
class Watched implements ByteSource {
  readonly name = "watched";
  readonly told: (readonly [position: number, length: number])[] = [];

  constructor(
    readonly size: number,
    private readonly near: number,
    private readonly hole: readonly [start: number, end: number] = [0, 0],
  ) {}

  read(_: number, target: Uint8Array): number {
    target.fill(0);
    return target.length;
  }

  willRead(position: number, length: number): void {
    this.told.push([position, length]);
  }

  isFar(position: number): boolean {
    return position >= this.near;
  }

  extentAt(position: number): Extent {
    const [start, end] = this.hole;
    const hole = position >= start && position < end;
    return { hole, length: (hole ? end : position < start ? start : this.size) - position };
  }
}

/** The first position that is far, and what is told of a stretch. */
function passedOn(source: ByteSource, watched: Watched, position: number, length: number) {
  const positions = Array.from({ length: source.size }, (_, at) => at);
  source.willRead?.(position, length);
  return { far: positions.find((at) => source.isFar?.(at)), told: watched.told };
}

test("a slice", (t) => {
  const watched = new Watched(10_000, 5000, [2000, 3000]);
  const slice = new Slice("slice", watched, 1000, 8000);
  t.deepEqual(passedOn(slice, watched, 7000, 5000), { far: 4000, told: [[8000, 1000]] });
  t.deepEqual(slice.extentAt(500), { hole: false, length: 500 });
  t.deepEqual(slice.extentAt(1500), { hole: true, length: 500 });
  t.deepEqual(slice.extentAt(7999), { hole: false, length: 1 });
  t.deepEqual(new Slice("slice", new Watched(10_000, 0, [500, 10_000]), 0, 900).extentAt(600), {
    hole: true,
    length: 300,
  });
  const simple = { name: "simple", size: 1000, read: () => 0 };
  t.deepEqual(new Slice("slice", simple, 100, 500).extentAt(100), { hole: false, length: 400 });
  t.false(new Slice("slice", simple, 100, 500).isFar(100));
});

test("sources end to end", (t) => {
  const watched = new Watched(1000, 300);
  const joined = new JoinedSource("joined", [new Watched(500, 500), watched]);
  t.deepEqual(passedOn(joined, watched, 600, 100), { far: 800, told: [[100, 100]] });
});

test("stretches of records", (t) => {
  const watched = new Watched(10_000, 1050);
  // Of 100 bytes each from 20 on 60 count: those of the eleventh record from byte 1020 on.
  const strided = new StridedSource("strided", watched, { start: 20, step: 100, length: 60, count: 50 });
  t.deepEqual(passedOn(strided, watched, 70, 100), { far: 630, told: [[130, 140]] });
});

test("sectors that are decrypted", (t) => {
  const watched = new Watched(8192, 5000);
  const decrypted = new DecryptedSource(watched, sectorCipher("aes", "xts-plain64", Buffer.alloc(32, "key")));
  // The sector of byte 5000 can't be decrypted before all of it is there.
  t.deepEqual(passedOn(decrypted, watched, 700, 100), { far: 4608, told: [[700, 100]] });
});
