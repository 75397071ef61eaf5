import test from "ava";
import fc from "fast-check";
import { readFully } from "../bytes/byte-source.js";
import { MemorySource } from "../bytes/memory.js";
import { LayeredDisk } from "./disk.js";
import type { Layer, Run } from "./layer.js";

/** A layer by one letter a byte: `-` is absent, `0` is zero, any other letter is stored, kept out of order. */
class LetterLayer implements Layer {
  readonly format = "letters";
  readonly parent = undefined;
  readonly facts = {};
  private readonly source: MemorySource;

  constructor(
    readonly name: string,
    private readonly letters: string,
    /** Runs are told no longer than this, though the next is alike. */
    private readonly longest: number,
    /** Is given the letters that the source is told will be read. */
    willRead: (letters: string) => void = () => {},
  ) {
    const bytes = Buffer.from([...letters].reverse().join(""));
    this.source = Object.assign(new MemorySource(name, bytes), {
      willRead: (position: number, length: number) => willRead(bytes.toString("latin1", position, position + length)),
    });
  }

  get size(): number {
    return this.letters.length;
  }

  locate(position: number): Run {
    const kind = (letter: string | undefined) => (letter === "-" ? "absent" : letter === "0" ? "zero" : "stored");
    const own = kind(this.letters[position]);
    if (own === "stored") return { kind: own, length: 1, source: this.source, at: this.letters.length - 1 - position };
    let length = 1;
    while (length < this.longest && position + length < this.size && kind(this.letters[position + length]) === own)
      length++;
    return { kind: own, length };
  }
}

const letters = fc.string({ unit: fc.constantFrom("-", "-", "0", "a", "b"), maxLength: 12 });
const stacks = fc.tuple(fc.array(letters, { minLength: 1, maxLength: 4 }), fc.integer({ min: 1, max: 12 }));

/** What the stack holds at a place: by the sentence in layer.ts, byte by byte. */
function expectedAt(stack: readonly string[], position: number): string {
  for (const layer of stack) {
    if (position >= layer.length) return "0";
    if (layer[position] !== "-") return layer[position]!;
  }
  return "0";
}

test("a byte is that of the newest layer that has it, and zero where none has or a parent ended", (t) => {
  fc.assert(
    fc.property(stacks, ([stack, longest]) => {
      const disk = new LayeredDisk(
        "d",
        stack.map((one, i) => new LetterLayer(`${i}`, one, longest)),
      );
      const expected = [...stack[0]!].map((_, at) => expectedAt(stack, at));
      const target = Buffer.alloc(disk.size + 3, 1);
      const got = readFully(disk, 0, target);
      const bytes = target.toString("latin1", 0, got).replaceAll("\0", "0");
      return got === disk.size && bytes === expected.join("");
    }),
    { numRuns: 2000 },
  );
  t.pass();
});

test("extents cover the disk, are holes exactly where nothing is stored, their data is what is counted, and zeros are holes", (t) => {
  fc.assert(
    fc.property(stacks, fc.nat(12), fc.nat(12), ([stack, longest], a, b) => {
      const disk = new LayeredDisk(
        "d",
        stack.map((one, i) => new LetterLayer(`${i}`, one, longest)),
      );
      const holes = [...stack[0]!].map((_, at) => expectedAt(stack, at) === "0");
      for (let at = 0; at < disk.size; ) {
        const { hole, length } = disk.extentAt(at);
        if (length < 1 || at + length > disk.size) return false;
        if (holes.slice(at, at + length).some((one) => one !== hole)) return false;
        at += length;
        if (at < disk.size && holes[at] === hole) return false; // the extent should have gone on
      }
      for (let at = 0; at < disk.size; at++) {
        const zeros = disk.zerosAt(at);
        if (zeros > 0 !== holes[at] || at + zeros > disk.size || holes.slice(at, at + zeros).includes(false))
          return false;
      }
      const [from, to] = [Math.min(a, b, disk.size), Math.min(Math.max(a, b), disk.size)];
      return disk.dataBytes(from, to) === holes.slice(from, to).filter((hole) => !hole).length;
    }),
    { numRuns: 2000 },
  );
  t.pass();
});

test("a stretch that will be read is announced where its bytes are stored, and nowhere else", (t) => {
  fc.assert(
    fc.property(stacks, fc.nat(12), fc.nat(15), ([stack, longest], position, length) => {
      let announced = "";
      const add = (letters: string) => {
        announced += letters;
      };
      new LayeredDisk(
        "d",
        stack.map((one, i) => new LetterLayer(`${i}`, one, longest, add)),
      ).willRead(position, length);
      const expected = [...stack[0]!].map((_, at) => expectedAt(stack, at)).slice(position, position + length);
      return announced === expected.filter((letter) => letter !== "0").join("");
    }),
    { numRuns: 1000 },
  );
  t.pass();
});
