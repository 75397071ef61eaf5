/**
 * Unpacked chunks that many worker threads share: one bounded piece of memory in which no chunk is unpacked by two
 * threads at the same time, and from which the least recently used chunk goes first.
 *
 *     words (Int32)   lock | a pin per worker | hash buckets | a record per slot, and one more: the list's two ends
 *     slots (bytes)   a chunk each
 *     tallies (f64)   counters, a row per worker
 *
 * A slot is free, filling (one worker unpacks into it; others that want the chunk sleep on its state word) or ready.
 *
 * - **Eviction is exactly LRU**, in the order in which the lock was taken: a doubly linked list through the slots'
 *   records, under one mutex. Approximations (clock, sampling) exist to avoid that mutex; here a hit holds it for some
 *   tens of nanoseconds and is followed by a copy of 4 KiB or more outside it and by a system call, so there is nothing
 *   to gain, and an exact order can be tested against a model.
 * - **Copying happens outside the lock** while the slot is pinned. A worker copies from one slot at a time, so a pin is
 *   one word per worker, and taking it off is one store.
 * - **Any thread may die at any instruction** (a crash, `process.exit`, `terminate`). Slot records are written in an
 *   order that leaves every slot's state true at any moment; buckets and list can be rebuilt from the records. Only
 *   then is the list's order lost, and LRU starts anew.
 *
 * Left out: reading whole chunks straight into the target. It would save a copy (a tenth of unpacking), but threads
 * that wait for the chunk would find nothing.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { usage } from "../errors.js";
import type { ByteSource } from "./byte-source.js";
import type { ChunkCache, PackedChunks } from "./chunk-cache.js";
import { SharedLock } from "./shared-lock.js";
import { createStreamMemory, Streams } from "./streams.js";

/** What all threads of a mount are given (workerData): plain data, shared when cloned. */
export interface SharedCacheMemory {
  readonly words: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
  readonly tallies: SharedArrayBuffer;
  /** Who reads in order (streams.ts). */
  readonly streams: SharedArrayBuffer;
  /** Bytes a slot: the largest chunk. */
  readonly chunkSize: number;
  readonly slotCount: number;
  /** Workers are numbered from 0; the number after the last is the thread's that cleans up after dead ones. */
  readonly workers: number;
}

/** Words of a cache line: pins lie in lines of their own, since they change while others hold the lock. */
const LINE = 16;
const LOCK = 0;
/** Pin of worker w: word LINE * (w + 1). 0, or the number of the slot that is copied from, + 1. */
const firstBucket = (workers: number) => LINE * (workers + 1);

/** Words of a slot's record. */
const RECORD = 8;
/** Kind in bits 0 and 1; above them a count of fills, so that who sleeps for one fill isn't held by the next. */
const STATE = 0;
const SOURCE = 1;
const CHUNK_LOW = 2;
const CHUNK_HIGH = 3;
/** The worker that fills the slot. */
const FILLER = 4;
/** The next record in the hash bucket: its first word's index, or 0. */
const CHAIN = 5;
/** Neighbours in the list of free and ready slots: first words' indices. The end record's are the oldest and newest. */
const OLDER = 6;
const NEWER = 7;

const FREE = 0;
const FILLING = 1;
const READY = 2;
const KIND = 3;

const HITS = 0;
const UNPACKED = 1;
const WAITS = 2;
const EVICTIONS = 3;
const AHEAD = 4;
/** Numbers of a row of tallies: a cache line. */
const TALLY_ROW = 8;

/** Bytes that are unpacked ahead of a reader, and chunks: at least one, if it is as large. */
const AHEAD_BYTES = 512 * 1024;
const AHEAD_CHUNKS = 4;

function bucketCount(slotCount: number): number {
  return 2 ** Math.ceil(Math.log2(slotCount * 2));
}

/**
 * Memory for `bytes` of chunks, at least two for each worker, so that there always is a slot to unpack into (a worker
 * may unpack one chunk in order to unpack another). `chunkSize` is that of the largest chunks, 0 if there are none.
 * @throws ImageError `usage` when the system doesn't give so much memory.
 */
export function createSharedCacheMemory(options: {
  bytes: number;
  chunkSize: number;
  workers: number;
}): SharedCacheMemory {
  const { bytes, chunkSize, workers } = options;
  const slotCount = Math.max(workers * 2, chunkSize > 0 ? Math.floor(bytes / chunkSize) : 0);
  const wordCount = firstBucket(workers) + bucketCount(slotCount) + RECORD * (slotCount + 1);
  let memory: SharedCacheMemory;
  try {
    memory = {
      words: new SharedArrayBuffer(wordCount * 4),
      slots: new SharedArrayBuffer(slotCount * chunkSize),
      tallies: new SharedArrayBuffer(workers * TALLY_ROW * 8),
      streams: createStreamMemory(),
      chunkSize,
      slotCount,
      workers,
    };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw usage(
      `the system does not give ${slotCount * chunkSize} bytes of memory for the cache; choose a smaller one`,
    );
  }
  new Directory(memory).rebuild(-1);
  return memory;
}

/** Which chunk is in which slot, and which was used when. Everything here is called with the lock held. */
class Directory {
  readonly words: Int32Array;
  readonly firstRecord: number;
  private readonly end: number;
  private readonly bucketBits: number;
  private readonly firstBucket: number;

  constructor(private readonly memory: SharedCacheMemory) {
    this.words = new Int32Array(memory.words);
    this.firstBucket = firstBucket(memory.workers);
    const buckets = bucketCount(memory.slotCount);
    this.bucketBits = 32 - Math.log2(buckets);
    this.firstRecord = this.firstBucket + buckets;
    this.end = this.firstRecord + RECORD * memory.slotCount;
  }

  /** The record of a chunk that is ready or filling; 0 if there is none. */
  find(source: number, low: number, high: number): number {
    const words = this.words;
    let record = words[this.bucket(source, low, high)]!;
    while (
      record !== 0 &&
      (words[record + CHUNK_LOW] !== low || words[record + SOURCE] !== source || words[record + CHUNK_HIGH] !== high)
    )
      record = words[record + CHAIN]!;
    return record;
  }

  /** Makes a ready slot the newest. */
  touch(record: number): void {
    if (this.words[this.end + OLDER] === record) return;
    this.unlink(record);
    this.linkNewest(record);
  }

  /** The oldest slot that nobody copies from or fills; 0 if all are in use. */
  oldestUnused(): number {
    let record = this.words[this.end + NEWER]!;
    while (record !== this.end && this.isPinned(record)) record = this.words[record + NEWER]!;
    return record === this.end ? 0 : record;
  }

  /** Gives an unused slot to a chunk that `worker` will fill in. */
  claim(record: number, source: number, low: number, high: number, worker: number): void {
    const words = this.words;
    this.unlink(record);
    const state = words[record + STATE]!;
    if ((state & KIND) === READY) this.unchain(record);
    // The key changes only while the slot is free, and it is filling only once key and filler are there: see rebuild.
    Atomics.store(words, record + STATE, (state & ~KIND) | FREE);
    words[record + SOURCE] = source;
    words[record + CHUNK_LOW] = low;
    words[record + CHUNK_HIGH] = high;
    words[record + FILLER] = worker;
    Atomics.store(words, record + STATE, (((state >>> 2) + 1) << 2) | FILLING);
    this.chain(record);
  }

  /** A slot that was filled is ready, and the newest. Whoever waits is to be woken after the lock's release. */
  ready(record: number): void {
    Atomics.store(this.words, record + STATE, (this.words[record + STATE]! & ~KIND) | READY);
    this.linkNewest(record);
  }

  /** A slot whose filling failed is free, and the oldest. Whoever waits is to be woken after the lock's release. */
  free(record: number): void {
    this.unchain(record);
    Atomics.store(this.words, record + STATE, this.words[record + STATE]! & ~KIND);
    this.linkOldest(record);
  }

  /** Frees the slots that a dead worker was filling. */
  freeFillsOf(dead: number): void {
    const words = this.words;
    for (let record = this.firstRecord; record < this.end; record += RECORD)
      if ((words[record + STATE]! & KIND) === FILLING && words[record + FILLER] === dead) this.free(record);
  }

  /** Makes buckets and list anew from the slots' states and keys, after worker `dead` died while changing them. */
  rebuild(dead: number): void {
    const words = this.words;
    words.fill(0, this.firstBucket, this.firstRecord);
    words[this.end + OLDER] = this.end;
    words[this.end + NEWER] = this.end;
    for (let record = this.firstRecord; record < this.end; record += RECORD) {
      const kind = words[record + STATE]! & KIND;
      if (kind === READY) {
        this.chain(record);
        this.linkNewest(record);
      } else if (kind === FILLING && words[record + FILLER] !== dead) {
        this.chain(record);
      } else {
        Atomics.store(words, record + STATE, words[record + STATE]! & ~KIND);
        this.linkOldest(record);
      }
    }
  }

  wakeAll(): void {
    for (let record = this.firstRecord; record < this.end; record += RECORD) Atomics.notify(this.words, record + STATE);
  }

  private isPinned(record: number): boolean {
    const pin = (record - this.firstRecord) / RECORD + 1;
    for (let worker = 1; worker <= this.memory.workers; worker++)
      if (Atomics.load(this.words, LINE * worker) === pin) return true;
    return false;
  }

  private bucket(source: number, low: number, high: number): number {
    const mixed = Math.imul(low ^ Math.imul(high ^ (source << 16) ^ (source >>> 16), 0x85ebca6b), 0x9e3779b1);
    return this.firstBucket + (mixed >>> this.bucketBits);
  }

  private bucketOf(record: number): number {
    const words = this.words;
    return this.bucket(words[record + SOURCE]!, words[record + CHUNK_LOW]!, words[record + CHUNK_HIGH]!);
  }

  private chain(record: number): void {
    const bucket = this.bucketOf(record);
    this.words[record + CHAIN] = this.words[bucket]!;
    this.words[bucket] = record;
  }

  private unchain(record: number): void {
    const words = this.words;
    let link = this.bucketOf(record);
    while (words[link] !== record) link = words[link]! + CHAIN;
    words[link] = words[record + CHAIN]!;
  }

  private unlink(record: number): void {
    const words = this.words;
    const older = words[record + OLDER]!;
    const newer = words[record + NEWER]!;
    words[older + NEWER] = newer;
    words[newer + OLDER] = older;
  }

  private linkNewest(record: number): void {
    this.linkBetween(this.words[this.end + OLDER]!, record, this.end);
  }

  private linkOldest(record: number): void {
    this.linkBetween(this.end, record, this.words[this.end + NEWER]!);
  }

  private linkBetween(older: number, record: number, newer: number): void {
    const words = this.words;
    words[record + OLDER] = older;
    words[record + NEWER] = newer;
    words[older + NEWER] = record;
    words[newer + OLDER] = record;
  }
}

/** Whether a thread may unpack ahead now: it is asked before, between two chunks whether it may go on, and told after. */
export interface Turn {
  take(): boolean;
  readonly goesOn: boolean;
  give(): void;
}

/** One thread's hand on the shared chunks. */
export class SharedChunkCache implements ChunkCache {
  private readonly directory: Directory;
  private readonly words: Int32Array;
  private readonly slots: Uint8Array;
  private readonly tallies: Float64Array;
  private readonly lock: SharedLock;
  private readonly pin: number;
  private readonly streams: Streams;
  private sources = 0;
  /** Whether this thread unpacks what nobody has asked for yet: it should rather fail than wait. */
  isAhead = false;
  /** Which of this thread's requests it is, and whose: bits 24 and up. */
  private request: number;
  /** What the request read last in order: chunks behind it may be unpacked ahead. */
  private inOrder: PackedChunks | undefined;
  private inOrderSource = 0;
  private inOrderChunk = 0;

  /** @param worker this thread's number, from 0 to `memory.workers` - 1; no two living threads have the same. */
  constructor(
    private readonly memory: SharedCacheMemory,
    private readonly worker: number,
  ) {
    if (!(worker >= 0 && worker < memory.workers)) throw new Error(`there is no worker ${worker} of ${memory.workers}`);
    this.directory = new Directory(memory);
    this.words = this.directory.words;
    this.slots = new Uint8Array(memory.slots);
    this.tallies = new Float64Array(memory.tallies, worker * TALLY_ROW * 8, TALLY_ROW);
    this.lock = new SharedLock(this.words, LOCK, worker);
    this.pin = LINE * (worker + 1);
    this.streams = new Streams(memory.streams);
    this.request = worker << 24;
  }

  source(packed: PackedChunks): ByteSource {
    if (packed.chunkSize > this.memory.chunkSize)
      throw new Error(`${packed.name}: chunks of ${packed.chunkSize} bytes in slots of ${this.memory.chunkSize}`);
    return new SharedSource(packed, this.sources++, this);
  }

  /**
   * The request that was answered with the reads since the last call is over. When its chunks are being read in order, and
   * `turn` is given, some are unpacked that whoever asked will ask for next: who reads small files or small pieces one after
   * another does other things meanwhile. Never fails: whoever reads a damaged chunk is told then.
   */
  afterRequest(turn: Turn): void {
    this.request = (this.worker << 24) | ((this.request + 1) & 0xffffff);
    const packed = this.inOrder;
    if (packed === undefined) return;
    this.inOrder = undefined;
    if (!turn.take()) return;
    this.isAhead = true;
    try {
      this.unpackAhead(packed, this.inOrderSource, this.inOrderChunk, turn);
    } catch {
      // Damaged, or not to be had without waiting: the slot is free again.
    } finally {
      turn.give();
      this.isAhead = false;
      this.inOrder = undefined;
    }
  }

  private unpackAhead(packed: PackedChunks, source: number, last: number, turn: Turn): void {
    const { directory, lock, memory } = this;
    // In a small cache it would push out what is being read.
    if (memory.slotCount < 4 * memory.workers) return;
    const { chunkSize, size } = packed;
    const most = Math.max(1, Math.min(AHEAD_CHUNKS, Math.floor(AHEAD_BYTES / chunkSize)));
    const end = Math.min(last + 1 + most, Math.ceil(size / chunkSize));
    for (let chunk = last + 1; chunk < end; chunk++) {
      const low = chunk | 0;
      const high = (chunk / 0x100000000) | 0;
      lock.acquire();
      if (directory.find(source, low, high) !== 0) {
        lock.release();
        continue;
      }
      const record = this.claimOldest(source, low, high);
      lock.release();
      if (record === 0) return;
      this.tallies[AHEAD]!++;
      this.unpackInto(record, packed, chunk, Math.min(chunkSize, size - chunk * chunkSize));
      lock.acquire();
      directory.ready(record);
      lock.release();
      Atomics.notify(this.words, record + STATE);
      if (!turn.goesOn) return;
    }
  }

  /** Copies `count` bytes from byte `within` of a chunk of `length` bytes to `target` at `filled`. */
  copy(
    packed: PackedChunks,
    source: number,
    chunk: number,
    length: number,
    within: number,
    target: Uint8Array,
    filled: number,
    count: number,
  ): void {
    const { directory, lock, words } = this;
    const low = chunk | 0;
    const high = (chunk / 0x100000000) | 0;
    const isInOrder = this.streams.note(source, low, this.request);
    for (let waited = false; ; waited = true) {
      lock.acquire();
      let record = directory.find(source, low, high);
      if (record === 0) {
        record = this.claimOldest(source, low, high);
        lock.release();
        this.tallies[UNPACKED]!++;
        this.fill(packed, chunk, length, record, within, target, filled, count);
        break;
      }
      const state = words[record + STATE]!;
      if ((state & KIND) === READY) {
        directory.touch(record);
        const slot = (record - directory.firstRecord) / RECORD;
        Atomics.store(words, this.pin, slot + 1);
        lock.release();
        if (!waited) this.tallies[HITS]!++;
        this.copyOut(slot, within, target, filled, count);
        break;
      }
      const filler = words[record + FILLER];
      lock.release();
      if (filler === this.worker) throw new Error(`${packed.name}: unpacking chunk ${chunk} reads chunk ${chunk}`);
      if (!waited) this.tallies[WAITS]!++;
      Atomics.wait(words, record + STATE, state);
    }
    // Last, since unpacking a chunk may have read others.
    if (!isInOrder) return;
    this.inOrder = packed;
    this.inOrderSource = source;
    this.inOrderChunk = chunk;
  }

  /** The slot that is to be filled with a chunk, or 0 if all are in use. Called with the lock held. */
  private claimOldest(source: number, low: number, high: number): number {
    const { directory, words } = this;
    const record = directory.oldestUnused();
    if (record === 0) return 0;
    if ((words[record + STATE]! & KIND) === READY) this.tallies[EVICTIONS]!++;
    directory.claim(record, source, low, high, this.worker);
    return record;
  }

  /** Unpacks a chunk of `length` bytes into a slot that was claimed for it; the slot is free again when that fails. */
  private unpackInto(record: number, packed: PackedChunks, chunk: number, length: number): void {
    const { directory, lock, memory, words } = this;
    const start = ((record - directory.firstRecord) / RECORD) * memory.chunkSize;
    try {
      packed.unpack(chunk, this.slots.subarray(start, start + length));
    } catch (error) {
      lock.acquire();
      directory.free(record);
      lock.release();
      Atomics.notify(words, record + STATE);
      throw error;
    }
  }

  private fill(
    packed: PackedChunks,
    chunk: number,
    length: number,
    record: number,
    within: number,
    target: Uint8Array,
    filled: number,
    count: number,
  ): void {
    const { directory, lock, words } = this;
    if (record === 0) {
      // Every slot is in use, which takes chunks within chunks within chunks: this one is read without being kept.
      const scratch = new Uint8Array(length);
      packed.unpack(chunk, scratch);
      target.set(scratch.subarray(within, within + count), filled);
      return;
    }
    const slot = (record - directory.firstRecord) / RECORD;
    this.unpackInto(record, packed, chunk, length);
    lock.acquire();
    directory.ready(record);
    Atomics.store(words, this.pin, slot + 1);
    lock.release();
    Atomics.notify(words, record + STATE);
    this.copyOut(slot, within, target, filled, count);
  }

  /** Copies from the slot that this worker has pinned, and takes the pin off. */
  private copyOut(slot: number, within: number, target: Uint8Array, filled: number, count: number): void {
    const start = slot * this.memory.chunkSize + within;
    target.set(this.slots.subarray(start, start + count), filled);
    Atomics.store(this.words, this.pin, 0);
  }

  /**
   * Cleans up after a worker whose thread has ended: the chunks that it was unpacking are free for those who wait for
   * them, its pin is off, and the lock is free if it died inside. Resolves when that is done; only then may another
   * worker have its number. Called in the one thread that starts the workers, which isn't blocked by it: the lock might
   * be held by another worker that died too and of which that thread hasn't heard yet.
   */
  static async releaseDead(memory: SharedCacheMemory, worker: number): Promise<void> {
    const directory = new Directory(memory);
    const lock = new SharedLock(directory.words, LOCK, memory.workers);
    let found = lock.tryAcquireFrom(worker);
    for (let tries = 1; found === "busy"; tries++) {
      if (tries % 1000 === 0) await sleep(1);
      found = lock.tryAcquireFrom(worker);
    }
    Atomics.store(directory.words, LINE * (worker + 1), 0);
    if (found === "broken") directory.rebuild(worker);
    else directory.freeFillsOf(worker);
    lock.release();
    // All, not only its own: it may have died between the change of a slot's state and the waking.
    directory.wakeAll();
  }

  /**
   * Sums over all workers since the memory was made. `hits`: pieces of reads that found their chunk ready; `waits`:
   * that another worker was just unpacking it; `unpacked`: chunks that were unpacked for one, or damaged; `ahead`: chunks
   * that were unpacked before anybody asked for them; `evictions`: chunks that made room for another.
   */
  static counters(memory: SharedCacheMemory): Record<"hits" | "unpacked" | "waits" | "evictions" | "ahead", number> {
    const tallies = new Float64Array(memory.tallies);
    const sum = (which: number) => {
      let total = 0;
      for (let at = which; at < tallies.length; at += TALLY_ROW) total += tallies[at]!;
      return total;
    };
    return {
      hits: sum(HITS),
      unpacked: sum(UNPACKED),
      waits: sum(WAITS),
      evictions: sum(EVICTIONS),
      ahead: sum(AHEAD),
    };
  }
}

class SharedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  private readonly chunkSize: number;

  constructor(
    private readonly packed: PackedChunks,
    private readonly number: number,
    private readonly cache: SharedChunkCache,
  ) {
    this.name = packed.name;
    this.size = packed.size;
    this.chunkSize = packed.chunkSize;
  }

  read(position: number, target: Uint8Array): number {
    const { chunkSize, size } = this;
    const length = Math.min(target.length, size - position);
    if (length <= 0) return 0;
    for (let filled = 0; filled < length; ) {
      const chunk = Math.floor((position + filled) / chunkSize);
      const start = chunk * chunkSize;
      const chunkLength = Math.min(chunkSize, size - start);
      const within = position + filled - start;
      const count = Math.min(chunkLength - within, length - filled);
      try {
        this.cache.copy(this.packed, this.number, chunk, chunkLength, within, target, filled, count);
      } catch (error) {
        // What lies before a damaged chunk is given; the next read begins at the damage, and throws.
        if (filled > 0) return filled;
        throw error;
      }
      filled += count;
    }
    return length;
  }
}
