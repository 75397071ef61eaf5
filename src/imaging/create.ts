/**
 * Disk → .spin image, full or differential. The main thread hands out stretches of the disk in order, workers read, hash
 * and compress them side by side, and the main thread writes their results in order. Memory is bounded by the slots that
 * are in flight; what is a hole isn't read.
 */
import { randomBytes } from "node:crypto";
import { fstatSync, lstatSync, realpathSync } from "node:fs";
import { dirname, relative, resolve, sep } from "node:path";
import type { Readable } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { type ImageSpec, type OpenedLayers, openLayers } from "../chain.js";
import { ImageError, mismatch, missing, system, usage } from "../errors.js";
import { ChainDigests } from "../images/spin/chain-digests.js";
import { fanOut, longestFrame } from "../images/spin/pages.js";
import { SpinLayer } from "../images/spin/reader.js";
import { type BaseIdentity, type Batch, SpinWriter, type Written } from "../images/spin/writer.js";
import type { Disk } from "../layers/disk.js";
import type { Layer } from "../layers/layer.js";
import type { Waiting } from "../packed/waiting.js";
import { settings } from "../settings.js";
import type { CreateInit, CreateJob, CreateResult } from "./create-worker.js";
import { layersAbove, leftToBase } from "./left-to-base.js";
import { OutputFile, sameFile, statOf } from "./output-file.js";
import { WorkerPool } from "./pool.js";
import { describeSource } from "./source.js";

export interface CreateOptions {
  /** Path of a file or block device; with `stream` only a name for it. */
  readonly source: string;
  /** A disk of unknown length, read to its end. */
  readonly stream?: Readable;
  /** How the source is opened, where more than its path is to be said. */
  readonly opening?: Omit<ImageSpec, "path">;
  /**
   * The source is an image to go on with: what it tells of its own source, its label, comment and chunk size are kept, and,
   * with `frames`, the frames of .spin images are taken as they are, checked and not packed again.
   */
  readonly goesOn?: { readonly frames: boolean };
  readonly image: string;
  readonly base?: string;
  /** Where a parent, in the chain of the base or of the source, is that isn't found without it. */
  readonly parent?: string;
  /** Bytes; the base's for a differential, then that of a source to go on with, settings.chunkSize otherwise. */
  readonly chunkSize?: number;
  /** 1 to 19. */
  readonly level: number;
  readonly threads: number;
  readonly label?: string;
  readonly comment?: string;
  readonly force: boolean;
  /** Written into the image as the tool that made it. */
  readonly tool: string;
  /** Told when a compressed source has to be gone through first. */
  readonly waiting?: Waiting;
  /** Told bytes of disk done, and bytes of image written. `total` is undefined for a stream. */
  progress?(done: number, total: number | undefined, written: number): void;
}

export interface Created extends Written {
  readonly id: Buffer;
  readonly chunkSize: number;
}

interface ZeroPiece {
  readonly zeroLeaves: number;
  readonly same: boolean;
}

/** What is written next, in disk order. */
type Piece = { readonly slot: number; readonly length: number; readonly result: Promise<CreateResult> } | ZeroPiece;

/** Whole leaves of zeros that are written between two looks at the clock. */
const zeroLeavesAtOnce = 4096;

/** @throws ImageError; nothing is left behind then, and an image that was there before is untouched. */
export async function createImage(options: CreateOptions): Promise<Created> {
  const open = chainOpener(options.parent, options.waiting);
  const base = options.base === undefined ? undefined : openBase(options.base, open);
  let source: OpenedLayers | undefined;
  let output: OutputFile | undefined;
  let pool: WorkerPool<CreateJob, CreateResult> | undefined;
  try {
    // What is gone on with stays as it is, encrypted too.
    const asStored = options.goesOn !== undefined || options.opening?.asStored === true;
    const spec = { ...options.opening, path: options.source, parent: undefined, asStored, copied: true };
    source = options.stream ? undefined : open(spec);
    open.finish();
    const kept = options.goesOn && source ? source.layers[0] : undefined;
    const chunkSize = chunkSizeOf(options, base?.layers, kept);
    const facts = source ? describeSource(options.source, source.disk) : { source: { path: "-", kind: "stream" } };
    if (source) refuseOwnImage(options.image, source, "the source");
    if (base) refuseOwnImage(options.image, base.opened, "the base, or a base of the base,");
    const sizes = source?.data.files.map(({ fd }) => fstatSync(fd).size);
    output = new OutputFile(options.image, options.force);
    const id = randomBytes(16);
    const writer = new SpinWriter((bytes) => output!.write(bytes), id, chunkSize, base?.identity);
    const slots = options.threads * 2 + 1;
    const jobSize = Math.max(settings.jobSize, chunkSize);
    const outputSlot = (jobSize / chunkSize) * longestFrame(chunkSize);
    const above = source && base && layersAbove(source, base.layers[0]!);
    const init: CreateInit = {
      source: source?.data,
      base: base?.opened.data,
      copies: options.goesOn?.frames === true && isOfSpin(source, chunkSize),
      above: above?.length ?? 0,
      chunkSize,
      level: options.level,
      output: new SharedArrayBuffer(slots * outputSlot),
      outputSlot,
      input: options.stream ? new SharedArrayBuffer(slots * jobSize) : undefined,
      inputSlot: jobSize,
    };
    pool = new WorkerPool(new URL("./create-worker.js", import.meta.url), init, options.threads);

    const free = Array.from({ length: slots }, (_, slot) => slot);
    const pieces: Piece[] = [];
    let done = 0;
    const writeNext = async () => {
      const piece = pieces.shift()!;
      if ("zeroLeaves" in piece) {
        writer.appendZeroLeaves(piece.zeroLeaves, piece.same);
        await setImmediate(); // signals and the progress bar want their turn
        done += piece.zeroLeaves * fanOut * chunkSize;
      } else {
        const result = await piece.result;
        writer.append({ ...result, ...batchOf(piece, init) });
        free.push(piece.slot);
        done += piece.length;
      }
      options.progress?.(done, source?.disk.size, output!.size);
    };
    const submit = async (position: number, length: number, fill?: (slot: number) => void) => {
      const slot = free.pop()!;
      fill?.(slot);
      pieces.push({ slot, length, result: pool!.run({ slot, position, length }) });
      while (free.length === 0) await writeNext();
    };

    if (source) await readDisk(source.disk, base?.chain, above, init, pieces, submit, writeNext);
    else if ((await readStream(options.stream!, init, submit)) === 0)
      throw missing(
        "-: ended before its first byte, and no image was made. See what the command before the pipe said.",
      );
    while (pieces.length > 0) await writeNext();

    const imageFolder = dirname(resolve(options.image));
    const written = writer.finish({
      ...facts,
      created: new Date().toISOString(),
      tool: options.tool,
      ...(kept ? ownWords(kept) : {}),
      ...(options.label === undefined ? {} : { label: options.label }),
      ...(options.comment === undefined ? {} : { comment: options.comment }),
      level: (init.copies ? kept?.facts.level : undefined) ?? options.level,
      ...(options.base === undefined
        ? {}
        : { base: { path: relative(imageFolder, behindLink(options.base)).split(sep).join("/") } }),
    });
    refuseShrunken(source, sizes);
    await output.commit();
    return { ...written, id, chunkSize };
  } finally {
    await pool?.close();
    output?.abandon();
    source?.close();
    base?.opened.close();
  }
}

function batchOf(piece: { slot: number; length: number }, init: CreateInit): Omit<Batch, keyof CreateResult> {
  return {
    count: Math.ceil(piece.length / init.chunkSize),
    length: piece.length,
    frames: new Uint8Array(init.output, piece.slot * init.outputSlot, init.outputSlot),
  };
}

type Submit = (position: number, length: number, fill?: (slot: number) => void) => Promise<void>;

/** Bytes of disk that one job takes where all is left to the base, so that none of it is read. */
const longestLeft = 256 << 20;

/** Hands out the disk in jobs, and whole leaves that are holes at once. */
async function readDisk(
  disk: Disk,
  base: ChainDigests | undefined,
  above: readonly Layer[] | undefined,
  init: CreateInit,
  pieces: Piece[],
  submit: Submit,
  writeNext: () => Promise<void>,
): Promise<void> {
  const leaf = fanOut * init.chunkSize;
  for (let position = 0; position < disk.size; ) {
    if (position % leaf === 0) {
      const leaves = Math.min(holeLeaves(disk, position, leaf), zeroLeavesAtOnce);
      if (leaves > 0) {
        const piece = zeroPiece(base, position / leaf, leaves);
        pieces.push(piece);
        position += piece.zeroLeaves * leaf;
        while (pieces.length > init.output.byteLength / init.outputSlot) await writeNext();
        continue;
      }
    }
    const left = above ? leftToBase(above, position, Math.min(disk.size, position + longestLeft)) : 0;
    const length =
      left > init.inputSlot ? left - (left % init.chunkSize) : Math.min(init.inputSlot, disk.size - position);
    await submit(position, length);
    position += length;
  }
}

/** How many whole leaves from `position` on are a hole of the source. */
function holeLeaves(disk: Disk, position: number, leaf: number): number {
  let end = position;
  while (end < disk.size && end - position < leaf * zeroLeavesAtOnce) {
    const extent = disk.extentAt(end);
    if (!extent.hole) break;
    end += extent.length;
  }
  return Math.floor((end - position) / leaf);
}

/** As many of `leaves` leaves of zeros as are alike: all of them the base's own zeros, or all of them news to it. */
function zeroPiece(base: ChainDigests | undefined, first: number, leaves: number): ZeroPiece {
  if (!base) return { zeroLeaves: leaves, same: false };
  const same = base.wholeZeroLeaf(first);
  let count = 1;
  while (count < leaves && base.wholeZeroLeaf(first + count) === same) count++;
  return { zeroLeaves: count, same };
}

/** @returns how many bytes the stream had */
async function readStream(stream: Readable, init: CreateInit, submit: Submit): Promise<number> {
  const slot = Buffer.alloc(init.inputSlot);
  let filled = 0;
  let position = 0;
  const flush = async () => {
    await submit(position, filled, (number) =>
      slot.copy(Buffer.from(init.input as SharedArrayBuffer, number * init.inputSlot, filled), 0, 0, filled),
    );
    position += filled;
    filled = 0;
  };
  try {
    for await (const part of stream as AsyncIterable<Buffer>) {
      for (let at = 0; at < part.length; ) {
        const count = part.copy(slot, filled, at);
        at += count;
        filled += count;
        if (filled === slot.length) await flush();
      }
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException; // what lacks one is no failure of the stream
    throw error instanceof ImageError || code === undefined
      ? error
      : system(`reading the stream after byte ${position + filled}`, error);
  }
  if (filled > 0) await flush();
  return position;
}

interface ChainOpener {
  (spec: ImageSpec): OpenedLayers;
  /** @throws ImageError when `parent` was given and no chain needed it. */
  finish(): void;
}

/** Opens chains, with `parent` where one isn't complete without it. */
function chainOpener(parent: string | undefined, waiting: Waiting | undefined): ChainOpener {
  let needed = parent === undefined;
  const open = (spec: ImageSpec) => {
    try {
      return openLayers(spec, new LocalChunkCache(0), { waiting });
    } catch (error) {
      if (parent === undefined || !(error instanceof ImageError)) throw error;
      const opened = openLayers({ ...spec, parent }, new LocalChunkCache(0), { waiting });
      needed = true;
      return opened;
    }
  };
  const finish = () => {
    if (!needed) throw usage(`--parent ${parent}: every parent was found without it; leave it out.`);
  };
  return Object.assign(open, { finish });
}

function openBase(path: string, open: ChainOpener) {
  const opened = open({ path });
  const layers = opened.layers.filter((layer) => layer instanceof SpinLayer);
  const top = layers[0];
  if (layers.length !== opened.layers.length || !top) {
    opened.close();
    throw usage(`${path}: can't be a base, since it is not a .spin image (${opened.layers[0]!.format}).`);
  }
  const { id, contentRoot, size } = top.trailer;
  const identity: BaseIdentity = { id, contentRoot, size };
  try {
    return { opened, layers, identity, chain: new ChainDigests(layers) };
  } catch (error) {
    opened.close();
    throw error;
  }
}

/** Whether all layers of `source` are .spin images with chunks of this size. */
const isOfSpin = (source: OpenedLayers | undefined, chunkSize: number): boolean =>
  source?.layers.every((layer) => layer instanceof SpinLayer && layer.chunkSize === chunkSize) ?? false;

/** What a .spin image tells of its disk beyond the bytes; the facts of other formats are about their files. */
function ownWords(layer: Layer): Record<string, unknown> {
  const names = ["source", "logicalSectorSize", "physicalSectorSize", "label", "comment"];
  return layer instanceof SpinLayer
    ? Object.fromEntries(Object.entries(layer.facts).filter(([name]) => names.includes(name)))
    : {};
}

function chunkSizeOf(options: CreateOptions, base: readonly SpinLayer[] | undefined, kept: Layer | undefined): number {
  const own = base?.[0]?.chunkSize;
  if (own !== undefined && options.chunkSize !== undefined && options.chunkSize !== own)
    throw mismatch(
      `${options.base}: has chunks of ${own} bytes, and a differential has its base's; leave --chunk out or pass ${own}.`,
    );
  const chunkSize =
    own ?? options.chunkSize ?? (kept instanceof SpinLayer ? kept.chunkSize : undefined) ?? settings.chunkSize;
  const { smallestChunk, largestChunk } = settings;
  if (chunkSize < smallestChunk || chunkSize > largestChunk || (chunkSize & (chunkSize - 1)) !== 0)
    throw usage(`--chunk ${chunkSize}: must be a power of two from ${smallestChunk} to ${largestChunk} bytes.`);
  return chunkSize;
}

/** The path of a base for the record: a link such as `latest.spin` leads to another file tomorrow. */
const behindLink = (path: string) => (lstatSync(path).isSymbolicLink() ? realpathSync(path) : resolve(path));

/** An image that replaces what it is made from, or builds on, would be lost with it. */
function refuseOwnImage(image: string, opened: OpenedLayers, what: string): void {
  const there = statOf(image);
  if (there && opened.data.files.some(({ fd }) => sameFile(fstatSync(fd), there)))
    throw usage(`${image}: is ${what} itself; choose another name for the image.`);
}

/** A source that was cut while it was read: what was beyond the cut may have been taken for a hole. */
function refuseShrunken(source: OpenedLayers | undefined, sizes: readonly number[] | undefined): void {
  for (const [i, { path, fd }] of (source?.data.files ?? []).entries()) {
    const size = fstatSync(fd).size;
    if (size < sizes![i]!)
      throw new ImageError(
        "system",
        `${path}: was ${sizes![i]} bytes long at the start and is ${size} now: it shrank while it was read. No image was made; try again when it is at rest.`,
      );
  }
}
