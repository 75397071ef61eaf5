/**
 * The boot sector: where the allocation tables, the root directory and the clusters are ("Microsoft Extensible Firmware
 * Initiative FAT32 File System Specification", 1.03; where disks in use break it, as Linux takes them).
 */
import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import { corrupt, type ImageError } from "../../errors.js";

/** Every position and size in bytes, clusters numbered from 2. */
export interface Geometry {
  readonly bits: 12 | 16 | 32;
  readonly sectorSize: number;
  readonly clusterSize: number;
  /** Of the filesystem: the volume may be larger. */
  readonly size: number;
  readonly tablePosition: number;
  readonly tableSize: number;
  readonly tables: number;
  /** The table that counts, from 0. */
  readonly activeTable: number;
  /** Of FAT12 and FAT16; the root directory of FAT32 is a chain. */
  readonly rootPosition: number;
  readonly rootSize: number;
  /** First cluster of the root directory of FAT32; 0 for the others. */
  readonly rootCluster: number;
  /** Position of cluster 2. */
  readonly dataPosition: number;
  readonly clusters: number;
  /** Sector with the count of free clusters; 0 for none. */
  readonly infoPosition: number;
  /** The 11 bytes of the label and the serial number, where the sector has them. */
  readonly label: Buffer | undefined;
  readonly serial: number | undefined;
  readonly maker: string;
  readonly media: number;
}

/** Disks formatted before DOS 2.0 say nothing of their shape; their size and their table's first byte do. */
const oldFloppies = [
  { sectors: 320, clusterSectors: 1, rootEntries: 64, media: 0xfe, tableSectors: 1 },
  { sectors: 360, clusterSectors: 1, rootEntries: 64, media: 0xfc, tableSectors: 2 },
  { sectors: 640, clusterSectors: 2, rootEntries: 112, media: 0xff, tableSectors: 1 },
  { sectors: 720, clusterSectors: 2, rootEntries: 112, media: 0xfd, tableSectors: 2 },
];

/** Greatest numbers of clusters: higher ones have meanings. */
const mostClusters = { 12: 0xff4, 16: 0xfff4, 32: 0x0ffffff6 };

/** BitLocker To Go has a FAT boot sector for its reader program, and this GUID. */
const bitLocker = Buffer.from("3bd66749292ed84a8399f6a339e3d001", "hex");

const isPowerOfTwo = (value: number) => value > 0 && (value & (value - 1)) === 0;

/** Whether the BIOS parameter block can be one; most of what it holds is checked by readGeometry. */
export function recognisesFat(source: ByteSource): boolean {
  const sector = Buffer.alloc(512);
  if (readFully(source, 0, sector) < 512) return false;
  if (oldFloppy(source, sector)) return true;
  const maker = sector.toString("latin1", 3, 11);
  if (maker === "NTFS    " || maker === "EXFAT   " || maker === "-FVE-FS-") return false;
  if (sector.subarray(424, 440).equals(bitLocker)) return false;
  const signed =
    sector[0] === 0xeb ||
    sector[0] === 0xe9 ||
    sector.readUInt16LE(510) === 0xaa55 ||
    /FAT/.test(sector.toString("latin1", 54, 90));
  const media = sector[21]!;
  const tables = sector[16]!;
  return (
    signed &&
    isPowerOfTwo(sector.readUInt16LE(11)) &&
    sector.readUInt16LE(11) >= 512 &&
    sector.readUInt16LE(11) <= 4096 &&
    isPowerOfTwo(sector[13]!) &&
    sector.readUInt16LE(14) > 0 &&
    tables >= 1 &&
    tables <= 4 &&
    (media === 0xf0 || media >= 0xf8) &&
    (sector.readUInt16LE(19) || sector.readUInt32LE(32)) > 0 &&
    (sector.readUInt16LE(22) || sector.readUInt32LE(36)) > 0
  );
}

function oldFloppy(source: ByteSource, sector: Buffer): (typeof oldFloppies)[number] | undefined {
  const floppy = oldFloppies.find(({ sectors }) => sectors * 512 === source.size);
  if (!floppy || sector.subarray(11, 28).some((byte) => byte !== 0)) return undefined;
  const first = Buffer.alloc(3);
  if (readFully(source, 512, first) < 3) return undefined;
  return first[0] === floppy.media && first[1] === 0xff && first[2] === 0xff ? floppy : undefined;
}

/** @throws ImageError `corrupt` for values that no FAT volume can have. */
export function readGeometry(source: ByteSource): Geometry {
  const sector = readExactly(source, 0, 512, "the FAT boot sector");
  const floppy = oldFloppy(source, sector);
  if (floppy) return shape(source, sector, { ...floppy, sectorSize: 512, reserved: 1, tables: 2 });
  return shape(source, sector, {
    sectorSize: sector.readUInt16LE(11),
    clusterSectors: sector[13]!,
    reserved: sector.readUInt16LE(14),
    tables: sector[16]!,
    rootEntries: sector.readUInt16LE(17),
    sectors: sector.readUInt16LE(19) || sector.readUInt32LE(32),
    media: sector[21]!,
    tableSectors: sector.readUInt16LE(22),
  });
}

interface Parameters {
  readonly sectorSize: number;
  readonly clusterSectors: number;
  readonly reserved: number;
  readonly tables: number;
  readonly rootEntries: number;
  readonly sectors: number;
  readonly media: number;
  readonly tableSectors: number;
}

function shape(source: ByteSource, sector: Buffer, given: Parameters): Geometry {
  const { sectorSize, clusterSectors, reserved, tables, rootEntries, sectors } = given;
  const wrong = (what: string): ImageError =>
    corrupt(
      `${source.name}: the FAT boot sector at byte 0 ${what}. It is damaged; fsck.fat can restore it from a copy.`,
    );
  if (!isPowerOfTwo(sectorSize) || sectorSize < 512 || sectorSize > 4096)
    throw wrong(`has sectors of ${sectorSize} bytes`);
  if (!isPowerOfTwo(clusterSectors)) throw wrong(`has clusters of ${clusterSectors} sectors`);
  if (reserved === 0) throw wrong("has no reserved sectors");
  if (tables === 0) throw wrong("has no allocation table");
  const is32 = given.tableSectors === 0;
  const tableSectors = given.tableSectors || sector.readUInt32LE(36);
  if (tableSectors === 0) throw wrong("has an allocation table of no sectors");

  const clusterSize = clusterSectors * sectorSize;
  const tablePosition = reserved * sectorSize;
  const tableSize = tableSectors * sectorSize;
  const rootPosition = tablePosition + tables * tableSize;
  const rootSize = Math.ceil((rootEntries * 32) / sectorSize) * sectorSize;
  const dataPosition = rootPosition + rootSize;
  const size = sectors * sectorSize;
  if (dataPosition > size) throw wrong(`puts the first cluster at byte ${dataPosition}, beyond its ${size} bytes`);
  const room = Math.floor((size - dataPosition) / clusterSize);
  const bits = is32 ? 32 : room > mostClusters[12] ? 16 : 12;
  if (room > mostClusters[bits]) throw wrong(`counts ${room} clusters, more than FAT${bits} can number`);
  // Clusters that the table has no entries for can't be used.
  const clusters = Math.min(room, Math.floor((tableSize * 8) / bits) - 2);

  const rootCluster = is32 ? sector.readUInt32LE(44) : 0;
  const extended = is32 ? 64 : 36;
  const signature = sector[extended + 2];
  const flags = is32 ? sector.readUInt16LE(40) : 0;
  const info = is32 ? sector.readUInt16LE(48) : 0;
  const active = flags & 0x80 ? flags & 15 : 0;
  return {
    bits,
    sectorSize,
    clusterSize,
    size,
    tablePosition,
    tableSize,
    tables,
    activeTable: active < tables ? active : 0,
    rootPosition,
    rootSize: is32 ? 0 : rootSize,
    rootCluster,
    dataPosition,
    clusters: Math.max(0, clusters),
    infoPosition: info > 0 && info < reserved ? info * sectorSize : 0,
    label: signature === 0x29 ? Buffer.from(sector.subarray(extended + 7, extended + 18)) : undefined,
    serial: signature === 0x28 || signature === 0x29 ? sector.readUInt32LE(extended + 3) : undefined,
    maker: sector
      .toString("latin1", 3, 11)
      .replace(/[^\x20-\x7e]/g, "")
      .trim(),
    media: given.media,
  };
}
