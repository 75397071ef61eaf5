import test from "ava";
import { createStreamMemory, Streams } from "./streams.js";

const streams = () => new Streams(createStreamMemory());

test("a reader that goes on with the next chunk in another request reads in order, also within that chunk", (t) => {
  const table = streams();
  t.false(table.note(0, 7, 1));
  t.false(table.note(0, 7, 2));
  t.true(table.note(0, 8, 3));
  t.true(table.note(0, 8, 4));
  t.true(table.note(0, 9, 5));
  t.false(table.note(0, 11, 6), "it left one out");
});

test("chunks in order within one request tell nothing of the next request", (t) => {
  const table = streams();
  for (const first of [100, 500, 300])
    for (let chunk = first; chunk < first + 4; chunk++) t.false(table.note(0, chunk, first));
  t.true(table.note(0, 304, 301));
});

test("readers of the same chunks of two sources, and sixteen readers of one, are told apart; one more takes the oldest's place", (t) => {
  const table = streams();
  t.false(table.note(0, 1, 1));
  t.false(table.note(1, 2, 2));
  t.true(table.note(0, 2, 3));
  const many = streams();
  for (let reader = 0; reader < 17; reader++) many.note(5, reader * 1000, reader);
  t.false(many.note(5, 1, 20), "the first is forgotten");
  for (let reader = 2; reader < 17; reader++) t.true(many.note(5, reader * 1000 + 1, 20 + reader));
});

test("two requests of a reader that are answered the other way round don't make a second reader of it", (t) => {
  const table = streams();
  table.note(0, 1, 1);
  t.true(table.note(0, 2, 2));
  t.false(table.note(0, 1, 3));
  t.true(table.note(0, 3, 4));
});

test("the numbers go on past 2^31 and 2^32", (t) => {
  for (const chunk of [2 ** 31, 2 ** 32]) {
    const table = streams();
    table.note(0, (chunk - 1) | 0, 1);
    t.true(table.note(0, chunk | 0, 2));
  }
});
