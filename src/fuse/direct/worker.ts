/** A worker thread: builds its tree, waits for the mount, serves it. Identical in every thread but for its number. */
import { parentPort, workerData } from "node:worker_threads";
import { type SharedCacheMemory, SharedChunkCache } from "../../bytes/shared-cache.js";
import { type ErrorCode, ImageError } from "../../errors.js";
import { settings } from "../../settings.js";
import type { TreeBuilder, TreeSpec } from "../driver.js";
import { FailureLog } from "../errno.js";
import { Session } from "./handlers.js";
import { type InvalidationMemory, InvalidationRing, OpenFiles } from "./invalidation.js";
import { Reply, Request } from "./protocol.js";
import { serve } from "./serve.js";
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
  | { readonly kind: "log"; readonly line: string };

/** Requests are small where nothing is written: names, and forgets by the thousand. The kernel wants 8192 at least. */
const REQUEST_SIZE = 65536;
/** Seconds for which the kernel may keep the times of files that are written to. */
const CHANGING_SECONDS = 1;

const send = (message: WorkerMessage) => parentPort!.postMessage(message);

async function run(start: WorkerStart): Promise<void> {
  const state = new WorkerState(start.state, start.number);
  let session: Session;
  try {
    const module = (await import(start.tree.module)) as Record<string, TreeBuilder>;
    const tree = module[start.tree.exported](
      start.tree.data,
      new SharedChunkCache(start.cache, start.number),
      start.number,
    );
    session = new Session(tree, new FailureLog((line) => send({ kind: "log", line })));
  } catch (error) {
    const code = error instanceof ImageError ? error.code : undefined;
    const text = error instanceof Error ? (code ? error.message : (error.stack ?? error.message)) : String(error);
    send({ kind: "failed", code, text });
    return;
  }
  const { invalidation } = start;
  const request = new Request(invalidation ? REQUEST_SIZE + settings.largestWriteRequest : REQUEST_SIZE);
  const reply = new Reply(settings.largestRequest);
  if (invalidation) {
    session.writing = { open: new OpenFiles(invalidation), ring: new InvalidationRing(invalidation, start.number) };
    reply.attributesValid = CHANGING_SECONDS;
  }
  send({ kind: "built" });
  const fd = state.descriptor();
  session.fillsZeros = state.fillsZeros;
  if (fd !== undefined) serve(fd, session, request, reply, state);
  state.end();
}

await run(workerData as WorkerStart);
