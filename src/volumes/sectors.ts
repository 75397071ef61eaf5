import { type ByteSource, readExactly } from "../bytes/byte-source.js";
import { ImageError } from "../errors.js";
import type { Volume } from "./volume.js";

/**
 * `length` bytes at `position`, or undefined where the disk ends before. Bytes that can't be read (a damaged chunk, a
 * bad sector) are a warning, so that the rest of a table is still found.
 */
export function readOrWarn(
  disk: ByteSource,
  position: number,
  length: number,
  what: string,
  warnings: string[],
): Buffer | undefined {
  if (position + length > disk.size) return undefined;
  try {
    return readExactly(disk, position, length, what);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    warnings.push(`${what} can't be read: ${error.message}`);
    return undefined;
  }
}

/**
 * What lies within the disk of a partition at sector `first` (`count` sectors), as Linux has it: cut where it goes
 * beyond the disk's end, left out (undefined) where it starts there; either is told in `warnings`.
 */
export function withinDisk(
  disk: ByteSource,
  sectorSize: number,
  number: number,
  first: number | bigint,
  count: number | bigint,
  warnings: string[],
): { position: number; size: number } | undefined {
  const sectors = Math.floor(disk.size / sectorSize);
  if (first >= sectors) {
    warnings.push(
      `Partition ${number} is left out: it starts at sector ${first}, but the disk ends after ${sectors} sectors of ${sectorSize} bytes. Is the image truncated?`,
    );
    return undefined;
  }
  const start = Number(first);
  const rest = sectors - start;
  if (count > rest)
    warnings.push(
      `Partition ${number} is cut to ${rest} of its ${count} sectors of ${sectorSize} bytes: the disk ends before it does. Is the image truncated?`,
    );
  return { position: start * sectorSize, size: (count > rest ? rest : Number(count)) * sectorSize };
}

/** Tells of volumes that share bytes; containers (extended partitions) aren't to be among them. */
export function warnOfOverlaps(volumes: readonly Volume[], warnings: string[]): void {
  const byPosition = [...volumes].sort((a, b) => a.position - b.position || a.number - b.number);
  let furthest: Volume | undefined;
  let told = 0;
  for (const volume of byPosition) {
    if (furthest && volume.position < furthest.position + furthest.size) {
      told++;
      if (told <= mostOverlapWarnings)
        warnings.push(
          `Partitions ${furthest.number} and ${volume.number} overlap; both are shown as the table has them.`,
        );
    }
    if (!furthest || volume.position + volume.size > furthest.position + furthest.size) furthest = volume;
  }
  if (told > mostOverlapWarnings) warnings.push(`${told - mostOverlapWarnings} more partitions overlap.`);
}

/** A hostile table can hold thousands of overlaps; a person reads a few. */
const mostOverlapWarnings = 8;
