/**
 * Who runs the pass: the opening thread for the first moments, which is all that a small file takes; then a thread of its
 * own, beside those that read. Of a disk with many packed partitions some passes wait for their turn: those that nobody
 * waits for. Where another process is at the same file already, the thread follows what it writes, and takes over should
 * it end half-way.
 */
import { Worker } from "node:worker_threads";
import { EWOULDBLOCK, errno, flock, LOCK_EX, LOCK_NB, LOCK_UN } from "../libc.js";
import { claimsHead } from "./disk-claims.js";
import type { PackedFile } from "./packing.js";
import { RunningPass } from "./pass.js";
import { type PieceFiles, PieceTable, type Survey } from "./piece-table.js";
import type { Progress } from "./progress.js";

/** Milliseconds that the opening thread takes for the pass. */
const atOnce = 100;
/** Milliseconds that closing waits for the thread of the pass. */
const endPatience = 10_000;

/** Threads of passes at a time, each of which takes some tens of megabytes; and with those that somebody waits for. */
const usualThreads = 3;
const mostThreads = 8;
/** Milliseconds between two looks at whether a pass's turn has come. */
const turnInterval = 100;

/** What the thread of the pass is given: plain data. */
export interface BuilderStart {
  /** The packed file, open, in order. */
  readonly parts: readonly { readonly fd: number; readonly path: string }[];
  /** The compression's name. */
  readonly packing: string;
  readonly files: PieceFiles;
  readonly key: Uint8Array;
  /** The memory of a Progress. */
  readonly progress: SharedArrayBuffer;
}

/** Whether this process may write the table: nobody else does. Given back by `unlock`, or when the files are closed. */
export function lock({ data }: PieceFiles): boolean {
  // A filesystem without locks lets several write, the same bytes at the same places.
  return flock(data, LOCK_EX | LOCK_NB) === 0 || errno() !== EWOULDBLOCK;
}

/**
 * Lets others write the table: those that follow would else wait for a pass that the system refused something (room for the
 * table), for as long as this process has the file open.
 */
export function unlock({ data }: PieceFiles): void {
  flock(data, LOCK_UN);
}

/** Publishes what is in the table already, of which `known` was seen before; the ending too, if it is there. */
export function publishKept(files: PieceFiles, key: Uint8Array, progress: Progress, known?: Survey): Survey {
  const found = new PieceTable(files, key).survey(known);
  progress.publish(found.count, found.covered, found.packed);
  if (found.ending) progress.endAs(found.ending);
  return found;
}

/** Passes that were given a thread, and those that are to get one. */
let running: Progress[] = [];
let queue: { readonly start: BuilderStart; readonly progress: Progress }[] = [];
let turns: NodeJS.Timeout | undefined;

const isCrowded = () => running.filter(({ manned }) => manned).length >= usualThreads;

/** Sees to it that the pass is run, from where the table ends. */
export function startPass(file: PackedFile, start: BuilderStart, progress: Progress): void {
  if (lock(start.files)) {
    const pass = new RunningPass(file, start.files, start.key, progress);
    const until = performance.now() + atOnce;
    // Whoever opens the file wants to know what is in it, and a thread may come late.
    const isEnough = () => performance.now() > until && (progress.covered >= claimsHead || !isCrowded());
    const hasEnded = pass.run(isEnough);
    // In the queue it is no use to other processes.
    unlock(start.files);
    if (hasEnded) return;
    pass.close();
  }
  queue.push({ start, progress });
  takeTurns();
}

/**
 * Gives passes whose turn has come a thread. Called by itself now and then; but by who keeps the opening thread waiting, too.
 */
export function takeTurns(): void {
  running = running.filter(({ manned }) => manned);
  // Of a file that was closed meanwhile the descriptors may be others' by now.
  queue = queue.filter(({ progress }) => !progress.stopping);
  const isNext = ({ progress }: { progress: Progress }) =>
    running.length < usualThreads || (progress.isAwaited && running.length < mostThreads);
  for (const one of queue.toSorted((a, b) => Number(b.progress.isAwaited) - Number(a.progress.isAwaited))) {
    if (!isNext(one)) break;
    queue.splice(queue.indexOf(one), 1);
    startThread(one.start, one.progress);
  }
  if (queue.length > 0) turns ??= setInterval(takeTurns, turnInterval).unref();
  else {
    clearInterval(turns);
    turns = undefined;
  }
}

function startThread(start: BuilderStart, progress: Progress): void {
  progress.manned = true;
  running.push(progress);
  const worker = new Worker(new URL("./builder-worker.js", import.meta.url), {
    workerData: start,
    name: "spindle pass",
  });
  // The process ends when its work is done, whether the pass is at its end or not.
  worker.unref();
  worker.on("error", (error: unknown) => {
    progress.fail(error);
    progress.manned = false;
  });
}

/** Ends the thread of the pass. @returns whether it has ended: only then may its files be closed */
export function stopPass(progress: Progress): boolean {
  progress.stop();
  const until = performance.now() + endPatience;
  for (;;) {
    const moment = progress.moment;
    if (!progress.manned) return true;
    if (performance.now() > until) return false;
    progress.wait(moment, 100);
  }
}
