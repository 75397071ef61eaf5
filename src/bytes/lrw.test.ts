/** The masks of LRW against a multiplication bit by bit; ./sector-cipher.test.ts and ../encryption/luks/lrw.test.ts have volumes. */
import test from "ava";
import { lrwMasks } from "./lrw.js";
import { bytesOf, largest, multiplied, numberOf } from "./lrw-test-tools.js";

/** The same at every run, and without an order. */
function* unordered(): Generator<bigint, never> {
  for (let number = 1n; ; ) {
    number = (number * 0x5851f42d4c957f2dn + 0x14057b7ef767814fn) & largest;
    yield number ^ (number >> 61n);
  }
}

test("every mask is the key times the number of its block, whatever bits change on the way there", (t) => {
  const some = unordered();
  // Numbers whose ends are all ones, of every length: what follows changes all bits up to there.
  const carries = Array.from({ length: 129 }, (_, ones) => {
    const end = (1n << BigInt(ones)) - 1n;
    return ((some.next().value & ~((end << 1n) | 1n)) | end) & largest;
  });
  const firsts = [0n, 1n, largest, largest - 20n, ...carries, ...carries.map((number) => (number - 9n) & largest)];
  for (const key of [0n, 1n, 1n << 127n, largest, some.next().value, some.next().value]) {
    const each = 33;
    const masks = lrwMasks(bytesOf(key))(Buffer.concat(firsts.map(bytesOf)), each);
    t.is(masks.length, firsts.length * each * 4);
    const bytes = Buffer.from(masks.buffer);
    for (const [nth, first] of firsts.entries())
      for (let further = 0; further < each; further++) {
        const at = (nth * each + further) * 16;
        const right = multiplied(key, (first + BigInt(further)) & largest);
        if (numberOf(bytes.subarray(at, at + 16)) !== right) t.fail(`${key} times ${first} + ${further}`);
      }
  }
});
