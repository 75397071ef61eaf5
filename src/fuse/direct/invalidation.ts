/**
 * What was written through one file is seen through the others that share its bytes: the kernel keeps a page cache for
 * each, so the others' pages are to be forgotten before the writer is told that it wrote.
 *
 * That is the work of a thread of its own (invalidator.ts), which also sends the writer's reply. The kernel waits for pages
 * that are just being read, and whoever asks it to forget them waits with it: a worker could wait for a read that only
 * workers answer. Workers hand over what is to be forgotten through a ring of shared memory, and go on.
 *
 *     words (Int32)   lock | given | done | ending | all | awaited || entries of 16 words
 *
 * - Nothing is handed over where none of the others is open: the kernel forgets a file's pages when it is opened.
 * - **Who writes past the page cache leaves the pages of others as they were, of the same file too.** The kernel forgets those
 *   before it sends what is written, and once more afterwards, but not after an O_DIRECT write that a program doesn't wait for,
 *   nor did every kernel. Meanwhile somebody may have read the old bytes again. So where pages of the file were read or written
 *   since it was opened, those of what was written are forgotten here.
 * - **Two who write the same page through two files at once must not wait for each other.** The kernel keeps the page of a
 *   partial write locked until its reply. The first one's reply waits for the second one's page to be forgotten; so where
 *   an entry for what was just written is in the ring, the reply isn't handed over but sent at once. What both see in the
 *   end is the same; for the moment between, neither order of two writes at a time is wrong. Who writes past the page cache
 *   holds no page, and its reply can wait, but for so many others: an O_DIRECT write that a program doesn't wait for has one
 *   of the kernel's places for requests in the background, and a page that is waited for may need one to be read.
 * - **Changes to mapped pages are answered at once.** The kernel writes them back when it is asked to forget them, and waits for
 *   that; and it holds them back while somebody who goes past the page cache waits for others of the same file that are
 *   under way. Only who synchronises waits until others forgot such changes.
 * - **Nobody waits for room**: where the ring is full, all pages of all files are forgotten soon, and replies sent at once.
 */
import { SharedLock } from "../../bytes/shared-lock.js";
import type { FileId, Share } from "../../filesystems/filesystem.js";

/** Plain data; shared, not copied, when given to a thread. */
export interface InvalidationMemory {
  readonly ring: SharedArrayBuffer;
  /** Int32, one for each of the first files (OpenFiles). */
  readonly opens: SharedArrayBuffer;
}

const LOCK = 0;
/** Entries handed over, and done with, since the start; they wrap around. */
const GIVEN = 1;
const DONE = 2;
const ENDING = 3;
/** 1 when there was no room. */
const ALL = 4;
/** Replies to writes that were handed over and not sent yet. */
const AWAITED = 5;
const FIRST = 16;
const ENTRY = 16;
/** More than all requests that are usually under way, each with some files. */
export const capacity = 4096;

/** Replies to writes that wait at a time: far fewer than the kernel sends requests in the background (init.ts). */
export const mostAwaited = 32;

/** Files whose opens are counted, by FileId; further ones are taken for open, and for having pages. */
const counted = 65536;

/** What one lock of the kernel's covers at most: a large folio. Bytes. */
const folio = 2 * 1024 * 1024;

/** In place of a file: every file that is open, whole. */
export const everyFile = -1;

/** In place of a file: nothing is to be forgotten, only to be answered. */
export const noFile = -2;

/** What a reply has behind its header. */
export const ReplyKind = {
  none: 0,
  empty: 1,
  written: 2,
  /** There is none, but who synchronises waits for this. */
  writtenBack: 3,
} as const;

export interface Invalidation {
  file: FileId;
  position: number;
  length: number;
  /** Whom to answer afterwards. */
  reply: number;
  uniqueLow: number;
  uniqueHigh: number;
  /** Bytes that were written, for ReplyKind.written. */
  written: number;
}

export function createInvalidationMemory(): InvalidationMemory {
  return {
    ring: new SharedArrayBuffer((FIRST + capacity * ENTRY) * 4),
    opens: new SharedArrayBuffer(counted * 4),
  };
}

const entryAt = (entry: number) => FIRST + (entry & (capacity - 1)) * ENTRY;

/**
 * Which files are open, and of which the kernel may have pages, as all threads know: a word for each, with twice how often it
 * is open, and 1 more when there may be pages.
 */
export class OpenFiles {
  private readonly opens: Int32Array;

  constructor(memory: InvalidationMemory) {
    this.opens = new Int32Array(memory.opens);
  }

  /** Called before whoever opened it is told: the kernel forgets its pages then. */
  opened(file: FileId): void {
    const { opens } = this;
    if (file >= counted) return;
    for (let seen = opens[file]!; ; ) {
      // Of those who have it open already pages may come at any moment.
      const found = Atomics.compareExchange(opens, file, seen, seen < 2 ? 2 : seen + 2);
      if (found === seen) return;
      seen = found;
    }
  }

  closed(file: FileId): void {
    if (file < counted) Atomics.sub(this.opens, file, 2);
  }

  isOpen(file: FileId): boolean {
    return file >= counted || Atomics.load(this.opens, file) >= 2;
  }

  /** Called before the bytes of a page of it are read, or written from one. */
  hasPages(file: FileId): void {
    if (file < counted && (Atomics.load(this.opens, file) & 1) === 0) Atomics.or(this.opens, file, 1);
  }

  /** Called after something was written: whether pages of before may be left. */
  mayHavePages(file: FileId): boolean {
    return file >= counted || (Atomics.load(this.opens, file) & 1) !== 0;
  }

  /** All that are open, of those counted. */
  *all(): Iterable<FileId> {
    for (let file = 0; file < counted; file++) if (this.opens[file]! >= 2) yield file;
  }
}

/** The ring, from either side. */
export class InvalidationRing {
  private readonly words: Int32Array;
  private readonly lock: SharedLock;

  /** @param owner this thread's number; no two living threads have the same. */
  constructor(memory: InvalidationMemory, owner: number) {
    this.words = new Int32Array(memory.ring);
    this.lock = new SharedLock(this.words, LOCK, owner);
  }

  /**
   * Hands over what is to be forgotten, and the reply to send after the last of it.
   * @param shares where the bytes are, in each file, whose pages are to be forgotten
   * @param held where the writer may hold pages of its own, which it keeps until it has its reply; undefined if it holds none
   * @param written bytes, as the reply is to say
   * @returns whether the reply was handed over; otherwise it is the caller's to send, now
   */
  give(
    shares: readonly Share[],
    held: Share | undefined,
    reply: number,
    uniqueLow: number,
    uniqueHigh: number,
    written: number,
  ): boolean {
    const { words } = this;
    this.lock.acquire();
    let handed = reply === ReplyKind.written || reply === ReplyKind.empty;
    try {
      const given = words[GIVEN]!;
      const done = Atomics.load(words, DONE);
      if (((given - done) | 0) + shares.length > capacity) {
        Atomics.store(words, ALL, 1);
        handed = false;
      } else {
        if (handed && held) handed = !this.isAwaited(held, done, given);
        // Of what isn't awaited by a write there may be more: it has none of the kernel's places.
        if (handed && reply === ReplyKind.written) {
          handed = Atomics.load(words, AWAITED) < mostAwaited;
          if (handed) Atomics.add(words, AWAITED, 1);
        }
        for (const [index, { file, position, length }] of shares.entries()) {
          const at = entryAt(given + index);
          this.number(at, file);
          this.number(at + 2, position);
          this.number(at + 4, length);
          const isLast = index === shares.length - 1;
          words[at + 6] = reply === ReplyKind.writtenBack || (handed && isLast) ? reply : ReplyKind.none;
          words[at + 7] = uniqueLow;
          words[at + 8] = uniqueHigh;
          words[at + 9] = written;
        }
        Atomics.store(words, GIVEN, (given + shares.length) | 0);
      }
    } finally {
      this.lock.release();
    }
    Atomics.notify(words, GIVEN);
    return handed;
  }

  /**
   * Hands over the empty reply to send when the others' pages of all that was written back before are forgotten.
   * @returns false when it is the caller's to send, now: they are, or there is no room
   */
  giveReply(uniqueLow: number, uniqueHigh: number): boolean {
    const { words } = this;
    const given = Atomics.load(words, GIVEN);
    let entry = Atomics.load(words, DONE);
    while (entry !== given && words[entryAt(entry) + 6] !== ReplyKind.writtenBack) entry = (entry + 1) | 0;
    if (entry === given) return false;
    const nothing = [{ file: noFile, position: 0, length: 0 }];
    return this.give(nothing, undefined, ReplyKind.empty, uniqueLow, uniqueHigh, 0);
  }

  /** Waits for what is handed over next, and reads it into `target`. @returns false when there will be none */
  take(target: Invalidation): boolean {
    const { words } = this;
    const done = words[DONE]!;
    for (;;) {
      if (Atomics.exchange(words, ALL, 0) === 1) {
        target.file = everyFile;
        target.reply = ReplyKind.none;
        return true;
      }
      const given = Atomics.load(words, GIVEN);
      if (given !== done) break;
      if (Atomics.load(words, ENDING) === 1) return false;
      Atomics.wait(words, GIVEN, given, 1000);
    }
    const at = entryAt(done);
    target.file = this.numberAt(at);
    target.position = this.numberAt(at + 2);
    target.length = this.numberAt(at + 4);
    target.reply = words[at + 6]!;
    target.uniqueLow = words[at + 7]! >>> 0;
    target.uniqueHigh = words[at + 8]! >>> 0;
    target.written = words[at + 9]!;
    return true;
  }

  /** What was taken is forgotten; its reply may be sent after this. */
  finish({ file, reply }: Invalidation): void {
    if (file === everyFile) return;
    Atomics.add(this.words, DONE, 1);
    if (reply === ReplyKind.written) Atomics.sub(this.words, AWAITED, 1);
  }

  /** There will be nothing more. */
  static end(memory: InvalidationMemory): void {
    const words = new Int32Array(memory.ring);
    Atomics.store(words, ENDING, 1);
    Atomics.notify(words, GIVEN);
  }

  /**
   * Frees the lock of a thread that has ended. It may have written and not come to say so: everything is forgotten soon.
   * @param owner of the thread that calls
   */
  static releaseDead(memory: InvalidationMemory, dead: number, owner: number): void {
    const words = new Int32Array(memory.ring);
    const lock = new SharedLock(words, LOCK, owner);
    if (lock.tryAcquireFrom(dead) !== "busy") lock.release();
    InvalidationRing.forgetAll(memory);
  }

  /** All pages of all files are forgotten soon: something was written of which nobody tells where. */
  static forgetAll(memory: InvalidationMemory): void {
    const words = new Int32Array(memory.ring);
    Atomics.store(words, ALL, 1);
    Atomics.notify(words, GIVEN);
  }

  /** Whether the pages of what was written are waited for: those of the writer's own file, which it may hold. */
  private isAwaited({ file, position, length }: Share, done: number, given: number): boolean {
    const first = Math.floor(position / folio);
    const last = Math.floor((position + length - 1) / folio);
    for (let entry = done; entry !== given; entry = (entry + 1) | 0) {
      const at = entryAt(entry);
      if (this.numberAt(at) !== file) continue;
      const start = this.numberAt(at + 2);
      const end = start + this.numberAt(at + 4) - 1;
      if (Math.floor(start / folio) <= last && Math.floor(end / folio) >= first) return true;
    }
    return false;
  }

  private numberAt(at: number): number {
    return this.words[at + 1]! * 0x100000000 + (this.words[at]! >>> 0);
  }

  private number(at: number, value: number): void {
    this.words[at] = (value % 0x100000000) | 0;
    this.words[at + 1] = Math.floor(value / 0x100000000);
  }
}
