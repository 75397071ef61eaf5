import test from "ava";
import { type Piece, PieceKind, type PieceReader } from "./packing.js";
import { Scratch } from "./scratch.js";

const length = 3 << 20;
const piece = (number: number): Piece => ({
  ...{ number, start: 0, length, kind: PieceKind.packed, at: 0, crc: undefined, note: 0, mark: 0 },
});

/** Bytes of a piece are its number; counts how often one is unpacked. */
class Reader implements PieceReader {
  begun = 0;
  private number = 0;
  begin({ number }: Piece): void {
    this.begun++;
    this.number = number;
  }
  fill(target: Uint8Array): void {
    target.fill(this.number);
  }
  finish(): void {}
}

test("a piece that a thread died over is waited for once, then it is unpacked again and kept", (t) => {
  const first = Scratch.create();
  t.teardown(() => first.close());
  const dying: PieceReader = {
    begin() {},
    fill() {
      throw new Error("it dies here");
    },
    finish() {},
  };
  const none = new Uint8Array(0);
  const target = Buffer.alloc(1000);
  const words = new Int32Array(first.data.words);
  const before = Int32Array.from(words);
  t.throws(() => first.read("packed", piece(9), none, dying, 0, target), { message: /dies/ });
  // As it stands while the thread unpacks, and for ever when it ended there.
  const slot = words.findIndex((word, at) => at >= 4 && at % 4 === 0 && word !== before[at]);
  words[slot]!--;
  words[slot + 1] = 9;

  const wait = 300;
  const scratch = new Scratch(first.data, wait);
  const reader = new Reader();
  const begun = performance.now();
  scratch.read("packed", piece(9), none, reader, 5000, target);
  t.true(performance.now() - begun >= wait - 1);
  t.true(target.every((byte) => byte === 9));
  const again = performance.now();
  for (let times = 0; times < 3; times++) {
    target.fill(0);
    scratch.read("packed", piece(9), none, reader, times * 4096, target);
    t.true(target.every((byte) => byte === 9));
  }
  t.true(performance.now() - again < wait, "nobody waits again");
  t.is(reader.begun, 1, "it was kept");
});
