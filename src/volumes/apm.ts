import type { ByteSource } from "../bytes/byte-source.js";
import { apmTypes } from "./apm-types.js";
import { isMbr, mbrEntries } from "./mbr.js";
import { readOrWarn, warnOfOverlaps, withinDisk } from "./sectors.js";
import type { Volume, VolumeScheme, VolumeTable } from "./volume.js";

/*
 * Apple's partition map ("Inside Macintosh: Devices", chapter 3), in blocks of the disk; all numbers are big-endian:
 *
 *   0     driver descriptor: "ER", bytes a block (2 bytes at byte 2), blocks of the disk, drivers
 *   1…    one entry a block, of which 512 bytes are used: "PM", number of entries (4 bytes at 4), first block (8), blocks (12),
 *         name (32 bytes at 16), type (32 at 48), status (4 at 88)
 *
 * The map is itself a partition, most often the first. All entries are shown and numbered by their place, as Linux has them
 * (block/partitions/mac.c); the free space too, which this map lists.
 *
 * On optical discs blocks may have 2048 bytes. An "old school" disc, as Apple's IOApplePartitionScheme calls it, has a driver
 * descriptor that tells 2048 and a map in steps of 512 all the same. Its entries that lie on a multiple of 2048 are
 * seen by a machine that reads in steps of 2048, too: where such an entry is a driver it counts in blocks of 2048.
 *
 * A hybrid disc has "ER" where its MBR has harmless code (xorriso, isohybrid), and so both tables. As with Linux and sfdisk
 * the MBR counts then, if it has an entry at all.
 */

const entryLength = 512;
/** As many as Linux looks at: DISK_MAX_PARTS. Usual are fewer than 63. */
const mostEntries = 255;
/** Status bit 3: the partition has boot code. */
const bootable = 8;
/** Entries of these types count in blocks of 2048 bytes where the place of an old school disc's entry allows it. */
const drivers = /^Apple_(Driver|Driver43|Driver43_CD|Driver_ATA|Driver_ATAPI|Patches)$/;

export const apm: VolumeScheme = {
  name: "apm",
  read(disk, sectorSize) {
    const warnings: string[] = [];
    const sector = readOrWarn(disk, 0, 512, "The first sector", warnings);
    if (sector && isMbr(sector) && mbrEntries(sector).some((entry) => entry.count !== 0)) return undefined;
    const described = sector?.toString("latin1", 0, 2) === "ER" ? sector.readUInt16BE(2) : undefined;
    // Apple needs no driver descriptor; a map behind a first sector that holds something else is taken for a leftover.
    if (described === undefined && !(sector ?? [0]).every((byte) => byte === 0)) return undefined;
    const sizes = [described === 2048 ? 512 : (described ?? sectorSize ?? 512), 512, 2048];
    for (const blockSize of new Set(sizes.filter((size) => size >= 512 && Number.isInteger(Math.log2(size))))) {
      const first = readEntry(disk, blockSize, 1);
      if (!first || typeof first === "string" || (described === undefined && !isMap(first))) continue;
      if (described === undefined)
        warnings.push(
          `The driver descriptor is missing (the first sector ${sector ? "is all zeros" : "can't be read"}); the partition map behind it is used.`,
        );
      else if (blockSize !== described && described !== 2048)
        warnings.push(
          `The driver descriptor counts in blocks of ${described} bytes, the partition map in ${blockSize}.`,
        );
      return tableOf(disk, blockSize, described === 2048 && blockSize === 512, first, warnings);
    }
    return undefined;
  },
};

/** One entry with its numbers as they are on disk: in blocks. */
interface MapEntry {
  /** Entries of the whole map. */
  readonly entries: number;
  readonly first: number;
  readonly count: number;
  readonly name: string;
  readonly type: string;
  readonly status: number;
}

const isMap = ({ type }: MapEntry) => type.toLowerCase() === "apple_partition_map";

/** Entry `number` (from 1); undefined where there is none; a sentence where it can't be read. */
function readEntry(disk: ByteSource, blockSize: number, number: number): MapEntry | string | undefined {
  const position = number * blockSize;
  const problems: string[] = [];
  const bytes = readOrWarn(disk, position, entryLength, `Entry ${number} of the partition map`, problems);
  if (problems[0]) return problems[0];
  if (bytes?.toString("latin1", 0, 2) !== "PM") return undefined;
  return {
    entries: bytes.readUInt32BE(4),
    first: bytes.readUInt32BE(8),
    count: bytes.readUInt32BE(12),
    name: textOf(bytes, 16),
    type: textOf(bytes, 48),
    status: bytes.readUInt32BE(88),
  };
}

/** 32 bytes in Mac OS Roman, up to a NUL. */
function textOf(bytes: Buffer, at: number): string {
  const end = bytes.indexOf(0, at);
  return new TextDecoder("macintosh").decode(bytes.subarray(at, end < 0 ? at + 32 : Math.min(end, at + 32)));
}

function tableOf(
  disk: ByteSource,
  blockSize: number,
  oldSchool: boolean,
  head: MapEntry,
  warnings: string[],
): VolumeTable {
  const volumes: Volume[] = [];
  let { entries } = head;
  for (let number = 1; number <= Math.min(entries, mostEntries); number++) {
    const entry = readEntry(disk, blockSize, number);
    if (typeof entry === "string") {
      warnings.push(entry);
      continue;
    }
    if (!entry) {
      warnings.push(
        `The partition map ends early: there is no entry ${number} of ${entries} at byte ${number * blockSize}.`,
      );
      break;
    }
    if (isMap(entry)) entries = entry.entries;
    if (entry.count === 0) continue;
    const unit = oldSchool && number % 4 === 0 && drivers.test(entry.type) ? 2048 : blockSize;
    const place = withinDisk(disk, unit, number, entry.first, entry.count, warnings);
    if (!place) continue;
    volumes.push({
      number,
      ...place,
      type: apmTypes.get(entry.type) ?? entry.type,
      typeCode: entry.type,
      label: entry.name,
      id: "",
      bootable: (entry.status & bootable) !== 0,
    });
  }
  if (entries > mostEntries)
    warnings.push(`The partition map tells of ${entries} entries, which is too many; ${mostEntries} were looked at.`);
  warnOfOverlaps(volumes, warnings);
  return { scheme: "apm", sectorSize: blockSize, id: "", volumes, warnings };
}
