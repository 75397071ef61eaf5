import type { ByteSource } from "../bytes/byte-source.js";
import { isFilesystemBootSector } from "./boot-sector.js";
import { mbrTypes } from "./mbr-types.js";
import { readOrWarn, warnOfOverlaps, withinDisk } from "./sectors.js";
import type { Volume, VolumeScheme, VolumeTable } from "./volume.js";

/*
 * The master boot record: the first 512 bytes of the disk.
 *
 *   440  disk signature, 4 bytes
 *   446  four entries of 16 bytes: status, CHS, type, CHS, first sector (4 bytes), number of sectors (4 bytes)
 *   510  55 AA
 *
 * One entry may be an extended partition. It holds a chain of records (EBR) of the same form: the first entry is a
 * logical partition, counted from this record; the second leads to the next record, counted from the extended
 * partition's start. Which entries count, and how they are numbered, is Linux's choice (block/partitions/msdos.c) as
 * far as the disk goes. CHS values are not used.
 *
 * The extended partition itself is a volume with all its bytes, as sfdisk lists it (Linux shows 1 KiB of it).
 * Left out: tables within a partition (BSD, Solaris, Minix), OnTrack's and EZ-Drive's shifted tables.
 */

const entriesAt = 446;
const entrySize = 16;
/** Linux numbers partitions to 255: DISK_MAX_PARTS. */
const mostPartitions = 255;
/** Records in a row without a logical partition, as Linux bounds them. */
const mostEmptyRecords = 100;

export const mbr: VolumeScheme = {
  name: "mbr",
  read(disk, sectorSize = 512) {
    const warnings: string[] = [];
    const sector = readOrWarn(disk, 0, 512, "The first sector", warnings);
    // A disk whose first sector can't be read may have had a table: that is told, where a mere absence isn't.
    if (!sector && warnings.length > 0) return { scheme: "none", sectorSize, id: "", volumes: [], warnings };
    if (!sector || !isMbr(sector)) return undefined;
    return new MbrReader(disk, sectorSize, sector, warnings).table();
  },
};

/** One entry with its numbers as they are on disk: in sectors. */
export interface MbrEntry {
  readonly bootable: boolean;
  readonly type: number;
  readonly first: number;
  readonly count: number;
}

/** The four entries of an MBR or EBR. */
export function mbrEntries(sector: Buffer): MbrEntry[] {
  return [0, 1, 2, 3].map((index) => {
    const at = entriesAt + index * entrySize;
    return {
      bootable: sector[at] === 0x80,
      type: sector[at + 4]!,
      first: sector.readUInt32LE(at + 8),
      count: sector.readUInt32LE(at + 12),
    };
  });
}

export const hasBootSignature = (sector: Buffer) => sector.readUInt16LE(510) === 0xaa55;

/** What Linux and blkid ask of an MBR; the protective one of a GPT passes too. */
export function isMbr(sector: Buffer): boolean {
  if (!hasBootSignature(sector)) return false;
  for (let index = 0; index < 4; index++) if ((sector[entriesAt + index * entrySize]! & 0x7f) !== 0) return false;
  // AIX marks its disks with IBMA in EBCDIC; what stands at the entries' place is no table.
  if (sector.readUInt32BE(0) === 0xc9c2d4c1) return false;
  return !isFilesystemBootSector(sector);
}

const isExtended = (entry: MbrEntry) => entry.type === 0x05 || entry.type === 0x0f || entry.type === 0x85;

class MbrReader {
  private readonly volumes: Volume[] = [];
  /** Volumes that aren't containers, for the search for overlaps. */
  private readonly plain: Volume[] = [];
  /** First sectors of records that were read: a second visit is a loop. */
  private readonly visited = new Set<number>([0]);
  private readonly signature: string;
  private nextLogical = 5;

  constructor(
    private readonly disk: ByteSource,
    private readonly sectorSize: number,
    private readonly sector: Buffer,
    private readonly warnings: string[],
  ) {
    const signature = sector.readUInt32LE(440);
    this.signature = signature === 0 ? "" : signature.toString(16).padStart(8, "0");
  }

  table(): VolumeTable {
    for (const [index, entry] of mbrEntries(this.sector).entries()) {
      if (entry.count === 0) continue;
      this.add(index + 1, entry, entry.first);
      if (!isExtended(entry)) continue;
      const why = this.followChain(index + 1, entry);
      if (why) this.warnings.push(`The chain of logical partitions in partition ${index + 1} ends early: ${why}`);
    }
    warnOfOverlaps(this.plain, this.warnings);
    return {
      scheme: "mbr",
      sectorSize: this.sectorSize,
      id: this.signature,
      volumes: this.volumes.sort((a, b) => a.number - b.number),
      warnings: this.warnings,
    };
  }

  private add(number: number, entry: MbrEntry, first: number): void {
    const place = withinDisk(this.disk, this.sectorSize, number, first, entry.count, this.warnings);
    if (!place) return;
    const typeCode = `0x${entry.type.toString(16).padStart(2, "0")}`;
    const volume: Volume = {
      number,
      ...place,
      type: mbrTypes.get(entry.type) ?? typeCode,
      typeCode,
      label: "",
      id: this.signature && `${this.signature}-${number.toString(16).padStart(2, "0")}`,
      bootable: entry.bootable,
    };
    this.volumes.push(volume);
    if (!isExtended(entry)) this.plain.push(volume);
  }

  /**
   * Reads the logical partitions of extended partition `number` along their chain. Returns why it ended early, as the
   * end of a sentence, or undefined when it came to its end.
   */
  private followChain(number: number, container: MbrEntry): string | undefined {
    const containerEnd = container.first + container.count;
    let record = container.first;
    let recordSectors = container.count;
    for (let empty = 0; empty < mostEmptyRecords; empty++) {
      if (this.visited.has(record)) return `it comes back to the record at sector ${record}, the chain is a loop.`;
      this.visited.add(record);
      const position = record * this.sectorSize;
      if (position + 512 > this.disk.size) return `its record at sector ${record} lies beyond the disk's end.`;
      const sector = readOrWarn(this.disk, position, 512, `The record at sector ${record}`, this.warnings);
      if (!sector) return `its record at sector ${record} can't be read.`;
      if (!hasBootSignature(sector)) return `the record at sector ${record} (byte ${position}) doesn't end in 55 AA.`;

      const entries = mbrEntries(sector);
      for (const [index, entry] of entries.entries()) {
        if (entry.count === 0 || isExtended(entry)) continue;
        const first = record + entry.first;
        // The last two entries often hold garbage; as Linux does, they count where they lie within.
        const within = entry.first + entry.count <= recordSectors && first + entry.count <= containerEnd;
        if (index >= 2 && !within) continue;
        if (this.nextLogical > mostPartitions) return `the disk has more than ${mostPartitions} partitions.`;
        if (first + entry.count > containerEnd)
          this.warnings.push(
            `Partition ${this.nextLogical} goes beyond the end of partition ${number}, which holds it.`,
          );
        this.add(this.nextLogical++, entry, first);
        empty = -1;
      }
      const next = entries.find((entry) => entry.count !== 0 && isExtended(entry));
      if (!next) return undefined;
      record = container.first + next.first;
      recordSectors = next.count;
    }
    return `${mostEmptyRecords} records in a row hold no partition.`;
  }
}
