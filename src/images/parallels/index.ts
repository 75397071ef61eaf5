import { basename } from "node:path";
import type { ByteSource } from "../../bytes/byte-source.js";
import { ImageError, unsupported, usage } from "../../errors.js";
import type { Surroundings } from "../../format.js";
import type { ImageFormat } from "../image-format.js";
import { BundleLayer } from "./bundle.js";
import { descriptorName, isDescriptor, noGuid, readDescriptor } from "./descriptor.js";
import { HdsLayer, isHds } from "./hds.js";

/** Parallels' disks: an expanding disk (.hds) by itself, and a bundle of them, which is a folder (.hdd) with a DiskDescriptor.xml. */
export const parallels: ImageFormat = {
  name: "parallels",
  hasSnapshots: true,
  fileOf: (names) => (names.has(descriptorName) ? descriptorName : undefined),
  recognises: (source) => isHds(source) || isDescriptor(source),
  open(source, around) {
    if (isDescriptor(source)) return new BundleLayer(source, around);
    if (around.options?.snapshot !== undefined)
      throw usage(`${source.name}: keeps no snapshots inside; open the ${descriptorName} beside it, which names them.`);
    refusePart(source.name, around);
    return new HdsLayer(source);
  },
};

/**
 * A snapshot's .hds holds what changed since its parent, and only the bundle's descriptor says so: read by itself it would
 * have zeros for the rest. One part of a split disk is no disk either.
 */
function refusePart(name: string, around: Surroundings): void {
  let source: ByteSource;
  try {
    source = around.companion(descriptorName);
  } catch (error) {
    if (error instanceof ImageError && error.code === "missing") return; // a disk by itself
    throw error;
  }
  const { storages, parents } = readDescriptor(source);
  for (const { images } of storages)
    for (const { file, guid } of images) {
      if (file.split(/[\\/]/).at(-1) !== basename(name)) continue;
      if (storages.length > 1)
        throw unsupported(`${name}: is one part of a split Parallels disk. Open ${source.name}, which joins them.`);
      const parent = parents.get(guid) ?? noGuid;
      if (parent !== noGuid)
        throw unsupported(
          `${name}: holds only what changed since a Parallels snapshot (${parent}). Open ${source.name}, which joins them.`,
        );
    }
}
