/** The loop of a worker: a request from the descriptor, its answer to the descriptor, until the mount is gone. */
import { readSync, writeSync } from "node:fs";
import { errno } from "../errno.js";
import { NO_REPLY, type Session } from "./handlers.js";
import { opcodes, type Reply, type Request } from "./protocol.js";
import type { WorkerState } from "./state.js";

/**
 * Reading: EINTR is a signal, EAGAIN a descriptor that doesn't wait, ENOENT a request that was given up while it was
 * handed over. Asking again is right for all three.
 */
const again = new Set(["EINTR", "EAGAIN", "ENOENT"]);
/** The mount is gone; the second is what the kernel says after an abort. */
const gone = new Set(["ENODEV", "ECONNABORTED"]);

const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code ?? "";

/**
 * Serves `fd` until the kernel says that the mount is gone (or, over a test's socket, the other end is closed). Nothing
 * is allocated here for a request.
 * @throws Error when reading or writing fails otherwise
 */
export function serve(fd: number, session: Session, request: Request, reply: Reply, state: WorkerState): void {
  state.free();
  for (;;) {
    state.rest();
    if (!receive(fd, request)) return;
    state.hear();
    const { uniqueLow, uniqueHigh } = request;
    state.hold(uniqueLow, uniqueHigh);
    const result = session.answer(request, reply);
    state.free();
    if (result !== NO_REPLY) {
      if (result === -errno.EIO) state.countError();
      else if (request.opcode === opcodes.READ) state.countRead(result);
      if (!send(fd, reply, reply.finish(uniqueLow, uniqueHigh, result), session)) return;
    }
    state.release();
  }
}

/** @returns false when the mount is gone */
function receive(fd: number, request: Request): boolean {
  for (;;) {
    try {
      return readSync(fd, request.bytes, 0, request.bytes.length, null) > 0;
    } catch (error) {
      if (gone.has(codeOf(error))) return false;
      if (!again.has(codeOf(error))) throw error;
    }
  }
}

/** @returns false when the mount is gone */
function send(fd: number, reply: Reply, length: number, session: Session): boolean {
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
