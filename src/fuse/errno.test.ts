import test from "ava";
import { corrupt } from "../errors.js";
import { FailureLog } from "./errno.js";

test("a failure that repeats is one line of the log", (t) => {
  const lines: string[] = [];
  const log = new FailureLog((line) => lines.push(line));
  log.add(corrupt("x.spin: chunk 3 is damaged"));
  log.add(corrupt("x.spin: chunk 4 is damaged"));
  log.add(corrupt("x.spin: chunk 3 is damaged"));
  t.deepEqual(lines, ["x.spin: chunk 3 is damaged", "x.spin: chunk 4 is damaged"]);
});

test("a bug is written with its stack, an image's fault without", (t) => {
  const lines: string[] = [];
  const log = new FailureLog((line) => lines.push(line));
  log.add(new TypeError("undefined is not a function"));
  t.regex(lines[0]!, /a bug in Spindle.*undefined is not a function\n +at .*errno\.test/s);
});

test("a disk that is damaged all over does not fill the log, nor memory", (t) => {
  const lines: string[] = [];
  const log = new FailureLog((line) => lines.push(line));
  for (let i = 0; i < 5000; i++) log.add(corrupt(`chunk ${i}`));
  t.is(lines.length, 1001);
  t.regex(lines[1000]!, /further ones are not logged/);
});
