import test from "ava";
import { Ranges } from "./ranges.js";

test("what lies in a range is told with the bytes that are left of it", (t) => {
  const ranges = new Ranges();
  t.is(ranges.lengthAt(0), 0);
  ranges.add(100, 200);
  ranges.add(300, 2 ** 50);
  ranges.add(0, 10);
  for (const [position, length] of [
    [0, 10],
    [9, 1],
    [10, 0],
    [99, 0],
    [100, 100],
    [199, 1],
    [200, 0],
    [300, 2 ** 50 - 300],
    [2 ** 50, 0],
  ] as const)
    t.is(ranges.lengthAt(position), length, `at ${position}`);
});

test("a range that is found from ever earlier positions stays one", (t) => {
  const ranges = new Ranges();
  for (const start of [900, 500, 499, 100]) ranges.add(start, 1000);
  t.is(ranges.lengthAt(100), 900);
  t.is(ranges.lengthAt(950), 50);
  t.is(ranges.lengthAt(99), 0);
});

test("whatever order ranges come in, they are those of a plain list; and there is a limit to them", (t) => {
  const ranges = new Ranges();
  const order = Array.from({ length: 3000 }, (_, nth) => (nth * 1009) % 3000);
  for (const nth of order) ranges.add(nth * 10, nth * 10 + 5);
  t.true(order.every((nth) => ranges.lengthAt(nth * 10 + 1) === 4 && ranges.lengthAt(nth * 10 + 5) === 0));
  for (let nth = 3000; nth < 10_000; nth++) ranges.add(nth * 10, nth * 10 + 5);
  t.is(ranges.lengthAt(99_990), 5);
  t.is(ranges.lengthAt(0), 0, "long forgotten");
});
