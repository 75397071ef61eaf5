/**
 * A compressed file, which may be in parts → its content, as bytes readable at any position. What the content is (a raw disk, a qcow2 …) is found
 * out by who asks: chain.ts looks for an image format in it as in any file.
 *
 *     packed file ──pass──► pieces: zeros | a place in the packed file, with its window | content, kept
 *                              │  (piece-table.ts: two files in the cache folder)
 *       read ─► content.ts ─► the piece ─► unpacked through the chunk cache (up to 1 MiB) or the scratch file
 *
 * - **The pass** goes through the packed file once. Where the file has an index of its own (xz of many blocks, BGZF, zstd of
 *   many frames) it leaps from header to header and takes no time; otherwise it unpacks everything and notes where one can
 *   begin again (gzip: seek points; bzip2: blocks; large zstd frames: jobs). What has no place to begin at, an xz block of
 *   many hundred megabytes, is kept itself, as small zstd frames.
 * - **Reads are answered meanwhile**: what the pass has come to at once, the rest when it gets there. The pass has a thread
 *   of its own, and what it writes only ever grows, so any number of threads and processes read along.
 * - **The next time** the table is there: bound to the sizes and times of change of all parts and samples of their bytes; records,
 *   windows and the content of every piece have checksums.
 * - **The size** has to be known before there is a disk. Most files tell it. A gzip file tells its last 32 bits, if it has one
 *   member; that is taken for the size, until the pass is done, where the disk's own partition table or filesystem agrees,
 *   and only for looking at it (`Trust`). An image that tells its length at its start is believed as well (`lengthOf`).
 *   Otherwise the pass is waited for.
 */
import { createHash } from "node:crypto";
import { closeSync } from "node:fs";
import { type ByteSource, readFully, Slice, type WhileWaiting } from "../bytes/byte-source.js";
import type { ChunkCache } from "../bytes/chunk-cache.js";
import type { FileSource } from "../bytes/file.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import type { Damage, Integrity } from "../layers/layer.js";
import { publishKept, startPass, stopPass, takeTurns } from "./builder.js";
import { openPieceFiles } from "./cache-folder.js";
import { PackedContent } from "./content.js";
import { type Claims, claimsHead, diskClaims } from "./disk-claims.js";
import { integrityOf } from "./integrity.js";
import type { PackedFile, Packing } from "./packing.js";
import { packings } from "./packings.js";
import { openParts } from "./parts.js";
import { type PieceFiles, PieceTable } from "./piece-table.js";
import { Progress } from "./progress.js";
import { Scratch, type ScratchData } from "./scratch.js";
import { silently, type Waiting } from "./waiting.js";

/** How sure the size has to be. */
export type Trust =
  /** For looking at files: a size that everything on the disk lies within. */
  | "files"
  /** For looking at the disk: the size that the disk and the packed file tell alike. */
  | "disk"
  /** For copying it: the size that the pass has found, or that the file can't differ from. */
  | "proven";

/** A packed file as another thread is given it: plain data. */
export interface PackedData {
  readonly packing: string;
  readonly files: PieceFiles;
  readonly key: Uint8Array;
  readonly progress: SharedArrayBuffer;
  readonly scratch: ScratchData;
  /** Bytes of content. */
  readonly size: number;
}

/** How far a file is gone through. */
export interface PassState {
  readonly path: string;
  /** Bytes of the packed file. */
  readonly done: number;
  readonly total: number;
  readonly state: Progress["state"];
  /** What is wrong with it, as a sentence. */
  readonly problem: string | undefined;
}

/** The compression of a file; undefined when it has none that is known. */
export const packingOf = (source: ByteSource): Packing | undefined => packings.find((one) => one.recognises(source));

export interface OpenOptions {
  readonly trust: Trust;
  readonly waiting: Waiting;
  /**
   * How many bytes the content has, by what is at its start: `content` may end anywhere behind that. Undefined where the
   * start tells nothing. Asked only where the size needn't be proven.
   */
  readonly lengthOf?: (content: ByteSource) => number | undefined;
}

/** Milliseconds of waiting that go without words. */
const quiet = 1000;

/** A packed file, open. */
export class OpenPacked {
  /**
   * Opens a packed file and begins its pass. Waits until the size is as sure as it has to be.
   * @param parts of the file, in order; mostly one
   * @throws ImageError
   */
  static open(parts: readonly FileSource[], packing: Packing, options: OpenOptions): OpenPacked {
    const { source, file } = openParts(parts, packing);
    const key = keyOf(parts, source, packing.name);
    const files = openPieceFiles(key.toString("hex", 0, 16));
    const progress = Progress.create();
    const data = { packing: packing.name, files, key, progress: progress.memory, scratch: Scratch.create().data };
    const opened = new OpenPacked(source, file, { ...data, size: 0 }, options.waiting);
    try {
      if (!publishKept(files, key, progress).ending)
        startPass(file, { parts: parts.map(({ fd, name }) => ({ fd, path: name })), ...data }, progress);
      opened.settle(options);
    } catch (error) {
      opened.close();
      throw error;
    }
    return opened;
  }

  /** The same in another thread. */
  static reopen(parts: readonly ByteSource[], data: PackedData, whileWaiting: WhileWaiting | undefined): OpenPacked {
    const { source, file } = openParts(parts, packings.find(({ name }) => name === data.packing)!);
    const opened = new OpenPacked(source, file, data, silently);
    if (whileWaiting) opened.whileReading = whileWaiting;
    opened.size = data.size;
    return opened;
  }

  /** Bytes of content. */
  size = 0;
  /** Whether `size` is no longer to be confirmed by the pass. */
  isProven = false;
  private readonly progress: Progress;
  private readonly table: PieceTable;
  private readonly scratch: Scratch;
  private whileReading: WhileWaiting;
  private waitingSince: number | undefined;
  private isTold = false;

  private constructor(
    private readonly source: ByteSource,
    private readonly file: PackedFile,
    private readonly parts: PackedData,
    private readonly waiting: Waiting,
  ) {
    this.progress = new Progress(parts.progress);
    this.table = new PieceTable(parts.files, parts.key);
    this.scratch = new Scratch(parts.scratch);
    this.whileReading = () => {
      takeTurns();
      this.tellOnce();
    };
  }

  get data(): PackedData {
    return { ...this.parts, size: this.size };
  }

  /** The content. Called once for a cache: it takes the cache's next place. */
  content(cache: ChunkCache): PackedContent {
    const { file, table, progress, scratch, size, source } = this;
    return new PackedContent(
      { name: source.name, file, table, progress, scratch, size, whileWaiting: this.whileReading },
      cache,
    );
  }

  /** The first bytes of the content, for who wants to know what it is: all of it when its size is proven. */
  head(): ByteSource {
    const content = this.content(new LocalChunkCache(0));
    if (this.isProven) return content;
    return new Slice(content.name, content, 0, Math.min(claimsHead, this.progress.covered, this.size));
  }

  /** The first bytes of the content, which are soon there. */
  start(): ByteSource {
    const content = this.content(new LocalChunkCache(0));
    return new Slice(content.name, content, 0, Math.min(claimsHead, this.size));
  }

  /** Whether the size is proven and the disk within takes all of it, by its own table or filesystem: there is no trailer. */
  get isFilled(): boolean {
    if (!this.isProven || this.size < claimsHead) return false;
    const head = Buffer.alloc(claimsHead);
    readFully(this.start(), 0, head);
    const claims = diskClaims(head);
    return (claims?.whole ?? claims?.least) === this.size;
  }

  /** Waits until the size is proven. */
  prove(): void {
    this.settle({ trust: "proven" });
  }

  /** The checks of the file; undefined where it has none. Waits for the pass. */
  integrity(): Integrity | undefined {
    if (!this.file.hasChecksums) return undefined;
    this.waitUntil(() => this.progress.state !== "under way");
    if (this.progress.state === "failed") {
      const failure = this.progress.failure();
      const damages: Damage[] = [{ file: this.file.name, position: 0, length: this.size, message: failure.message }];
      return { pieces: 1, check: () => ({ chunks: 1, bytes: 0, damages }) };
    }
    return integrityOf(this.file, this.table, this.progress.count);
  }

  get facts(): Record<string, unknown> {
    const { progress, file, parts, source } = this;
    return {
      compression: parts.packing,
      ...Object.fromEntries(Object.entries(file.facts).map(([name, value]) => [`packed ${name}`, value])),
      packedSize: source.size,
      ...(this.isProven ? {} : { sizeIs: "as the file and the disk tell; it isn't unpacked to its end yet" }),
      ...(progress.remark ? { remark: progress.remark } : {}),
    };
  }

  /** How far the pass is. */
  get pass(): PassState {
    const { packed, state, covered } = this.progress;
    const problem =
      state === "failed"
        ? this.progress.failure().message
        : state === "whole" && covered !== this.size
          ? `${this.file.name}: its content has ${covered} bytes, and not the ${this.size} that it is shown with, as the file and the disk in it tell. Open it again to see it as it is.`
          : undefined;
    return {
      path: this.source.name,
      done: state === "whole" ? this.source.size : packed,
      total: this.source.size,
      state,
      problem,
    };
  }

  close(): void {
    // Files that a thread may still write to stay open: their numbers must not come to mean others.
    if (!stopPass(this.progress)) return;
    closeSync(this.parts.files.table);
    closeSync(this.parts.files.data);
    this.scratch.close();
  }

  private settle({ trust, lengthOf }: Pick<OpenOptions, "trust" | "lengthOf">): void {
    const { told } = this.file;
    if (told?.kind === "proven") {
      this.size = told.size;
      this.isProven = true;
      return;
    }
    const size = trust === "proven" ? undefined : this.likelySize(trust, lengthOf);
    if (size !== undefined && this.progress.state === "under way") {
      this.size = size;
      return;
    }
    this.waitUntil(() => this.progress.state !== "under way");
    if (this.progress.state === "failed") throw this.progress.failure();
    this.size = this.progress.covered;
    this.isProven = true;
    const { remark } = this.progress;
    if (remark) this.waiting.note(`${this.file.name}: ${remark}.`);
  }

  /** The size as the image or the disk tells it, where it fits what the packed file tells. */
  private likelySize(trust: Trust, lengthOf: OpenOptions["lengthOf"]): number | undefined {
    this.waitUntil(() => this.progress.covered >= claimsHead || this.progress.state !== "under way");
    if (this.progress.covered < claimsHead) return undefined;
    this.size = largestContent;
    const length = this.lengthBy(lengthOf);
    if (length !== undefined) return fits(length, this.file.told) ? length : undefined;
    this.size = claimsHead;
    const head = Buffer.alloc(claimsHead);
    readFully(this.content(new LocalChunkCache(0)), 0, head);
    const claims = diskClaims(head);
    return claims && likelySize(claims, this.file.told, trust);
  }

  private lengthBy(lengthOf: OpenOptions["lengthOf"]): number | undefined {
    try {
      return lengthOf?.(this.content(new LocalChunkCache(0)));
    } catch (error) {
      // The content has ended before what should tell its length: then it is known without.
      if (this.progress.state === "under way") throw error;
      return undefined;
    }
  }

  private waitUntil(isThere: () => boolean): void {
    let bar: ReturnType<Waiting["progress"]> | undefined;
    for (;;) {
      const moment = this.progress.moment;
      if (isThere()) break;
      this.progress.isAwaited = true;
      takeTurns();
      if (this.tellOnce()) {
        bar ??= this.waiting.progress("indexing", this.source.size);
        bar.update(this.progress.packed);
      }
      this.progress.wait(moment, 100);
    }
    bar?.stop();
  }

  /** Words for who waits, when it takes longer than a moment. @returns whether it does */
  private tellOnce(): boolean {
    this.waitingSince ??= performance.now();
    if (performance.now() - this.waitingSince < quiet) return false;
    if (!this.isTold)
      this.waiting.note(
        `${this.file.name}: is gone through once, so that it can be read at any position; that is kept for the next time.`,
      );
    this.isTold = true;
    return true;
  }
}

/** For the size of content that nobody knows yet. */
const largestContent = 2 ** 52;

/** Whether content of `length` bytes is possible by what the packed file tells. */
function fits(length: number, told: PackedFile["told"]): boolean {
  if (told === undefined) return true;
  if (told.kind === "proven") return told.size === length;
  return length % 2 ** 32 === told.size && length >= told.least && length <= told.most;
}

/** Of the sizes that a gzip file can mean the one that the disk in it needs; undefined when that isn't clear enough. */
export function likelySize({ least, whole }: Claims, told: PackedFile["told"], trust: Trust): number | undefined {
  if (trust === "proven") return undefined;
  // Nothing tells against it, and files lie within.
  if (told === undefined) return trust === "files" ? least : undefined;
  if (told.kind === "proven") return told.size;
  const lower = Math.max(least, told.least);
  const size = told.size + Math.ceil(Math.max(0, lower - told.size) / 2 ** 32) * 2 ** 32;
  if (size > told.most) return undefined;
  return trust === "files" || size === (whole ?? least) ? size : undefined;
}

/** Differs for two files, two states of a file or of one of its parts, two orders of parts, and two compressions. */
function keyOf(parts: readonly FileSource[], source: ByteSource, packing: string): Buffer {
  const states = parts.map(({ size, changed }) => [size, changed]);
  const hash = createHash("sha256").update(JSON.stringify([packing, ...states]));
  const sample = Buffer.alloc(4096);
  const take = (from: ByteSource, position: number) =>
    hash.update(sample.subarray(0, readFully(from, position, sample)));
  const count = 16;
  for (let number = 0; number <= count; number++)
    take(source, Math.floor((Math.max(0, source.size - sample.length) / count) * number));
  if (parts.length > 1) for (const part of parts) take(part, 0);
  return hash.digest();
}
