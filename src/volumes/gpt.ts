import { crc32 } from "node:zlib";
import type { ByteSource } from "../bytes/byte-source.js";
import { guidText } from "../bytes/guid.js";
import { gptTypes } from "./gpt-types.js";
import { hasBootSignature, isMbr, type MbrEntry, mbrEntries } from "./mbr.js";
import { readOrWarn, warnOfOverlaps, withinDisk } from "./sectors.js";
import type { Volume, VolumeScheme, VolumeTable } from "./volume.js";

/*
 * The GUID partition table (UEFI specification, chapter 5), in sectors of the disk (512 or 4096 bytes):
 *
 *   0        protective MBR: one entry of type EE from sector 1 on; more entries make it a hybrid
 *   1        header: where the entries are, and the checksums of both
 *   2…33     128 entries of 128 bytes
 *   …
 *   last-32  the entries again
 *   last     the header again
 *
 * As Linux does it (block/partitions/efi.c), the GPT counts only where the MBR announces it; then the primary copy is
 * taken if it is sound, else the backup. Where Linux would show nothing, this goes on and says so: sector 0 wiped to
 * zeros before a sound primary copy, a table made for a longer disk (a truncated image), entries other than 128 bytes,
 * both copies' entries damaged.
 */

const headerSize = 92;
/** Linux reads no larger table (KMALLOC_MAX_SIZE); usual are 16 KiB. */
const largestEntries = 4 * 1024 * 1024;

export const gpt: VolumeScheme = {
  name: "gpt",
  read(disk, sectorSize) {
    const warnings: string[] = [];
    const sector = readOrWarn(disk, 0, 512, "The first sector", warnings);
    const entries = sector && hasBootSignature(sector) ? mbrEntries(sector) : [];
    // Linux wants the entry to start at sector 1; another start is let pass in what is an MBR beyond doubt.
    const announced = entries.some((entry) => entry.type === 0xee && (entry.first === 1 || isMbr(sector!)));
    const wiped = !announced && (sector === undefined || sector.every((byte) => byte === 0));
    if (!announced && !wiped) return undefined;
    const sizes = [...new Set([sectorSize ?? 512, 512, 4096])];
    const table = readCopies(disk, sizes, announced, entries, warnings);
    if (!table) return undefined;
    if (wiped && sector)
      warnings.push(
        "The protective MBR is missing (the first sector is all zeros); the GPT behind it is sound and used.",
      );
    if (sectorSize !== undefined && table.sectorSize !== sectorSize)
      warnings.push(
        `The GPT counts in sectors of ${table.sectorSize} bytes, though the disk's are said to have ${sectorSize}.`,
      );
    const others = entries.filter((entry) => entry.count !== 0 && entry.type !== 0xee).length;
    if (others > 0)
      warnings.push(
        `The MBR is a hybrid: its ${others === 1 ? "other entry is" : `${others} other entries are`} left out, the GPT counts.`,
      );
    return table;
  },
};

/** One of the two copies, as far as it could be read. */
interface Copy {
  readonly sectorSize: number;
  /** Undefined when it isn't sound, or there is none. */
  readonly header?: Header;
  /** Undefined when they can't be read. */
  readonly entries?: Buffer;
  /** What is wrong with it, to follow `The primary GPT`; undefined when all of it is sound. */
  readonly problem?: string;
}

interface Header {
  readonly id: string;
  /** Sector of the other copy. */
  readonly alternate: bigint;
  readonly firstUsable: bigint;
  readonly lastUsable: bigint;
  readonly entriesAt: bigint;
  readonly entryCount: number;
  readonly entrySize: number;
  readonly entriesChecksum: number;
}

function readCopies(
  disk: ByteSource,
  sizes: readonly number[],
  announced: boolean,
  protective: readonly MbrEntry[],
  warnings: string[],
): VolumeTable | undefined {
  const primaries = sizes.map((size) => readCopy(disk, size, 1n, warnings));
  const sound = primaries.find((copy) => !copy.problem);
  if (sound) {
    checkBackup(disk, sound, warnings);
    return tableOf(disk, sound, warnings);
  }
  // Without a protective MBR a backup may well be left over from what the disk was before.
  if (!announced) return undefined;

  const primary = primaries.find((copy) => copy.header) ?? primaries[0]!;
  const backups = primaries.flatMap((copy) =>
    backupSectors(disk, copy, protective).map((sector) => ({
      sector,
      copy: readCopy(disk, copy.sectorSize, sector, []),
    })),
  );
  const backup = backups.find(({ copy }) => !copy.problem);
  if (backup) {
    warnings.push(
      `The primary GPT ${primary.problem}; the backup at sector ${backup.sector} (byte ${backup.sector * BigInt(backup.copy.sectorSize)}) is sound and used.`,
    );
    return tableOf(disk, backup.copy, warnings);
  }
  const lastResort = [...primaries, ...backups.map(({ copy }) => copy)].find((copy) => copy.header && copy.entries);
  const problems = `The primary GPT ${primary.problem}, and the backup ${backups[0]?.copy.problem ?? "has no place"}`;
  if (lastResort) {
    warnings.push(`${problems}. Entries that can be right are shown, but some of them may be wrong.`);
    return tableOf(disk, lastResort, warnings);
  }
  warnings.push(`${problems}. The disk's partitions can't be told.`);
  return { scheme: "gpt", sectorSize: sizes[0]!, id: "", volumes: [], warnings };
}

/** Where the backup may be: at the disk's end, or where the damaged primary or the protective MBR say the end was. */
function backupSectors(disk: ByteSource, primary: Copy, protective: readonly MbrEntry[]): bigint[] {
  const last = BigInt(Math.floor(disk.size / primary.sectorSize)) - 1n;
  const sectors = [last];
  if (primary.header) sectors.push(primary.header.alternate);
  for (const entry of protective) if (entry.type === 0xee) sectors.push(BigInt(entry.first) + BigInt(entry.count) - 1n);
  return [...new Set(sectors)].filter((sector) => sector > 1n && sector <= last);
}

function readCopy(disk: ByteSource, sectorSize: number, sector: bigint, warnings: string[]): Copy {
  const position = Number(sector) * sectorSize;
  const bytes = readOrWarn(disk, position, sectorSize, `The GPT's header at sector ${sector}`, warnings);
  if (!bytes) return { sectorSize, problem: `can't be read at sector ${sector}` };
  const header = parseHeader(bytes, sector);
  if (typeof header === "string") return { sectorSize, problem: `at sector ${sector} (byte ${position}) ${header}` };

  const length = header.entryCount * header.entrySize;
  const place = `at sector ${header.entriesAt}`;
  if (header.entriesAt * BigInt(sectorSize) + BigInt(length) > disk.size)
    return { sectorSize, header, problem: `has its entries ${place}, beyond the disk's end` };
  const entriesPosition = Number(header.entriesAt) * sectorSize;
  const entries = readOrWarn(disk, entriesPosition, length, `The GPT's entries ${place}`, warnings);
  if (!entries) return { sectorSize, header, problem: `has entries ${place} that can't be read` };
  if (crc32(entries) !== header.entriesChecksum)
    return {
      sectorSize,
      header,
      entries,
      problem: `has entries ${place} (byte ${entriesPosition}) whose checksum is wrong`,
    };
  return { sectorSize, header, entries };
}

/** UEFI 5.3.2. The header, or what is wrong with it. */
function parseHeader(bytes: Buffer, sector: bigint): Header | string {
  if (bytes.toString("latin1", 0, 8) !== "EFI PART") return "has no signature";
  const size = bytes.readUInt32LE(12);
  if (size < headerSize || size > bytes.length) return `has a header of ${size} bytes`;
  const checked = Buffer.from(bytes.subarray(0, size));
  checked.writeUInt32LE(0, 16);
  if (crc32(checked) !== bytes.readUInt32LE(16)) return "has a wrong header checksum";
  const own = bytes.readBigUInt64LE(24);
  if (own !== sector) return `was made for sector ${own}`;
  const entryCount = bytes.readUInt32LE(80);
  const entrySize = bytes.readUInt32LE(84);
  if (entrySize === 0 || entrySize % 128 !== 0) return `has entries of ${entrySize} bytes`;
  if (entryCount * entrySize > largestEntries)
    return `has ${entryCount} entries of ${entrySize} bytes, which is too many`;
  return {
    id: guidText(bytes, 56),
    alternate: bytes.readBigUInt64LE(32),
    firstUsable: bytes.readBigUInt64LE(40),
    lastUsable: bytes.readBigUInt64LE(48),
    entriesAt: bytes.readBigUInt64LE(72),
    entryCount,
    entrySize,
    entriesChecksum: bytes.readUInt32LE(88),
  };
}

/** The primary is sound: says whether the backup would be there if it weren't. */
function checkBackup(disk: ByteSource, primary: Copy, warnings: string[]): void {
  const { sectorSize, header } = primary;
  const last = BigInt(Math.floor(disk.size / sectorSize)) - 1n;
  if (header!.alternate !== last) {
    warnings.push(
      `The GPT was made for a disk of ${header!.alternate + 1n} sectors of ${sectorSize} bytes, this one has ${last + 1n}: its backup isn't at the end.`,
    );
    return;
  }
  // It would be waited for only to say whether it is sound.
  if (disk.isFar?.(Number(last) * sectorSize)) return;
  const backup = readCopy(disk, sectorSize, last, []);
  if (backup.problem) warnings.push(`The backup GPT ${backup.problem}; the primary one is sound and used.`);
  else if (backup.header!.id !== header!.id || !backup.entries!.equals(primary.entries!))
    warnings.push("The backup GPT differs from the primary one, which is used.");
}

/** UEFI 5.3.3: type, id, first and last sector, attributes, name. */
function tableOf(disk: ByteSource, copy: Copy, warnings: string[]): VolumeTable {
  const { sectorSize, entries, problem } = copy;
  const header = copy.header!;
  const volumes: Volume[] = [];
  for (let index = 0; index < header.entryCount; index++) {
    const entry = entries!.subarray(index * header.entrySize, index * header.entrySize + 128);
    const typeCode = guidText(entry, 0);
    if (typeCode === noType) continue;
    const number = index + 1;
    const first = entry.readBigUInt64LE(32);
    const last = entry.readBigUInt64LE(40);
    const outside = problem !== undefined && (first < header.firstUsable || last > header.lastUsable);
    if (last < first || outside) {
      warnings.push(`Partition ${number} is left out: it can't go from sector ${first} to ${last}.`);
      continue;
    }
    const place = withinDisk(disk, sectorSize, number, first, last - first + 1n, warnings);
    if (!place) continue;
    volumes.push({
      number,
      ...place,
      type: gptTypes.get(typeCode) ?? typeCode,
      typeCode,
      label: nameOf(entry),
      id: guidText(entry, 16),
      // Attribute bit 2: legacy BIOS bootable.
      bootable: (entry[48]! & 4) !== 0,
    });
  }
  warnOfOverlaps(volumes, warnings);
  return { scheme: "gpt", sectorSize, id: header.id, volumes, warnings };
}

const noType = "00000000-0000-0000-0000-000000000000";

/** 36 characters of UTF-16, up to a NUL. */
function nameOf(entry: Buffer): string {
  const name = entry.toString("utf16le", 56, 128);
  const end = name.indexOf("\0");
  // Halves of surrogate pairs become U+FFFD on the way through UTF-8.
  return Buffer.from(end < 0 ? name : name.slice(0, end)).toString();
}
