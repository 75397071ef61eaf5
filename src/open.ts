/**
 * The assembly line: path → layers → disk → volumes → filesystems → view. Only this file, with chain.ts for its first
 * half, knows that more than one stage exists.
 */
import { createHash } from "node:crypto";
import { type ByteSource, Slice, type WhileWaiting } from "./bytes/byte-source.js";
import type { ChunkCache, PackedChunks } from "./bytes/chunk-cache.js";
import { LocalChunkCache } from "./bytes/local-cache.js";
import { type ImageSpec, type LayersData, type OpenedLayers, openLayers, reopenLayers } from "./chain.js";
import { ImageError, missing, unsupported, usage } from "./errors.js";
import type { FileSystem } from "./filesystems/filesystem.js";
import { filesystems, optical } from "./filesystems/index.js";
import { identify, type Unread } from "./filesystems/unread/index.js";
import type { Format, Surroundings } from "./format.js";
import type { Disk } from "./layers/disk.js";
import type { Layer } from "./layers/layer.js";
import type { Waiting } from "./packed/waiting.js";
import { settings } from "./settings.js";
import { encryptionOf, type Keys, PlainLayer, unlock } from "./unlocking.js";
import { diskView, writableDiskView } from "./view/disk-view.js";
import type { Face } from "./view/faces/face.js";
import { faceNames, facesOf } from "./view/faces/index.js";
import { filesView } from "./view/files-view.js";
import { readVolumes } from "./volumes/index.js";
import type { Volume, VolumeTable } from "./volumes/volume.js";
import { type OpenedOverlay, type OverlayData, openOverlay, overlayDisk } from "./writable.js";

export { type FaceName, faceNames } from "./view/faces/index.js";
export type { ImageSpec };

export interface OpenedImage extends OpenedLayers {
  readonly table: VolumeTable;
  /** For TreeSpec.data, with `buildTree` as the function. */
  readonly treeData: TreeData;
}

/** A place where a filesystem may be: a partition, or the whole disk where there are none. */
export interface FoundVolume {
  /** Its folder in the files view: `p1`, or `disk` for a disk without partitions. */
  readonly name: string;
  readonly volume: Volume | undefined;
  /** The filesystem, where it could be opened. */
  readonly tree: FileSystem | undefined;
  /** Why a filesystem that is there could not be opened. */
  readonly problem: ImageError | undefined;
  /** What is there instead, where Spindle knows it and doesn't read it. To ask reads what is told by it. */
  readonly unread: Unread | undefined;
  /** What the place is encrypted with and was opened from, with what that tells. */
  readonly encryption?: { readonly name: string; readonly facts: Record<string, unknown> };
}

/** An image with its filesystems. */
export interface OpenedFiles extends OpenedImage {
  readonly found: readonly FoundVolume[];
  /** The filesystem's own tree when it is the only one or was named; otherwise a folder for each. */
  readonly tree: FileSystem;
}

interface TreeData {
  readonly layers: LayersData;
  readonly created: { readonly seconds: number; readonly nanoseconds: number };
  /** The partitions as they were found: what is written, or unpacked by then, may lead another thread to others. */
  readonly table: VolumeTable;
  /** Of a disk that can be written to. */
  readonly overlay?: OverlayData;
}

/** An image with a writable top. */
export interface OpenedWritable extends OpenedImage {
  readonly overlay: OpenedOverlay;
}

/** Opens an image with its parents and its partition table. `waiting` is told when a compressed file takes long. */
export function openImage(spec: ImageSpec, cache?: ChunkCache, waiting?: Waiting): OpenedImage {
  return openTree(spec, cache, waiting, (image) => {
    facesFor(image); // what can't be shown is refused before anything is mounted
    return image;
  });
}

/**
 * Opens an image and the overlay that is written to in its place.
 * @param path of the overlay, which is made where there is none; undefined for a temporary one
 * @param threads that will write
 */
export function openWritable(
  spec: ImageSpec,
  path: string | undefined,
  threads: number,
  waiting?: Waiting,
): OpenedWritable {
  return openTree(spec, undefined, waiting, (image) => {
    const overlay = openOverlay(image, path, threads);
    const close = () => {
      overlay.close();
      image.close();
    };
    try {
      facesFor(image);
      const table = volumesOf(image, overlay.disk);
      const treeData = { ...image.treeData, table, overlay: overlay.data };
      return { ...image, disk: overlay.disk, table, treeData, overlay, close };
    } catch (error) {
      overlay.close();
      throw error;
    }
  });
}

/**
 * Opens an image and looks for filesystems; there may be none, or none that can be read.
 * @param watched what the filesystems read from, made of the disk; by default the disk
 */
export function openFound(
  spec: ImageSpec,
  cache?: ChunkCache,
  waiting?: Waiting,
  watched: (disk: Disk) => Disk = (disk) => disk,
): OpenedImage & Pick<OpenedFiles, "found"> {
  return openTree(spec, cache, waiting, (image, measured) => ({
    ...image,
    found: findFileSystems({ ...image, disk: watched(image.disk) }, image.table, measured),
  }));
}

/**
 * Opens an image and the filesystems in it.
 * @throws ImageError when there is none that can be read, or none that `spec.volume` names: the message lists what is there
 */
export function openFiles(spec: ImageSpec, cache?: ChunkCache, waiting?: Waiting): OpenedFiles {
  return openTree({ ...spec, view: "files" }, cache, waiting, (image, measured) => {
    const found = findFileSystems(image, image.table, measured);
    const tree = filesView(chosen(spec, image.layers, found), image.treeData.created);
    return { ...image, found, tree, chunkSize: measured.largest };
  });
}

function openTree<Opened extends OpenedImage>(
  spec: ImageSpec,
  cache: ChunkCache | undefined,
  waiting: Waiting | undefined,
  complete: (image: OpenedImage, measured: MeasuredCache) => Opened,
): Opened {
  const measured = new MeasuredCache(cache ?? new LocalChunkCache(settings.cacheBytes));
  const opened = openLayers(spec, measured, { trust: spec.view === "files" ? "files" : "disk", waiting });
  try {
    const table = volumesOf(opened);
    const created = { seconds: Math.floor(Date.now() / 1000), nanoseconds: 0 };
    return complete({ ...opened, table, treeData: { layers: opened.data, created, table } }, measured);
  } catch (error) {
    opened.close();
    throw error;
  }
}

/** A cache that remembers the largest chunk it was asked to keep. */
class MeasuredCache implements ChunkCache {
  largest = 0;

  constructor(private readonly inner: ChunkCache) {}

  source(packed: PackedChunks): ByteSource {
    this.largest = Math.max(this.largest, packed.chunkSize);
    return this.inner.source(packed);
  }
}

/** The name of the whole disk among the places of filesystems. */
const wholeDisk = "disk";

/** Looks for a filesystem in each partition; on a disk without partitions on the whole disk. */
function findFileSystems(opened: OpenedLayers, table: VolumeTable, cache: ChunkCache): FoundVolume[] {
  const { disk, keys } = opened;
  const { codePage, session } = opened.data.spec;
  const options = { codePage, session };
  const parts = table.volumes.map((volume) => {
    const source = new Slice(`${disk.name} > partition ${volume.number}`, disk, volume.position, volume.size);
    return place(`p${volume.number}`, volume, lookedInto(source, cache, options, keys));
  });
  // A disk with partitions is itself a place only where it is a hybrid ISO as well, or nothing known is in any of them.
  const known =
    parts.some(({ tree, problem }) => tree || problem) || parts.some(({ unread }) => unread && !unread.isTable);
  const whole = known
    ? { source: disk, ...openFileSystem(disk, optical, cache, options) }
    : lookedInto(disk, cache, options, keys);
  return parts.length > 0 && !whole.tree ? parts : [place(wholeDisk, undefined, whole), ...parts];
}

/** What a place turned out to be, and the bytes in which it was looked for: plain ones, where they could be decrypted. */
type Contents = Pick<FoundVolume, "tree" | "problem" | "encryption"> & { readonly source: ByteSource };

function lookedInto(source: ByteSource, cache: ChunkCache, options: Surroundings["options"], keys: Keys): Contents {
  const encryption = encryptionOf(source);
  if (!encryption) return { source, ...openFileSystem(source, filesystems, cache, options) };
  try {
    const plain = unlock(encryption, source, keys, 1);
    const { name } = encryption;
    return {
      source: plain.source,
      ...openFileSystem(plain.source, filesystems, cache, options),
      encryption: { name, facts: plain.facts },
    };
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return { source, tree: undefined, problem: error };
  }
}

/** What isn't read is looked for when somebody asks: its signature may be far into a packed file. */
function place(name: string, volume: Volume | undefined, { source, ...contents }: Contents): FoundVolume {
  let unread: { readonly found: Unread | undefined } | undefined;
  return {
    name,
    volume,
    ...contents,
    get unread() {
      unread ??= { found: contents.tree ? undefined : identified(source) };
      return unread.found;
    },
  };
}

/** Undefined also where the image is damaged: whoever reads it is told. */
function identified(source: ByteSource): Unread | undefined {
  try {
    return identify(source);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return undefined;
  }
}

/** The first of `formats` that recognises the bytes and can open them; else why the first that recognised them couldn't. */
function openFileSystem(
  source: ByteSource,
  formats: readonly Format<FileSystem>[],
  cache: ChunkCache,
  options: Surroundings["options"],
): Pick<FoundVolume, "tree" | "problem"> {
  let problem: ImageError | undefined;
  for (const format of formats) {
    try {
      if (!format.recognises(source)) continue;
      return {
        tree: format.open(source, { path: source.name, cache, options, companion: noCompanion }),
        problem: undefined,
      };
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      problem ??= error;
    }
  }
  return { tree: undefined, problem };
}

/**
 * The filesystem of one partition of an opened image; undefined where there is none that Spindle knows.
 * @throws ImageError why one that is there can't be read
 */
export function fileSystemOf({ disk, table }: OpenedImage, number: number): FileSystem | undefined {
  const volume = table.volumes.find((each) => each.number === number);
  if (!volume) return undefined;
  const source = new Slice(`${disk.name} > partition ${number}`, disk, volume.position, volume.size);
  const { tree, problem } = openFileSystem(source, filesystems, new LocalChunkCache(settings.cacheBytes), {});
  if (problem) throw problem;
  return tree;
}

function noCompanion(path: string): never {
  throw missing(`${path}: a filesystem has no other files`);
}

/** The places that a number or label means: a filesystem's label comes before that of a partition in its table. */
function namedBy(found: readonly FoundVolume[], word: string): readonly FoundVolume[] {
  const named = found.filter(
    ({ name, tree, volume }) => name === word || `${volume?.number}` === word || tree?.label === word,
  );
  return named.length > 0 ? named : found.filter(({ volume }) => word !== "" && volume?.label === word);
}

/** The filesystems that the view shows: all that could be opened, or the one that is named. */
function chosen(
  spec: ImageSpec,
  layers: readonly Layer[],
  found: readonly FoundVolume[],
): { name: string; tree: FileSystem }[] {
  const isUnlocked = layers.some((layer) => layer instanceof PlainLayer || layer.facts.encryption !== undefined);
  const { volume, path } = spec;
  const named = volume === undefined ? found : namedBy(found, volume);
  const readable = named.flatMap(({ name, tree }) => (tree ? [{ name, tree }] : []));
  const shut = named.find(({ problem }) => problem?.code === "locked")?.problem;
  // A password that opens nothing is wrong; one that opened the image itself may be for nothing else.
  if (shut && spec.password !== undefined && !isUnlocked && named.every(({ encryption }) => !encryption)) throw shut;
  if (volume !== undefined && readable.length > 1)
    throw usage(
      `${path}: ${readable.length} filesystems are called ${volume} (${readable.map(({ name }) => name).join(", ")}); name one by its number.`,
    );
  if (volume === undefined && readable[0]?.name === wholeDisk) return readable.slice(0, 1);
  if (readable.length > 0) return readable;
  const problem = shut ?? named.find((one) => one.problem)?.problem;
  if (problem) throw problem;
  const list = found.map(
    (one) => `${one.name}${one.tree ? ` (${one.tree.type}${one.tree.label && ` "${one.tree.label}"`})` : ""}`,
  );
  if (volume !== undefined && named.length === 0)
    throw usage(`${path}: has no volume ${volume}. It has ${list.join(", ")}.`);
  throw unsupported(
    `${path}: holds no filesystem that Spindle reads${volume === undefined ? "" : ` in ${volume}`}${unreadInWords(named)}. Mount it with --as disk to get at its bytes.`,
  );
}

/** `: p1 is an XFS filesystem "root", p2 is encrypted with LUKS`; empty where nothing is known. */
function unreadInWords(found: readonly FoundVolume[]): string {
  const known = found.flatMap(({ name, unread }) => {
    if (!unread) return [];
    const label = unread.label && ` ${JSON.stringify(unread.label)}`;
    return [`${name === wholeDisk ? "it" : name} is ${unread.what}${label}`];
  });
  return known.length > 0 ? `: ${known.join(", ")}` : "";
}

/**
 * The tree that a mount shows, built in whichever thread serves it (fuse/driver.ts).
 * @param worker the thread's number, from 0
 */
export function buildTree(data: unknown, cache: ChunkCache, worker: number, whileWaiting?: WhileWaiting): FileSystem {
  const { layers, created, table, overlay } = data as TreeData;
  const opened = reopenLayers(layers, cache, whileWaiting);
  if (layers.spec.view === "files")
    return filesView(chosen(layers.spec, opened.layers, findFileSystems(opened, table, cache)), created);
  const more = { created, faces: facesFor(opened) };
  return overlay
    ? writableDiskView(overlayDisk(overlay, opened.layers, worker), table, more)
    : diskView(opened.disk, table, more);
}

/** The faces that are asked for. An image has the same identity in them whenever it is mounted. */
function facesFor({ data: { spec }, layers, disk }: OpenedLayers): Face[] {
  const top = layers[0]!;
  const identity = `${top.facts.id ?? top.name} ${top.facts.snapshot ?? ""} ${disk.size}`;
  const wanted = faceNames.filter((name) => spec.faces?.includes(name));
  const id = createHash("sha256").update(identity).digest().subarray(0, 16);
  // A moment that stays the same, too: programs compare it with what they remember.
  return facesOf(top.name, wanted, { size: disk.size, id, created: 0 });
}

/**
 * The partitions. An MBR doesn't tell how large its sectors are: where the image doesn't either, they are of 4 KiB if that
 * leads to filesystems or encrypted volumes and 512 bytes lead to none.
 */
function volumesOf(opened: OpenedLayers, disk: Disk = opened.disk): VolumeTable {
  const sectorSize = sectorSizeOf(opened);
  const table = readVolumes(disk, sectorSize);
  if (table.scheme !== "mbr" || sectorSize !== undefined || leadsToContents(disk, table)) return table;
  const larger = readVolumes(disk, 4096);
  if (larger.scheme !== "mbr" || !leadsToContents(disk, larger)) return table;
  const warning =
    "The MBR is taken to count in sectors of 4096 bytes: counted so it leads to what is in its partitions.";
  return { ...larger, warnings: [warning, ...larger.warnings] };
}

function leadsToContents(disk: Disk, { volumes }: VolumeTable): boolean {
  return volumes.some(({ number, position, size }) => {
    const source = new Slice(`${disk.name} > partition ${number}`, disk, position, size);
    try {
      return encryptionOf(source) !== undefined || filesystems.some((format) => format.recognises(source));
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return false;
    }
  });
}

function sectorSizeOf({ layers }: OpenedLayers): number | undefined {
  const top = layers.find((layer) => !(layer instanceof PlainLayer))!;
  const sectorSize = top.facts.logicalSectorSize;
  return typeof sectorSize === "number" ? sectorSize : undefined;
}
