/** When a worker looks for the next request, by a clock that goes on by a hundredth of a millisecond at each look. */
import { closeSync, writeSync } from "node:fs";
import test from "ava";
import { readable, socketPair } from "../../libc.js";
import { Arrivals } from "./arrivals.js";

function looking() {
  let time = 0;
  let looks = 0;
  /** After how many looks the next request is there. */
  let comes = Number.POSITIVE_INFINITY;
  const isThere = () => {
    time += 0.01;
    return ++looks > comes;
  };
  const arrivals = new Arrivals(isThere, () => time);
  return {
    arrivals,
    /** Waits for a request that comes after so many looks, or after `slept` ms. @returns how often was looked */
    request(after: number, slept = 0, isAlone = true): number {
      looks = 0;
      comes = after;
      arrivals.await(isAlone);
      const before = looks;
      time += slept;
      arrivals.came();
      return before;
    },
  };
}

const never = Number.POSITIVE_INFINITY;

test("the next request is looked for once one came soon after a reply, for a tenth of a millisecond", (t) => {
  const { request } = looking();
  t.is(request(never, 5), 0, "none has come soon yet");
  t.is(request(never, 0.2), 0, "it comes soon, and is slept for");
  t.is(request(3, 0), 4, "the look that finds it is the last");
  const inVain = request(never, 5);
  t.true(inVain >= 10 && inVain <= 11, `${inVain} looks of 0.01 ms`);
});

test("what was in vain eight times in a row is left off, until a request comes soon", (t) => {
  const { request } = looking();
  request(never, 0);
  for (let times = 0; times < 7; times++) t.true(request(never, 5) > 0);
  t.is(request(0), 1, "one that is found begins the count anew");
  for (let times = 0; times < 8; times++) t.true(request(never, 5) > 0);
  for (let times = 0; times < 3; times++) t.is(request(never, 5), 0);
  t.is(request(never, 0.1), 0);
  t.is(request(2), 3);
});

test("who isn't alone doesn't look, and learns nonetheless that requests come soon", (t) => {
  const { request } = looking();
  t.is(request(never, 0, false), 0);
  t.is(request(2, 0, false), 0);
  t.is(request(2), 3);
});

test("a request that is there when one is answered is told as one that waited, by poll(2)", (t) => {
  const [fd, other] = socketPair(true);
  t.teardown(() => closeSync(fd));
  const arrivals = new Arrivals(readable(fd));
  arrivals.replied();
  t.false(arrivals.waited);
  writeSync(other, "request");
  arrivals.replied();
  t.true(arrivals.waited);
  closeSync(other);
  arrivals.replied();
  t.true(arrivals.waited, "so is the end");
});
