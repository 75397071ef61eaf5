/**
 * The first half of the assembly line (open.ts): a path → the layers of its chain → a disk.
 *
 * Files are opened once, by the main thread. A worker builds the same from the descriptors (`OpenedLayers.data`), never
 * from paths: after mounting, a path may lead into the mount itself.
 */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { ByteSource } from "./bytes/byte-source.js";
import type { ChunkCache } from "./bytes/chunk-cache.js";
import { FileSource } from "./bytes/file.js";
import { LocalChunkCache } from "./bytes/local-cache.js";
import { busy, corrupt, ImageError, mismatch, missing, usage } from "./errors.js";
import type { Format, Surroundings } from "./format.js";
import { images } from "./images/index.js";
import { raw } from "./images/raw.js";
import { unread } from "./images/unread.js";
import { type Disk, LayeredDisk } from "./layers/disk.js";
import type { Layer } from "./layers/layer.js";
import { EWOULDBLOCK, errno, flock, LOCK_NB, LOCK_SH } from "./libc.js";
import { refusePartElsewhere, refuseRawBaseElsewhere } from "./recorded-files.js";
import { settings } from "./settings.js";

/** What to open and how to show it. Plain data. */
export interface ImageSpec {
  readonly path: string;
  /** Where a parent is that isn't where it is recorded: taken for the layer of the chain that it is the parent of. */
  readonly parent?: string;
  /** The format, when it isn't to be found by signature: a name of images/index.ts, for example `raw`. */
  readonly format?: string;
  /** An older state of the disk that the image keeps inside itself, by id or name; default: the present state. */
  readonly snapshot?: string;
  /** What the image and its parents are encrypted with: of a text its UTF-8. */
  readonly password?: Uint8Array;
  /** Follow an image that names parts of itself, or a raw base, outside its own folder: see recorded-files.ts. */
  readonly trustPaths?: boolean;
  /** What a mount shows: `disk.raw` and the partitions as files, or the files in them. Default: the disk. */
  readonly view?: "disk" | "files";
  /** Of the disk view: formats (view/faces/) that it shows the disk in beside disk.raw. */
  readonly faces?: readonly string[];
  /** Of the files view only this filesystem: a partition's number (`2` or `p2`), or a label. */
  readonly volume?: string;
  /** The code page of filesystems that don't tell their own (FAT's short names). */
  readonly codePage?: number;
  /** Of a disc that was written in several sessions, the one to show, from 1 on; default: the first. */
  readonly session?: number;
}

/** An image and its parents, open. */
export interface OpenedLayers {
  /** Newest first. */
  readonly layers: readonly Layer[];
  readonly disk: Disk;
  /** Bytes of the largest chunk that goes through the cache; 0 when none does. */
  readonly chunkSize: number;
  /** What another thread needs to build the same from the open descriptors: structured-cloneable. */
  readonly data: LayersData;
  close(): void;
}

export interface LayersData {
  readonly spec: ImageSpec;
  readonly files: readonly { readonly path: string; readonly fd: number }[];
  /** What was computed when the image was opened, by name: see Surroundings.remember. */
  readonly remembered: ReadonlyMap<string, Uint8Array>;
}

/** The files of an image, each opened once. */
class OpenFiles {
  private readonly sources = new Map<string, FileSource>();
  readonly remembered: Map<string, Uint8Array>;

  /** Files to find by path; `sealed` when no other may be opened. */
  constructor(
    known?: LayersData,
    private readonly sealed = false,
    /** Whether an image may name whatever file it likes. */
    private readonly trusting = false,
  ) {
    for (const { path, fd } of known?.files ?? []) this.sources.set(path, FileSource.over(fd, path));
    this.remembered = new Map(known?.remembered);
  }

  /** Whether a file that an image names is looked at before it is opened: in a worker it is open already. */
  get wary(): boolean {
    return !this.sealed && !this.trusting;
  }

  has(path: string): boolean {
    return this.sources.has(path) || (!this.sealed && existsSync(path));
  }

  /** Names of files in `folder`, at most so many as are looked into for a parent. */
  in(folder: string): string[] {
    if (this.sealed)
      return [...this.sources.keys()].filter((path) => dirname(path) === folder).map((path) => basename(path));
    try {
      return readdirSync(folder).slice(0, settings.filesSearchedForParent);
    } catch {
      return []; // a folder that can't be listed holds no hint
    }
  }

  open(path: string): FileSource {
    let source = this.sources.get(path);
    if (!source) {
      if (this.sealed) throw missing(`${path}: was not open when the image was`);
      source = FileSource.open(path);
      this.sources.set(path, source);
    }
    return source;
  }

  /** Keeps others from writing to a file that is open, for as long as it is. @throws ImageError `busy` where one does */
  holdStill(path: string): void {
    // A thread has the descriptors of the first, and their locks.
    if (this.sealed) return;
    if (flock(this.open(path).fd, LOCK_SH | LOCK_NB) !== 0 && errno() === EWOULDBLOCK)
      throw busy(`${path}: is written to by a mount just now. Unmount that first (spindle unmount), then try again.`);
  }

  /** Closes what was opened since there were `count` files. */
  closeFrom(count: number): void {
    for (const [path, source] of [...this.sources].slice(count)) {
      source.close();
      this.sources.delete(path);
    }
  }

  get count(): number {
    return this.sources.size;
  }

  get table(): LayersData["files"] {
    return [...this.sources].map(([path, { fd }]) => ({ path, fd }));
  }
}

/**
 * Opens an image and all its parents.
 * @throws ImageError: `missing` or `mismatch` for a parent that isn't there or is another, naming both files.
 */
export function openLayers(
  spec: ImageSpec,
  cache: ChunkCache = new LocalChunkCache(settings.cacheBytes),
): OpenedLayers {
  const files = new OpenFiles(undefined, false, spec.trustPaths);
  try {
    if (spec.parent !== undefined && !files.has(resolve(spec.parent)))
      throw missing(`--parent ${spec.parent}: there is no such file.`);
    // A base is looked for from the folder in which the image really lies, not from that of a link to it.
    const path = existsSync(spec.path) ? realpathSync(spec.path) : resolve(spec.path);
    const absolute = { ...spec, path, ...bundle(path), parent: spec.parent && resolve(spec.parent) };
    const layers = openChain(absolute, files, cache);
    return assembled(layers, { spec: absolute, files: files.table, remembered: files.remembered }, () =>
      files.closeFrom(0),
    );
  } catch (error) {
    files.closeFrom(0);
    throw error;
  }
}

/** Where a folder is an image, the file in it that is opened for it, and its format. */
function bundle(folder: string): { path: string; format: string } | undefined {
  const path = join(folder, "Info.plist");
  return existsSync(path) && existsSync(join(folder, "bands")) ? { path, format: "sparsebundle" } : undefined;
}

/** The same layers in another thread, over the descriptors of the first. Closing them is left to the first. */
export function reopenLayers(data: LayersData, cache: ChunkCache): OpenedLayers {
  return assembled(openChain(data.spec, new OpenFiles(data, true), cache), data, () => {});
}

function assembled(layers: Layer[], data: LayersData, close: () => void): OpenedLayers {
  const chunkSize = Math.max(0, ...layers.map((layer) => layer.chunkSize ?? 0));
  return { layers, disk: new LayeredDisk(layers[0]!.name, layers), chunkSize, data, close };
}

function openChain(spec: ImageSpec, files: OpenFiles, cache: ChunkCache): Layer[] {
  const { snapshot, password } = spec;
  const layers = [openLayer(resolve(spec.path), formatNamed(spec.format), files, cache, { snapshot, password })];
  const seen = new Set([files.open(layers[0]!.name).identity]);
  let given = spec.parent === undefined ? undefined : resolve(spec.parent);
  for (let layer = layers[0]!; layer.parent; layer = layers.at(-1)!) {
    if (layers.length >= settings.deepestChain)
      throw corrupt(`${layer.name}: is layer ${layers.length} of a chain; so many are taken for a loop.`);
    const parent = openParent(layer, given, files, cache, { password });
    const { identity } = files.open(parent.name);
    if (seen.has(identity))
      throw corrupt(`${layer.name}: has ${parent.name} as its base, which is above it in the chain already: a loop.`);
    seen.add(identity);
    if (parent.name === given) given = undefined;
    layers.push(parent);
  }
  if (given !== undefined && layers.length === 1)
    throw usage(`${spec.path}: is a whole image without parent; leave --parent out.`);
  if (given !== undefined)
    throw mismatch(
      `--parent ${spec.parent}: is not the base of any layer of ${spec.path}, whose bases were all found without it; leave it out.`,
    );
  return layers;
}

function formatNamed(name: string | undefined): Format<Layer> | undefined {
  if (name === undefined) return undefined;
  const known = images.filter((one) => one !== unread);
  const format = known.find((one) => one.name === name);
  if (!format) throw usage(`there is no image format ${name}; known are ${known.map((one) => one.name).join(", ")}.`);
  return format;
}

function openLayer(
  path: string,
  format: Format<Layer> | undefined,
  files: OpenFiles,
  cache: ChunkCache,
  options: Surroundings["options"],
): Layer {
  const source = files.open(path);
  const used = format ?? images.find((one) => one.recognises(source)) ?? raw;
  if (used.changes) files.holdStill(path);
  if (options?.snapshot !== undefined && !used.hasSnapshots)
    throw usage(`${path}: is a ${used.name} image, which keeps no snapshots inside; leave the snapshot out.`);
  return used.open(source, {
    path,
    cache,
    options,
    remember(name, compute) {
      const known = files.remembered.get(name) ?? compute();
      files.remembered.set(name, known);
      return known;
    },
    companion(name): ByteSource {
      const companion = resolve(dirname(path), name);
      if (!files.has(companion)) throw missing(`${path}: needs ${companion}, which is not there.`);
      if (files.wary) refusePartElsewhere(path, companion, used.isFolder);
      return files.open(companion);
    },
  });
}

/** The parent of `child`: the file given, or the first of those recorded, that is there and is the right one. */
function openParent(
  child: Layer,
  given: string | undefined,
  files: OpenFiles,
  cache: ChunkCache,
  options: Surroundings["options"],
): Layer {
  const reference = child.parent!;
  const format = images.find((one) => one.name === reference.format);
  const folder = dirname(child.name);
  const recorded = reference.paths.map((path) => resolve(folder, path));
  // Where a wrong file can't be told, the one that is named goes to the layer whose recorded parent isn't there.
  const candidates =
    given === undefined ? recorded : reference.identified === false ? [...recorded, given] : [given, ...recorded];
  let refusal: unknown;
  for (const path of candidates) {
    if (!files.has(path)) continue;
    const before = files.count;
    try {
      const parent = openLayer(path, format, files, cache, options);
      reference.check(parent, files.open(path));
      if (files.wary && path !== given && reference.identified === false && parent.format === raw.name)
        refuseRawBaseElsewhere(child.name, path);
      return parent;
    } catch (error) {
      files.closeFrom(before);
      if (!(error instanceof ImageError)) throw error;
      refusal ??= new ImageError(
        error.code,
        error.message.startsWith(child.name)
          ? error.message
          : `${child.name}: its base can't be used. ${error.message}`,
        { cause: error },
      );
    }
  }
  const found = reference.identified === false ? undefined : findMoved(child, files, options);
  if (found instanceof ImageError) throw refusal ?? found;
  // A child that records its parent's identity and no path leaves nothing else to go by.
  if (found && candidates.length === 0) return openLayer(found, format, files, cache, options);
  const hint = found ? ` ${found} has the recorded content: pass --parent ${found}, or rename it.` : "";
  if (refusal instanceof ImageError) throw new ImageError(refusal.code, refusal.message + hint, { cause: refusal });
  const places = [...new Set(candidates)].join(" or ");
  const where = places
    ? `was not found at ${places}.`
    : reference.identified === false
      ? "is not a file on this computer."
      : "is recorded without a path, and no file near it is the one.";
  throw missing(
    `${child.name}: its base ${reference.description} ${where}${hint || " Put it there, or pass --parent PATH."}`,
  );
}

/**
 * A file that is the recorded parent under another name: in the child's folder, or above it where no path is recorded; or
 * why one that was it isn't any more.
 */
function findMoved(child: Layer, files: OpenFiles, options: Surroundings["options"]): string | ImageError | undefined {
  let changed: ImageError | undefined;
  const own = dirname(child.name);
  const folders = child.parent!.paths.length === 0 ? [own, dirname(own)] : [own];
  for (const path of folders.flatMap((folder) => files.in(folder).map((name) => resolve(folder, name)))) {
    if (path === child.name) continue;
    const before = files.count;
    try {
      child.parent!.check(openLayer(path, undefined, files, new LocalChunkCache(0), options), files.open(path));
      return path;
    } catch (error) {
      if (error instanceof ImageError && error.changed) changed ??= error; // otherwise it is none of its business
    } finally {
      files.closeFrom(before);
    }
  }
  return changed;
}
