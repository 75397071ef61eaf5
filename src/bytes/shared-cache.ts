/**
 * Unpacked chunks that many worker threads share: one bounded piece of memory in which no chunk is unpacked by two
 * threads at the same time, and from which the least recently used chunk goes first. Its layout is in
 * shared-cache-memory.ts.
 *
 * A slot is free, filling (one worker unpacks into it; others that want the chunk sleep on its state word) or ready.
 *
 * - **Eviction is exactly LRU**, in the order in which the lock was taken: a doubly linked list through the slots'
 *   records, under one mutex. Approximations (clock, sampling) exist to avoid that mutex; here a hit holds it for some
 *   tens of nanoseconds and is followed by a copy of 4 KiB or more outside it and by a system call, so there is nothing
 *   to gain, and an exact order can be tested against a model.
 * - **What the kernel has kept makes room first.** A chunk of which every byte was given to the kernel's page cache isn't asked
 *   for again: its slot becomes the oldest, some chunks later. So who reads a disk or a large file from start to end goes
 *   round in few slots, which stay in the processor's cache, and pushes nothing out.
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
import { ImageError } from "../errors.js";
import { type ByteSource, NotYet } from "./byte-source.js";
import type { ChunkCache, PackedChunks } from "./chunk-cache.js";
import {
  FILLER,
  KIND,
  LINE,
  LOCK,
  READY,
  RECORD,
  type SharedCacheMemory,
  SlotDirectory,
  STATE,
  TALLY_ROW,
} from "./shared-cache-memory.js";
import { SharedLock } from "./shared-lock.js";
import { Streams } from "./streams.js";

/** Counters in a row of tallies. */
const HITS = 0;
const UNPACKED = 1;
const WAITS = 2;
const EVICTIONS = 3;
const AHEAD = 4;

/** Bytes that are unpacked ahead of a reader, and chunks: at least one, if it is as large. */
const AHEAD_BYTES = 512 * 1024;
const AHEAD_CHUNKS = 4;

/** Chunks of a thread that were given whole and are left as they are for now: readahead may come to their edges out of order. */
const SPENT = 16;

/** Whether a thread may unpack ahead now: it is asked before, between two chunks whether it may go on, and told after. */
export interface Turn {
  take(): boolean;
  readonly goesOn: boolean;
  give(): void;
}

/** One thread's hand on the shared chunks. */
export class SharedChunkCache implements ChunkCache {
  private readonly directory: SlotDirectory;
  private readonly words: Int32Array;
  private readonly slots: Uint8Array;
  private readonly tallies: Float64Array;
  private readonly lock: SharedLock;
  private readonly pin: number;
  private readonly streams: Streams;
  private sources = 0;
  /** Whether this thread unpacks what nobody has asked for yet: it should rather fail than wait. */
  isAhead = false;
  /** Called before what may take a millisecond or more: unpacking a chunk for somebody who waits, and waiting for it. */
  beforeLong: () => void = () => {};
  /** Whether what is read now stays in the kernel's page cache, so that it isn't asked for again. */
  isKept = false;
  /** Records of slots whose chunks were given whole, with the states they had: the latest ones, in a ring. */
  private readonly spent = new Int32Array(SPENT * 2);
  private spentNext = 0;
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
    this.directory = new SlotDirectory(memory);
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
   * another does other things meanwhile. Damage is passed over: whoever reads the chunk is told then.
   */
  afterRequest(turn: Turn): void {
    this.request = (this.worker << 24) | ((this.request + 1) & 0xffffff);
    this.isKept = false;
    const packed = this.inOrder;
    if (packed === undefined) return;
    this.inOrder = undefined;
    this.isAhead = true;
    let isTaken = false;
    try {
      const source = this.inOrderSource;
      const end = this.endAhead(packed, this.inOrderChunk);
      const first = this.firstLacking(packed, source, this.inOrderChunk + 1, end);
      // To take a turn may wake another worker: not for nothing.
      isTaken = first < end && turn.take();
      if (isTaken) this.unpackAhead(packed, source, first, end, turn);
    } catch (error) {
      // Damaged, or not to be had without waiting: the slot is free again.
      if (!(error instanceof ImageError || error instanceof NotYet)) throw error;
    } finally {
      if (isTaken) turn.give();
      this.isAhead = false;
      this.inOrder = undefined;
    }
  }

  /** Behind the last chunk that may be unpacked ahead of a reader who is at chunk `last`. */
  private endAhead({ isStored, chunkSize, size }: PackedChunks, last: number): number {
    const { memory } = this;
    // In a small cache it would push out what is being read.
    if (!isStored || memory.slotCount < 4 * memory.workers) return 0;
    const most = Math.max(1, Math.min(AHEAD_CHUNKS, Math.floor(AHEAD_BYTES / chunkSize)));
    return Math.min(last + 1 + most, Math.ceil(size / chunkSize));
  }

  /** The first of the chunks from `first` on that could be unpacked and isn't; `end` or more if there is none. */
  private firstLacking(packed: PackedChunks, source: number, first: number, end: number): number {
    const { directory, lock } = this;
    for (let chunk = first; chunk < end; chunk++) {
      if (!packed.isStored!(chunk)) continue;
      lock.acquire();
      const record = directory.find(source, chunk | 0, (chunk / 0x100000000) | 0);
      lock.release();
      if (record === 0) return chunk;
    }
    return Math.max(first, end);
  }

  private unpackAhead(packed: PackedChunks, source: number, first: number, end: number, turn: Turn): void {
    const { directory, lock } = this;
    const { chunkSize, size } = packed;
    for (let chunk = first; chunk < end; chunk = this.firstLacking(packed, source, chunk + 1, end)) {
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
    let record = 0;
    for (let waited = false; ; waited = true) {
      lock.acquire();
      record = directory.find(source, low, high);
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
      this.beforeLong();
      Atomics.wait(words, record + STATE, state);
    }
    if (this.isKept && record !== 0 && Atomics.add(words, directory.given(record), count) + count >= length)
      this.retireLater(record);
    // Last, since unpacking a chunk may have read others.
    if (!isInOrder) return;
    this.inOrder = packed;
    this.inOrderSource = source;
    this.inOrderChunk = chunk;
  }

  /** Only hints: a slot may have another chunk by now, which is unpacked again then if need be. */
  private retireLater(record: number): void {
    const { directory, lock, spent, words } = this;
    const at = this.spentNext;
    const [before, state] = [spent[at]!, spent[at + 1]!];
    spent[at] = record;
    spent[at + 1] = words[record + STATE]!;
    this.spentNext = (at + 2) % spent.length;
    if (before === 0 || words[before + STATE] !== state) return;
    lock.acquire();
    if (words[before + STATE] === state && (state & KIND) === READY) directory.retire(before);
    lock.release();
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
    this.beforeLong();
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
    const directory = new SlotDirectory(memory);
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
