import test from "ava";
import { SharedLock } from "./shared-lock.js";

test.serial("the lock of a dead thread is taken from it though somebody goes to sleep for it at that moment", (t) => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  const dead = new SharedLock(words, 0, 3);
  const heir = new SharedLock(words, 0, 7);
  const { compareExchange } = Atomics;
  for (const sleeps of [false, true]) {
    dead.acquire();
    try {
      // What another thread does between the look at the lock and the taking of it.
      Atomics.compareExchange = ((...all: Parameters<typeof compareExchange>) => {
        Atomics.compareExchange = compareExchange;
        if (sleeps) words[0]! |= 1;
        return compareExchange(...all);
      }) as typeof compareExchange;
      t.is(heir.tryAcquireFrom(3), "broken", `sleeps: ${sleeps}`);
    } finally {
      Atomics.compareExchange = compareExchange;
    }
    t.is(heir.tryAcquireFrom(3), "busy");
    heir.release();
    t.is(words[0], 0);
  }
});

test("a lock that is free, or a living thread's, is told from a dead one's", (t) => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  const [living, heir] = [new SharedLock(words, 0, 0), new SharedLock(words, 0, 1)];
  t.is(heir.tryAcquireFrom(5), "free");
  heir.release();
  living.acquire();
  t.is(heir.tryAcquireFrom(5), "busy");
  t.false(heir.tryAcquire());
  living.release();
  t.true(heir.tryAcquire());
});
