import { closeSync, readSync, writeSync } from "node:fs";
import { constants } from "node:os";
import { Worker } from "node:worker_threads";
import test from "ava";
import { socketPair } from "../../libc.js";
import { opcodes } from "./protocol.js";
import { createState, Overview } from "./state.js";
import { name, readIn, requestBytes } from "./test-messages.js";

/** A worker over one end of a socket whose packets are requests and replies; the test is the kernel at the other. */
function startWorker() {
  const [kernel, server] = socketPair(true);
  const state = createState(1);
  const workerData = { server, state };
  const worker = new Worker(new URL("./serve.test-worker.js", import.meta.url), { workerData });
  const ended = new Promise<number>((done) => worker.on("exit", done));
  const lines: string[] = [];
  worker.on("message", (line: string) => lines.push(line));
  return {
    overview: new Overview(state),
    lines,
    send: (bytes: Uint8Array) => writeSync(kernel, bytes),
    receive() {
      const bytes = Buffer.alloc(2 * 1024 * 1024);
      return bytes.subarray(0, readSync(kernel, bytes, 0, bytes.length, null));
    },
    async close() {
      closeSync(kernel);
      const code = await ended;
      closeSync(server);
      return code;
    },
  };
}

test("each request gets the reply that carries its number, and nothing else is sent", async (t) => {
  const kernel = startWorker();
  kernel.send(requestBytes(opcodes.LOOKUP, 1n, name("file")));
  let reply = kernel.receive();
  t.is(reply.length, 16 + 128);
  t.is(reply.readUInt32LE(0), reply.length);
  t.is(reply.readInt32LE(4), 0);
  t.is(reply.readBigUInt64LE(8), 0x1122334455667788n);
  const node = reply.readBigUInt64LE(16);

  kernel.send(requestBytes(opcodes.FORGET, node, Buffer.alloc(8)));
  kernel.send(requestBytes(opcodes.READ, node, readIn(3n, 100)));
  reply = kernel.receive();
  t.is(reply.subarray(16).toString(), "tents");

  kernel.send(requestBytes(opcodes.OPEN, node, Buffer.alloc(8)));
  reply = kernel.receive();
  t.deepEqual([reply.length, reply.readInt32LE(4)], [16, -constants.errno.ENOSYS]);
  t.is(await kernel.close(), 0);
  t.deepEqual(kernel.overview.counters(), { requests: 4, reads: 1, bytesRead: 5, errors: 0 });
  t.is(kernel.overview.takeHeld(0), undefined);
  t.true(kernel.overview.hasEnded(0));
});

test("a worker that dies leaves the number of the request it held", async (t) => {
  const kernel = startWorker();
  kernel.send(requestBytes(opcodes.LOOKUP, 1n, name("die")));
  t.is(await kernel.close(), 5);
  t.false(kernel.overview.hasEnded(0));
  t.deepEqual(kernel.overview.takeHeld(0), [0x55667788, 0x11223344]);
  t.is(kernel.overview.takeHeld(0), undefined);
  t.is(kernel.overview.counters().errors, 1);
});
