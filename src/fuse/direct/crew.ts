/**
 * The workers of a mount as the main thread has them: started together, and each replaced when it dies. Requests that have
 * to wait for their bytes (of a compressed image that isn't unpacked so far yet) come here, and go to one worker more, which
 * is started for the first of them and tries them one at a time, the lowest position first.
 */
import { writeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { SharedChunkCache } from "../../bytes/shared-cache.js";
import { createSharedCacheMemory, type SharedCacheMemory } from "../../bytes/shared-cache-memory.js";
import { ImageError } from "../../errors.js";
import type { MountPlan } from "../driver.js";
import { errno, FailureLog } from "../errno.js";
import type { Agreement } from "./init.js";
import { createInvalidationMemory, type InvalidationMemory, InvalidationRing } from "./invalidation.js";
import type { InvalidatorStart } from "./invalidator.js";
import { Reply } from "./protocol.js";
import { mayHaveWritten, PutOff, uniqueOf } from "./put-off.js";
import { createState, Overview, type SharedState } from "./state.js";
import type { LateMessage, WorkerMessage, WorkerStart } from "./worker.js";

/** Deaths of one worker in a row, without a request in between, after which starting another is no use. */
const MOST_DEATHS = 10;

/** MiB of JavaScript objects that a worker may have: one that wants more is at an image made to use it up. */
const WORKER_HEAP = 1024;

/**
 * MiB of a worker's heap for objects that die young, which all are that a request makes. With V8's own 48 MiB a worker took
 * some 5 MB more memory, and answered no faster.
 */
const YOUNG_HEAP = 2;

interface Place {
  readonly number: number;
  /** Requests that the place's workers had been given when the present one started. */
  requests: number;
  /** Deaths since a request was last taken. */
  deaths: number;
}

/** Requests that wait, and the worker that is to answer them. */
interface Late {
  readonly waiting: PutOff;
  /** Undefined before the first of them. */
  worker: Worker | undefined;
  /** Whether the worker has a request, or isn't ready for one yet. */
  busy: boolean;
}

export class Crew {
  /** Resolves when every worker has its tree; rejects with the first failure. */
  readonly built: Promise<void>;
  /** Resolves when all workers have ended and none will be started. */
  readonly ended: Promise<void>;
  /** Set by whoever uses the crew: a worker can't be kept alive. */
  hopeless: () => void = () => {};
  replaced = 0;

  /** Workers write each failure once; here what several of them met becomes one line. */
  private readonly failures: FailureLog;
  private readonly cache: SharedCacheMemory;
  private readonly state: SharedState;
  private readonly overview: Overview;
  private readonly invalidation: InvalidationMemory | undefined;
  /** Whether the thread runs that has the kernel forget pages. */
  private invalidates = false;
  private fd: number | undefined;
  private finished = false;
  private readonly late: Late = { waiting: new PutOff(), worker: undefined, busy: false };
  private waiting: number;
  private alive: number;
  private reportBuilt!: () => void;
  private reportFailed!: (error: Error) => void;
  private reportEnded!: () => void;

  /** @param workers at least 1 */
  constructor(
    private readonly plan: MountPlan,
    private readonly workers: number,
  ) {
    this.invalidation = plan.writable ? createInvalidationMemory() : undefined;
    this.failures = new FailureLog(plan.log);
    this.cache = createSharedCacheMemory({
      bytes: plan.cacheBytes,
      chunkSize: plan.chunkSize,
      workers: workers + 1,
    });
    this.state = createState(workers);
    this.overview = new Overview(this.state);
    this.waiting = workers;
    this.alive = workers;
    this.built = new Promise((done, failed) => {
      this.reportBuilt = done;
      this.reportFailed = failed;
    });
    this.ended = new Promise((done) => {
      this.reportEnded = done;
    });
    for (let number = 0; number < workers; number++) this.start({ number, requests: 0, deaths: 0 });
  }

  /** Lets all workers serve the descriptor of a mount, by what was agreed on with its kernel. */
  serve(fd: number, agreement: Agreement): void {
    this.fd = fd;
    if (this.invalidation) this.startInvalidator(this.invalidation, fd);
    this.overview.start(fd, agreement);
  }

  /** There will be no mount: workers end as soon as they have their tree, and none is replaced. */
  dismiss(): void {
    this.finished = true;
    this.overview.start(undefined);
  }

  counters(): Record<string, number> {
    return { ...this.overview.counters(), workersReplaced: this.replaced, ...SharedChunkCache.counters(this.cache) };
  }

  private start(place: Place): void {
    const { plan, cache, state } = this;
    place.requests = this.overview.requestsOf(place.number);
    const { invalidation } = this;
    const workerData: WorkerStart = { number: place.number, tree: plan.tree, cache, state, invalidation };
    const worker = new Worker(new URL("./worker.js", import.meta.url), {
      workerData,
      name: `spindle ${place.number}`,
      resourceLimits: { maxOldGenerationSizeMb: WORKER_HEAP, maxYoungGenerationSizeMb: YOUNG_HEAP },
    });
    const isLate = place.number === state.workers;
    if (isLate) {
      this.late.worker = worker;
      this.late.busy = true;
      this.endLateIfAlone();
    }
    let reason = "it ended by itself";
    let failure: Error | undefined;
    worker.on("message", (message: WorkerMessage) => {
      if (message.kind === "log") this.failures.addLine(message.line);
      else if (message.kind === "put off") this.putOff(message.request, message.position, worker);
      else if (message.kind === "interrupted") this.interrupt(message.unique);
      else if (message.kind === "answered") this.nextLate();
      else if (message.kind === "built" && isLate) this.nextLate();
      else if (message.kind === "built") {
        if (--this.waiting === 0) this.reportBuilt();
      } else {
        reason = message.text;
        failure = message.code ? new ImageError(message.code, message.text) : new Error(message.text);
      }
    });
    worker.on("error", (error: unknown) => {
      failure = error instanceof Error ? error : new Error(String(error));
      reason = failure.stack ?? failure.message;
    });
    worker.on("exit", (code) => {
      if (code !== 0 && !failure) reason = `it ended with exit code ${code}`;
      void this.exited(place, reason, failure);
    });
  }

  private putOff(request: Uint8Array, position: number, from: Worker): void {
    const { late, state } = this;
    if (!late.waiting.add(request, position)) {
      this.giveUp(request);
      if (from === late.worker) this.nextLate();
    } else if (late.worker === undefined) {
      this.alive++;
      this.start({ number: state.workers, requests: 0, deaths: 0 });
    } else if (from === late.worker || !late.busy) this.nextLate();
  }

  /** Gives the late worker, which has nothing to do, the request whose turn it is. */
  private nextLate(): void {
    const { late } = this;
    const request = late.waiting.next();
    late.busy = request !== undefined;
    if (request) late.worker!.postMessage({ request } satisfies LateMessage);
  }

  private interrupt(unique: bigint): void {
    const request = this.late.waiting.interrupt(unique);
    if (request) this.giveUp(request);
  }

  private giveUp(request: Uint8Array): void {
    if (this.invalidation && mayHaveWritten(request)) InvalidationRing.forgetAll(this.invalidation);
    this.answer(uniqueOf(request), errno.EINTR);
  }

  /** When the others have ended, nothing is put off any more. */
  private endLateIfAlone(): void {
    if (this.alive === (this.invalidates ? 2 : 1)) this.late.worker?.postMessage("end" satisfies LateMessage);
  }

  private async exited(place: Place, reason: string, failure: Error | undefined): Promise<void> {
    if (this.overview.hasEnded(place.number) || this.finished) return this.leave();
    if (this.fd === undefined) {
      this.reportFailed(failure ?? new Error(`a worker thread stopped while it opened the image: ${reason}`));
      return this.leave();
    }
    const answered = this.answerFor(place.number);
    await SharedChunkCache.releaseDead(this.cache, place.number);
    if (this.invalidation) InvalidationRing.releaseDead(this.invalidation, place.number, this.workers + 2);
    this.plan.workerDied?.(place.number);
    if (answered || this.overview.requestsOf(place.number) > place.requests) place.deaths = 0;
    place.deaths++;
    const what = answered ? "; the request that it held was answered with an input/output error" : "";
    if (place.deaths > MOST_DEATHS) {
      this.plan.log(`worker ${place.number} stopped ${MOST_DEATHS} times in a row (${reason}). Unmounting.`);
      this.hopeless();
      return this.leave();
    }
    this.plan.log(`worker ${place.number} stopped and is replaced${what}. The reason: ${reason}`);
    this.replaced++;
    this.start(place);
  }

  /** @returns whether the dead worker held a request */
  private answerFor(worker: number): boolean {
    const held = this.overview.takeHeld(worker);
    if (!held || this.fd === undefined) return false;
    this.answer((BigInt(held[1] >>> 0) << 32n) | BigInt(held[0] >>> 0), errno.EIO);
    return true;
  }

  private answer(unique: bigint, error: number): void {
    if (this.fd === undefined) return;
    const reply = new Reply(0);
    const length = reply.finish(Number(unique & 0xffffffffn), Number(unique >> 32n), -error);
    try {
      writeSync(this.fd, reply.bytes, reply.start, length);
    } catch {
      // It had been answered before the worker died, or nobody waits for it, or the mount is gone: nothing to do.
    }
  }

  /** Without this thread nobody who writes is answered: when it fails, the mount ends. */
  private startInvalidator(memory: InvalidationMemory, fd: number): void {
    const workerData: InvalidatorStart = { memory, fd, owner: this.workers + 1 };
    const thread = new Worker(new URL("./invalidator.js", import.meta.url), { workerData, name: "spindle pages" });
    this.alive++;
    this.invalidates = true;
    thread.on("error", (error: unknown) => {
      this.plan.log(`the thread that keeps the files' pages alike stopped. Unmounting. The reason: ${error}`);
      this.hopeless();
    });
    thread.on("exit", () => this.leave());
  }

  private leave(): void {
    this.overview.wakeAll();
    this.alive--;
    this.endLateIfAlone();
    // Then nothing more will be written.
    if (this.invalidation && this.alive === 1) InvalidationRing.end(this.invalidation);
    if (this.alive === 0) this.reportEnded();
  }
}
