/** What the system tells of a source: kept in the image's metadata. */
import { readFileSync, realpathSync, statSync } from "node:fs";
import { resolve } from "node:path";
import type { ByteSource } from "../bytes/byte-source.js";
import { readVolumes } from "../volumes/index.js";

export interface SourceFacts {
  readonly source: { readonly path: string; readonly kind: string; readonly model?: string; readonly serial?: string };
  readonly logicalSectorSize: number;
  readonly physicalSectorSize: number;
}

/** `disk` tells the sector size of a file, by its partition table. */
export function describeSource(path: string, disk: ByteSource): SourceFacts {
  const stat = statSync(path);
  if (!stat.isBlockDevice()) {
    const sector = readVolumes(disk).sectorSize;
    return {
      source: { path: resolve(path), kind: "file" },
      logicalSectorSize: sector,
      physicalSectorSize: sector,
    };
  }
  // A partition has no queue of its own: it stands in its disk's folder.
  const device = deviceFolder(stat.rdev);
  const facts = (name: string) => read(`${device}/${name}`) ?? read(`${device}/../${name}`);
  const logical = Number(facts("queue/logical_block_size")) || 512;
  const model = facts("device/model");
  const serial = facts("device/serial") ?? facts("serial");
  return {
    source: {
      path: resolve(path),
      kind: "block device",
      ...(model ? { model } : {}),
      ...(serial ? { serial } : {}),
    },
    logicalSectorSize: logical,
    physicalSectorSize: Number(facts("queue/physical_block_size")) || logical,
  };
}

/** The folder of a block device in sysfs, with links resolved. `rdev` as Linux packs it. */
export function deviceFolder(rdev: number): string {
  const major = Math.floor(rdev / 256) % 4096;
  const minor = (rdev % 256) + Math.floor(rdev / 2 ** 20) * 256;
  try {
    return realpathSync(`/sys/dev/block/${major}:${minor}`);
  } catch {
    return `/sys/dev/block/${major}:${minor}`;
  }
}

/** A small file's text; undefined where it isn't there. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim() || undefined;
  } catch {
    return undefined;
  }
}
