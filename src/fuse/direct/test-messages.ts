/** For tests: requests as the kernel would write them, and replies as it would read them, through DataView alone. */
import type { Session } from "./handlers.js";
import { NO_REPLY, Reply, Request } from "./protocol.js";

export interface Field {
  readonly at: number;
  readonly value: number | bigint;
  readonly bytes?: 4 | 8;
}

/** The bytes of a request: header (unique 0x1122334455667788, pid 99) and body. */
export function requestBytes(opcode: number, node: bigint, body: Uint8Array = new Uint8Array()): Buffer {
  const bytes = Buffer.alloc(40 + body.length);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt32LE(opcode, 4);
  bytes.writeBigUInt64LE(0x1122334455667788n, 8);
  bytes.writeBigUInt64LE(node, 16);
  bytes.writeUInt32LE(99, 32);
  bytes.set(body, 40);
  return bytes;
}

export const u32 = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer);
export const u64 = (...values: bigint[]) => Buffer.from(BigUint64Array.from(values).buffer);
export const name = (text: string) => Buffer.from(`${text}\0`);

/** struct fuse_read_in, which READ, READDIR and READDIRPLUS share. */
export const readIn = (offset: bigint, size: number, readFlags = 0) =>
  Buffer.concat([u64(0n, offset), u32(size, readFlags), u64(0n), u32(0, 0)]);

/** What a session answers: an error number (positive), or the body; undefined for no reply. */
export function ask(session: Session, bytes: Buffer): { error: number; body: Buffer } | undefined {
  const request = new Request(65536);
  request.bytes.fill(0xaa);
  request.bytes.set(bytes);
  const reply = new Reply(1024 * 1024);
  reply.bytes.fill(0xbb);
  const result = session.answer(request, reply);
  if (result === NO_REPLY) return undefined;
  const length = reply.finish(request.uniqueLow, request.uniqueHigh, result);
  const sent = Buffer.from(reply.bytes.subarray(reply.start, reply.start + length));
  if (sent.readUInt32LE(0) !== sent.length) throw new Error("the header's length is wrong");
  if (sent.readBigUInt64LE(8) !== 0x1122334455667788n) throw new Error("the header's unique is wrong");
  return { error: 0 - sent.readInt32LE(4), body: sent.subarray(16) };
}
