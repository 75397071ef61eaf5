/**
 * A mutex of worker threads: one word of shared memory that holds 0, or the owner's number + 1 shifted left by one, and
 * in bit 0 whether somebody sleeps for it (the futex mutex of Drepper's "Futexes Are Tricky", with an owner). The owner
 * is written down so that the lock of a thread that died inside can be told from the lock of one that is merely slow.
 */
export class SharedLock {
  private readonly mine: number;

  /** @param owner number of this thread, from 0; no two living threads have the same. */
  constructor(
    private readonly words: Int32Array,
    private readonly at: number,
    owner: number,
  ) {
    this.mine = (owner + 1) << 1;
  }

  acquire(): void {
    if (Atomics.compareExchange(this.words, this.at, 0, this.mine) !== 0) this.acquireSlowly();
  }

  /** Takes the lock if it is free. Never waits. */
  tryAcquire(): boolean {
    return Atomics.compareExchange(this.words, this.at, 0, this.mine) === 0;
  }

  release(): void {
    if ((Atomics.exchange(this.words, this.at, 0) & 1) !== 0) Atomics.notify(this.words, this.at, 1);
  }

  /**
   * Takes the lock if it is free, or if thread `dead`, which runs no more, holds it: then what the lock protects may be
   * half changed. Never waits. The release after it wakes a sleeper in any case, since the dead thread may have been
   * the one that was woken last and never came to wake the next.
   */
  tryAcquireFrom(dead: number): "free" | "broken" | "busy" {
    const { words, at } = this;
    let seen = Atomics.load(words, at);
    for (let found: number; ; seen = found) {
      if (seen !== 0 && seen >> 1 !== dead + 1) return "busy";
      found = Atomics.compareExchange(words, at, seen, this.mine | 1);
      // It may be the dead thread's still, and somebody have gone to sleep for it just now.
      if (found === seen) break;
    }
    return seen === 0 ? "free" : "broken";
  }

  private acquireSlowly(): void {
    const { words, at, mine } = this;
    // The lock is held for well under a microsecond: mostly it is free again before a sleep would have begun.
    for (let spins = 0; spins < 100; spins++) {
      if (Atomics.load(words, at) === 0 && Atomics.compareExchange(words, at, 0, mine) === 0) return;
    }
    for (;;) {
      const seen = Atomics.load(words, at);
      if (seen === 0) {
        // There may be more sleepers: bit 0 makes our release wake the next.
        if (Atomics.compareExchange(words, at, 0, mine | 1) === 0) return;
        continue;
      }
      if ((seen & 1) === 0 && Atomics.compareExchange(words, at, seen, seen | 1) !== seen) continue;
      Atomics.wait(words, at, seen | 1);
    }
  }
}
