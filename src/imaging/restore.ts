/**
 * Disk → a file or a block device, byte for byte. Workers unpack and write side by side, each stretch at its own place;
 * holes stay holes.
 */
import { closeSync, constants, fstatSync, fsync, fsyncSync, ftruncateSync, openSync } from "node:fs";
import { promisify } from "node:util";
import type { OpenedLayers } from "../chain.js";
import { busy, ImageError, system, usage } from "../errors.js";
import type { Disk } from "../layers/disk.js";
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  fadvise,
  fallocate,
  lseek,
  POSIX_FADV_DONTNEED,
  SEEK_END,
} from "../libc.js";
import { settings } from "../settings.js";
import { deviceUsers, isPartOf } from "./device-users.js";
import { OutputFile, sameFile, statOf } from "./output-file.js";
import { WorkerPool } from "./pool.js";
import type { RestoreInit, RestoreJob, RestoreResult } from "./restore-worker.js";

export interface RestoreOptions {
  readonly target: string;
  /** Replace a file that exists. */
  readonly force: boolean;
  /** Read everything back and compare. */
  readonly verify: boolean;
  readonly threads: number;
  /** Told bytes of disk done, of `total`; the second pass of --verify counts anew. */
  progress?(phase: "writing" | "reading back", done: number, total: number): void;
}

export interface Restored {
  readonly size: number;
  /** Bytes that were written; the rest is holes. */
  readonly written: number;
  /** Bytes that were read back and compared; undefined without --verify. */
  readonly compared: number | undefined;
}

/** Where the bytes go. */
interface Target {
  readonly fd: number;
  /** Whether unwritten places read as zeros. */
  readonly sparse: boolean;
  /** Makes a stretch read as zeros without writing them; false when that can't be had. */
  hole(position: number, length: number): boolean;
  commit(): Promise<void>;
  abandon(): void;
}

/** @throws ImageError; a file target then isn't there, or is what it was before. */
export async function restoreDisk(source: OpenedLayers, options: RestoreOptions): Promise<Restored> {
  const { disk } = source;
  const jobSize = jobSizeOf(source);
  const target = openTarget(source, options);
  let pool: WorkerPool<RestoreJob, RestoreResult> | undefined;
  try {
    const init: RestoreInit = {
      source: { ...source.data, spec: { ...source.data.spec, copied: true } },
      fd: target.fd,
      target: options.target,
      sparse: target.sparse,
    };
    pool = new WorkerPool(new URL("./restore-worker.js", import.meta.url), init, options.threads);
    const run = async (act: RestoreJob["act"]) => {
      let total = 0;
      let done = 0;
      const phase = act === "copy" ? "writing" : "reading back";
      const running: Promise<void>[] = [];
      const advance = (length: number) => {
        done += length;
        options.progress?.(phase, done, disk.size);
      };
      for (const { position, length, hole } of stretches(disk, jobSize)) {
        if (hole && (act === "copy" ? target.hole(position, length) : target.sparse)) {
          advance(length);
          continue;
        }
        for (let at = 0; at < length; at += jobSize) {
          const part = Math.min(jobSize, length - at);
          const finished = pool!.run({ act, position: position + at, length: part }).then((bytes) => {
            total += bytes;
            advance(part);
          });
          finished.catch(() => {});
          running.push(finished);
          if (running.length > options.threads * 4) await running.shift();
        }
      }
      await Promise.all(running);
      return total;
    };
    const written = await run("copy");
    let compared: number | undefined;
    if (options.verify) {
      fsyncSync(target.fd);
      // The comparison should meet the device rather than memory.
      fadvise(target.fd, 0, 0, POSIX_FADV_DONTNEED);
      compared = await run("compare");
    }
    await target.commit();
    return { size: disk.size, written, compared };
  } catch (error) {
    throw error instanceof ImageError ? error : system(`writing ${options.target}`, error);
  } finally {
    await pool?.close();
    target.abandon();
  }
}

/** Whole chunks, so that none is unpacked for two jobs: some formats have chunks of 16 MiB. */
function jobSizeOf({ chunkSize }: OpenedLayers): number {
  const { jobSize } = settings;
  return chunkSize === 0 ? jobSize : Math.ceil(jobSize / chunkSize) * chunkSize;
}

/** The disk in stretches of hole, and jobs of data. */
function* stretches(disk: Disk, jobSize: number): Generator<{ position: number; length: number; hole: boolean }> {
  for (let position = 0; position < disk.size; ) {
    const { hole, length } = disk.extentAt(position);
    // Jobs end at multiples of the job size, wherever holes are.
    const rest = jobSize - (position % jobSize);
    const stretch = hole ? length : Math.min(length, rest);
    yield { position, length: stretch, hole };
    position += stretch;
  }
}

function openTarget(source: OpenedLayers, options: RestoreOptions): Target {
  const there = statOf(options.target);
  if (there) {
    for (const { fd, path } of source.data.files) {
      const file = fstatSync(fd);
      if (sameFile(file, there))
        throw usage(`${options.target}: is the source itself (${path}); choose another target.`);
      if (file.isBlockDevice() && there.isBlockDevice() && isPartOf(file.rdev, there.rdev))
        throw usage(
          `${options.target}: overlaps the source ${path}: one is a partition of the other. Nothing was written.`,
        );
    }
    if (there.isBlockDevice()) return deviceTarget(source, options, there.rdev);
    if (there.isDirectory()) throw usage(`${options.target}: is a folder; name the file to write in it.`);
    if (!there.isFile()) throw usage(`${options.target}: is neither a file nor a block device.`);
  }
  const file = new OutputFile(options.target, options.force);
  try {
    ftruncateSync(file.fd, source.disk.size);
  } catch (error) {
    file.abandon();
    throw system(`making ${options.target} of ${source.disk.size} bytes`, error);
  }
  return { fd: file.fd, sparse: true, hole: () => true, commit: () => file.commit(), abandon: () => file.abandon() };
}

function deviceTarget(source: OpenedLayers, options: RestoreOptions, rdev: number): Target {
  const { target } = options;
  const users = deviceUsers(rdev);
  if (users.length > 0)
    throw busy(`${target}: is in use (${users.join("; ")}). Unmount or release it first; nothing was written.`);
  let fd: number;
  try {
    // O_EXCL on a device: the kernel refuses while anybody else has claimed it, and keeps others from claiming it.
    fd = openSync(target, constants.O_RDWR | constants.O_EXCL);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EBUSY")
      throw busy(
        `${target}: is in use by the system (mounted, or part of a RAID, LVM or swap). Release it first; nothing was written.`,
      );
    throw system(`opening ${target} for writing`, error);
  }
  const size = lseek(fd, 0, SEEK_END);
  if (size < source.disk.size) {
    closeSync(fd);
    throw usage(
      `${target}: has ${size} bytes, and the disk needs ${source.disk.size}: it is ${source.disk.size - size} bytes too small. Nothing was written.`,
    );
  }
  let punches = true;
  return {
    fd,
    sparse: false,
    hole(position, length) {
      // A device that can discard to zeros does so at once; another gets zeros written.
      punches &&= fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, position, length) === 0;
      return punches;
    },
    commit: () => promisify(fsync)(fd),
    abandon: () => closeSync(fd),
  };
}
