/**
 * The first half of the assembly line (open.ts): a path → the layers of its chain → a disk.
 *
 * Files are opened once, by the main thread. A worker builds the same from the descriptors (`OpenedLayers.data`), never
 * from paths: after mounting, a path may lead into the mount itself.
 */
import { existsSync, realpathSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { ByteSource, WhileWaiting } from "./bytes/byte-source.js";
import type { ChunkCache } from "./bytes/chunk-cache.js";
import type { FileSource } from "./bytes/file.js";
import { endToEnd } from "./bytes/joined.js";
import { LocalChunkCache } from "./bytes/local-cache.js";
import { corrupt, ImageError, mismatch, missing, unsupported, usage } from "./errors.js";
import type { Surroundings } from "./format.js";
import type { FolderPart, ImageFormat, PartOfFolder, Wrapping } from "./images/image-format.js";
import { images } from "./images/index.js";
import { raw } from "./images/raw.js";
import { unread, unreadWords } from "./images/unread.js";
import { type Disk, LayeredDisk } from "./layers/disk.js";
import type { Integrity, Layer } from "./layers/layer.js";
import { type FilesData, imageFormat, OpenFiles, type OpeningOptions, recognised } from "./open-files.js";
import { type OpenPacked, type PassState, packingOf } from "./packed/index.js";
import { pieceSize } from "./packed/packing.js";
import { refusePartElsewhere, refuseRawBaseElsewhere } from "./recorded-files.js";
import { settings } from "./settings.js";
import { partsOf } from "./split-files.js";
import { type Keys, plainWithin } from "./unlocking.js";

/** What to open and how to show it. Plain data. */
export interface ImageSpec {
  readonly path: string;
  /** Where a parent is that isn't where it is recorded: taken for the layer of the chain that it is the parent of. */
  readonly parent?: string;
  /** The format, when it isn't to be found by signature: a name of images/index.ts, for example `raw`. */
  readonly format?: string;
  /** An older state of the disk that the image keeps inside itself, by id or name; default: the present state. */
  readonly snapshot?: string;
  /** What the image and its parents, or the disk in it, are encrypted with: of a text its UTF-8. */
  readonly password?: Uint8Array;
  /** The same in another way that it may be meant: of a file that ends in a newline, with that. Of encrypted disks only. */
  readonly passwordInFull?: Uint8Array;
  /** Take an encrypted disk as it is stored, though there is a password: for the image's own encryption. */
  readonly asStored?: boolean;
  /** Of a file that holds several disks (an OVA) this one, by its name there. */
  readonly disk?: string;
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
  /** All of the disk is read, to be copied: checksums of far more than is asked for at a time are compared then too. */
  readonly copied?: boolean;
}

/** An image and its parents, open. */
export interface OpenedLayers {
  /** Newest first. */
  readonly layers: readonly Layer[];
  /** For each layer what it is wrapped in (images/image-format.ts), outermost first; mostly nothing. */
  readonly wrappings: readonly (readonly Wrapping[])[];
  readonly disk: Disk;
  /** Bytes of the largest chunk that goes through the cache; 0 when none does. */
  readonly chunkSize: number;
  /** How far compressed files are gone through, of the opening thread's layers. */
  passes(): PassState[];
  /** What another thread needs to build the same from the open descriptors: structured-cloneable. */
  readonly data: LayersData;
  /** For what is encrypted within the disk. */
  readonly keys: Keys;
  close(): void;
}

export interface LayersData extends FilesData {
  readonly spec: ImageSpec;
}

/**
 * Opens an image and all its parents.
 * @throws ImageError: `missing` or `mismatch` for a parent that isn't there or is another, naming both files.
 */
export function openLayers(
  spec: ImageSpec,
  cache: ChunkCache = new LocalChunkCache(settings.cacheBytes),
  options: OpeningOptions = {},
): OpenedLayers {
  const files = new OpenFiles({ ...options, trusting: spec.trustPaths });
  try {
    if (spec.parent !== undefined && !files.has(resolve(spec.parent)))
      throw missing(`--parent ${spec.parent}: there is no such file.`);
    // A base is looked for from the folder in which the image really lies, not from that of a link to it.
    const path = existsSync(spec.path) ? realpathSync(spec.path) : resolve(spec.path);
    const absolute = { ...spec, path, ...bundle(path, files), parent: spec.parent && resolve(spec.parent) };
    const links = openChain(absolute, files, cache);
    const { table, folders, remembered } = files;
    return assembled(links, { spec: absolute, files: table, folders, remembered }, files, () => files.closeFrom(0));
  } catch (error) {
    files.closeFrom(0);
    throw error;
  }
}

/** Where a folder is an image, the file in it that is opened for it, and its format. */
function bundle(folder: string, files: OpenFiles): Pick<ImageSpec, "path" | "format"> | undefined {
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return undefined;
  const names = new Set(files.in(folder));
  for (const { name, fileOf } of images) {
    const file = fileOf?.(names);
    if (file !== undefined) return { path: resolve(folder, file), format: name };
  }
  return undefined;
}

/** The same layers in another thread, over the descriptors of the first. Closing them is left to the first. */
export function reopenLayers(data: LayersData, cache: ChunkCache, whileWaiting?: WhileWaiting): OpenedLayers {
  const files = new OpenFiles({ whileWaiting }, data);
  return assembled(openChain(data.spec, files, cache), data, files, () => {});
}

function assembled(links: readonly Link[], data: LayersData, files: OpenFiles, close: () => void): OpenedLayers {
  const layers = links.map(({ layer }) => layer);
  const wrappings = links.map((link) => link.wrappings);
  const { password, passwordInFull, asStored = false } = data.spec;
  const keys: Keys = {
    passwords: [password, passwordInFull].filter((one) => one !== undefined),
    remember: (name, compute) => files.remember(name, compute),
  };
  const plain = plainWithin(layers, keys, asStored);
  if (plain) {
    layers.splice(plain.place, 0, plain.layer);
    wrappings.splice(plain.place, 0, []);
  }
  const chunkSize = Math.max(0, ...[...layers, ...wrappings.flat()].map((part) => part.chunkSize ?? 0));
  const disk = new LayeredDisk(layers[0]!.name, layers);
  return { layers, wrappings, disk, chunkSize, data, keys, passes: () => files.passes, close };
}

/** A layer and where it was found: its name is a path only where nothing is around it. */
interface Link {
  readonly layer: Layer;
  readonly path: string;
  /** The same for all paths to it. */
  readonly identity: string;
  readonly wrappings: readonly Wrapping[];
}

function openChain(spec: ImageSpec, files: OpenFiles, cache: ChunkCache): Link[] {
  const { snapshot, password, disk, copied } = spec;
  const chosen = { snapshot, password, disk, copied };
  const links = [openLink(resolve(spec.path), formatNamed(spec.format), files, cache, chosen)];
  const seen = new Set([links[0]!.identity]);
  let given = spec.parent === undefined ? undefined : resolve(spec.parent);
  for (let link = links[0]!; link.layer.parent; link = links.at(-1)!) {
    const { name } = link.layer;
    if (links.length >= settings.deepestChain)
      throw corrupt(`${name}: is layer ${links.length} of a chain; so many are taken for a loop.`);
    const parent = openParent(link, given, files, cache, { password, copied });
    if (seen.has(parent.identity))
      throw corrupt(`${name}: has ${parent.layer.name} as its base, which is above it in the chain already: a loop.`);
    seen.add(parent.identity);
    if (parent.path === given) given = undefined;
    links.push(parent);
  }
  if (given !== undefined && links.length === 1)
    throw usage(`${spec.path}: is a whole image without parent; leave --parent out.`);
  if (given !== undefined)
    throw mismatch(
      `--parent ${spec.parent}: is not the base of any layer of ${spec.path}, whose bases were all found without it; leave it out.`,
    );
  return links;
}

function formatNamed(name: string | undefined): ImageFormat | undefined {
  if (name === undefined) return undefined;
  const known = images.filter((one) => one !== unread);
  const format = known.find((one) => one.name === name);
  if (!format) throw usage(`there is no image format ${name}; known are ${known.map((one) => one.name).join(", ")}.`);
  return format;
}

function openLink(
  path: string,
  format: ImageFormat | undefined,
  files: OpenFiles,
  cache: ChunkCache,
  options: Surroundings["options"],
  unpacks = true,
): Link {
  const file = files.open(path);
  const wrappings: Wrapping[] = [];
  // What is named is that, unless the file is packed and its content is to be that: any bytes can be a raw disk.
  const isNamed = format !== undefined && (format.recognises(file) || packingOf(file) === undefined);
  const parts = isNamed ? [file] : partsOf(file, files, recognised, wrappings);
  const whole = endToEnd(parts);
  const found = isNamed ? format : recognised(whole);
  const unpacked = !isNamed && found === raw && unpacks ? files.unpack(parts) : undefined;
  if (unpacked) wrappings.push(wrappingOf(path, unpacked.file));
  else if (!isNamed) refusePacked(whole, found);
  const outer = unpacked?.format ?? found;
  if (outer.changes) files.holdStill(path);
  const beside = (name: string): FileSource => {
    const companion = resolve(dirname(path), name);
    if (!files.has(companion)) throw missing(`${path}: needs ${companion}, which is not there.`);
    if (files.wary) refusePartElsewhere(path, companion, outer.isFolder);
    return files.open(companion);
  };
  const open = (
    source: ByteSource,
    used: ImageFormat,
    chosen: Surroundings["options"],
    companion: Surroundings["companion"],
    depth: number,
  ): Layer => {
    refuseIdleChoices(source.name, used, chosen);
    return used.open(source, {
      path,
      cache,
      options: chosen,
      companion,
      remember: (name, compute) => files.remember(name, compute),
      beside: () => files.names(dirname(path)),
      imageIn(inner, wrapping) {
        if (depth >= settings.deepestWrapping)
          throw unsupported(
            `${path}: holds images packed within each other more than ${settings.deepestWrapping} deep. Unpack it first.`,
          );
        if (wrapping) wrappings.push(wrapping);
        const left = used.hasDisks ? { ...chosen, disk: undefined } : chosen;
        const within = wrapping?.companion ? (name: string) => wrapping.companion!(name) : companion;
        const format = recognised(inner);
        refusePacked(inner, format);
        return open(inner, format, left, within, depth + 1);
      },
      imageOf(names, as): PartOfFolder {
        const parts = names.map(beside);
        const content = as.packing === "none" ? undefined : files.unpack(parts, as);
        const packed = content && wrappingOf(parts[0]!.name, content.file);
        if (packed && as.alone) wrappings.push(packed);
        const inner = content?.file.content(cache) ?? endToEnd(parts);
        const format = imageFormat(as.format);
        refuseOther(inner, packed?.format, as, format);
        const left = used.hasDisks ? { ...chosen, disk: undefined } : chosen;
        const layer = open(inner, format, left, companion, depth + 1);
        return { layer, ...(packed && !as.alone && { packed }) };
      },
    });
  };
  const layer = open(unpacked?.file.content(cache) ?? whole, outer, options, beside, 0);
  const identity = wrappings.length === 0 ? file.identity : `${file.identity} ${layer.name}`;
  return { layer, path, identity, wrappings };
}

/** @throws ImageError where what is in a folder isn't what it should be */
function refuseOther(source: ByteSource, packing: string | undefined, as: FolderPart, format: ImageFormat): void {
  const { name } = source;
  const other = packing === undefined && as.packing !== "none" ? unreadWords(source) : undefined;
  if (other) throw unsupported(`${name}: ${other}`);
  if (as.packing !== undefined && as.packing !== (packing ?? "none"))
    throw corrupt(`${name}: should be compressed with ${as.packing} by its name, and is not. It is damaged.`);
  if (!format.recognises(source))
    throw unsupported(`${name}: should hold an image of ${format.name}, and holds none that can be read.`);
}

/** Taken for a raw disk, packed bytes would be served as if they were the disk's. */
function refusePacked(source: ByteSource, format: ImageFormat): void {
  const packing = format === raw ? packingOf(source) : undefined;
  if (packing)
    throw unsupported(
      `${source.name}: is compressed with ${packing.name} within another file, where Spindle does not read it. Unpack it first.`,
    );
}

/** What a compression adds to the image in it. */
function wrappingOf(path: string, file: OpenPacked): Wrapping {
  let integrity: { readonly of: Integrity | undefined } | undefined;
  return {
    name: path,
    format: file.data.packing,
    chunkSize: pieceSize,
    get facts() {
      return file.facts;
    },
    get integrity() {
      integrity ??= { of: file.integrity() };
      return integrity.of;
    },
  };
}

/** A choice that the file has no use for is a mistake: it must not seem to be heeded. */
function refuseIdleChoices(name: string, used: ImageFormat, chosen: Surroundings["options"]): void {
  if (chosen?.snapshot !== undefined && !used.hasSnapshots && !used.wraps)
    throw usage(`${name}: is a ${used.name} image, which keeps no snapshots inside; leave the snapshot out.`);
  if (chosen?.disk !== undefined && !used.hasDisks && !used.wraps)
    throw usage(`${name}: is a ${used.name} image, which is of one disk; leave --disk out.`);
}

/** The parent of `child`: the file given, or the first of those recorded, that is there and is the right one. */
function openParent(
  link: Link,
  given: string | undefined,
  files: OpenFiles,
  cache: ChunkCache,
  options: Surroundings["options"],
): Link {
  const child = link.layer;
  const reference = child.parent!;
  const format = images.find((one) => one.name === reference.format);
  const folder = dirname(link.path);
  const recorded = reference.paths.map((path) => resolve(folder, path));
  // Where a wrong file can't be told, the one that is named goes to the layer whose recorded parent isn't there.
  const candidates =
    given === undefined ? recorded : reference.identified === false ? [...recorded, given] : [given, ...recorded];
  let refusal: unknown;
  for (const path of candidates) {
    if (!files.has(path)) continue;
    const before = files.count;
    try {
      const parent = openLink(path, format, files, cache, options);
      reference.check(parent.layer, files.open(path));
      if (files.wary && path !== given && reference.identified === false && parent.layer.format === raw.name)
        refuseRawBaseElsewhere(link.path, path);
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
  const found = reference.identified === false ? undefined : findMoved(link, files, options);
  if (found instanceof ImageError) throw refusal ?? found;
  // A child that records its parent's identity and no path leaves nothing else to go by.
  if (found && candidates.length === 0) return openLink(found, format, files, cache, options);
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
function findMoved(child: Link, files: OpenFiles, options: Surroundings["options"]): string | ImageError | undefined {
  let changed: ImageError | undefined;
  const own = dirname(child.path);
  const reference = child.layer.parent!;
  const folders = reference.paths.length === 0 ? [own, dirname(own)] : [own];
  const near = folders.flatMap((folder) =>
    files
      .in(folder)
      .slice(0, settings.filesSearchedForParent)
      .map((name) => resolve(folder, name)),
  );
  for (const path of near) {
    if (path === child.path) continue;
    const before = files.count;
    try {
      // To go through every compressed file of a folder would take too long.
      const link = openLink(path, undefined, files, new LocalChunkCache(0), options, false);
      reference.check(link.layer, files.open(path));
      return path;
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      if (error.changed) changed ??= error; // otherwise it is none of its business
    } finally {
      files.closeFrom(before);
    }
  }
  return changed;
}
