/** Copies, or compares with what was copied, one stretch of a disk: see restore.ts. */
import { readSync, writeSync } from "node:fs";
import { readFully } from "../bytes/byte-source.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { type LayersData, reopenLayers } from "../chain.js";
import { corrupt, system } from "../errors.js";
import { beginWriting, fadvise, POSIX_FADV_WILLNEED } from "../libc.js";
import { settings } from "../settings.js";
import { serveJobs } from "./pool.js";

export interface RestoreInit {
  readonly source: LayersData;
  readonly fd: number;
  /** The target's path, for messages. */
  readonly target: string;
  /** Whether the target reads as zeros where nothing is written: blocks of zeros are then left out. */
  readonly sparse: boolean;
}

export interface RestoreJob {
  readonly act: "copy" | "compare";
  readonly position: number;
  readonly length: number;
}

/** Bytes written; for a comparison bytes compared. */
export type RestoreResult = number;

/** The smallest stretch of zeros that is left out, in bytes: a block of most filesystems. */
const blockSize = 4096;

serveJobs<RestoreInit, RestoreJob, RestoreResult>(({ source, fd, target, sparse }) => {
  const { disk, chunkSize } = reopenLayers(source, new LocalChunkCache(0));
  // A job is done in parts, so that what is written was unpacked a moment ago. Whole chunks are unpacked straight into it.
  const unit = chunkSize || settings.largestWrite;
  const partSize = Math.ceil(settings.largestWrite / unit) * unit;
  const bytes = Buffer.allocUnsafe(partSize);
  const zeros = Buffer.alloc(blockSize);
  let back: Buffer | undefined;

  const write = (from: number, to: number, position: number) => {
    try {
      for (let at = from; at < to; )
        at += writeSync(fd, bytes, at, Math.min(to - at, settings.largestWrite), position + at);
    } catch (error) {
      throw system(`${target}: writing at byte ${position + from}`, error);
    }
    return to - from;
  };

  const copy = (position: number, length: number) => {
    if (!sparse) return write(0, length, position);
    let written = 0;
    let start = -1; // where the data that isn't written yet begins
    for (let at = 0; at < length; at += blockSize) {
      const end = Math.min(at + blockSize, length);
      const zero = zeros.compare(bytes, at, end, 0, end - at) === 0;
      if (!zero && start < 0) start = at;
      if (zero && start >= 0) {
        written += write(start, at, position);
        start = -1;
      }
    }
    return start < 0 ? written : written + write(start, length, position);
  };

  const compare = (position: number, length: number) => {
    back ??= Buffer.allocUnsafe(bytes.length);
    try {
      for (let at = 0; at < length; ) {
        const count = readSync(fd, back, at, length - at, position + at);
        if (count === 0) throw corrupt(`${target}: ends at byte ${position + at} when read back.`);
        at += count;
      }
    } catch (error) {
      throw system(`${target}: reading back at byte ${position}`, error);
    }
    if (bytes.compare(back, 0, length, 0, length) !== 0) {
      let at = 0;
      while (bytes[at] === back[at]) at++;
      throw corrupt(
        `${target}: byte ${position + at} reads back as ${back[at]} where ${bytes[at]} was written: the device or its cable is faulty.`,
      );
    }
    return length;
  };

  const actOn = (act: RestoreJob["act"], position: number, length: number) => {
    const got = readFully(disk, position, bytes.subarray(0, length));
    if (got < length)
      throw system(
        `${disk.name}: reading at byte ${position + got}`,
        new Error("it ended early: it shrank while it was read"),
      );
    return act === "copy" ? copy(position, length) : compare(position, length);
  };

  return ({ act, position, length }) => {
    const end = position + length;
    let total = 0;
    disk.willRead?.(position, length);
    if (act === "compare") fadvise(fd, position, length, POSIX_FADV_WILLNEED);
    for (let at = position; at < end; ) {
      const part = Math.min(partSize - (at % partSize), end - at);
      total += actOn(act, at, part);
      at += part;
    }
    // The device works while the next job is unpacked, and the flush at the end is short.
    if (act === "copy") beginWriting(fd, position, length);
    return total;
  };
});
