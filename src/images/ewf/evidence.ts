import type { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, unsupported } from "../../errors.js";
import { largestDisk, largestPacked } from "../fields.js";
import type { Packing } from "./case-data.js";
import type { ChunkTables } from "./tables.js";

/** What both versions of the format tell of an image. */
export interface Evidence {
  readonly media: Media;
  readonly tables: ChunkTables;
  /** How packed chunks are packed. */
  readonly packing: Packing;
  readonly facts: Record<string, unknown>;
}

/** The disk's measures. */
export interface Media {
  /** In bytes. */
  readonly size: number;
  readonly sectorSize: number;
  readonly chunkSize: number;
}

/** Sections of all segments together: those of some 170 TiB as EnCase writes them. A hostile file may have more. */
export const mostSections = 1 << 20;

/** Bytes of the smallest chunk that is taken: the smallest sector of any medium. */
const smallestChunk = 512;

/** Ranges of sectors that couldn't be read, of which as many are listed. */
const listedErrors = 1000;

/**
 * The disk's measures, from counts that the image tells.
 * @throws ImageError `corrupt` or `unsupported` where they can't be, naming `what` tells them.
 */
export function measured(
  name: string,
  what: string,
  sectors: number,
  sectorSize: number,
  sectorsPerChunk: number,
): Media {
  const size = sectors * sectorSize;
  const chunkSize = sectorSize * sectorsPerChunk;
  if (!(sectors > 0) || !(chunkSize >= smallestChunk) || size > largestDisk)
    throw corrupt(
      `${name}: ${what} tells of ${sectors} sectors of ${sectorSize} bytes, ${sectorsPerChunk} a chunk, which can't be. The file is damaged, or was never finished.`,
    );
  if (chunkSize > largestPacked)
    throw unsupported(`${name}: has chunks of ${chunkSize} bytes; Spindle reads up to ${largestPacked}.`);
  return { size, sectorSize, chunkSize };
}

/** Bytes that a packed chunk may take: no packing makes data twice as long. */
export const largestChunk = ({ chunkSize }: Media) => 2 * chunkSize + 1024;

/**
 * What the table of sectors that couldn't be read tells, for `spindle info`.
 *
 * @param position of the first entry in `pages`; its start is `startBytes` long, the count of sectors 4.
 */
export function acquisitionErrors(
  pages: MetadataPages,
  position: number,
  count: number,
  entrySize: number,
  startBytes: 4 | 8,
): Record<string, unknown> | undefined {
  if (count === 0) return undefined;
  const ranges: { sector: number; count: number }[] = [];
  for (let index = 0; index < Math.min(count, listedErrors); index++) {
    const entry = pages.bytes(position + index * entrySize, entrySize, "the table of errors");
    ranges.push({ sector: entry.readUIntLE(0, startBytes === 4 ? 4 : 6), count: entry.readUInt32LE(startBytes) });
  }
  return { ranges: count, ...(count > listedErrors && { listed: listedErrors }), unreadable: ranges };
}
