/**
 * What was written through one file is seen through the others that share its bytes: the kernel keeps a page cache for
 * each, so the others' pages are to be forgotten before the writer is told that it wrote.
 *
 * That is the work of a thread of its own (invalidator.ts), which also sends the writer's reply. The kernel waits for pages
 * that are just being read, and whoever asks it to forget them waits with it: a worker could wait for a read that only
 * workers answer. Workers hand over what is to be forgotten through a ring of shared memory, and go on.
 *
 *     words (Int32)   lock | taken | given | ending || entries of 16 words
 *
 * Nothing is handed over where none of the others is open: the kernel forgets a file's pages when it is opened.
 */
import { SharedLock } from "../../bytes/shared-lock.js";
import type { FileId, Share } from "../../filesystems/filesystem.js";

/** Plain data; shared, not copied, when given to a thread. */
export interface InvalidationMemory {
  readonly ring: SharedArrayBuffer;
  /** Int32: how often each of the first files is open. */
  readonly opens: SharedArrayBuffer;
}

const LOCK = 0;
/** Entries handed over, and taken, since the start; they wrap around. */
const GIVEN = 1;
const TAKEN = 2;
const ENDING = 3;
const FIRST = 16;
const ENTRY = 16;
/** More than all requests that can be under way, each with some files. */
const capacity = 4096;

/** Files whose opens are counted; further ones (a disk with so many partitions) are taken for open. */
const counted = 4096;

/** What a reply has behind its header. */
export const ReplyKind = { none: 0, empty: 1, written: 2 } as const;

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

/** Which files are open, as all threads know. */
export class OpenFiles {
  private readonly opens: Int32Array;

  constructor(memory: InvalidationMemory) {
    this.opens = new Int32Array(memory.opens);
  }

  opened(file: FileId): void {
    if (file < counted) Atomics.add(this.opens, file, 1);
  }

  closed(file: FileId): void {
    if (file < counted) Atomics.sub(this.opens, file, 1);
  }

  isOpen(file: FileId): boolean {
    return file >= counted || Atomics.load(this.opens, file) > 0;
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

  /** Hands over what is to be forgotten; who is to be answered is answered after the last of it. */
  give(shares: readonly Share[], reply: number, uniqueLow: number, uniqueHigh: number, written: number): void {
    const { words } = this;
    this.lock.acquire();
    try {
      for (const [index, { file, position, length }] of shares.entries()) {
        const given = words[GIVEN]!;
        for (
          let taken = Atomics.load(words, TAKEN);
          ((given - taken) | 0) >= capacity;
          taken = Atomics.load(words, TAKEN)
        )
          Atomics.wait(words, TAKEN, taken);
        const at = FIRST + (given & (capacity - 1)) * ENTRY;
        this.number(at, file);
        this.number(at + 2, position);
        this.number(at + 4, length);
        words[at + 6] = index === shares.length - 1 ? reply : ReplyKind.none;
        words[at + 7] = uniqueLow;
        words[at + 8] = uniqueHigh;
        words[at + 9] = written;
        Atomics.store(words, GIVEN, (given + 1) | 0);
      }
    } finally {
      this.lock.release();
    }
    Atomics.notify(words, GIVEN);
  }

  /** Waits for the next to be handed over, and reads it into `target`. @returns false when there will be none */
  take(target: Invalidation): boolean {
    const { words } = this;
    const taken = words[TAKEN]!;
    for (;;) {
      const given = Atomics.load(words, GIVEN);
      if (given !== taken) break;
      if (Atomics.load(words, ENDING) === 1) return false;
      Atomics.wait(words, GIVEN, given, 1000);
    }
    const at = FIRST + (taken & (capacity - 1)) * ENTRY;
    const number = (from: number) => words[from + 1]! * 0x100000000 + (words[from]! >>> 0);
    target.file = number(at);
    target.position = number(at + 2);
    target.length = number(at + 4);
    target.reply = words[at + 6]!;
    target.uniqueLow = words[at + 7]! >>> 0;
    target.uniqueHigh = words[at + 8]! >>> 0;
    target.written = words[at + 9]!;
    Atomics.store(words, TAKEN, (taken + 1) | 0);
    Atomics.notify(words, TAKEN);
    return true;
  }

  /** There will be nothing more. */
  static end(memory: InvalidationMemory): void {
    const words = new Int32Array(memory.ring);
    Atomics.store(words, ENDING, 1);
    Atomics.notify(words, GIVEN);
  }

  /** Frees the lock of a thread that has ended. @param owner of the thread that calls */
  static releaseDead(memory: InvalidationMemory, dead: number, owner: number): void {
    const lock = new SharedLock(new Int32Array(memory.ring), LOCK, owner);
    if (lock.tryAcquireFrom(dead) !== "busy") lock.release();
  }

  private number(at: number, value: number): void {
    this.words[at] = (value % 0x100000000) | 0;
    this.words[at + 1] = Math.floor(value / 0x100000000);
  }
}
