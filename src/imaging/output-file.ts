/**
 * A file that appears whole or not at all: it is written under a temporary name in the same folder, flushed, and renamed
 * at the end. Whatever goes wrong before, the old file of that name isn't touched and the temporary one is removed. What
 * a kill -9 or a power failure left behind is removed when the next file of that name is begun: a temporary file is
 * locked for as long as its process lives, wherever that runs, so that one that can be locked is nobody's.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  fsync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { system, usage } from "../errors.js";
import { EWOULDBLOCK, errno, flock, LOCK_EX, LOCK_NB } from "../libc.js";
import { settings } from "../settings.js";

/** Small writes are gathered to this many bytes. */
const bufferSize = settings.largestWrite;
/** After so many bytes the system is asked to begin writing them to the device, so that the flush at the end is short. */
const flushEvery = 64 << 20;

const unfinished = new Set<string>();
let watching = false;

/** A signal that ends the process removes what is half-made first. */
function watchSignals(): void {
  if (watching) return;
  watching = true;
  for (const [signal, number] of [
    ["SIGINT", 2],
    ["SIGTERM", 15],
    ["SIGHUP", 1],
  ] as const)
    process.on(signal, () => {
      if (unfinished.size === 0 && process.listenerCount(signal) > 1) return;
      for (const path of unfinished) rmSync(path, { force: true });
      process.exit(128 + number);
    });
}

export class OutputFile {
  readonly path: string;
  readonly fd: number;
  private readonly temporary: string;
  private readonly buffer = Buffer.allocUnsafe(bufferSize);
  private buffered = 0;
  private written = 0;
  private flushed = 0;
  private flushing: Promise<void> | undefined;
  private flushError: unknown;
  private open = true;

  /** @throws ImageError `usage` when `path` exists and `force` isn't given, or is no file. */
  constructor(
    path: string,
    private readonly force: boolean,
  ) {
    const there = statOf(path);
    if (there && !there.isFile())
      throw usage(`${path}: is not a file and can't be replaced by one; choose another name.`);
    if (!there && isLink(path)) throw usage(`${path}: is a link to nothing; remove it, or choose another name.`);
    // Through a link the file that it leads to is replaced, not the link.
    this.path = there ? realpathSync(path) : resolve(path);
    this.refuseToReplace();
    const folder = dirname(this.path);
    const start = temporaryStart(basename(this.path));
    removeLeftovers(folder, start);
    // Before there is a file: a signal in between would end the process the usual way, and leave it.
    watchSignals();
    try {
      ({ path: this.temporary, fd: this.fd } = openTemporary(folder, start));
    } catch (error) {
      throw system(`creating ${path}`, error);
    }
    unfinished.add(this.temporary);
  }

  /** Appends. */
  write(bytes: Uint8Array): void {
    if (this.buffered + bytes.length > bufferSize) this.drain();
    if (bytes.length >= bufferSize) this.put(bytes);
    else {
      this.buffer.set(bytes, this.buffered);
      this.buffered += bytes.length;
    }
  }

  /** Bytes appended so far. */
  get size(): number {
    return this.written + this.buffered;
  }

  /** Flushes, and gives the file its name. */
  async commit(): Promise<void> {
    try {
      this.drain();
      // The system tells a failure to one flush only: the one under way has to be heard before another is believed.
      await this.flushing;
      if (this.flushError) throw this.flushError;
      await promisify(fsync)(this.fd);
      this.refuseToReplace(); // it may have come since
      renameSync(this.temporary, this.path);
      unfinished.delete(this.temporary);
      syncFolder(dirname(this.path));
    } catch (error) {
      throw system(`writing ${this.path}`, error);
    }
    this.close();
  }

  private refuseToReplace(): void {
    if (!this.force && statOf(this.path))
      throw usage(`${this.path}: exists already. Choose another name, or pass --force to replace it.`);
  }

  /** Removes what was written, unless it was committed; idempotent. */
  abandon(): void {
    if (unfinished.delete(this.temporary)) rmSync(this.temporary, { force: true });
    this.close();
  }

  private close(): void {
    // A flush that is under way still needs the descriptor; it closes it when it is done.
    if (!this.open) return;
    this.open = false;
    if (this.flushing) void this.flushing.then(() => closeSync(this.fd));
    else closeSync(this.fd);
  }

  private drain(): void {
    if (this.buffered > 0) this.put(this.buffer.subarray(0, this.buffered));
    this.buffered = 0;
  }

  private put(bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length; )
        done += writeSync(this.fd, bytes, done, Math.min(bytes.length - done, settings.largestWrite));
    } catch (error) {
      throw system(`writing ${this.path}`, error);
    }
    this.written += bytes.length;
    if (this.written - this.flushed >= flushEvery && !this.flushing) this.beginFlush();
  }

  private beginFlush(): void {
    this.flushed = this.written;
    this.flushing = promisify(fdatasync)(this.fd)
      .catch((error: unknown) => {
        this.flushError ??= error;
      })
      .finally(() => {
        this.flushing = undefined;
      });
  }
}

const temporaryEnd = /^\.[0-9a-f]{8}\.partial$/;
/** The longest file name of most filesystems, and what a temporary one has behind its start, in bytes. */
const longestName = 255;
const endLength = ".01234567.partial".length;

/** What the temporary names of a file called `name` begin with: as much of the name as leaves room for the rest. */
function temporaryStart(name: string): string {
  let start = `.${name}`;
  while (Buffer.byteLength(start) > longestName - endLength) start = start.slice(0, -1);
  return start;
}

/** Makes a temporary file, and locks it where the filesystem has locks. */
function openTemporary(folder: string, start: string): { path: string; fd: number } {
  for (;;) {
    const path = join(folder, `${start}.${randomBytes(4).toString("hex")}.partial`);
    const fd = openSync(path, "wx+", 0o666);
    // Another process may take it for a leftover in the moment before it is locked: then that one has the lock, or had it.
    if (flock(fd, LOCK_EX | LOCK_NB) === 0 ? fstatSync(fd).nlink > 0 : errno() !== EWOULDBLOCK) return { path, fd };
    closeSync(fd);
    rmSync(path, { force: true });
  }
}

/** Removes temporary files whose process is gone. What can't be looked at, locked or removed stays: it is in nobody's way. */
function removeLeftovers(folder: string, start: string): void {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return;
  }
  for (const name of names) {
    if (!name.startsWith(start) || !temporaryEnd.test(name.slice(start.length))) continue;
    let fd: number | undefined;
    try {
      const path = join(folder, name);
      // For writing, since NFS has exclusive locks for no other opening.
      fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      if (fstatSync(fd).isFile() && flock(fd, LOCK_EX | LOCK_NB) === 0) unlinkSync(path);
    } catch {
      // gone in between, or another user's
    } finally {
      if (fd !== undefined) closeSync(fd);
    }
  }
}

function isLink(path: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false; // nothing is there
  }
}

/** Makes a new name in `folder` last; filesystems that can't, or a folder that may not be read, are left to themselves. */
function syncFolder(folder: string): void {
  let fd: number | undefined;
  try {
    fd = openSync(folder, "r");
    fsyncSync(fd);
  } catch (error) {
    if (!["EACCES", "EINVAL", "ENOTSUP"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** What is at `path`, links followed; undefined where nothing is. It isn't opened: that could wait, or be an act. */
export function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw system(`looking at ${path}`, error);
  }
}

/** Whether two are one file or device. */
export function sameFile(a: Stats, b: Stats): boolean {
  return a.isBlockDevice() && b.isBlockDevice() ? a.rdev === b.rdev : a.dev === b.dev && a.ino === b.ino;
}
