import { Worker, type WorkerOptions } from "node:worker_threads";
import test from "ava";
import { createState, Overview, WorkerState } from "./state.js";

const awake = (state: ReturnType<typeof createState>) => new Int32Array(state.orders)[1];

/** Workers that have begun to listen, as many as are awake. */
function crew(count: number) {
  const state = createState(count);
  const workers = Array.from({ length: count }, (_, number) => new WorkerState(state, number));
  for (const worker of workers.slice(0, awake(state))) {
    worker.free();
    worker.rest();
  }
  return { state, workers };
}

test("one reader's requests keep two workers awake, however many there are", (t) => {
  const { state, workers } = crew(8);
  workers[0]!.hear();
  for (let request = 0; request < 10_000; request++) {
    const [answers, hears] = request % 2 === 0 ? [workers[0]!, workers[1]!] : [workers[1]!, workers[0]!];
    answers.free();
    // The reader has its reply and asks on before the one who answered is back from sending it.
    hears.hear();
    answers.rest();
  }
  t.is(awake(state), 2);
});

test("when all that are awake are busy another is woken, up to the last", (t) => {
  const { state, workers } = crew(4);
  workers[0]!.hear();
  t.is(awake(state), 2, "one listens still");
  workers[1]!.hear();
  t.is(awake(state), 3);
  for (const number of [2, 3]) {
    workers[number]!.free();
    workers[number]!.rest();
    workers[number]!.hear();
    t.is(awake(state), 4);
  }
});

test("the last worker goes to sleep when two others have listened for long, and comes when it is needed", async (t) => {
  const state = createState(3);
  const [one, two, three] = [0, 1, 2].map((number) => new WorkerState(state, number)) as [
    WorkerState,
    WorkerState,
    WorkerState,
  ];
  one.free();
  one.hear();
  t.is(awake(state), 3);
  for (const worker of [one, two, three]) worker.free();
  for (let request = 0; request < 511; request++) {
    three.rest();
    three.hear();
    three.free();
  }
  t.is(awake(state), 3);
  // The next time it would sleep: a thread that does it tells when it is awake again.
  const url = new URL("./state.js", import.meta.url).href;
  const sleeper = new Worker(
    `import { parentPort, workerData } from "node:worker_threads"; import { WorkerState } from "${url}";
     const own = new WorkerState(workerData, 2); parentPort.postMessage("begins");
     for (let request = 0; request < 512; request++) { own.rest(); own.hear(); own.free(); }
     parentPort.postMessage("slept");`,
    { eval: true, workerData: state, execArgv: ["--input-type=module"] } as WorkerOptions,
  );
  const said: string[] = [];
  sleeper.on("message", (word: string) => said.push(word));
  const ended = new Promise((done) => sleeper.on("exit", done));
  while (awake(state) !== 2) await new Promise((done) => setTimeout(done, 5));
  t.deepEqual(said, ["begins"]);
  one.hear();
  two.hear();
  await ended;
  t.deepEqual(said, ["begins", "slept"]);
});

test("a crew of one listens alone", (t) => {
  const { state, workers } = crew(1);
  workers[0]!.hear();
  t.is(awake(state), 1);
});

test("the end of one worker wakes all", (t) => {
  const { state, workers } = crew(6);
  workers[1]!.end();
  t.is(awake(state), 6);
});

test("one worker at a time unpacks ahead, while another listens; when it dies, another may", (t) => {
  const { state, workers } = crew(4);
  const [one, two] = workers as [WorkerState, WorkerState];
  t.true(one.take());
  t.false(two.take(), "one does");
  one.give();
  two.hear();
  t.false(one.take(), "nobody else listens");
  two.free();
  t.true(two.take());
  t.true(two.goesOn);
  const overview = new Overview(state);
  overview.takeHeld(0);
  t.false(two.goesOn, "nobody listens any more");
  // The place of the first is taken.
  one.free();
  t.false(one.take(), "another worker died");
  overview.takeHeld(1);
  two.free();
  t.true(one.take());
});

test("who unpacks ahead doesn't listen: when another hears a request, a third is woken for the next", (t) => {
  const { state, workers } = crew(4);
  const [one, two] = workers as [WorkerState, WorkerState];
  t.true(one.take());
  t.is(awake(state), 2);
  two.hear();
  t.is(awake(state), 3);
  t.false(one.goesOn);
  one.give();
  two.free();
  two.hear();
  t.is(awake(state), 3, "it listens again");
});

test("a worker that died doesn't listen, whatever it did", (t) => {
  for (const dies of [
    () => {},
    (worker: WorkerState) => worker.hear(),
    (worker: WorkerState) => t.true(worker.take()),
    (worker: WorkerState) => {
      t.true(worker.take());
      worker.give();
    },
  ]) {
    const { state, workers } = crew(4);
    const [one, two] = workers as [WorkerState, WorkerState];
    dies(one);
    new Overview(state).takeHeld(0);
    t.is(awake(state), 2);
    two.hear();
    t.is(awake(state), 3, "the last that listened heard");
    two.free();
    one.free();
    two.hear();
    t.is(awake(state), 3, "the one in its place listens");
  }
});
