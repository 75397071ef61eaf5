/**
 * A writable top over the layers of an image, which are never written to. Blocks of 4 KiB that were written are kept in a
 * store at their own positions; a bitmap in shared memory tells which ones are there. Any number of threads write and
 * read at a time.
 *
 * - **A block that is there stays there**: bits are only ever set. So what is there is written in place, without a lock;
 *   a lock of its zone (1 MiB of the disk, of 256 locks in turn) is taken only by who makes a block present: a part of one
 *   has to be completed from the base first, and nobody may come between.
 * - **A bit is set after the block's bytes are written**, so a reader sees old or new, and never a block half made.
 * - **Durable means: first the bytes, then the bits.** flush() copies the pages of the bitmap that changed, has the bytes
 *   made durable, and only then writes the copies. Whatever is killed when, a bit that is found set in the file tells of
 *   bytes that are all there; a block whose bit was not yet written is as it was before. Bits need no checksum for that:
 *   one that gets lost is a write that was not flushed. What a block overwrites in place is old or new by sectors, as on
 *   any disk.
 * - **Zeros need no kind of their own**: a hole in the store, present.
 * - **A bit that is seen is flushed.** Another thread may write into a block as soon as its bit is set, and have that
 *   flushed, before whoever set the bit has come to mark the page. So who sets bits says beforehand in which page, in a
 *   word of its own, and a flush takes these pages as marked.
 * - **Who waited for another's flush seldom needs one of its own**: one that began after it had come has made durable what it
 *   wrote. So of many who flush at a time two flushes serve all.
 * - **After bytes or bits could not be made durable nothing is durable any more**: the system has forgotten by then which of
 *   them it failed to write, and the next attempt would succeed. So no bit is written from then on, and every flush fails.
 * - **A thread may die at any instruction**: releaseDead() frees its locks. What it was making present is absent still, or
 *   its page is told by its word; and pages it was flushing are taken by the next flush.
 */
import { type ByteSource, readFully } from "../bytes/byte-source.js";
import type { ByteStore } from "../bytes/byte-store.js";
import { SharedLock } from "../bytes/shared-lock.js";
import { system } from "../errors.js";
import type { Disk } from "./disk.js";
import { LayeredDisk } from "./disk.js";
import type { Layer, Run } from "./layer.js";
import {
  bitsIn,
  blockSize,
  blocksPerPage,
  countRow,
  DIRTY,
  FLUSHING,
  type OverlayMemory,
  pageSize,
  USED,
  zoneSize,
  zones,
} from "./overlay-memory.js";

/** A disk that can be written to. */
export interface WritableDisk extends Disk {
  /**
   * Writes all of `bytes` at `position`; both within the disk. Seen by every thread from then on.
   * @throws ImageError `system` when the store is full or fails; `corrupt` when a block has to be completed from damaged
   *   bytes of the base
   */
  write(position: number, bytes: Uint8Array): void;
  /** Makes `length` bytes from `position` on zeros. */
  clear(position: number, length: number): void;
  /** Returns when all that any thread wrote before is durable. @throws ImageError `system` */
  flush(): void;
  /** As flush, but does nothing where another thread is flushing. Never waits for a thread. @returns whether it flushed */
  tryFlush(): boolean;
  /** Bytes of the disk that the overlay has. */
  readonly written: number;
  /** When was written last, in milliseconds since 1970; 0 for never. */
  readonly lastWrite: number;
  /** How often was written, by all threads: whether anything was since. */
  readonly writes: number;
  /** How many bytes were written by all threads since the overlay was opened: those that were written twice count twice. */
  readonly bytesWritten: number;
  /** Bytes of those that the last flush didn't make durable; never too few. */
  readonly unflushed: number;
}

/** Where an overlay keeps what it has, each a stretch of its file. */
export interface OverlayStores {
  /** The disk's blocks at their positions. */
  readonly data: ByteStore;
  /** The bitmap. */
  readonly bitmap: ByteStore;
}

/** In `locks`, behind those of the zones. */
const FLUSH_LOCK = zones;
/** In `locks`: 1 when bytes or bits could not be made durable. */
const FAILED = zones + 1;
/** In `locks`: flushes that have begun; and the number of the last that succeeded. They wrap around. */
const FLUSHES = zones + 2;
const FLUSHED = zones + 3;
/** Pages of the bitmap that are written between two flushes of the data: 4 MiB of copies. */
const pagesAtOnce = 1024;
/** Blocks that one look at the bitmap goes on for where they are alike: 1 GiB. */
const longestLook = 1 << 18;

/** The layer that an overlay is, and the disk that it makes of those beneath. */
export class OverlayDisk extends LayeredDisk implements WritableDisk {
  private readonly bits: Uint8Array;
  private readonly pages: Uint8Array;
  private readonly words: Int32Array;
  private readonly setting: Int32Array;
  private readonly locks: readonly SharedLock[];
  private readonly flushLock: SharedLock;
  private readonly counts: Float64Array;
  private readonly scratch = Buffer.alloc(blockSize);

  /** @param owner this thread's number, below `memory.owners`; no two living threads have the same. */
  constructor(
    name: string,
    private readonly memory: OverlayMemory,
    private readonly stores: OverlayStores,
    layers: readonly Layer[],
    private readonly owner: number,
    private readonly base: ByteSource = new LayeredDisk(name, layers),
  ) {
    super(name, [new OverlayLayer(name, memory, stores.data), ...layers]);
    this.bits = new Uint8Array(memory.present);
    this.pages = new Uint8Array(memory.pages);
    this.words = new Int32Array(memory.locks);
    this.setting = new Int32Array(memory.setting);
    this.locks = Array.from({ length: zones }, (_, zone) => new SharedLock(this.words, zone, owner));
    this.flushLock = new SharedLock(this.words, FLUSH_LOCK, owner);
    this.counts = new Float64Array(memory.counts, owner * countRow, countRow / 8);
  }

  get written(): number {
    return Math.min(this.size, (this.memory.presentAtFirst + this.total(0, (a, b) => a + b)) * blockSize);
  }

  get lastWrite(): number {
    return this.total(1, Math.max);
  }

  get writes(): number {
    return this.total(2, (a, b) => a + b);
  }

  get bytesWritten(): number {
    return this.total(3, (a, b) => a + b);
  }

  get unflushed(): number {
    // In this order: a flush in between makes it too large rather than too small.
    const flushed = this.total(4, Math.max);
    return this.bytesWritten - flushed;
  }

  write(position: number, bytes: Uint8Array): void {
    let done = 0;
    try {
      while (done < bytes.length) {
        const at = position + done;
        const length = Math.min(bytes.length - done, zoneSize - (at % zoneSize));
        this.writeInZone(at, length === bytes.length ? bytes : bytes.subarray(done, done + length));
        done += length;
        this.counts[3]! += length;
      }
    } finally {
      // Of what failed, or is tried again later, a part may be there, to be flushed.
      if (done > 0) this.wrote();
    }
  }

  clear(position: number, length: number): void {
    const end = position + length;
    const first = Math.ceil(position / blockSize) * blockSize;
    // The disk's last block may be a short one.
    const last = end === this.size ? end : Math.floor(end / blockSize) * blockSize;
    if (first >= last) {
      this.write(position, Buffer.alloc(length));
      return;
    }
    if (position < first) this.write(position, Buffer.alloc(first - position));
    if (last < end) this.write(last, Buffer.alloc(end - last));
    try {
      for (let at = first; at < last; ) {
        // What is a hole of the base and was never written is zeros already: a disk that is discarded whole takes nothing.
        const extent = this.extentAt(at);
        const stretch = Math.min(extent.length, last - at);
        // A hole may end within a block, whose start then is to be zeros as well: a lost write may have left bytes there.
        const start = at - (at % blockSize);
        if (!extent.hole) this.clearBlocks(start, Math.min(last, Math.ceil((at + stretch) / blockSize) * blockSize));
        at += stretch;
      }
    } finally {
      this.wrote();
    }
  }

  flush(): void {
    const { words, flushLock } = this;
    // One that is under way may have passed by what this thread has just written; the next one has not.
    const underWay = Atomics.load(words, FLUSHES);
    flushLock.acquire();
    if (((Atomics.load(words, FLUSHED) - underWay) | 0) > 0) flushLock.release();
    else this.flushAndRelease();
  }

  tryFlush(): boolean {
    if (!this.flushLock.tryAcquire()) return false;
    this.flushAndRelease();
    return true;
  }

  /** Frees the locks of a thread that has ended. Called in the one thread that starts the others, by its own number. */
  static releaseDead(memory: OverlayMemory, dead: number): void {
    const setting = new Int32Array(memory.setting);
    const page = Atomics.exchange(setting, dead, 0) - 1;
    if (page >= 0) Atomics.or(new Uint8Array(memory.pages), page, USED | DIRTY);
    const words = new Int32Array(memory.locks);
    for (let index = 0; index <= FLUSH_LOCK; index++) {
      const lock = new SharedLock(words, index, memory.owners - 1);
      if (lock.tryAcquireFrom(dead) !== "busy") lock.release();
    }
  }

  private flushAndRelease(): void {
    const flush = (Atomics.add(this.words, FLUSHES, 1) + 1) | 0;
    try {
      // Counted when written, so what is counted by now is in the pages that are flushed.
      const { bytesWritten } = this;
      for (const page of this.setting.keys()) {
        const set = Atomics.load(this.setting, page) - 1;
        if (set >= 0) Atomics.or(this.pages, set, USED | DIRTY);
      }
      for (let page = 0, any = false; ; any = true) {
        const copies: [number, Buffer][] = [];
        page = this.takeDirty(page, copies);
        this.makeDurable(this.stores.data);
        for (const [number, copy] of copies) this.stores.bitmap.write(number * pageSize, copy);
        if (page < this.pages.length) continue;
        if (any || copies.length > 0) this.makeDurable(this.stores.bitmap);
        break;
      }
      for (
        let page = this.nextFlagged(0, FLUSHING);
        page < this.pages.length;
        page = this.nextFlagged(page + 1, FLUSHING)
      )
        Atomics.and(this.pages, page, ~FLUSHING);
      this.counts[4] = bytesWritten;
      Atomics.store(this.words, FLUSHED, flush);
    } finally {
      // Those that are FLUSHING still, after a failure, are taken again by the next flush.
      this.flushLock.release();
    }
  }

  /** Both stores are of one file: a flush of the bitmap that fails may have been of bytes that were written meanwhile. */
  private makeDurable(store: ByteStore): void {
    if (Atomics.load(this.words, FAILED) === 1)
      throw system(
        `${store.name}: flushing`,
        new Error("what was written could not be made durable before, so it isn't known what is; mount it again"),
      );
    try {
      store.flush();
    } catch (error) {
      Atomics.store(this.words, FAILED, 1);
      throw error;
    }
  }

  private wrote(): void {
    this.counts[1] = Date.now();
    this.counts[2]!++;
  }

  private total(which: number, join: (a: number, b: number) => number): number {
    const all = new Float64Array(this.memory.counts);
    let total = 0;
    for (let at = which; at < all.length; at += countRow / 8) total = join(total, all[at]!);
    return total;
  }

  private writeInZone(position: number, bytes: Uint8Array): void {
    const { data } = this.stores;
    const first = Math.floor(position / blockSize);
    const end = position + bytes.length;
    const last = Math.ceil(end / blockSize);
    if (this.firstAbsent(first, last) === last) {
      data.write(position, bytes);
      return;
    }
    const isHeadPart = position % blockSize !== 0 || end < Math.min(this.size, (first + 1) * blockSize);
    const isTailPart = end % blockSize !== 0 && end < this.size;
    if (isHeadPart) this.awaitBase(first);
    if (isTailPart) this.awaitBase(last - 1);
    const lock = this.lockOf(position);
    lock.acquire();
    try {
      let at = position;
      let stop = end;
      if (isHeadPart) at = this.complete(first, position, bytes);
      if (isTailPart && end > at) {
        stop = (last - 1) * blockSize;
        this.complete(last - 1, stop, bytes.subarray(stop - position));
      }
      if (stop > at) data.write(at, bytes.subarray(at - position, stop - position));
      this.makePresent(first, last);
    } finally {
      lock.release();
    }
  }

  /**
   * Waits for what a block is to be completed with, where the base has that only later: without a lock, for those who write
   * near by and need nothing of the base.
   */
  private awaitBase(block: number): void {
    const { base } = this;
    const start = block * blockSize;
    const end = Math.min(this.size, start + blockSize);
    if (!base.isFar || this.has(block) || !(base.isFar(start) || base.isFar(end - 1))) return;
    readFully(base, start, this.scratch.subarray(0, end - start));
  }

  /**
   * Writes those of `bytes` (at `position`) that lie in `block`, a part of it: the rest of it comes from the base unless it
   * is there. @returns where `bytes` go on
   */
  private complete(block: number, position: number, bytes: Uint8Array): number {
    const { data } = this.stores;
    const start = block * blockSize;
    const length = Math.min(blockSize, this.size - start);
    const part = bytes.subarray(0, start + length - position);
    if (this.has(block)) data.write(position, part);
    else {
      const whole = this.scratch.subarray(0, length);
      const got = readFully(this.base, start, whole);
      whole.fill(0, got);
      whole.set(part, position - start);
      data.write(start, whole);
    }
    return position + part.length;
  }

  /** Whole blocks, and perhaps the disk's short last one. */
  private clearBlocks(position: number, end: number): void {
    const { data } = this.stores;
    for (let at = position; at < end; ) {
      const stop = Math.min(end, at - (at % zoneSize) + zoneSize);
      const [first, last] = [Math.floor(at / blockSize), Math.ceil(stop / blockSize)];
      const lock = this.lockOf(at);
      lock.acquire();
      try {
        data.clear(at, stop - at);
        this.makePresent(first, last);
      } finally {
        lock.release();
      }
      this.counts[3]! += stop - at;
      at = stop;
    }
  }

  private lockOf(position: number): SharedLock {
    return this.locks[Math.floor(position / zoneSize) % zones]!;
  }

  private has(block: number): boolean {
    return (this.bits[Math.floor(block / 8)]! & (1 << (block % 8))) !== 0;
  }

  /** The first block from `first` on that isn't there; `last` if all before that are. */
  private firstAbsent(first: number, last: number): number {
    for (let block = first; block < last; block++) if (!this.has(block)) return block;
    return last;
  }

  /** @param last not included; all within one zone, so within one page of the bitmap */
  private makePresent(first: number, last: number): void {
    const page = Math.floor(first / blocksPerPage);
    if ((this.pages[page]! & USED) === 0) {
      // That there is no room for the bit has to be told now, to whoever writes.
      this.stores.bitmap.reserve(page * pageSize, pageSize);
      Atomics.or(this.pages, page, USED);
    }
    Atomics.store(this.setting, this.owner, page + 1);
    let added = 0;
    for (let block = first; block < last; ) {
      const at = Math.floor(block / 8);
      const stop = Math.min(last, (at + 1) * 8);
      const mask = (0xff >> (8 - (stop - block))) << (block % 8);
      added += bitsIn(mask & ~Atomics.or(this.bits, at, mask));
      block = stop;
    }
    // After the bits: a flush that takes the page copies them then.
    if (added > 0) Atomics.or(this.pages, page, DIRTY);
    Atomics.store(this.setting, this.owner, 0);
    this.counts[0]! += added;
  }

  /** Copies pages that changed, from `page` on, as many as are written at once. @returns where to go on */
  private takeDirty(page: number, copies: [number, Buffer][]): number {
    let at = this.nextFlagged(page, DIRTY | FLUSHING);
    for (; at < this.pages.length && copies.length < pagesAtOnce; at = this.nextFlagged(at + 1, DIRTY | FLUSHING)) {
      Atomics.or(this.pages, at, FLUSHING);
      Atomics.and(this.pages, at, ~DIRTY);
      copies.push([at, Buffer.from(this.bits.subarray(at * pageSize, (at + 1) * pageSize))]);
    }
    return at;
  }

  private nextFlagged(from: number, flags: number): number {
    let page = from;
    while (page < this.pages.length && (Atomics.load(this.pages, page) & flags) === 0) page++;
    return page;
  }
}

/** What the overlay has, as a layer. */
class OverlayLayer implements Layer {
  readonly format = "overlay";
  readonly parent = undefined;
  readonly facts = {};
  readonly size: number;
  private readonly bits: Uint8Array;
  private readonly pages: Uint8Array;
  private readonly blocks: number;

  constructor(
    readonly name: string,
    memory: OverlayMemory,
    private readonly data: ByteSource,
  ) {
    this.size = memory.size;
    this.bits = new Uint8Array(memory.present);
    this.pages = new Uint8Array(memory.pages);
    this.blocks = Math.ceil(memory.size / blockSize);
  }

  locate(position: number): Run {
    const block = Math.floor(position / blockSize);
    const present = this.has(block);
    const length = Math.min(this.endOfAlike(block, present) * blockSize, this.size) - position;
    return present ? { kind: "stored", length, source: this.data, at: position } : { kind: "absent", length };
  }

  private has(block: number): boolean {
    return (this.bits[Math.floor(block / 8)]! & (1 << (block % 8))) !== 0;
  }

  /** Behind the last block from `block` on that is there, or isn't, like it. */
  private endOfAlike(block: number, present: boolean): number {
    const whole = present ? 0xff : 0;
    let at = block + 1;
    for (let limit = block + longestLook; at < this.blocks && at < limit; ) {
      if (at % 8 === 0) {
        const page = at / blocksPerPage;
        if (!present && Number.isInteger(page) && this.pages[page] === 0) {
          at += blocksPerPage;
          limit += blocksPerPage;
          continue;
        }
        if (this.bits[at / 8] === whole) {
          at += 8;
          continue;
        }
      }
      if (this.has(at) !== present) break;
      at++;
    }
    return Math.min(at, this.blocks);
  }
}
