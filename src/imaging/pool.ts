/** Jobs spread over worker threads: reading, hashing, compressing and unpacking on all processors. */
import { parentPort, Worker, workerData } from "node:worker_threads";
import { type ErrorCode, ImageError } from "../errors.js";

type Answer<Result> = { result: Result } | { code: ErrorCode; message: string } | { bug: string };

interface Waiting<Job, Result> {
  readonly job: Job;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/** Runs jobs on `threads` workers of one script. Each worker has one job at a time; others wait in order. */
export class WorkerPool<Job, Result> {
  private readonly workers: Worker[] = [];
  private readonly idle: Worker[] = [];
  private readonly running = new Map<Worker, Waiting<Job, Result>>();
  private readonly queue: Waiting<Job, Result>[] = [];
  private broken: unknown;

  /** `script` calls `serveJobs`; `init` is handed to it, structured-cloned. */
  constructor(script: URL, init: unknown, threads: number) {
    for (let i = 0; i < threads; i++) {
      const worker = new Worker(script, { workerData: init });
      worker.on("message", (answer: Answer<Result>) => this.answered(worker, answer));
      worker.on("error", (error) => this.fail(error));
      worker.on("exit", (code) => this.running.has(worker) && this.fail(new Error(`a worker ended with code ${code}`)));
      this.workers.push(worker);
      this.idle.push(worker);
    }
  }

  /** @throws ImageError as the worker threw it. */
  run(job: Job): Promise<Result> {
    const promise = new Promise<Result>((resolve, reject) => this.queue.push({ job, resolve, reject }));
    // Results are awaited in order; one that fails while an earlier one is awaited must not count as unhandled.
    promise.catch(() => {});
    this.next();
    return promise;
  }

  async close(): Promise<void> {
    this.broken ??= new Error("the pool is closed");
    await Promise.all(this.workers.map((worker) => worker.terminate()));
  }

  private next(): void {
    if (this.broken) for (const waiting of this.queue.splice(0)) waiting.reject(this.broken);
    while (this.idle.length > 0 && this.queue.length > 0) {
      const worker = this.idle.pop()!;
      const waiting = this.queue.shift()!;
      this.running.set(worker, waiting);
      worker.postMessage(waiting.job);
    }
  }

  private answered(worker: Worker, answer: Answer<Result>): void {
    const waiting = this.running.get(worker);
    this.running.delete(worker);
    this.idle.push(worker);
    if ("result" in answer) waiting?.resolve(answer.result);
    else if ("bug" in answer) waiting?.reject(new Error(answer.bug));
    else waiting?.reject(new ImageError(answer.code, answer.message));
    this.next();
  }

  private fail(error: unknown): void {
    this.broken ??= error;
    for (const waiting of this.running.values()) waiting.reject(error);
    this.running.clear();
    this.next();
  }
}

/** The worker's side: `prepare` is called once with what the pool was given, and returns what does a job. */
export function serveJobs<Init, Job, Result>(prepare: (init: Init) => (job: Job) => Result): void {
  let work: ((job: Job) => Result) | undefined;
  parentPort!.on("message", (job: Job) => {
    let answer: Answer<Result>;
    try {
      work ??= prepare(workerData as Init);
      answer = { result: work(job) };
    } catch (error) {
      answer =
        error instanceof ImageError
          ? { code: error.code, message: error.message }
          : { bug: error instanceof Error ? (error.stack ?? error.message) : String(error) };
    }
    parentPort!.postMessage(answer);
  });
}
