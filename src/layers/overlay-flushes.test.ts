/** Flushes of several threads at a time. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import test from "ava";
import { SharedLock } from "../bytes/shared-lock.js";
import { createOverlayMemory, zones } from "./overlay-memory.js";

test("who waited for two flushes doesn't flush again; the one that was under way when it came may have passed it by", async (t) => {
  const [flushLock, begun, succeeded] = [zones, zones + 2, zones + 3];
  const module = new URL("./overlay.js", import.meta.url).href;
  const program = `
    const { module, memory, flushes } = require("node:worker_threads").workerData;
    import(module).then(({ OverlayDisk }) => {
      const store = { name: "s", size: 0, read: () => 0, write() {}, flush: () => void Atomics.add(flushes, 0, 1) };
      const base = { name: "b", format: "test", facts: {}, size: memory.size };
      new OverlayDisk("d", memory, { data: store, bitmap: store }, [base], 0).flush();
    });`;
  for (const [ended, isServed] of [
    [1, false],
    [2, true],
  ] as const) {
    const memory = createOverlayMemory(1 << 20, 2);
    const words = new Int32Array(memory.locks);
    const flushes = new Int32Array(new SharedArrayBuffer(4));
    const lock = new SharedLock(words, flushLock, 1);
    lock.acquire();
    words[begun] = 1;
    const worker = new Worker(program, { eval: true, workerData: { module, memory, flushes } });
    let hasEnded = false;
    const exit = once(worker, "exit").finally(() => {
      hasEnded = true;
    });
    // Bit 0: it sleeps for the lock.
    while (!hasEnded && (Atomics.load(words, flushLock) & 1) === 0) await new Promise((done) => setTimeout(done, 5));
    words[begun] = ended;
    words[succeeded] = ended;
    lock.release();
    t.deepEqual(await exit, [0]);
    t.is(flushes[0] === 0, isServed);
  }
});
