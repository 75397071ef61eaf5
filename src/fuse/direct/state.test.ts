import test from "ava";
import { createState, WorkerState } from "./state.js";

/** How many workers are awake, found by who would return at once from listening. */
const awake = (state: ReturnType<typeof createState>) => new Int32Array(state.orders)[1];

function crew(workers: number) {
  const state = createState(workers);
  return { state, workers: Array.from({ length: workers }, (_, number) => new WorkerState(state, number)) };
}

test("one reader's requests keep two workers awake, however many there are", (t) => {
  const { state, workers } = crew(8);
  const [one, other] = workers as [WorkerState, WorkerState];
  one.listen();
  for (let request = 0; request < 10_000; request++) {
    const [hears, next] = request % 2 === 0 ? [one, other] : [other, one];
    next.listen();
    hears.hear();
  }
  t.is(awake(state), 2);
});

test("when all that are awake are busy another is woken, up to the last", (t) => {
  const { state, workers } = crew(4);
  workers[0]!.listen();
  workers[1]!.listen();
  workers[0]!.hear();
  t.is(awake(state), 2, "one listens still");
  workers[1]!.hear();
  t.is(awake(state), 3);
  workers[2]!.listen();
  workers[2]!.hear();
  t.is(awake(state), 4);
  workers[3]!.listen();
  workers[3]!.hear();
  t.is(awake(state), 4);
});

test("the last worker goes to sleep when two others have listened for long", (t) => {
  const { state, workers } = crew(3);
  workers[0]!.listen();
  workers[0]!.hear();
  t.is(awake(state), 3);
  workers[0]!.listen();
  workers[1]!.listen();
  for (let request = 0; request < 511; request++) {
    workers[2]!.listen();
    workers[2]!.hear();
  }
  t.is(awake(state), 3);
  workers[2]!.listen();
  t.is(awake(state), 2);
});

test("a crew of one listens alone", (t) => {
  const { state, workers } = crew(1);
  workers[0]!.listen();
  workers[0]!.hear();
  t.is(awake(state), 1);
});

test("the end of one worker wakes all", (t) => {
  const { state, workers } = crew(6);
  workers[1]!.end();
  t.is(awake(state), 6);
});
