import { Worker, type WorkerOptions } from "node:worker_threads";
import test, { type ExecutionContext } from "ava";
import { createState, Overview, type SharedState, WorkerState } from "./state.js";

const word = (state: SharedState, at: number) => new Int32Array(state.orders)[at];
const wanted = (state: SharedState) => word(state, 1);
const listening = (state: SharedState) => word(state, 2);
const standingBy = (state: SharedState) => word(state, 6);

/** Workers of which none does anything yet, and who stands by for this thread, which can't. */
function crew(count: number, ...listeners: number[]) {
  const state = createState(count);
  const workers = Array.from({ length: count }, (_, number) => new WorkerState(state, number));
  for (const number of listeners) workers[number]!.free();
  return { state, workers };
}

const url = new URL("./state.js", import.meta.url).href;

/** A thread that is the worker of a number and does what `text` says, with `own`, its state, and `say`. */
function thread(t: ExecutionContext, state: SharedState, number: number, text: string) {
  const said: string[] = [];
  const worker = new Worker(
    `import { parentPort, workerData } from "node:worker_threads"; import { WorkerState } from "${url}";
     const own = new WorkerState(workerData, ${number}); const say = (word) => parentPort.postMessage(word);
     ${text}`,
    { eval: true, workerData: state, execArgv: ["--input-type=module"] } as WorkerOptions,
  );
  worker.on("message", (word: string) => said.push(word));
  const ended = new Promise((done) => worker.on("exit", done));
  t.teardown(() => worker.terminate());
  return { said, ended, dies: () => worker.terminate() };
}

async function until(t: ExecutionContext, what: string, isSo: () => boolean): Promise<void> {
  for (let tries = 0; !isSo(); tries++) {
    if (tries > 4000) return t.fail(`never: ${what}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

const stands = "own.free(); say('rests'); own.rest(); say('listens');";

test("one worker listens to one reader, however soon it asks again", (t) => {
  const { state, workers } = crew(4, 0);
  const [one] = workers as [WorkerState];
  for (let request = 0; request < 10_000; request++) {
    one.press(true, 7, false);
    one.hear();
    one.hold(request, 0);
    one.free();
    one.rest();
  }
  t.true(one.isAlone);
  t.is(listening(state), 1);
});

test("workers beyond those that are wanted stand by until the mount is gone", async (t) => {
  const { state, workers } = crew(4, 0);
  const others = [1, 2, 3].map((number) => thread(t, state, number, stands));
  await until(t, "all stand by", () => standingBy(state) === 3);
  t.is(listening(state), 1);
  workers[0]!.end();
  await Promise.all(others.map(({ ended }) => ended));
  for (const { said } of others) t.deepEqual(said, ["rests", "listens"]);
});

test("who is about to do something long has another listen, unless one does", async (t) => {
  const { state, workers } = crew(2, 0);
  const other = thread(t, state, 1, stands);
  await until(t, "it stands by", () => standingBy(state) === 1);
  const [one] = workers as [WorkerState];
  one.lend();
  t.is(standingBy(state), 1, "this one listens");
  one.hear();
  one.lend();
  await other.ended;
  t.deepEqual(other.said, ["rests", "listens"]);
  t.is(listening(state), 1);
});

test("a request that takes long without having said so is not waited for", async (t) => {
  const { state, workers } = crew(2, 0);
  const other = thread(t, state, 1, stands);
  await until(t, "it stands by", () => standingBy(state) === 1);
  workers[0]!.hear();
  workers[0]!.hold(1, 0);
  // Nobody is called: the one that stands by sees it.
  await other.ended;
  t.is(listening(state), 1);
});

test("after a request that held up all, whoever hears last calls another at once, until enough listen again", async (t) => {
  const { state, workers } = crew(3, 0, 1);
  const [one, two] = workers as [WorkerState, WorkerState];
  const stalled = thread(t, state, 2, "own.free(); own.rest(); own.hear(); own.hold(1, 0); say('hears');");
  await until(t, "it stands by", () => standingBy(state) === 1);
  one.hear();
  one.hold(1, 0);
  two.hear();
  two.hold(2, 0);
  await stalled.ended;
  t.deepEqual(stalled.said, ["hears"]);
  const calls = () => word(state, 5)!;
  one.free();
  const before = calls();
  one.hear();
  t.is(calls(), before + 1);
  // Who comes back and finds enough that listen ends that.
  one.free();
  const last = thread(t, state, 1, stands);
  await until(t, "it stands by", () => standingBy(state) === 1);
  t.is(word(state, 9), 0);
  one.end();
  await last.ended;
});

test("who stands by sleeps when there are no requests, and looks again when there are", async (t) => {
  const { state, workers } = crew(2, 0);
  const other = thread(t, state, 1, stands);
  await until(t, "it sleeps", () => word(state, 7) === 1);
  t.is(standingBy(state), 1);
  workers[0]!.hear();
  workers[0]!.hold(1, 0);
  t.is(word(state, 7), 0);
  await other.ended;
  t.is(listening(state), 1);
});

test("requests of several readers that wait are heard by more workers, up to all, until nobody waits", async (t) => {
  const { state, workers } = crew(3, 0);
  const [one] = workers as [WorkerState];
  const press = (times: number, waited: boolean, asker: (nth: number) => number, isLarge = false) => {
    for (let nth = 0; nth < times; nth++) one.press(waited, asker(nth), isLarge);
  };
  press(1000, true, () => 5);
  t.is(wanted(state), 1, "all of one reader");
  press(1000, false, (nth) => nth);
  t.is(wanted(state), 1, "none had to wait");
  press(64, true, (nth) => nth);
  t.is(wanted(state), 2);
  t.false(one.isAlone);
  press(64, true, () => 5, true);
  t.is(wanted(state), 3, "pieces of a large read");
  press(1000, true, (nth) => nth);
  t.is(wanted(state), 3, "there are no more");
  // All three listen before each request.
  for (const worker of workers.slice(1)) worker.free();
  for (let request = 0; request < 511; request++) one.rest();
  t.is(wanted(state), 3);
  const last = thread(t, state, 0, "say('rests'); for (let n = 0; n < 600; n++) own.rest(); say('listens');");
  await until(t, "one stands by", () => standingBy(state) === 1);
  t.deepEqual([wanted(state), listening(state)], [2, 2]);
  one.end();
  await last.ended;
});

test("the end of one worker has all listen, so that all hear of it", async (t) => {
  const { state, workers } = crew(3, 0);
  const other = thread(t, state, 2, stands);
  await until(t, "it stands by", () => standingBy(state) === 1);
  workers[0]!.end();
  await other.ended;
  t.is(wanted(state), 3);
  t.is(listening(state), 1, "who has ended doesn't");
});

test("a worker that comes back when the mount is gone doesn't stand by, though others listened as it left", (t) => {
  const { workers } = crew(2, 0, 1);
  const [one, two] = workers as [WorkerState, WorkerState];
  for (let nth = 0; nth < 64; nth++) two.press(true, nth, false);
  for (let request = 0; request < 511; request++) one.rest();
  one.hear();
  two.end();
  one.free();
  one.rest();
  t.pass();
});

test("when the only one that listened dies, another does", async (t) => {
  const { state } = crew(2, 0);
  const other = thread(t, state, 1, stands);
  await until(t, "it sleeps", () => word(state, 7) === 1);
  new Overview(state).takeHeld(0);
  await other.ended;
  t.is(listening(state), 1);
});

test("one worker at a time unpacks ahead, while another listens; when it dies, another may", (t) => {
  const { state, workers } = crew(4, 0, 1);
  const [one, two] = workers as [WorkerState, WorkerState];
  t.true(one.take());
  t.false(two.take(), "one does");
  one.give();
  two.hear();
  t.false(one.take(), "nobody else listens, and nobody stands by");
  t.is(listening(state), 1, "it listens still");
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

test("who unpacks ahead has one that stands by listen", async (t) => {
  const { state, workers } = crew(2, 0);
  const [one] = workers as [WorkerState];
  const other = thread(t, state, 1, stands);
  await until(t, "it stands by", () => standingBy(state) === 1);
  t.true(one.take());
  await other.ended;
  t.true(one.goesOn);
  one.give();
  t.is(listening(state), 2);
});

test("a worker that died neither listens nor stands by, whatever it did", async (t) => {
  for (const dies of [
    () => {},
    (worker: WorkerState) => worker.hear(),
    (worker: WorkerState) => t.true(worker.take()),
    (worker: WorkerState) => {
      t.true(worker.take());
      worker.give();
    },
  ]) {
    const { state, workers } = crew(4, 0, 1);
    dies(workers[0]!);
    new Overview(state).takeHeld(0);
    t.is(listening(state), 1);
  }
  const { state } = crew(2, 0);
  const other = thread(t, state, 1, stands);
  await until(t, "it stands by", () => standingBy(state) === 1);
  await other.dies();
  new Overview(state).takeHeld(1);
  t.deepEqual([listening(state), standingBy(state)], [1, 0]);
});
