/**
 * What main thread and workers share: the descriptor to serve, counters, and which request each worker holds, so that
 * it can be answered when the worker dies. A worker alone writes its rows; the main thread reads them. No I/O.
 */
import type { Agreement } from "./init.js";

/** Plain data; shared, not copied, when given to a worker. */
export interface SharedState {
  /** Workers that wait for requests. One more has rows: the one that answers what is put off. */
  readonly workers: number;
  /** Int32: what to do (see below), for all workers. */
  readonly orders: SharedArrayBuffer;
  /** Int32, a row per worker: the request it holds, whether it has ended in order, listens, stands by. */
  readonly held: SharedArrayBuffer;
  /** Float64, a row per worker: counters. */
  readonly counts: SharedArrayBuffer;
}

/** Bytes of a row: a cache line, so that workers don't slow each other. */
const ROW = 64;

const UNIQUE_LOW = 0;
const UNIQUE_HIGH = 1;
const ENDED = 2;
/** Whether this worker is one of `LISTENING`. */
const LISTENS = 3;
/** Whether this worker is one of `STANDING_BY`. */
const STANDS_BY = 4;

const REQUESTS = 0;
const READS = 1;
const BYTES_READ = 2;
const ERRORS = 3;

/** In `orders`: 0 until there is a mount; then its descriptor + 1, or -1 when there will be none. */
const DESCRIPTOR = 0;
/** In `orders`: how many workers are to wait for a request, of those that have nothing to do. */
const WANTED = 1;
/** In `orders`: workers that wait for a request: never too many, so that none is left without a listener. */
const LISTENING = 2;
/** In `orders`: what was agreed on with the kernel, as bits. */
const AGREEMENT = 3;
/** In `orders`: the worker that unpacks ahead of a reader, + 1; 0 if none does. */
const AHEAD = 4;
/** In `orders`: goes up when one that stands by is to come. */
const CALLS = 5;
/** In `orders`: workers that stand by: they are called when nobody is left to listen. */
const STANDING_BY = 6;
/** In `orders`: whether some of those who stand by don't look any more whether the listener is held up. */
const ASLEEP = 7;
/** In `orders`: whether the mount is gone: whoever is left has to hear of that too, and nobody stands by. */
const GONE = 8;
/** In `orders`: whether all who listened were held up lately: then whoever hears last calls another at once. */
const HELD_UP = 9;

/** Bits of AGREEMENT. */
const FILLS_ZEROS = 1;
const GOES_PAST_CACHE = 2;

/** Requests that had to wait behind somebody else's, less twice those that hadn't to, for which one more is to listen. */
const PRESSED = 64;
/** Requests in a row before which as many were listening as are wanted: then one less is. */
const PATIENCE = 512;
/** Milliseconds for which a request may hold up all who listen, before one who stands by takes the next. */
const LOOKS = 4;
/** Looks without any request after which no more are taken before the next one. */
const QUIET = 256;

export function createState(workers: number): SharedState {
  const orders = new SharedArrayBuffer(ROW);
  new Int32Array(orders)[WANTED] = 1;
  return {
    workers,
    orders,
    held: new SharedArrayBuffer((workers + 1) * ROW),
    counts: new SharedArrayBuffer((workers + 1) * ROW),
  };
}

/** One worker's rows: its own side. */
export class WorkerState {
  private readonly orders: Int32Array;
  private readonly held: Int32Array;
  private readonly counts: Float64Array;
  /** Of all workers. */
  private readonly allCounts: Float64Array;
  private readonly workers: number;
  private unneeded = 0;
  private pressed = 0;
  private asker = 0;

  constructor(
    state: SharedState,
    private readonly worker: number,
  ) {
    this.workers = state.workers;
    this.orders = new Int32Array(state.orders);
    this.held = new Int32Array(state.held, worker * ROW, ROW / 4);
    this.counts = new Float64Array(state.counts, worker * ROW, ROW / 8);
    this.allCounts = new Float64Array(state.counts);
  }

  /** Sleeps until the mount is there. @returns its descriptor, or undefined when there will be none. */
  descriptor(): number | undefined {
    Atomics.wait(this.orders, DESCRIPTOR, 0);
    const order = Atomics.load(this.orders, DESCRIPTOR);
    return order < 0 ? undefined : order - 1;
  }

  /** What was agreed on with the kernel; known once there is a descriptor. */
  get agreement(): Agreement {
    const bits = this.orders[AGREEMENT]!;
    return { fillsZeros: (bits & FILLS_ZEROS) !== 0, pastCache: (bits & GOES_PAST_CACHE) !== 0 };
  }

  /**
   * Called before a reply is sent: the next request may be there before the sending returns, and this worker is as good
   * as listening.
   */
  free(): void {
    // In this order, and in `busy` in the other: whenever the worker dies, there aren't too many.
    this.held[LISTENS] = 1;
    Atomics.add(this.orders, LISTENING, 1);
  }

  /** It doesn't listen. @returns how many did, with this one */
  private busy(): number {
    const listened = Atomics.sub(this.orders, LISTENING, 1);
    this.held[LISTENS] = 0;
    return listened;
  }

  /**
   * Called before a request is waited for. The kernel hands requests to those who wait in turn, and a single reader's would
   * have each of them compile the same code and read the same directories, and be woken from a processor's sleep: so as few
   * as the load needs listen, and a worker beyond them stands by here until it is called.
   */
  rest(): void {
    const { orders } = this;
    const wanted = Atomics.load(orders, WANTED);
    this.unneeded = wanted > 1 && Atomics.load(orders, LISTENING) >= wanted ? this.unneeded + 1 : 0;
    if (this.unneeded >= PATIENCE) {
      this.unneeded = 0;
      Atomics.compareExchange(orders, WANTED, wanted, wanted - 1);
    }
    for (let hasAnswered = true; ; hasAnswered = false) {
      // Before it is seen who listens: a call after that is not missed.
      const calls = Atomics.load(orders, CALLS);
      const listening = Atomics.load(orders, LISTENING);
      if (listening <= Atomics.load(orders, WANTED) || Atomics.load(orders, GONE) === 1) return;
      // Two that come at once don't both go.
      if (Atomics.compareExchange(orders, LISTENING, listening, listening - 1) !== listening) continue;
      this.held[LISTENS] = 0;
      if (hasAnswered) Atomics.store(orders, HELD_UP, 0);
      this.held[STANDS_BY] = 1;
      Atomics.add(orders, STANDING_BY, 1);
      this.standBy(calls);
      Atomics.sub(orders, STANDING_BY, 1);
      this.held[STANDS_BY] = 0;
      this.free();
    }
  }

  /** Until it is called, or sees that all who listened are held up by what they have heard. */
  private standBy(calls: number): void {
    const { orders } = this;
    let seen = this.requests();
    for (let quiet = 0; ; ) {
      if (Atomics.wait(orders, CALLS, calls, quiet < QUIET ? LOOKS : undefined) !== "timed-out") return;
      const requests = this.requests();
      if (requests !== seen) {
        seen = requests;
        quiet = 0;
      } else if (Atomics.load(orders, LISTENING) <= 0) {
        Atomics.store(orders, HELD_UP, 1);
        return;
      } else if (++quiet === QUIET) {
        // In this order, and in `hear` in the other: whoever hears the next request either sees this, or is seen.
        Atomics.store(orders, ASLEEP, 1);
        if (Atomics.load(orders, LISTENING) <= 0) quiet = 0;
      }
    }
  }

  /** That all workers were given. */
  private requests(): number {
    const { allCounts } = this;
    let all = 0;
    for (let at = REQUESTS; at < allCounts.length; at += ROW / 8) all += allCounts[at]!;
    return all;
  }

  /** Whether nobody else is to listen, so that it may be worth looking for the next request instead of sleeping. */
  get isAlone(): boolean {
    return Atomics.load(this.orders, WANTED) === 1;
  }

  /**
   * Called when a request has come.
   * @param waited whether it was there already when one was answered
   * @param asker the thread that asks, 0 where that can't be known. A single one waits for its replies and is served best by
   *   one worker that never sleeps, even where its next request is there before that worker has its processor back.
   * @param isLarge whether it is one of the pieces of a large read or write, which come at once
   */
  press(waited: boolean, asker: number, isLarge: boolean): void {
    const isOther = asker === 0 || asker !== this.asker;
    this.asker = asker;
    if (!waited) this.pressed = Math.max(0, this.pressed - 2);
    else if (isOther || isLarge) this.pressed++;
    if (this.pressed < PRESSED) return;
    this.pressed = 0;
    const wanted = Atomics.load(this.orders, WANTED);
    if (wanted >= this.workers) return;
    if (Atomics.compareExchange(this.orders, WANTED, wanted, wanted + 1) === wanted) call(this.orders);
  }

  /** Called when a request has come. */
  hear(): void {
    if (this.busy() <= 1 && Atomics.load(this.orders, HELD_UP) === 1) call(this.orders);
    if (Atomics.load(this.orders, ASLEEP) === 1 && Atomics.exchange(this.orders, ASLEEP, 0) === 1) callAll(this.orders);
  }

  /** Called before what may take long, so that somebody else listens for the next request. */
  lend(): void {
    if (Atomics.load(this.orders, LISTENING) <= 0) call(this.orders);
  }

  /** A request is being answered. */
  hold(uniqueLow: number, uniqueHigh: number): void {
    this.held[UNIQUE_LOW] = uniqueLow;
    this.held[UNIQUE_HIGH] = uniqueHigh;
    this.counts[REQUESTS]++;
  }

  /** It is answered, or wants no answer. The kernel never uses 0. */
  release(): void {
    this.held[UNIQUE_LOW] = 0;
    this.held[UNIQUE_HIGH] = 0;
  }

  /**
   * Whether this worker, which has nothing to do, may unpack ahead of a reader: one at a time does, while another listens, so
   * that no request waits for it. @returns true when it may; then `give` has to be called.
   */
  take(): boolean {
    const { orders } = this;
    if (Atomics.compareExchange(orders, AHEAD, 0, this.worker + 1) !== 0) return false;
    if (this.busy() > 1) return true;
    if (Atomics.load(orders, STANDING_BY) > 0) {
      call(orders);
      return true;
    }
    this.give();
    return false;
  }

  /** Whether another worker listens, while this one unpacks ahead. */
  get goesOn(): boolean {
    return Atomics.load(this.orders, LISTENING) > 0;
  }

  give(): void {
    this.free();
    Atomics.store(this.orders, AHEAD, 0);
  }

  countRead(bytes: number): void {
    this.counts[READS]++;
    this.counts[BYTES_READ] += bytes;
  }

  /** A request was answered with an input/output error. */
  countError(): void {
    this.counts[ERRORS]++;
  }

  /** The mount is gone: the thread ends as it should, and so do those that sleep. */
  end(): void {
    this.held[ENDED] = 1;
    if (this.held[LISTENS] === 1) this.busy();
    Atomics.store(this.orders, GONE, 1);
    wakeAll(this.orders, this.workers);
  }
}

/** Has one who stands by listen. */
function call(orders: Int32Array): void {
  Atomics.add(orders, CALLS, 1);
  Atomics.notify(orders, CALLS, 1);
}

function callAll(orders: Int32Array): void {
  Atomics.add(orders, CALLS, 1);
  Atomics.notify(orders, CALLS);
}

function wakeAll(orders: Int32Array, workers: number): void {
  Atomics.store(orders, WANTED, workers);
  callAll(orders);
}

/** All rows: the main thread's side. */
export class Overview {
  private readonly orders: Int32Array;
  private readonly held: Int32Array;
  private readonly counts: Float64Array;
  private readonly workers: number;

  constructor(state: SharedState) {
    this.workers = state.workers;
    this.orders = new Int32Array(state.orders);
    this.held = new Int32Array(state.held);
    this.counts = new Float64Array(state.counts);
  }

  /** Lets the workers serve `descriptor`, or end when there is none. */
  start(descriptor: number | undefined, agreement?: Agreement): void {
    this.orders[AGREEMENT] = (agreement?.fillsZeros ? FILLS_ZEROS : 0) | (agreement?.pastCache ? GOES_PAST_CACHE : 0);
    Atomics.store(this.orders, DESCRIPTOR, descriptor === undefined ? -1 : descriptor + 1);
    Atomics.notify(this.orders, DESCRIPTOR);
  }

  /** Lets all workers serve: one is lost, and those that stand by can't know. */
  wakeAll(): void {
    wakeAll(this.orders, this.workers);
  }

  hasEnded(worker: number): boolean {
    return this.held[(worker * ROW) / 4 + ENDED] === 1;
  }

  /** The request that a dead worker held, as low and high half, counted as failed; undefined when it held none. */
  takeHeld(worker: number): [number, number] | undefined {
    Atomics.compareExchange(this.orders, AHEAD, worker + 1, 0);
    const at = (worker * ROW) / 4;
    if (Atomics.exchange(this.held, at + LISTENS, 0) === 1) Atomics.sub(this.orders, LISTENING, 1);
    if (Atomics.exchange(this.held, at + STANDS_BY, 0) === 1) Atomics.sub(this.orders, STANDING_BY, 1);
    call(this.orders);
    const [low, high] = [this.held[at + UNIQUE_LOW], this.held[at + UNIQUE_HIGH]];
    if (low === 0 && high === 0) return undefined;
    this.held[at + UNIQUE_LOW] = 0;
    this.held[at + UNIQUE_HIGH] = 0;
    this.counts[(worker * ROW) / 8 + ERRORS]++;
    return [low, high];
  }

  requestsOf(worker: number): number {
    return this.counts[(worker * ROW) / 8 + REQUESTS];
  }

  counters(): { requests: number; reads: number; bytesRead: number; errors: number } {
    const sum = (which: number) => {
      let total = 0;
      for (let at = which; at < this.counts.length; at += ROW / 8) total += this.counts[at];
      return total;
    };
    return { requests: sum(REQUESTS), reads: sum(READS), bytesRead: sum(BYTES_READ), errors: sum(ERRORS) };
  }
}
