/** A thread of shared-cache.test.ts: reads at random through the shared cache and checks every byte. */
import { parentPort, workerData } from "node:worker_threads";
import { byteAt, PatternChunks } from "./cache-test-data.js";
import { SharedChunkCache } from "./shared-cache.js";
import type { SharedCacheMemory } from "./shared-cache-memory.js";

export interface Job {
  readonly memory: SharedCacheMemory;
  readonly worker: number;
  readonly chunkSize: number;
  readonly chunks: number;
  /** An Int32 per chunk: how many threads are unpacking it. */
  readonly busy: SharedArrayBuffer;
  readonly reads: number;
  /** Milliseconds that unpacking takes longer. */
  readonly sleep: number;
  /** Reads this chunk alone. */
  readonly only?: number;
  /** Ends the thread while it unpacks, after so many milliseconds. */
  readonly dieAfter?: number;
}

const job = workerData as Job;
const { chunkSize, chunks } = job;
const busy = new Int32Array(job.busy);
const never = new Int32Array(new SharedArrayBuffer(4));
let overlaps = 0;

const packed = new PatternChunks("a", 1, chunkSize * chunks - 100, chunkSize);
packed.before = (chunk) => {
  if (Atomics.add(busy, chunk, 1) !== 0) overlaps++;
  if (job.dieAfter !== undefined) {
    Atomics.wait(never, 0, 0, job.dieAfter);
    process.exit();
  }
  if (job.sleep > 0) Atomics.wait(never, 0, 0, job.sleep);
};
packed.after = (chunk) => {
  packed.unpacked.length = 0;
  Atomics.sub(busy, chunk, 1);
};
const cache = new SharedChunkCache(job.memory, job.worker);
const source = cache.source(packed);
const turn = { take: () => true, goesOn: true, give: () => {} };

// All bytes of the disk, so that comparing costs nothing beside the reading.
const expected = Buffer.alloc(packed.size);
for (let position = 0; position < packed.size; position++) expected[position] = byteAt(1, position);

const target = Buffer.alloc(chunkSize * 3);
let state = job.worker * 2654435761 + 12345;
const random = (below: number) => {
  state = (Math.imul(state, 1664525) + 1013904223) | 0;
  return Math.floor(((state >>> 0) / 2 ** 32) * below);
};
let wrong = 0;
for (let count = 0; count < job.reads; count++) {
  const most = random(8) === 0 ? chunkSize * 2 : 300;
  const length = 1 + random(most);
  const position = job.only === undefined ? random(packed.size) : job.only * chunkSize + random(chunkSize - 300);
  const wanted = job.only === undefined ? length : Math.min(length, 300);
  const filled = source.read(position, target.subarray(0, wanted));
  const right = Math.min(wanted, packed.size - position);
  if (filled !== right || expected.compare(target, 0, right, position, position + right) !== 0) wrong++;
  // With so few chunks, and several threads' reads, many are found to be in order.
  cache.afterRequest(turn);
}
parentPort!.postMessage({ reads: job.reads, wrong, overlaps });
