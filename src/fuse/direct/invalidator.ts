/** The thread that has the kernel forget pages, and answers whoever wrote: see invalidation.ts. */
import { writeSync } from "node:fs";
import { workerData } from "node:worker_threads";
import type { FileId } from "../../filesystems/filesystem.js";
import {
  everyFile,
  type Invalidation,
  type InvalidationMemory,
  InvalidationRing,
  noFile,
  OpenFiles,
  ReplyKind,
} from "./invalidation.js";
import { NOTIFY_INVAL_INODE, structures } from "./protocol.js";

export interface InvalidatorStart {
  readonly memory: InvalidationMemory;
  readonly fd: number;
  /** Its number among the threads that share the ring. */
  readonly owner: number;
}

const header = structures.fuse_out_header;
const notify = structures.fuse_notify_inval_inode_out;
const written = structures.fuse_write_out;

function run({ memory, fd, owner }: InvalidatorStart): void {
  const ring = new InvalidationRing(memory, owner);
  const next: Invalidation = {
    file: 0,
    position: 0,
    length: 0,
    reply: 0,
    uniqueLow: 0,
    uniqueHigh: 0,
    written: 0,
  };
  const message = Buffer.alloc(header.size + notify.size);
  const reply = Buffer.alloc(header.size + written.size);
  const forget = (file: FileId, position: number, length: number) => {
    message.writeUInt32LE(message.length, header.fields.len);
    message.writeInt32LE(NOTIFY_INVAL_INODE, header.fields.error);
    message.writeBigUInt64LE(BigInt(file) + 2n, header.size + notify.fields.ino);
    message.writeBigInt64LE(BigInt(position), header.size + notify.fields.off);
    message.writeBigInt64LE(BigInt(length), header.size + notify.fields.len);
    send(fd, message);
  };
  const open = new OpenFiles(memory);
  while (ring.take(next)) {
    // A length of 0 is all that follows.
    if (next.file === everyFile) for (const file of open.all()) forget(file, 0, 0);
    else if (next.file !== noFile) forget(next.file, next.position, next.length);
    ring.finish(next);
    if (next.reply !== ReplyKind.written && next.reply !== ReplyKind.empty) continue;
    const length = header.size + (next.reply === ReplyKind.written ? written.size : 0);
    reply.writeUInt32LE(length, header.fields.len);
    reply.writeInt32LE(0, header.fields.error);
    reply.writeUInt32LE(next.uniqueLow, header.fields.unique);
    reply.writeUInt32LE(next.uniqueHigh, header.fields.unique + 4);
    reply.writeUInt32LE(next.written, header.size + written.fields.size);
    send(fd, reply.subarray(0, length));
  }
}

function send(fd: number, bytes: Uint8Array): void {
  for (;;) {
    try {
      writeSync(fd, bytes);
      return;
    } catch (error) {
      // ENOENT: the kernel knows no such file any more, or whoever asked is gone. Others: so is the mount.
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "EINTR" && code !== "EAGAIN") return;
    }
  }
}

run(workerData as InvalidatorStart);
