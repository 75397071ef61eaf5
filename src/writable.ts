/**
 * The writable top of an image that is mounted: its file, made or found again, and the disk that it makes of the image's.
 * Beside chain.ts, which opens what is only read. The main thread opens; a worker builds the same from `OverlayData`.
 */
import { createHash } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative, resolve } from "node:path";
import { FileSource } from "./bytes/file.js";
import { FileStore } from "./bytes/file-store.js";
import type { LayersData, OpenedLayers } from "./chain.js";
import { busy, ImageError, locked, mismatch, system, usage } from "./errors.js";
import { type BaseRecord, headerBytes, isOverlay, layout, readOverlayHeader } from "./images/overlay/header.js";
import { overlay as format, withinFile } from "./images/overlay/index.js";
import type { Layer } from "./layers/layer.js";
import { OverlayDisk } from "./layers/overlay.js";
import { createOverlayMemory, type OverlayMemory } from "./layers/overlay-memory.js";
import { EWOULDBLOCK, errno, failure, flock, LOCK_EX, LOCK_NB } from "./libc.js";
import { PlainLayer } from "./unlocking.js";
import { version } from "./version.js";

/** The files of the image that is written over. */
class BaseFiles {
  constructor(
    /** The one that it is named by. */
    readonly top: FileSource,
    /** Those that it and its parents consist of besides, in the order of the chain. */
    private readonly others: readonly FileSource[],
  ) {}

  /** See BaseRecord. */
  get beneath(): string | undefined {
    if (this.others.length === 0) return undefined;
    const hash = createHash("sha256");
    for (const { size, modified } of this.others) hash.update(`${size} ${modified}\n`);
    return hash.digest("hex");
  }
}

/** What a thread needs to have the same disk: structured-cloneable. */
export interface OverlayData {
  readonly name: string;
  readonly fd: number;
  readonly memory: OverlayMemory;
}

export interface OpenedOverlay {
  readonly data: OverlayData;
  /** The main thread's own hand on the disk. */
  readonly disk: OverlayDisk;
  /** Whether it was there before. */
  readonly found: boolean;
  /** Closes the file; a temporary one is gone then. What isn't flushed may be lost. */
  close(): void;
}

/**
 * Opens the overlay at `path` over an image, or makes it there; without `path` makes one that nobody can find, which
 * vanishes with its descriptor.
 * @param threads that will write beside this one, numbered from 0
 * @throws ImageError: `mismatch` where it belongs to another image, `busy` where another process has it open, `usage` for
 *   a file that is no overlay, `system`
 */
export function openOverlay(opened: OpenedLayers, path: string | undefined, threads: number): OpenedOverlay {
  const top = topOf(opened);
  const { size } = opened.disk;
  const [file] = opened.data.files as readonly [LayersData["files"][number]];
  const image = new BaseFiles(
    FileSource.over(file.fd, file.path),
    opened.data.files.filter((each) => each !== file).map((each) => FileSource.over(each.fd, each.path)),
  );
  const place = path === undefined ? undefined : resolve(path);
  const found = place !== undefined && exists(place);
  const fd =
    place === undefined
      ? temporary(size, top, image)
      : found
        ? openAgain(place, top, image)
        : make(place, size, top, image);
  try {
    const name = place ?? `the temporary overlay of ${top.name}`;
    const { bitmapPosition, dataPosition } = layout(size);
    const saved = found ? new FileStore(name, fd, bitmapPosition, dataPosition - bitmapPosition) : undefined;
    const data = { name, fd, memory: createOverlayMemory(size, threads + 1, saved) };
    return { data, disk: overlayDisk(data, opened.layers, threads), found, close: () => closeSync(fd) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The disk in a thread. @param owner its number, see OverlayMemory */
export function overlayDisk({ name, fd, memory }: OverlayData, layers: readonly Layer[], owner: number): OverlayDisk {
  const { bitmapPosition, dataPosition } = layout(memory.size);
  const stores = {
    data: new FileStore(name, fd, dataPosition, memory.size),
    bitmap: new FileStore(name, fd, bitmapPosition, dataPosition - bitmapPosition),
  };
  return new OverlayDisk(layers[0]!.name, memory, stores, layers, owner);
}

/** The image that is written over. */
interface Top {
  readonly name: string;
  readonly layer: Layer;
  /** Where its disk is encrypted and the plain bytes are written over. */
  readonly encrypted?: BaseRecord["encrypted"];
}

function topOf({ layers: [first, second] }: OpenedLayers): Top {
  const { name, format } = first!;
  if (!(first instanceof PlainLayer)) return { name, layer: first! };
  return { name, layer: second!, encrypted: { with: format, size: second!.size } };
}

function exists(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw system(`opening ${path}`, error);
  }
}

function openAgain(path: string, top: Top, image: BaseFiles): number {
  let fd: number;
  try {
    fd = openSync(path, "r+");
  } catch (error) {
    throw system(`opening ${path} for writing`, error);
  }
  try {
    const source = FileSource.over(fd, path);
    if (source.kind !== "file" || !isOverlay(source))
      throw usage(`${path}: is there and is no overlay of Spindle's, so it is left alone. Name another file.`);
    lockAlone(fd, path);
    const { base } = readOverlayHeader(source).text;
    format
      .open(source, { path, cache: { source: () => source }, companion: () => source })
      .parent!.check(top.layer, image.top);
    if (base.encrypted?.with !== top.encrypted?.with)
      throw base.encrypted
        ? locked(
            `${path}: was written over the plain bytes of ${top.name}, which was encrypted with ${base.encrypted.with}. Give its password with --password-file FILE, or in the variable SPINDLE_PASSWORD.`,
          )
        : mismatch(
            `${path}: was written over ${top.name} as it is stored, encrypted with ${top.encrypted!.with}. Leave the password out.`,
          );
    if (base.contentRoot === undefined && base.beneath !== image.beneath)
      throw mismatch(
        `${path}: the files that ${top.name} consists of, or is based on, were changed since this overlay was written over them. Put them back as they were.`,
      );
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function lockAlone(fd: number, path: string): void {
  if (flock(fd, LOCK_EX | LOCK_NB) === 0) return;
  if (errno() === EWOULDBLOCK)
    throw busy(
      `${path}: another process has this overlay open: it is mounted, or read. Unmount that first, or name another file.`,
    );
  throw system(
    `${path}: keeping other processes out of it`,
    new Error(`${failure("flock").code}: its filesystem knows no locks; name an overlay on another`),
  );
}

/** A new overlay appears under its name when its header is durable. */
function make(path: string, size: number, top: Top, image: BaseFiles): number {
  const partial = join(dirname(path), `.${basename(path)}.${process.pid}.partial`);
  let fd: number | undefined;
  try {
    fd = openSync(partial, "wx+", 0o600);
    lockAlone(fd, path);
    writeHeader(fd, path, size, top, image);
    fsyncSync(fd);
    linkSync(partial, path); // unlike a rename it replaces nothing that came in between
    makeNamesDurable(dirname(path));
    return fd;
  } catch (error) {
    if (fd !== undefined) closeSync(fd);
    throw system(`making the overlay ${path}`, error);
  } finally {
    rmSync(partial, { force: true });
  }
}

function makeNamesDurable(folder: string): void {
  const fd = openSync(folder, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** TMPDIR, or else /var/tmp, which isn't kept in memory as /tmp often is. */
function temporary(size: number, top: Top, image: BaseFiles): number {
  const place = process.env.TMPDIR ?? (roomIn("/var/tmp") > 0 ? "/var/tmp" : tmpdir());
  let folder: string | undefined;
  try {
    folder = mkdtempSync(join(place, "spindle-overlay-"));
    const fd = openSync(join(folder, "overlay"), "wx+", 0o600);
    writeHeader(fd, place, size, top, image);
    return fd;
  } catch (error) {
    throw system(`making a temporary overlay in ${place} (TMPDIR chooses another folder)`, error);
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
}

function roomIn(folder: string): number {
  try {
    return statfsSync(folder).bavail;
  } catch {
    return 0;
  }
}

function writeHeader(fd: number, path: string, size: number, top: Top, image: BaseFiles): void {
  const text = { created: new Date().toISOString(), tool: `spindle ${version}`, base: recordOf(path, top, image) };
  try {
    ftruncateSync(fd, layout(size).fileSize);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EFBIG") throw error;
    throw new ImageError(
      "system",
      `${path}: its filesystem allows no file of ${layout(size).fileSize} bytes, which an overlay of this disk takes (it is sparse). Name one on a filesystem that does, such as XFS or Btrfs.`,
    );
  }
  writeSync(fd, headerBytes(size, text), 0, undefined, 0);
}

function recordOf(path: string, { layer, encrypted }: Top, image: BaseFiles): BaseRecord {
  const { id, contentRoot, snapshot } = layer.facts;
  const own =
    layer.format === "spin"
      ? { id: String(id), contentRoot: String(contentRoot) }
      : { fileSize: image.top.size, modified: image.top.modified, beneath: image.beneath };
  const place = image.top.name;
  const within = withinFile(layer.name);
  const record = {
    ...{ path: place, relative: relative(dirname(resolve(path)), place), format: layer.format, ...own },
    ...(within === "" ? {} : { within }),
    ...(encrypted ? { encrypted } : {}),
  };
  return snapshot === undefined ? record : { ...record, snapshot: String(snapshot) };
}
