import type { ByteSource } from "../bytes/byte-source.js";
import { apm } from "./apm.js";
import { gpt } from "./gpt.js";
import { mbr } from "./mbr.js";
import type { VolumeScheme, VolumeTable } from "./volume.js";

/**
 * Kinds of tables in the order in which they are tried. A GPT disk has a protective MBR, so GPT comes before MBR. An Apple
 * partition map goes between them: the first sector of its disk may also end as an MBR does, without an entry.
 */
const schemes: readonly VolumeScheme[] = [gpt, apm, mbr];

/**
 * The volumes of a disk. Never throws for what the disk holds: a damaged table gives the volumes that are sound, and
 * warnings; a disk without a table, or with a filesystem from its first sector on, gives scheme `none`.
 * @param sectorSizeHint the disk's logical sectors in bytes, where the image or the device tells; otherwise 512 is taken
 *   for an MBR, and a GPT shows by itself whether it counts in 512 or 4096 bytes.
 */
export function readVolumes(disk: ByteSource, sectorSizeHint?: number): VolumeTable {
  const sound = sectorSizeHint === undefined || isSectorSize(sectorSizeHint);
  const hint = sound ? sectorSizeHint : undefined;
  const remarks = sound ? [] : [`A sector size of ${sectorSizeHint} bytes can't be; 512 is taken.`];
  for (const scheme of schemes) {
    const table = scheme.read(disk, hint);
    if (table) return { ...table, warnings: bounded([...remarks, ...table.warnings]) };
  }
  return { scheme: "none", sectorSize: hint ?? 512, id: "", volumes: [], warnings: remarks };
}

/** A hostile table can be wrong in thousands of places; a person reads some. */
const mostWarnings = 50;

const bounded = (warnings: readonly string[]) =>
  warnings.length <= mostWarnings
    ? warnings
    : [
        ...warnings.slice(0, mostWarnings),
        `${warnings.length - mostWarnings} more warnings of this kind are left out.`,
      ];

const isSectorSize = (size: number) => size >= 512 && size <= 65536 && Number.isInteger(Math.log2(size));
