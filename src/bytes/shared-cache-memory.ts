/**
 * The memory of shared-cache.ts, and which chunk is in which of its slots.
 *
 *     words (Int32)   lock | a pin per worker | hash buckets | a record per slot, and one more: the list's two ends | per
 *                     slot the bytes that were given of its chunk
 *     slots (bytes)   a chunk each
 *     tallies (f64)   counters, a row per worker
 */
import { usage } from "../errors.js";
import { createStreamMemory } from "./streams.js";

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
export const LINE = 16;
export const LOCK = 0;
/** Pin of worker w: word LINE * (w + 1). 0, or the number of the slot that is copied from, + 1. */
const firstBucket = (workers: number) => LINE * (workers + 1);

/** Words of a slot's record. */
export const RECORD = 8;
/** Kind in bits 0 and 1; above them a count of fills, so that who sleeps for one fill isn't held by the next. */
export const STATE = 0;
const SOURCE = 1;
const CHUNK_LOW = 2;
const CHUNK_HIGH = 3;
/** The worker that fills the slot. */
export const FILLER = 4;
/** The next record in the hash bucket: its first word's index, or 0. */
const CHAIN = 5;
/** Neighbours in the list of free and ready slots: first words' indices. The end record's are the oldest and newest. */
const OLDER = 6;
const NEWER = 7;

const FREE = 0;
const FILLING = 1;
export const READY = 2;
export const KIND = 3;

/** Numbers of a row of tallies: a cache line. */
export const TALLY_ROW = 8;

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
  const wordCount = firstBucket(workers) + bucketCount(slotCount) + RECORD * (slotCount + 1) + slotCount;
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
  new SlotDirectory(memory).rebuild(-1);
  return memory;
}

/** Which chunk is in which slot, and which was used when. Everything here is called with the lock held. */
export class SlotDirectory {
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

  /** Makes a ready slot the oldest: the next to be filled with another chunk. */
  retire(record: number): void {
    this.unlink(record);
    this.linkOldest(record);
  }

  /** Index of the word that counts the bytes given of a slot's chunk since it was filled. */
  given(record: number): number {
    return this.end + RECORD + (record - this.firstRecord) / RECORD;
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
    words[this.given(record)] = 0;
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
