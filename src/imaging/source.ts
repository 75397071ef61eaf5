/** What the system tells of a source: kept in the image's metadata. */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import type { ByteSource } from "../bytes/byte-source.js";
import { readVolumes } from "../volumes/index.js";
import { deviceFacts, deviceFolder } from "./device-facts.js";

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
  const { logicalSectorSize, physicalSectorSize, ...named } = deviceFacts(deviceFolder(stat.rdev));
  return { source: { path: resolve(path), kind: "block device", ...named }, logicalSectorSize, physicalSectorSize };
}
