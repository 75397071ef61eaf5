import test from "ava";
import { ImageError } from "../errors.js";
import { Base64Source } from "./base64.js";
import { MemorySource } from "./memory.js";

test("base64 text of any length, broken into any lines, is readable at any position", (t) => {
  let seed = 1;
  const next = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  for (const size of [0, 1, 2, 3, 49_151, 49_152, 49_153, 200_001]) {
    const bytes = Buffer.from(Array.from({ length: size }, () => next(256)));
    const text = bytes
      .toString("base64")
      .replace(/.{1,60}/g, (line) => `${line}${["\n\t\t", "", " ", "\r\n"][next(4)]}`);
    const file = Buffer.from(`before${text}behind`);
    const source = new Base64Source("a.dmg", new MemorySource("a.dmg", file, 1000), 6, text.length);
    t.is(source.size, size);
    for (let times = 0; times < 50; times++) {
      const at = next(size + 1);
      const target = Buffer.alloc(1 + next(3000));
      const got = source.read(at, target);
      t.true(target.subarray(0, got).equals(bytes.subarray(at, at + got)) && (got > 0 || at === size));
    }
  }
  for (const wrong of [
    "A",
    "AA",
    "AAA",
    "AAAA=",
    "AA=A",
    "A===",
    "AA==AA==",
    "AAA\0",
    "AA-_",
    `AAAA${" ".repeat(600_000)}`,
  ])
    t.throws(
      () => new Base64Source("a.dmg", new MemorySource("a.dmg", Buffer.from(wrong)), 0, wrong.length),
      { instanceOf: ImageError },
      wrong.slice(0, 20),
    );
});
