/** The loop of a worker: a request from the descriptor, its answer to the descriptor, until the mount is gone. */
import { readSync, writeSync } from "node:fs";
import { readable } from "../../libc.js";
import { errno } from "../errno.js";
import { Arrivals } from "./arrivals.js";
import type { Session } from "./handlers.js";
import { LATER, NO_REPLY, opcodes, type Reply, type Request } from "./protocol.js";
import type { WorkerState } from "./state.js";

/**
 * Reading: EINTR is a signal, EAGAIN a descriptor that doesn't wait, ENOENT a request that was given up while it was
 * handed over. Asking again is right for all three.
 */
const again = new Set(["EINTR", "EAGAIN", "ENOENT"]);
/** The mount is gone; the second is what the kernel says after an abort. */
const gone = new Set(["ENODEV", "ECONNABORTED"]);

/** What the kernel sends of itself, which tells nothing of readers. */
const unasked = new Set<number>([opcodes.FORGET, opcodes.BATCH_FORGET, opcodes.INTERRUPT]);
/** What has to wait for a device, or walks through much. */
const long = new Set<number>([opcodes.FSYNC, opcodes.FALLOCATE, opcodes.LSEEK]);

/** Bytes that take so long to copy that another worker is woken sooner. */
const LARGE = 128 * 1024;

const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code ?? "";

/** Gives a request to somebody who answers it later; what it waits for is at `position`. */
export type Defer = (request: Uint8Array, position: number) => void;

/**
 * Serves `fd` until the kernel says that the mount is gone (or, over a test's socket, the other end is closed). Nothing
 * is allocated here for a request.
 * @throws Error when reading or writing fails otherwise
 */
export function serve(
  fd: number,
  session: Session,
  request: Request,
  reply: Reply,
  state: WorkerState,
  defer: Defer,
): void {
  const arrivals = new Arrivals(readable(fd));
  state.free();
  for (;;) {
    state.rest();
    arrivals.await(state.isAlone);
    const length = receive(fd, request);
    if (length === 0) return;
    arrivals.came();
    if (!unasked.has(request.opcode)) state.press(arrivals.waited, request.asker, request.bytesToMove >= LARGE);
    state.hear();
    if (long.has(request.opcode) || request.isSynchronous) state.lend();
    const { uniqueLow, uniqueHigh } = request;
    state.hold(uniqueLow, uniqueHigh);
    const result = session.answer(request, reply);
    state.free();
    if (result === LATER) defer(request.bytes.subarray(0, length), session.awaited);
    else if (!send(fd, session, request, reply, result, state)) return;
    state.release();
    arrivals.replied();
    session.chunks?.afterRequest(state);
  }
}

/**
 * Answers a request that was put off, if that can be done now.
 * @returns whether it was answered; otherwise what it waits for is in `session.awaited`
 */
export function serveLate(fd: number, session: Session, request: Request, reply: Reply, state: WorkerState): boolean {
  state.hold(request.uniqueLow, request.uniqueHigh);
  const result = session.answer(request, reply);
  if (result !== LATER) send(fd, session, request, reply, result, state);
  state.release();
  return result !== LATER;
}

/** @returns the request's length; 0 when the mount is gone */
function receive(fd: number, request: Request): number {
  for (;;) {
    try {
      return readSync(fd, request.bytes, 0, request.bytes.length, null);
    } catch (error) {
      if (gone.has(codeOf(error))) return 0;
      if (!again.has(codeOf(error))) throw error;
    }
  }
}

/** @returns false when the mount is gone */
function send(
  fd: number,
  session: Session,
  request: Request,
  reply: Reply,
  result: number,
  state: WorkerState,
): boolean {
  if (result === NO_REPLY) return true;
  if (result === -errno.EIO) state.countError();
  else if (request.opcode === opcodes.READ) state.countRead(result);
  const length = reply.finish(request.uniqueLow, request.uniqueHigh, result);
  for (;;) {
    try {
      writeSync(fd, reply.bytes, reply.start, length);
      return true;
    } catch (error) {
      const code = codeOf(error);
      if (gone.has(code)) return false;
      // ENOENT: whoever asked was killed and has no use for the answer.
      if (code === "ENOENT") return true;
      if (code !== "EINTR" && code !== "EAGAIN") {
        // The kernel found the reply malformed and has given its reader an input/output error.
        session.log.add(error);
        return true;
      }
    }
  }
}
