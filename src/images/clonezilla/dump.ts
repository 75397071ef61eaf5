/**
 * What sfdisk dumped of a disk's partition table (sfdisk(8), "sfdisk -d"), and parted of its size: two texts that Clonezilla
 * keeps of every disk.
 *
 *   label: dos                                         sda-pt.sf     (`label`, `sector-size` since util-linux 2.26)
 *   unit: sectors
 *   sector-size: 512
 *   /dev/sda1 : start=  2048, size=  614400, type=83, bootable       older: `Id=83`; sizes of 0 for what isn't there
 *
 *   Disk /dev/sda: 125829120s                          sda-pt.parted
 *   Sector size (logical/physical): 512B/512B
 */
import { corrupt } from "../../errors.js";

/** A partition. Its position and size are in bytes. */
export interface Partition {
  /** As Clonezilla names its files: `sda1`, for `/dev/cciss/c0d0p1` `cciss-c0d0p1`. */
  readonly name: string;
  readonly number: number;
  readonly position: number;
  readonly size: number;
  /** The type in an MBR; undefined in a GPT. */
  readonly type: number | undefined;
  readonly bootable: boolean;
}

export interface Dump {
  readonly scheme: "dos" | "gpt";
  /** Bytes a sector. */
  readonly sectorSize: number;
  readonly partitions: readonly Partition[];
  /** Whether `partitions` is only what stands for a GPT's in an MBR. */
  readonly isProtective: boolean;
}

/** More than any table has. */
const mostPartitions = 1024;

/** Types of partitions that hold others. */
const extendedTypes = [0x05, 0x0f, 0x85];

export const isExtended = ({ type }: Partition) => type !== undefined && extendedTypes.includes(type);

/**
 * @param name of the file, for messages
 * @throws ImageError `corrupt` for partitions that no disk has
 */
export function readDump(name: string, text: string): Dump {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const field = (key: string) =>
    lines
      .find((line) => line.startsWith(`${key}:`))
      ?.slice(key.length + 1)
      .trim();
  const sectorSize = Number(field("sector-size") ?? 512);
  if (![512, 1024, 2048, 4096].includes(sectorSize))
    throw corrupt(`${name}: tells of sectors of ${field("sector-size")} bytes.`);
  const partitions: Partition[] = [];
  for (const line of lines) {
    const [, device, rest] = /^\/dev\/(\S+)\s*:(.*)$/.exec(line) ?? [];
    if (device === undefined || rest === undefined) continue;
    const number = Number(/\d{1,9}$/.exec(device)?.[0]);
    const start = Number(/\bstart=\s*(\d+)/.exec(rest)?.[1]);
    const size = Number(/\bsize=\s*(\d+)/.exec(rest)?.[1]);
    if (size === 0) continue;
    if (!Number.isSafeInteger(number) || !((start + size) * sectorSize <= Number.MAX_SAFE_INTEGER) || start === 0)
      throw corrupt(`${name}: has a partition that no disk has: ${line.slice(0, 200)}`);
    if (partitions.length >= mostPartitions)
      throw corrupt(`${name}: tells of more than ${mostPartitions} partitions. The file is damaged.`);
    const type = /\b(?:type|Id)=\s*([0-9a-f]{1,2})\b(?!-)/i.exec(rest)?.[1];
    partitions.push({
      name: device.replaceAll("/", "-"),
      number,
      position: start * sectorSize,
      size: size * sectorSize,
      type: type === undefined ? undefined : Number.parseInt(type, 16),
      bootable: /,\s*bootable\b/.test(rest),
    });
  }
  const label = field("label");
  const protective = partitions.some(({ type }) => type === 0xee);
  const scheme = label === "gpt" || protective ? "gpt" : "dos";
  return { scheme, sectorSize, partitions, isProtective: protective && label !== "gpt" };
}

/**
 * The partitions of a GPT, for what an sfdisk before util-linux 2.26 dumped, which knows but the one that stands for all.
 * @param start the first sectors of the disk (UEFI specification, 5.3); @returns undefined where they hold no GPT
 */
export function partitionsOfGpt(disk: string, start: Buffer, sectorSize: number): Partition[] | undefined {
  const header = start.subarray(sectorSize, sectorSize + 92);
  if (header.length < 92 || header.toString("latin1", 0, 8) !== "EFI PART") return undefined;
  const at = Number(header.readBigUInt64LE(72)) * sectorSize;
  const [count, size] = [header.readUInt32LE(80), header.readUInt32LE(84)];
  if (size < 128 || at + count * size > start.length) return undefined;
  const partitions: Partition[] = [];
  for (let number = 1; number <= count; number++) {
    const entry = start.subarray(at + (number - 1) * size, at + number * size);
    if (entry.subarray(0, 16).equals(Buffer.alloc(16))) continue;
    const [first, last] = [Number(entry.readBigUInt64LE(32)), Number(entry.readBigUInt64LE(40))];
    if (first === 0 || last < first || !((last + 1) * sectorSize <= Number.MAX_SAFE_INTEGER)) return undefined;
    partitions.push({
      name: `${disk}${/\d$/.test(disk) ? "p" : ""}${number}`,
      number,
      position: first * sectorSize,
      size: (last - first + 1) * sectorSize,
      type: undefined,
      bootable: false,
    });
  }
  return partitions;
}

/** The disk's size in bytes as parted tells it; undefined where it doesn't. */
export function partedSize(text: string, sectorSize: number): number | undefined {
  const sectors = Number(/^Disk [^:\n]{1,100}: (\d{1,15})s\s*$/m.exec(text)?.[1]);
  return Number.isSafeInteger(sectors * sectorSize) && sectors > 0 ? sectors * sectorSize : undefined;
}
