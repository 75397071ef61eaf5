/**
 * What main thread and workers share: the descriptor to serve, counters, and which request each worker holds, so that
 * it can be answered when the worker dies. A worker alone writes its rows; the main thread reads them. No I/O.
 */

/** Plain data; shared, not copied, when given to a worker. */
export interface SharedState {
  /** Workers that wait for requests. One more has rows: the one that answers what is put off. */
  readonly workers: number;
  /** Int32: what to do (see below), for all workers. */
  readonly orders: SharedArrayBuffer;
  /** Int32, a row per worker: the request it holds, whether it has ended in order, whether it waits for a request. */
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

const REQUESTS = 0;
const READS = 1;
const BYTES_READ = 2;
const ERRORS = 3;

/** In `orders`: 0 until there is a mount; then its descriptor + 1, or -1 when there will be none. */
const DESCRIPTOR = 0;
/** In `orders`: workers with a number below this serve, the others sleep. */
const AWAKE = 1;
/** In `orders`: workers that wait for a request: never too many, so that none is left without a listener. */
const LISTENING = 2;

/** In `orders`: the worker that unpacks ahead of a reader, + 1; 0 if none does. */
const AHEAD = 4;

/** In `orders`: whether the kernel fills what a reply to a read lacks with zeros. */
const FILLS_ZEROS = 3;

/** Workers that never sleep: while one is busy another listens. */
const LEAST_AWAKE = 2;
/** Requests in a row before which two others were listening: then one worker too many is awake. */
const PATIENCE = 512;

export function createState(workers: number): SharedState {
  const orders = new SharedArrayBuffer(ROW);
  new Int32Array(orders)[AWAKE] = Math.min(LEAST_AWAKE, workers);
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
  private readonly workers: number;
  private unneeded = 0;

  constructor(
    state: SharedState,
    private readonly worker: number,
  ) {
    this.workers = state.workers;
    this.orders = new Int32Array(state.orders);
    this.held = new Int32Array(state.held, worker * ROW, ROW / 4);
    this.counts = new Float64Array(state.counts, worker * ROW, ROW / 8);
  }

  /** Sleeps until the mount is there. @returns its descriptor, or undefined when there will be none. */
  descriptor(): number | undefined {
    Atomics.wait(this.orders, DESCRIPTOR, 0);
    const order = Atomics.load(this.orders, DESCRIPTOR);
    return order < 0 ? undefined : order - 1;
  }

  /** Whether the kernel fills what a reply to a read lacks with zeros; known once there is a descriptor. */
  get fillsZeros(): boolean {
    return this.orders[FILLS_ZEROS] === 1;
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
   * Called before a request is waited for. The kernel hands requests to the workers in turn, and a single reader's would
   * have all of them compile the same code and read the same directories: so as few as the load needs are awake, and a
   * worker beyond them sleeps here.
   */
  rest(): void {
    const { orders, worker } = this;
    const listening = Atomics.load(orders, LISTENING);
    if (worker >= LEAST_AWAKE) {
      this.unneeded = listening > 2 ? this.unneeded + 1 : 0;
      // Only the last one of those awake can go; the others will be the last in their turn.
      if (this.unneeded >= PATIENCE && Atomics.compareExchange(orders, AWAKE, worker + 1, worker) === worker + 1)
        this.unneeded = 0;
    }
    let awake = Atomics.load(orders, AWAKE);
    if (worker < awake) return;
    this.busy();
    for (; worker >= awake; awake = Atomics.load(orders, AWAKE)) Atomics.wait(orders, AWAKE, awake);
    this.free();
  }

  /** Called when a request has come: when nobody is left to listen for the next one, another worker is woken. */
  hear(): void {
    const { orders } = this;
    if (this.busy() > 1) return;
    let awake = Atomics.load(orders, AWAKE);
    for (let seen: number; awake < this.workers; awake = seen) {
      seen = Atomics.compareExchange(orders, AWAKE, awake, awake + 1);
      if (seen === awake) return void Atomics.notify(orders, AWAKE);
    }
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
    if (Atomics.compareExchange(this.orders, AHEAD, 0, this.worker + 1) !== 0) return false;
    if (this.busy() > 1) return true;
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
    wakeAll(this.orders, this.workers);
  }
}

function wakeAll(orders: Int32Array, workers: number): void {
  Atomics.store(orders, AWAKE, workers);
  Atomics.notify(orders, AWAKE);
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
  start(descriptor: number | undefined, fillsZeros = false): void {
    this.orders[FILLS_ZEROS] = fillsZeros ? 1 : 0;
    Atomics.store(this.orders, DESCRIPTOR, descriptor === undefined ? -1 : descriptor + 1);
    Atomics.notify(this.orders, DESCRIPTOR);
  }

  /** Lets all workers serve: one is lost, and those that sleep can't know. */
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
