/**
 * The records in front of logical partitions, one each, a chain through the extended one (EBRs). Clonezilla keeps the first
 * at most; where it restores a disk, sfdisk makes them anew from its dump, and so they are made here.
 *
 *     extended partition | record, gap, partition 5 | record, gap, partition 6 | …
 *     a record: nothing 446   this partition, from the record on   the next record, from the extended partition on   55 aa
 */
import type { Dump, Partition } from "./dump.js";
import { isExtended } from "./dump.js";

/** A sector with its place on the disk, in bytes. */
export interface Record {
  readonly position: number;
  readonly bytes: Buffer;
}

/** A logical partition and the place of its record, in bytes. */
interface Place {
  readonly partition: Partition;
  readonly record: number;
}

/** @param kept the first 512 bytes of the extended partition, if they are known */
export function bootRecords({ partitions, sectorSize }: Dump, kept: Buffer | undefined): Record[] {
  const extended = partitions.find(isExtended);
  const logical = partitions.filter(({ number }) => number > 4).sort((a, b) => a.number - b.number);
  if (!extended || logical.length === 0) return [];
  const places = placesOf(extended, logical, sectorSize);
  return places.map(({ partition, record }, index) => {
    const next = places[index + 1];
    const bytes = Buffer.alloc(sectorSize);
    // What is before the table is for programs that boot from there.
    if (index === 0) kept?.copy(bytes, 0, 0, 446);
    writeEntry(bytes, 446, {
      type: partition.type ?? 0x83,
      bootable: partition.bootable,
      start: (partition.position - record) / sectorSize,
      sectors: partition.size / sectorSize,
    });
    if (next) {
      const end = next.partition.position + next.partition.size;
      writeEntry(bytes, 462, {
        type: 0x05,
        bootable: false,
        start: (next.record - extended.position) / sectorSize,
        sectors: (end - next.record) / sectorSize,
      });
    }
    bytes.writeUInt16LE(0xaa55, 510);
    return { position: record, bytes };
  });
}

/** The first record begins the extended partition; the others lie as far before their partition, or just before it. */
function placesOf(extended: Partition, logical: readonly Partition[], sectorSize: number): Place[] {
  const gap = logical[0]!.position - extended.position;
  const taken = (at: number) => logical.some(({ position, size }) => at >= position && at < position + size);
  return logical.map((partition, index) => {
    const far = partition.position - gap;
    const near = partition.position - sectorSize;
    if (index === 0) return { partition, record: extended.position };
    return { partition, record: gap > 0 && far > extended.position && !taken(far) ? far : near };
  });
}

function writeEntry(
  bytes: Buffer,
  at: number,
  entry: { type: number; bootable: boolean; start: number; sectors: number },
): void {
  bytes[at] = entry.bootable ? 0x80 : 0;
  // Cylinders, heads and sectors can't name places this far; this is what then stands there.
  bytes.set([0xfe, 0xff, 0xff], at + 1);
  bytes[at + 4] = entry.type;
  bytes.set([0xfe, 0xff, 0xff], at + 5);
  bytes.writeUInt32LE(Math.min(Math.max(0, entry.start), 0xffffffff), at + 8);
  bytes.writeUInt32LE(Math.min(Math.max(0, entry.sectors), 0xffffffff), at + 12);
}
