import { once } from "node:events";
import { Worker } from "node:worker_threads";
import test from "ava";
import fc from "fast-check";
import { corrupt } from "../errors.js";
import { type Access, accesses, byteAt, PatternChunks, pattern } from "./cache-test-data.js";
import { SharedChunkCache } from "./shared-cache.js";
import type { Job } from "./shared-cache.test-worker.js";
import { createSharedCacheMemory } from "./shared-cache-memory.js";

const cacheOf = (slots: number, chunkSize: number) => {
  const memory = createSharedCacheMemory({ bytes: slots * chunkSize, chunkSize, workers: 1 });
  return { memory, cache: new SharedChunkCache(memory, 0) };
};

test("reads give the right bytes, and exactly the least recently used chunk is evicted (against a plain list)", (t) => {
  fc.assert(
    fc.property(accesses, fc.integer({ min: 2, max: 9 }), (reads: Access[], slots) => {
      const { memory, cache } = cacheOf(slots, 64);
      const packed = [new PatternChunks("a", 1, 64 * 9 + 17, 64), new PatternChunks("b", 2, 32 * 7 + 1, 32)];
      const sources = packed.map((chunks) => cache.source(chunks));
      let list: string[] = []; // oldest first
      const expected = [[], []] as number[][];
      const counted = { hits: 0, unpacked: 0, waits: 0, evictions: 0, ahead: 0 };
      for (const { source, position, length } of reads) {
        const bytes = pattern(packed[source]!, position, length);
        const target = new Uint8Array(length);
        t.is(sources[source]!.read(position, target), bytes.length);
        t.deepEqual(target.subarray(0, bytes.length), bytes);
        const { chunkSize } = packed[source]!;
        for (let at = position; at < position + bytes.length; at += chunkSize - (at % chunkSize)) {
          const chunk = Math.floor(at / chunkSize);
          const key = `${source}:${chunk}`;
          if (list.includes(key)) counted.hits++;
          else {
            counted.unpacked++;
            expected[source]!.push(chunk);
          }
          list = [...list.filter((other) => other !== key), key];
          if (list.length > slots) {
            list.shift();
            counted.evictions++;
          }
        }
      }
      t.deepEqual(packed[0]!.unpacked, expected[0]!);
      t.deepEqual(packed[1]!.unpacked, expected[1]!);
      t.deepEqual(SharedChunkCache.counters(memory), counted);
    }),
  );
});

test("what the kernel has kept makes room first: reading all of a disk pushes nothing out and goes round in few slots", (t) => {
  const { memory, cache } = cacheOf(64, 64);
  const packed = new PatternChunks("a", 1, 64 * 1000 + 20, 64);
  const source = cache.source(packed);
  const read = (chunk: number, within = 0, length = 64) => source.read(chunk * 64 + within, new Uint8Array(length));
  const others = Array.from({ length: 30 }, (_, nth) => 900 + nth);
  for (const chunk of others) read(chunk);
  cache.isKept = true;
  for (let chunk = 0; chunk < 800; chunk++) for (let within = 0; within < 64; within += 16) read(chunk, within, 16);
  const used = new Uint8Array(memory.slots).filter((byte, at) => at % 64 === 5 && byte !== 0).length;
  t.true(used < 60, `${used} slots are used`);
  const { length } = packed.unpacked;
  t.is(length, 830, "each chunk was unpacked once");
  for (const chunk of others) read(chunk);
  t.is(packed.unpacked.length, length, "they are still there");
  // Those of which a part wasn't asked for stay, as of small files.
  for (let chunk = 0; chunk < 20; chunk++) read(chunk, 0, 60);
  for (let chunk = 100; chunk < 200; chunk++) read(chunk);
  packed.unpacked.length = 0;
  for (let chunk = 0; chunk < 20; chunk++) read(chunk, 60, 4);
  t.deepEqual(packed.unpacked, []);
});

test("chunk numbers up to 2^40 are told apart", (t) => {
  const { cache } = cacheOf(64, 16);
  const packed = new PatternChunks("a", 1, 2 ** 44 + 5, 16);
  const source = cache.source(packed);
  const chunks = [3, 2 ** 31 + 3, 2 ** 32 + 3, 2 ** 33 + 3, 2 ** 39 + 3, 2 ** 40, 0];
  for (let round = 0; round < 2; round++)
    for (const chunk of chunks) {
      const length = chunk === 2 ** 40 ? 5 : 16;
      const target = new Uint8Array(length);
      t.is(source.read(chunk * 16, target), length);
      t.deepEqual(target, pattern(packed, chunk * 16, length));
    }
  t.deepEqual(packed.unpacked, chunks);
});

test("at and beyond the end nothing is read", (t) => {
  const { cache } = cacheOf(2, 64);
  const source = cache.source(new PatternChunks("a", 1, 100, 64));
  t.is(source.read(100, new Uint8Array(4)), 0);
  t.is(source.read(1e15, new Uint8Array(4)), 0);
  t.is(source.read(98, new Uint8Array(4)), 2);
  t.is(source.read(0, new Uint8Array(0)), 0);
});

test("a damaged chunk fails at every read of it, takes no slot, and leaves the others readable", (t) => {
  const { memory, cache } = cacheOf(2, 64);
  const packed = new PatternChunks("a", 1, 64 * 4, 64);
  packed.before = (chunk) => {
    if (chunk === 2) throw corrupt("a: chunk 2 is damaged");
  };
  const source = cache.source(packed);
  const byte = new Uint8Array(1);
  source.read(0, byte);
  source.read(64, byte);
  for (let round = 0; round < 5; round++) {
    t.throws(() => source.read(2 * 64 + 1, byte), { message: "a: chunk 2 is damaged" });
    t.is(source.read(70, byte), 1);
    t.is(byte[0], byteAt(1, 70));
  }
  t.deepEqual(SharedChunkCache.counters(memory), { hits: 5, unpacked: 7, waits: 0, evictions: 1, ahead: 0 });
});

test("chunks larger than a slot, and a worker that isn't there, are programming mistakes", (t) => {
  const { memory, cache } = cacheOf(4, 64);
  t.throws(() => cache.source(new PatternChunks("a", 1, 1000, 65)), { message: /chunks of 65 bytes in slots of 64/ });
  t.throws(() => new SharedChunkCache(memory, 1), { message: /no worker 1/ });
});

test("a cache for which there is no memory is refused in words", (t) => {
  const error = t.throws(() => createSharedCacheMemory({ bytes: 2 ** 52, chunkSize: 2 ** 46, workers: 1 }));
  t.regex(error!.message, /memory for the cache; choose a smaller one/);
});

test("a disk without chunks needs no memory", (t) => {
  const memory = createSharedCacheMemory({ bytes: 1 << 20, chunkSize: 0, workers: 4 });
  t.is(memory.slots.byteLength, 0);
  t.deepEqual(SharedChunkCache.counters(memory), { hits: 0, unpacked: 0, waits: 0, evictions: 0, ahead: 0 });
});

test("chunks within chunks are unpacked, also when no slot is left for the innermost", (t) => {
  const { cache } = cacheOf(2, 64);
  const innermost = new PatternChunks("innermost", 1, 64 * 8, 64);
  let source = cache.source(innermost);
  for (let depth = 0; depth < 4; depth++) {
    const beneath = source;
    const unpack = (chunk: number, target: Uint8Array) => void beneath.read(chunk * 64, target);
    source = cache.source({ name: `layer ${depth}`, size: 64 * 8, chunkSize: 64, unpack });
  }
  for (const position of [0, 100, 200, 100, 7]) {
    const target = new Uint8Array(100);
    t.is(source.read(position, target), 100);
    t.deepEqual(target, pattern(innermost, position, 100));
  }
});

test("a chunk that is unpacked from itself is a mistake that is told, not a hang", (t) => {
  const { cache } = cacheOf(4, 64);
  const source = cache.source({
    name: "ring",
    size: 64,
    chunkSize: 64,
    unpack: (_, target) => void source.read(0, target),
  });
  t.throws(() => source.read(0, new Uint8Array(1)), { message: /unpacking chunk 0 reads chunk 0/ });
});

const always = { take: () => true, goesOn: true, give: () => {} };

/** A cache with room, 32 chunks of 64 bytes, and what reads one byte of a chunk as a request of its own. */
function reading(turn = always, slots = 16) {
  const { memory, cache } = cacheOf(slots, 64);
  const packed = new PatternChunks("a", 1, 64 * 32 - 10, 64);
  const source = cache.source(packed);
  const read = (chunk: number) => {
    const target = new Uint8Array(1);
    t1(source.read(chunk * 64 + 5, target), target[0]!, chunk);
    cache.afterRequest(turn);
  };
  const t1 = (count: number, byte: number, chunk: number) => {
    if (count !== 1 || byte !== byteAt(1, chunk * 64 + 5)) throw new Error(`wrong byte in chunk ${chunk}`);
  };
  return { memory, packed, read };
}

test("behind a reader in order chunks are unpacked ahead: four at most, each once, one where others wait for the turn", (t) => {
  const turn = { ...always, goesOn: false };
  const { memory, packed, read } = reading(turn);
  read(3);
  t.deepEqual(packed.unpacked, [3], "one request is no order");
  read(4);
  t.deepEqual(packed.unpacked, [3, 4, 5]);
  turn.goesOn = true;
  for (let again = 0; again < 6; again++) read(4);
  t.deepEqual(packed.unpacked, [3, 4, 5, 6, 7, 8]);
  for (let chunk = 5; chunk < 32; chunk++) read(chunk);
  t.deepEqual(
    packed.unpacked,
    Array.from({ length: 29 }, (_, chunk) => chunk + 3),
    "to the last, which is shorter",
  );
  const { hits, unpacked, ahead } = SharedChunkCache.counters(memory);
  t.deepEqual({ hits, unpacked, ahead }, { hits: 33, unpacked: 2, ahead: 27 });
});

test("of chunks that aren't stored none is unpacked ahead, and nothing where that can't be told", (t) => {
  const { packed, read } = reading();
  packed.holes = new Set([6, 7, 10]);
  for (const chunk of [3, 4, 5]) read(chunk);
  t.deepEqual(packed.unpacked, [3, 4, 5, 8, 9]);
  const { memory, cache } = cacheOf(16, 64);
  const { name, size, chunkSize } = packed;
  const silent = cache.source({ name, size, chunkSize, unpack: (chunk, target) => packed.unpack(chunk, target) });
  for (const chunk of [11, 12, 13, 14]) {
    silent.read(chunk * 64, new Uint8Array(1));
    cache.afterRequest(always);
  }
  t.is(SharedChunkCache.counters(memory).ahead, 0);
});

test("nothing is unpacked ahead of a reader at random, without a turn, or in a cache that is small for its workers", (t) => {
  const atRandom = reading();
  for (const chunk of [9, 2, 30, 17, 5, 13, 23, 26]) atRandom.read(chunk);
  t.is(SharedChunkCache.counters(atRandom.memory).ahead, 0);
  let asked = 0;
  const refused = reading({ take: () => ++asked < 0, goesOn: true, give: () => t.fail("nothing was given") });
  const small = reading(always, 3);
  for (let chunk = 0; chunk < 8; chunk++) for (const { read } of [refused, small]) read(chunk);
  t.true(asked > 5);
  t.is(SharedChunkCache.counters(refused.memory).ahead, 0);
  t.is(SharedChunkCache.counters(small.memory).ahead, 0);
});

test("no turn is asked for where all that could be unpacked ahead is there already", (t) => {
  let asked = 0;
  const { packed, read } = reading({ take: () => ++asked > 0, goesOn: true, give: () => {} });
  for (const chunk of [3, 4]) read(chunk);
  t.is(asked, 1);
  t.deepEqual(packed.unpacked, [3, 4, 5, 6, 7, 8]);
  for (let again = 0; again < 20; again++) read(4);
  t.is(asked, 1);
  read(5);
  t.is(asked, 2);
});

test("a chunk that is damaged fails for who reads it, not for who reads before it", (t) => {
  let turns = 0;
  const { packed, read } = reading({ take: () => ++turns > 0, goesOn: true, give: () => turns-- });
  packed.before = (chunk) => {
    if (chunk === 6) throw corrupt("a: chunk 6 is damaged");
  };
  read(4);
  read(5);
  t.deepEqual(packed.unpacked, [4, 5, 6]);
  t.is(turns, 0, "the turn is given back");
  t.throws(() => read(6), { message: "a: chunk 6 is damaged" });
  read(7);
});

test("a mistake that is met while unpacking ahead is none of the image's: it is thrown, and the turn given back", (t) => {
  let turns = 0;
  const { packed, read } = reading({ take: () => ++turns > 0, goesOn: true, give: () => turns-- });
  packed.before = (chunk) => {
    if (chunk === 6) throw new TypeError("a bug");
  };
  read(4);
  t.throws(() => read(5), { instanceOf: TypeError });
  t.is(turns, 0);
});

const chunkSize = 4096;
const chunks = 40;

function start(job: Omit<Job, "chunkSize" | "chunks">) {
  const url = new URL("./shared-cache.test-worker.js", import.meta.url);
  const worker = new Worker(url, { workerData: { ...job, chunkSize, chunks } satisfies Job });
  const ended = once(worker, "exit");
  return { worker, result: once(worker, "message"), ended };
}

test("four threads read the right bytes, and no chunk is unpacked by two at the same time", async (t) => {
  const memory = createSharedCacheMemory({ bytes: 12 * chunkSize, chunkSize, workers: 4 });
  const busy = new SharedArrayBuffer(4 * chunks);
  const threads = [0, 1, 2, 3].map((worker) => start({ memory, worker, busy, reads: 1500, sleep: 0.2 }));
  for (const { result, ended } of threads) {
    t.deepEqual((await result)[0], { reads: 1500, wrong: 0, overlaps: 0 });
    await ended;
  }
  const counters = SharedChunkCache.counters(memory);
  t.true(counters.hits > 0 && counters.waits > 0 && counters.evictions > 0, JSON.stringify(counters));
});

test("when a thread dies while it unpacks, those who wait for the chunk go on after releaseDead", async (t) => {
  const memory = createSharedCacheMemory({ bytes: 12 * chunkSize, chunkSize, workers: 4 });
  const busy = new SharedArrayBuffer(4 * chunks);
  const dying = start({ memory, worker: 0, busy, reads: 1, sleep: 0, only: 7, dieAfter: 150 });
  const inFlight = new Int32Array(busy);
  while (Atomics.load(inFlight, 7) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const others = [1, 2, 3].map((worker) => start({ memory, worker, busy, reads: 10, sleep: 0, only: 7 }));
  await dying.ended;
  while (SharedChunkCache.counters(memory).waits < 3) await new Promise((resolve) => setTimeout(resolve, 1));
  Atomics.store(inFlight, 7, 0);
  await SharedChunkCache.releaseDead(memory, 0);
  for (const { result, ended } of others) {
    t.deepEqual((await result)[0], { reads: 10, wrong: 0, overlaps: 0 });
    await ended;
  }
  t.is(SharedChunkCache.counters(memory).unpacked, 2);
});

test("threads may be killed at any moment: the others go on with the right bytes", async (t) => {
  const memory = createSharedCacheMemory({ bytes: 12 * chunkSize, chunkSize, workers: 4 });
  const busy = new SharedArrayBuffer(4 * chunks);
  const survivors = [2, 3].map((worker) => start({ memory, worker, busy, reads: 150_000, sleep: 0 }));
  let rounds = 0;
  let running = true;
  const finished = Promise.all(survivors.map(({ result }) => result)).finally(() => {
    running = false;
  });
  while (rounds < 8 || (running && rounds < 40)) {
    const victims = [0, 1].map((worker) =>
      start({ memory, worker, busy: new SharedArrayBuffer(4 * chunks), reads: 1e9, sleep: 0 }),
    );
    await Promise.all(victims.map(({ worker }) => once(worker, "online")));
    await new Promise((resolve) => setTimeout(resolve, 20 + (rounds % 7)));
    await Promise.all(victims.map(({ worker }) => worker.terminate()));
    // The second first: the lock may be held by the one that isn't released yet.
    const second = SharedChunkCache.releaseDead(memory, 1);
    await Promise.all([second, SharedChunkCache.releaseDead(memory, 0)]);
    rounds++;
  }
  for (const [answer] of await finished) t.deepEqual(answer, { reads: 150_000, wrong: 0, overlaps: 0 });
  await Promise.all(survivors.map(({ ended }) => ended));
  // Everything is as before: all slots are in use again, and an LRU list goes through them.
  const cache = new SharedChunkCache(memory, 0);
  const packed = new PatternChunks("after", 3, chunkSize * 12, chunkSize);
  const source = cache.source(new PatternChunks("another number", 1, 1, 1)) && cache.source(packed);
  for (let round = 0; round < 2; round++)
    for (let chunk = 0; chunk < 12; chunk++) {
      const target = new Uint8Array(100);
      source.read(chunk * chunkSize, target);
      t.deepEqual(target, pattern(packed, chunk * chunkSize, 100));
    }
  t.is(packed.unpacked.length, 12);
});

test("a lock whose holder died with everything half changed is broken, and what was unpacked stays readable", async (t) => {
  const memory = createSharedCacheMemory({ bytes: 4 * 64, chunkSize: 64, workers: 2 });
  const cache = new SharedChunkCache(memory, 0);
  const packed = new PatternChunks("a", 1, 64 * 3, 64);
  const source = cache.source(packed);
  const target = new Uint8Array(64 * 3);
  source.read(0, target);
  const words = new Int32Array(memory.words);
  // Worker 1 holds the lock, and all hash buckets (words 48 to 55) and list neighbours (6 and 7 of 8) are nonsense.
  Atomics.store(words, 0, (1 + 1) << 1);
  words.fill(-5, 48, 56);
  for (let record = 56; record < words.length; record += 8) words.fill(1_000_000, record + 5, record + 8);
  await SharedChunkCache.releaseDead(memory, 1);
  source.read(0, target.fill(0));
  t.deepEqual(target, pattern(packed, 0, 64 * 3));
  t.deepEqual(packed.unpacked, [0, 1, 2]);
});
