/** A FileSystem asked by paths, as libfuse 2 asks: what native.ts answers with. */
import { constants } from "node:fs";
import { constants as systemConstants } from "node:os";
import { LRUCache } from "lru-cache";
import { NotYet, readFully } from "../bytes/byte-source.js";
import { ImageError } from "../errors.js";
import type { Attributes, Changes, FileId, FileKind, FileSystem } from "../filesystems/filesystem.js";
import { numberOf } from "./errno.js";

const { ENOENT, ENOTDIR, EISDIR, EROFS, EINVAL, ENOSPC, ENOTSUP, ENODATA } = systemConstants.errno;

const { O_WRONLY, O_RDWR, O_DSYNC } = constants;

/** Paths whose file is remembered. */
const paths = 16_384;
/** Different messages of failures that are remembered, so that each is logged once. */
const messages = 1024;
/** Handles are given to C as a signed 32-bit number. */
const largestHandle = 2 ** 31 - 1;

/** An answer that is an errno. */
class Errno extends Error {
  constructor(readonly number: number) {
    super(`errno ${number}`);
  }
}

export class NativeTree {
  private readonly files = new LRUCache<string, FileId>({ max: paths });
  private readonly logged = new LRUCache<string, true>({ max: messages });
  private readonly handles = new Map<number, FileId>();
  /** Handles of which each write is durable when it returns: O_DSYNC, which is a part of O_SYNC. */
  private readonly durable = new Set<number>();
  private lastHandle = 0;
  private requests = 0;
  private reads = 0;
  private bytesRead = 0;
  private errors = 0;

  constructor(
    private readonly tree: FileSystem,
    private readonly log: (line: string) => void,
  ) {}

  /**
   * What `ask` returns, or the negative errno of what it throws; a failure that isn't the asker's is logged once.
   * @throws NotYet when it is to be asked again later
   */
  answer<T>(path: string, ask: () => T): T | number {
    this.requests++;
    try {
      return ask();
    } catch (error) {
      if (error instanceof Errno) return -error.number;
      if (error instanceof NotYet) throw error;
      this.errors++;
      const words =
        error instanceof ImageError
          ? error.message
          : `a bug in Spindle, met at ${path}: ${error instanceof Error ? (error.stack ?? error.message) : error}`;
      if (!this.logged.has(words)) {
        this.logged.set(words, true);
        this.log(words);
      }
      return -numberOf(error);
    }
  }

  attributes(path: string): Attributes {
    return this.tree.attributes(this.find(path));
  }

  list(path: string): { names: string[]; kinds: FileKind[] } {
    const names: string[] = [];
    const kinds: FileKind[] = [];
    for (const { name, kind } of this.tree.list(this.findKind(path, "directory", ENOTDIR))) {
      names.push(text(name));
      kinds.push(kind);
    }
    return { names, kinds };
  }

  /** @param flags of open(2) */
  open(path: string, flags: number): number {
    if ((flags & (O_WRONLY | O_RDWR)) !== 0 && !this.tree.changes) throw new Errno(EROFS);
    const file = this.find(path);
    if (this.tree.attributes(file).kind === "directory") throw new Errno(EISDIR);
    do this.lastHandle = this.lastHandle === largestHandle ? 1 : this.lastHandle + 1;
    while (this.handles.has(this.lastHandle));
    this.handles.set(this.lastHandle, file);
    if ((flags & O_DSYNC) !== 0) this.durable.add(this.lastHandle);
    return this.lastHandle;
  }

  release(handle: number): void {
    this.handles.delete(handle);
    this.durable.delete(handle);
  }

  /** Fills `target`, except at the end of the file: libfuse takes a short answer for the end. */
  read(path: string, handle: number, position: number, target: Uint8Array): number {
    const file = this.handles.get(handle) ?? this.find(path);
    const source = {
      name: path,
      size: Number.MAX_SAFE_INTEGER,
      read: (at: number, part: Uint8Array) => this.tree.read(file, at, part),
    };
    const count = readFully(source, position, target);
    this.reads++;
    this.bytesRead += count;
    return count;
  }

  /** @returns how many of `bytes` were written: what fits, as at the end of a device */
  write(path: string, handle: number, position: number, bytes: Uint8Array): number {
    const file = this.handles.get(handle) ?? this.find(path);
    const length = Math.min(bytes.length, this.tree.attributes(file).size - position);
    if (length <= 0) throw new Errno(ENOSPC);
    this.changes.write(file, position, bytes.subarray(0, length));
    // Past the page cache (direct_io) the kernel leaves it to the server: no fsync follows.
    if (this.durable.has(handle)) this.changes.flush();
    return length;
  }

  synchronise(): void {
    this.changes.flush();
  }

  /** A file keeps its size, as a device does: to cut it to nothing, as `dd of=` does, is passed over, as there. */
  truncate(path: string, to: number): void {
    const { size } = this.attributes(path);
    if (!this.tree.changes) throw new Errno(EROFS);
    if (to > size) throw new Errno(ENOSPC);
    if (to !== 0 && to !== size) throw new Errno(EINVAL);
  }

  private get changes(): Changes {
    if (!this.tree.changes) throw new Errno(EROFS);
    return this.tree.changes;
  }

  readLink(path: string): string {
    return text(this.tree.readLink(this.findKind(path, "symlink", EINVAL)));
  }

  /** In the order of fuse-native's populate_statvfs(), 32 bits each: larger blocks where the count needs more. */
  statfsNumbers(): Uint32Array {
    const { blockSize, blocks, freeBlocks, availableBlocks, files, freeFiles, nameLength } = this.tree.statistics;
    let scale = 1;
    while (blocks / scale > 0xffffffff) scale *= 2;
    const free = Math.floor(freeBlocks / scale);
    const available = Math.floor((availableBlocks ?? freeBlocks) / scale);
    const most = (count: number) => Math.min(count, 0xffffffff);
    const words = [blockSize * scale, blockSize * scale, Math.ceil(blocks / scale), free, available];
    return Uint32Array.from([...words, most(files), most(freeFiles), most(freeFiles), 0, 1, nameLength]);
  }

  extendedAttribute(path: string, name: string): Uint8Array {
    const file = this.find(path);
    if (!this.tree.extendedAttributes) throw new Errno(ENOTSUP);
    const value = this.tree.extendedAttributes(file).get(name);
    if (!value) throw new Errno(ENODATA);
    return value;
  }

  /** All names, each ended by a NUL. */
  extendedAttributeNames(path: string): Uint8Array {
    const file = this.find(path);
    const names = [...(this.tree.extendedAttributes?.(file).keys() ?? [])];
    return Buffer.from(names.map((name) => `${name}\0`).join(""));
  }

  counters(): Record<string, number> {
    return { requests: this.requests, reads: this.reads, bytesRead: this.bytesRead, errors: this.errors };
  }

  private find(path: string): FileId {
    if (path === "/") return this.tree.root;
    const known = this.files.get(path);
    if (known !== undefined) return known;
    const slash = path.lastIndexOf("/");
    const folder = this.findKind(path.slice(0, slash) || "/", "directory", ENOTDIR);
    const name = path.slice(slash + 1);
    const file = this.tree.lookup(folder, Buffer.from(name)) ?? this.findBroken(folder, name);
    if (file === undefined) throw new Errno(ENOENT);
    this.files.set(path, file);
    return file;
  }

  /** fuse-native shows bytes that aren't UTF-8 as U+FFFD; the name that came from such bytes is found by listing. */
  private findBroken(folder: FileId, name: string): FileId | undefined {
    if (!name.includes("\ufffd")) return undefined;
    for (const entry of this.tree.list(folder)) if (text(entry.name) === name) return entry.file;
    return undefined;
  }

  private findKind(path: string, kind: FileKind, otherwise: number): FileId {
    const file = this.find(path);
    if (path !== "/" && this.tree.attributes(file).kind !== kind) throw new Errno(otherwise);
    return file;
  }
}

const text = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
