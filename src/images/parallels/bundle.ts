import { type ByteSource, Slice } from "../../bytes/byte-source.js";
import { corrupt, ImageError, missing, usage } from "../../errors.js";
import type { Surroundings } from "../../format.js";
import type { Integrity, Layer, Run } from "../../layers/layer.js";
import { settings } from "../../settings.js";
import { joinedIntegrity } from "../map-check.js";
import { recordedPaths } from "../recorded-paths.js";
import { type BundleDescriptor, noGuid, readDescriptor, type Storage } from "./descriptor.js";
import { HdsLayer } from "./hds.js";

/** What one file of a storage says: the newest first, a root last. */
interface Level extends Pick<Layer, "size" | "locate"> {
  readonly integrity?: Integrity;
}

/**
 * A whole bundle as one layer. Its snapshots lie in files that know nothing of each other, and a split disk's storages each
 * have their own, so that no file of it could be a layer of the chain: they are put together here.
 */
export class BundleLayer implements Layer {
  readonly format = "parallels";
  readonly parent = undefined;
  readonly name: string;
  readonly size: number;
  readonly facts: Record<string, unknown>;
  readonly integrity: Integrity | undefined;
  private readonly storages: readonly (Storage & { readonly levels: readonly Level[] })[];

  constructor(source: ByteSource, around: Surroundings) {
    this.name = source.name;
    const descriptor = readDescriptor(source);
    this.size = descriptor.size;
    const shots = lineOf(source.name, descriptor, around.options?.snapshot);
    if (shots.length * descriptor.storages.length > settings.deepestChain)
      throw corrupt(`${source.name}: names ${shots.length * descriptor.storages.length} files for one disk: too many.`);
    this.storages = descriptor.storages.map((storage) => ({
      ...storage,
      levels: shots.map((guid, nth) => openLevel(source.name, storage, guid, nth === shots.length - 1, around)),
    }));
    this.integrity = joinedIntegrity(
      this.storages.flatMap(({ start, levels }) =>
        levels.flatMap(({ integrity }) => (integrity ? [{ start, integrity }] : [])),
      ),
    );
    this.facts = {
      subformat: "bundle",
      storages: descriptor.storages.length,
      snapshot: shots[0],
      snapshots: [...descriptor.parents].map(([id, parent]) => ({ id, parent })),
    };
  }

  locate(position: number): Run {
    const { start, end, levels } = this.storages.findLast((storage) => storage.start <= position)!;
    let length = end - position;
    for (const level of levels) {
      const rest = level.size - (position - start);
      if (rest <= 0) continue; // the disk was made larger since
      const run = level.locate(position - start);
      length = Math.min(length, run.length, rest);
      if (run.kind !== "absent") return { ...run, length };
    }
    return { kind: "zero", length };
  }
}

/** GUIDs of a snapshot and its parents, the newest first. @throws ImageError for a line that doesn't end. */
function lineOf(name: string, { parents, top, storages }: BundleDescriptor, wanted: string | undefined): string[] {
  const first = wanted?.replace(/[{}]/g, "").toLowerCase() ?? top;
  if (parents.size === 0 && first === top) return [top];
  if (wanted !== undefined && !parents.has(first))
    throw usage(`${name}: has no snapshot ${wanted}. It has ${[...parents.keys()].slice(0, 20).join(", ")}.`);
  const line: string[] = [];
  for (let guid = first; guid !== noGuid; ) {
    const parent = parents.get(guid);
    if (parent === undefined) throw corrupt(`${name}: names the snapshot ${guid}, and doesn't describe it.`);
    if (line.includes(guid)) throw corrupt(`${name}: has the snapshot ${guid} as its own parent: a loop.`);
    line.push(guid);
    // Each has a file in each storage: a longer line than there are files is damage.
    if (line.length > storages[0]!.images.length) throw corrupt(`${name}: has more snapshots than files of them.`);
    guid = parent;
  }
  return line;
}

function openLevel(name: string, storage: Storage, guid: string, isRoot: boolean, around: Surroundings): Level {
  const image = storage.images.find((one) => one.guid === guid);
  if (!image) throw corrupt(`${name}: names no file of the snapshot ${guid} for disk byte ${storage.start}.`);
  const file = openFile(name, image.file, around);
  const length = storage.end - storage.start;
  if (!image.plain) {
    const layer = new HdsLayer(file, !isRoot);
    if (isRoot && layer.size < length)
      throw corrupt(`${file.name}: holds ${layer.size} bytes of disk, where ${name} tells of ${length}.`);
    return layer;
  }
  if (!isRoot) throw corrupt(`${name}: names ${image.file} as a plain file of changes, which can't be.`);
  if (file.size < length)
    throw corrupt(
      `${file.name}: has ${file.size} bytes, where ${name} tells of ${length}. It is truncated or damaged.`,
    );
  const part = new Slice(file.name, file, 0, length);
  return {
    size: length,
    locate(position) {
      const extent = file.extentAt?.(position) ?? { hole: false, length: length - position };
      const run = Math.min(extent.length, length - position);
      return extent.hole ? { kind: "zero", length: run } : { kind: "stored", length: run, source: part, at: position };
    },
  };
}

/** A file as the descriptor records it, or beside it where it was recorded on another machine. */
function openFile(name: string, recorded: string, around: Surroundings): ByteSource {
  let first: unknown;
  for (const path of recordedPaths([recorded]))
    try {
      return around.companion(path);
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "missing") throw error;
      first ??= error;
    }
  throw first ?? missing(`${name}: names a file without a usable name ("${recorded}"). The descriptor is damaged.`);
}
