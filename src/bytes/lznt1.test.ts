import test from "ava";
import fc from "fast-check";
import { ImageError } from "../errors.js";
import { unpackLznt1 } from "./lznt1.js";

/** MS-XCA 3.3. */
const melody = `F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0`;
const packedMelody = Buffer.from(
  "38b088462320002047204100 10a24701a045204400084501507900c04520052413880 5b4024a44ef0358028c091601484500be009e000401189000".replaceAll(
    " ",
    "",
  ),
  "hex",
);

test("the melody of MS-XCA's example is unpacked", (t) => {
  const target = Buffer.alloc(melody.length);
  unpackLznt1(packedMelody, target);
  t.is(target.toString("latin1"), melody);
});

test("what chunks leave open reads as zeros, and the next chunk begins 4096 bytes on", (t) => {
  const target = Buffer.alloc(3 * 4096, 0xee);
  unpackLznt1(Buffer.concat([packedMelody, packedMelody]), target);
  for (const start of [0, 4096]) t.is(target.toString("latin1", start, start + melody.length), melody);
  t.true(target.subarray(melody.length, 4096).every((byte) => byte === 0));
  t.true(target.subarray(4096 + melody.length).every((byte) => byte === 0));
});

test("a chunk that isn't compressed is copied", (t) => {
  const target = Buffer.alloc(4096, 0xee);
  unpackLznt1(Buffer.from([0x04, 0x30, 1, 2, 3, 4, 5, 0, 0]), target);
  t.deepEqual([...target.subarray(0, 7)], [1, 2, 3, 4, 5, 0, 0]);
});

test("a pair that points before its chunk, and a chunk that goes beyond its data, are told with their byte", (t) => {
  t.throws(() => unpackLznt1(Buffer.from([0x03, 0xb0, 0x02, 65, 0x00, 0x20]), Buffer.alloc(4096)), {
    instanceOf: ImageError,
    message: /byte 4 copies from 3 bytes back, where only 1 are/,
  });
  t.throws(() => unpackLznt1(packedMelody.subarray(0, 30), Buffer.alloc(4096)), {
    instanceOf: ImageError,
    message: /goes beyond/,
  });
});

test("damaged data gives an ImageError or other bytes and never anything worse", (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ at: fc.nat(60), value: fc.nat(255) }), { maxLength: 8 }),
      fc.nat(9000),
      (changes, size) => {
        const bytes = Buffer.concat([packedMelody, packedMelody]);
        for (const { at, value } of changes) if (at < bytes.length) bytes[at] = value;
        try {
          unpackLznt1(bytes, Buffer.alloc(size));
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
        }
      },
    ),
    { numRuns: 2000 },
  );
  t.pass();
});
