/** How much work the key slots of a header may ask for. */
import test from "ava";
import { hashNamed } from "./hash.js";
import { firstKey, mostWork, pbkdf2Work } from "./luks-slots.js";

const key = Uint8Array.of(1);

/** Which of the slots, each told by its work, are tried where the password is that of the slot numbered `right`. */
function tried(works: readonly number[], right: number) {
  const numbers: number[] = [];
  const found = firstKey(
    [...works.keys()],
    (slot) => works[slot]!,
    (slot) => {
      numbers.push(slot);
      return slot === right ? key : undefined;
    },
  );
  return { numbers, ...found };
}

test("the password of the last of 32 slots is found, each of which takes the quickest processor two seconds", (t) => {
  // `cryptsetup benchmark` there: 7 million rounds of SHA-256 a second; a key of 512 bits has two hashes of it. The digest: 125 ms.
  const rounds = pbkdf2Work(7_000_000, 64, hashNamed("sha256")!) + pbkdf2Work(900_000, 32, hashNamed("sha256")!);
  t.is(tried(Array(32).fill(rounds), 31).key, key);
  // What it chooses there for Argon2: 1 GiB, which is the most that it takes by itself, and 14 passes.
  t.is(tried(Array(32).fill(2 ** 20 * 14), 31).key, key);
});

test("all slots together get no more work than the limit, and those that it is enough for are tried", (t) => {
  const half = mostWork / 2;
  t.deepEqual(tried([mostWork + 1, half, half + 1, half, 1], -1), { numbers: [1, 3], leftOut: 0 });
  t.deepEqual(tried([half, half + 1, 5], 2), { numbers: [0, 2], key });
  t.deepEqual(tried([5, 5], -1), { numbers: [0, 1], leftOut: undefined });
});

test("the rounds of PBKDF2 are gone through for each hash of the key", (t) => {
  t.is(pbkdf2Work(1000, 64, hashNamed("sha1")!), 4000);
  t.is(pbkdf2Work(1000, 64, hashNamed("sha256")!), 2000);
  t.is(pbkdf2Work(1000, 32, hashNamed("sha512")!), 1000);
});
