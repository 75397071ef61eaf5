/**
 * A worker thread: builds its tree, waits for the mount, serves it. Identical in every thread but for its number; the one
 * beyond the others doesn't ask the kernel for requests, it is given those that were put off.
 */
import { parentPort, workerData } from "node:worker_threads";
import { NotYet } from "../../bytes/byte-source.js";
import { SharedChunkCache } from "../../bytes/shared-cache.js";
import type { SharedCacheMemory } from "../../bytes/shared-cache-memory.js";
import { type ErrorCode, ImageError } from "../../errors.js";
import { yieldProcessor } from "../../libc.js";
import { settings } from "../../settings.js";
import type { TreeBuilder, TreeSpec } from "../driver.js";
import { FailureLog } from "../errno.js";
import { Session } from "./handlers.js";
import { type InvalidationMemory, InvalidationRing, OpenFiles } from "./invalidation.js";
import { Reply, Request } from "./protocol.js";
import { serve, serveLate } from "./serve.js";
import { type SharedState, WorkerState } from "./state.js";

export interface WorkerStart {
  /** From 0. */
  readonly number: number;
  readonly tree: TreeSpec;
  readonly cache: SharedCacheMemory;
  readonly state: SharedState;
  /** Of a mount that is written to. */
  readonly invalidation?: InvalidationMemory;
}

export type WorkerMessage =
  | { readonly kind: "built" }
  /** The tree could not be built; `code` is there when it is an ImageError. */
  | { readonly kind: "failed"; readonly code?: ErrorCode; readonly text: string }
  | { readonly kind: "log"; readonly line: string }
  /** A request that waits for the bytes at `position`: it is to be answered later. */
  | { readonly kind: "put off"; readonly request: Uint8Array; readonly position: number }
  /** Whoever waits for the reply to this request doesn't want to any more. */
  | { readonly kind: "interrupted"; readonly unique: bigint }
  /** A request that was put off is answered. */
  | { readonly kind: "answered" };

/** What the worker for requests that were put off is told: a request, or that there will be no more. */
export type LateMessage = { readonly request: Uint8Array } | "end";

/** Requests are small where nothing is written: names, and forgets by the thousand. The kernel wants 8192 at least. */
const REQUEST_SIZE = 65536;
/** Milliseconds that a request waits for its bytes before it is put off. */
const patience = 50;
/** Seconds for which the kernel may keep the times of files that are written to. */
const CHANGING_SECONDS = 1;

const send = (message: WorkerMessage) => parentPort!.postMessage(message);

async function run(start: WorkerStart): Promise<void> {
  const state = new WorkerState(start.state, start.number);
  let session: Session;
  try {
    const module = (await import(start.tree.module)) as Record<string, TreeBuilder>;
    const cache = new SharedChunkCache(start.cache, start.number);
    let isServing = false;
    const tree = module[start.tree.exported](start.tree.data, cache, start.number, (waited, position) => {
      if (isServing) state.lend();
      // What is waited for long must not keep a worker from requests that need not wait.
      if (isServing && (cache.isAhead || waited >= patience)) throw new NotYet(position);
    });
    isServing = true;
    session = new Session(tree, new FailureLog((line) => send({ kind: "log", line })));
    session.chunks = cache;
    cache.beforeLong = () => state.lend();
    session.interrupted = (unique) => send({ kind: "interrupted", unique });
  } catch (error) {
    const code = error instanceof ImageError ? error.code : undefined;
    const text = error instanceof Error ? (code ? error.message : (error.stack ?? error.message)) : String(error);
    send({ kind: "failed", code, text });
    return;
  }
  const { invalidation } = start;
  const request = new Request(invalidation ? REQUEST_SIZE + settings.largestWriteRequest : REQUEST_SIZE);
  const reply = new Reply(settings.largestRequest);
  if (invalidation) reply.attributesValid = CHANGING_SECONDS;
  // The first such call loads a library, which takes some 10 ms: no reader is to wait for that.
  yieldProcessor();
  send({ kind: "built" });
  const fd = state.descriptor();
  const { fillsZeros, pastCache } = state.agreement;
  session.fillsZeros = fillsZeros;
  if (invalidation) {
    const ring = new InvalidationRing(invalidation, start.number);
    session.writing = { open: new OpenFiles(invalidation), ring, pastCache };
  }
  if (start.number === start.state.workers) {
    if (fd !== undefined) await serveWhatIsLate(fd, session, request, reply, state);
  } else if (fd !== undefined)
    serve(fd, session, request, reply, state, (bytes, position) =>
      send({ kind: "put off", request: bytes.slice(), position }),
    );
  state.end();
}

function serveWhatIsLate(
  fd: number,
  session: Session,
  request: Request,
  reply: Reply,
  state: WorkerState,
): Promise<void> {
  return new Promise((done) => {
    parentPort!.on("message", (message: LateMessage) => {
      if (message === "end") {
        parentPort!.close();
        return done();
      }
      request.bytes.set(message.request);
      const answered = serveLate(fd, session, request, reply, state);
      send(answered ? { kind: "answered" } : { kind: "put off", request: message.request, position: session.awaited });
    });
  });
}

await run(workerData as WorkerStart);
