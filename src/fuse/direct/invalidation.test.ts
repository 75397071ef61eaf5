import { once } from "node:events";
import { Worker } from "node:worker_threads";
import test from "ava";
import {
  capacity,
  createInvalidationMemory,
  everyFile,
  type Invalidation,
  InvalidationRing,
  mostAwaited,
  noFile,
  OpenFiles,
  ReplyKind,
} from "./invalidation.js";

const { written, none } = ReplyKind;
const MiB = 1024 * 1024;
const empty = (): Invalidation => ({
  ...{ file: 0, position: 0, length: 0, reply: 0, uniqueLow: 0, uniqueHigh: 0, written: 0 },
});

function ring() {
  const memory = createInvalidationMemory();
  return { memory, giver: new InvalidationRing(memory, 0), taker: new InvalidationRing(memory, 1) };
}

test("what is handed over is taken in order, and answered after the last of its files", (t) => {
  const { giver, taker } = ring();
  const shares = [
    { file: 3, position: 2 ** 45 + 5, length: 10 },
    { file: 4, position: 0, length: 7 },
  ];
  t.true(giver.give(shares, { file: 2, position: 99, length: 17 }, written, 0xffffffff, 0x80000001, 17));
  const [first, second] = [empty(), empty()];
  t.true(taker.take(first));
  taker.finish(first);
  t.true(taker.take(second));
  const rest = { uniqueLow: 0xffffffff, uniqueHigh: 0x80000001, written: 17 };
  t.deepEqual(first, { ...shares[0]!, reply: none, ...rest });
  t.deepEqual(second, { ...shares[1]!, reply: written, ...rest });
});

test("a reply isn't handed over while pages near those just written are waited for, in the same file", (t) => {
  const { giver, taker } = ring();
  const give = (file: number, other: number, position: number, length = 512) =>
    giver.give([{ file: other, position, length }], { file, position, length }, written, 1, 0, length);
  t.true(give(2, 3, 5 * MiB));
  t.false(give(3, 2, 5 * MiB + 512), "the first waits for a page of file 3 that this one may hold");
  t.true(give(4, 5, 5 * MiB), "another file");
  t.true(give(3, 2, 6 * MiB), "another place");
  t.false(give(3, 2, 0, 8 * MiB), "all around it");
  const next = empty();
  taker.take(next);
  t.false(give(3, 2, 5 * MiB), "taken, but not yet forgotten");
  taker.finish(next);
  t.true(give(3, 4, 5 * MiB));
});

test("the reply of who holds no pages is handed over whatever is waited for", (t) => {
  const { giver } = ring();
  const share = { file: 2, position: 0, length: 512 };
  t.true(giver.give([share], undefined, written, 1, 0, 512));
  t.true(giver.give([share], undefined, written, 2, 0, 512));
  t.false(giver.give([{ ...share, file: 3 }], share, written, 3, 0, 512));
});

test("no more replies to writes wait at a time than leave the kernel places for those who are waited for", (t) => {
  const { giver, taker } = ring();
  const give = () => giver.give([{ file: 2, position: 0, length: 512 }], undefined, written, 1, 0, 512);
  for (let count = 0; count < mostAwaited; count++) t.true(give());
  t.false(give());
  giver.give([{ file: 2, position: 0, length: 512 }], undefined, ReplyKind.writtenBack, 1, 0, 512);
  t.true(giver.giveReply(7, 8), "who synchronises has none of these places");
  const next = empty();
  taker.take(next);
  t.false(give());
  taker.finish(next);
  t.true(give());
  t.false(give());
});

test("a reply alone is handed over when something was written back before it, and is taken after that", (t) => {
  const { giver, taker } = ring();
  t.false(giver.giveReply(7, 8), "nothing is to be forgotten");
  const share = { file: 2, position: 0, length: 512 };
  giver.give([share], share, none, 1, 0, 512);
  t.false(giver.giveReply(7, 8), "nobody who synchronises waits for that");
  const next = empty();
  taker.take(next);
  taker.finish(next);
  t.false(giver.give([share], share, ReplyKind.writtenBack, 1, 0, 512));
  t.true(giver.giveReply(7, 8));
  taker.take(next);
  t.deepEqual([next.file, next.reply], [2, ReplyKind.writtenBack]);
  taker.finish(next);
  taker.take(next);
  t.deepEqual([next.file, next.reply, next.uniqueLow, next.uniqueHigh], [noFile, ReplyKind.empty, 7, 8]);
  taker.finish(next);
  t.false(giver.giveReply(9, 8));
});

test("a file has pages from the first that is read or written on, until it is opened anew when nobody has it open", (t) => {
  const { memory } = ring();
  const [open, other] = [new OpenFiles(memory), new OpenFiles(memory)];
  const state = () => [open.isOpen(4), open.mayHavePages(4)];
  t.deepEqual(state(), [false, false]);
  other.opened(4);
  t.deepEqual(state(), [true, false]);
  open.hasPages(4);
  other.hasPages(4);
  t.deepEqual(state(), [true, true]);
  open.opened(4);
  t.deepEqual(state(), [true, true], "those of the first are left");
  open.closed(4);
  t.deepEqual(state(), [true, true]);
  other.closed(4);
  t.deepEqual(state(), [false, true], "pages may be left");
  open.opened(4);
  t.deepEqual(state(), [true, false]);
  open.opened(10 ** 9);
  t.deepEqual([open.isOpen(10 ** 9), open.mayHavePages(10 ** 9)], [true, true], "one that isn't counted");
});

test("where there is no room nobody waits: everything is forgotten soon", (t) => {
  const { giver, taker, memory } = ring();
  const give = (unique: number) =>
    giver.give([{ file: 3, position: 0, length: 1 }], { file: 2, position: 0, length: 1 }, written, unique, 0, 1);
  for (let count = 0; count < capacity; count++) t.is(give(count), count < mostAwaited);
  t.false(give(capacity));
  const next = empty();
  taker.take(next);
  t.deepEqual([next.file, next.reply], [everyFile, none]);
  taker.finish(next);
  const open = new OpenFiles(memory);
  for (const file of [5, 2, 5]) open.opened(file);
  open.closed(2);
  t.deepEqual([...open.all()], [5]);
  InvalidationRing.end(memory);
  for (let count = 0; count < capacity; count++) {
    t.true(taker.take(next));
    t.is(next.uniqueLow, count);
    taker.finish(next);
  }
  t.false(taker.take(next));
});

test("what several threads hand over at a time arrives whole, each once, whatever died while it held the lock", async (t) => {
  const { memory, taker } = ring();
  // As if thread 0 had ended inside.
  new Int32Array(memory.ring)[0] = 2;
  const each = 20_000;
  const program = `
    const { workerData } = require("node:worker_threads");
    import(workerData.module).then(({ InvalidationRing }) => {
      const { owner, memory, each } = workerData;
      const ring = new InvalidationRing(memory, owner);
      for (let n = 0; n < each; n++) {
        const shares = [{ file: owner, position: n, length: n + 1 }, { file: owner + 10, position: n, length: n + 2 }];
        while (!ring.give(shares, { file: 100, position: 0, length: n }, 1, n, owner, n));
      }
    });`;
  const module = new URL("./invalidation.js", import.meta.url).href;
  const workers = [2, 3, 4].map(
    (owner) => new Worker(program, { eval: true, workerData: { module, memory, owner, each } }),
  );
  InvalidationRing.releaseDead(memory, 0, 1);
  const next = empty();
  const counts = [0, 0, 0];
  for (let pairs = 0; pairs < 3 * each; ) {
    taker.take(next);
    taker.finish(next);
    if (next.file === everyFile) continue;
    const { file: owner, position: n } = next;
    const first = { ...next };
    t.true(counts[owner - 2] === n);
    taker.take(next);
    while (next.file === everyFile) taker.take(next);
    taker.finish(next);
    if (first.length !== n + 1 || first.reply !== none || next.length !== n + 2 || next.reply !== ReplyKind.empty)
      t.fail(`torn: ${JSON.stringify([first, next])}`);
    if (next.file !== owner + 10 || next.uniqueLow !== n || next.uniqueHigh !== owner || next.written !== n)
      t.fail(`torn: ${JSON.stringify([first, next])}`);
    counts[owner - 2]!++;
    pairs++;
  }
  t.deepEqual(counts, [each, each, each]);
  await Promise.all(workers.map((worker) => once(worker, "exit")));
});

test("after the death of a thread that may have written everything is to be forgotten, and nobody waits for its lock", (t) => {
  const { memory, giver, taker } = ring();
  new Int32Array(memory.ring)[0] = (5 + 1) << 1;
  InvalidationRing.releaseDead(memory, 5, 6);
  const next = empty();
  t.true(taker.take(next));
  t.deepEqual([next.file, next.reply], [everyFile, none]);
  t.true(giver.give([{ file: 3, position: 0, length: 1 }], { file: 2, position: 0, length: 1 }, written, 1, 0, 1));
});
