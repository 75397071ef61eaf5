/**
 * Requests that wait for their bytes, with whom the main thread has them. The kernel keeps a process that reads past the page
 * cache, or looks a name up, until its request is answered, even one that was killed: so who is interrupted (FUSE_INTERRUPT)
 * must not wait for bytes that may come in hours. No I/O.
 */
import { opcodes, structures } from "./protocol.js";

/**
 * Interrupted requests that are remembered: those that a worker has just now, and puts off after the interruption was told.
 * Mostly they were answered meanwhile, and stay here until others take their place.
 */
const mostRemembered = 1024;

export class PutOff {
  private readonly waiting: { readonly request: Uint8Array; readonly position: number }[] = [];
  private readonly interrupted = new Set<bigint>();

  /** @returns false when it was interrupted: it is to be answered now, with EINTR */
  add(request: Uint8Array, position: number): boolean {
    if (this.interrupted.delete(uniqueOf(request))) return false;
    this.waiting.push({ request, position });
    return true;
  }

  /** @returns the request, where it waits here: it is to be answered now, with EINTR; otherwise that comes when it is put off */
  interrupt(unique: bigint): Uint8Array | undefined {
    const at = this.waiting.findIndex(({ request }) => uniqueOf(request) === unique);
    if (at >= 0) return this.waiting.splice(at, 1)[0]!.request;
    if (this.interrupted.size === mostRemembered) this.interrupted.delete(this.interrupted.values().next().value!);
    this.interrupted.add(unique);
    return undefined;
  }

  /** Takes the request whose turn it is, that for the lowest position. */
  next(): Uint8Array | undefined {
    const { waiting } = this;
    const lowest = waiting.reduce((best, one, at, all) => (one.position < all[best]!.position ? at : best), 0);
    return waiting.splice(lowest, 1)[0]?.request;
  }
}

const { unique, opcode } = structures.fuse_in_header.fields;
const viewOf = (request: Uint8Array) => new DataView(request.buffer, request.byteOffset, request.byteLength);

/** The number that a request's reply carries. */
export const uniqueOf = (request: Uint8Array): bigint => viewOf(request).getBigUint64(unique, true);

/** Whether a request may have written a part of its bytes before it was put off. */
export function mayHaveWritten(request: Uint8Array): boolean {
  const asked = viewOf(request).getUint32(opcode, true);
  return asked === opcodes.WRITE || asked === opcodes.FALLOCATE;
}
