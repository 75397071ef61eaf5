/**
 * The boot regions: twelve sectors with a checksum, and the same again as a backup ("exFAT file system specification",
 * chapter 3).
 *
 *     sector 0: parameters | 1 – 8: boot code | 9: OEM | 10: reserved | 11: the checksum, repeated | 12 – 23: the backup
 */
import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import { corrupt, ImageError } from "../../errors.js";

/** Every position and size in bytes, clusters numbered from 2. */
export interface Geometry {
  readonly sectorSize: number;
  readonly clusterSize: number;
  /** Of the filesystem: the volume may be larger. */
  readonly size: number;
  readonly tablePosition: number;
  readonly tables: number;
  /** Which table and bitmap count: 0, or 1 in a TexFAT volume. */
  readonly active: number;
  /** Position of cluster 2. */
  readonly dataPosition: number;
  readonly clusters: number;
  readonly rootCluster: number;
  readonly serial: number;
  readonly revision: string;
  readonly isDirty: boolean;
  readonly hadErrors: boolean;
  /** Why the backup was used; undefined when the first region is in order. */
  readonly warning: string | undefined;
}

const REGION_SECTORS = 12;

export function recognisesExfat(source: ByteSource): boolean {
  const sector = Buffer.alloc(512);
  if (readFully(source, 0, sector) < 512) return false;
  return hasSignature(sector);
}

/** The bytes of FAT's parameters are zero, so that no FAT driver takes the volume for its own. */
const hasSignature = (sector: Buffer) =>
  sector.toString("latin1", 3, 11) === "EXFAT   " &&
  sector.readUInt16LE(510) === 0xaa55 &&
  sector.subarray(11, 64).every((byte) => byte === 0);

/** @throws ImageError `corrupt` when neither region is in order, naming what is wrong with the first. */
export function readGeometry(source: ByteSource): Geometry {
  try {
    return readRegion(source, 0, undefined);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    for (const sectorSize of [512, 1024, 2048, 4096]) {
      try {
        return readRegion(source, REGION_SECTORS * sectorSize, sectorSize, error.message);
      } catch (second) {
        if (!(second instanceof ImageError)) throw second;
      }
    }
    throw corrupt(`${error.message} The backup isn't in order either; fsck.exfat may repair it.`);
  }
}

function readRegion(
  source: ByteSource,
  position: number,
  expectedSectorSize: number | undefined,
  damage?: string,
): Geometry {
  const sector = readExactly(source, position, 512, "the exFAT boot sector");
  const wrong = (what: string) =>
    corrupt(`${source.name}: the exFAT boot sector at byte ${position} ${what}. It is damaged.`);
  if (!hasSignature(sector)) throw wrong("has no signature");
  const sectorShift = sector[108]!;
  const clusterShift = sector[109]!;
  if (sectorShift < 9 || sectorShift > 12) throw wrong(`has sectors of 2^${sectorShift} bytes`);
  if (clusterShift > 25 - sectorShift) throw wrong(`has clusters of 2^${clusterShift} sectors`);
  const sectorSize = 2 ** sectorShift;
  if (expectedSectorSize !== undefined && sectorSize !== expectedSectorSize)
    throw wrong(`has sectors of ${sectorSize} bytes`);
  checkRegion(source, position, sectorSize);

  const tables = sector[110]!;
  if (tables !== 1 && tables !== 2) throw wrong(`has ${tables} allocation tables`);
  const sectors = Number(sector.readBigUInt64LE(72));
  const tableSector = sector.readUInt32LE(80);
  const tableSectors = sector.readUInt32LE(84);
  const dataSector = sector.readUInt32LE(88);
  const clusters = sector.readUInt32LE(92);
  const rootCluster = sector.readUInt32LE(96);
  const clusterSize = sectorSize * 2 ** clusterShift;
  const size = sectors * sectorSize;
  // An id is twice the position of an entry in units of 32 bytes, and has to be exact.
  if (size > 2 ** 56) throw wrong(`counts ${sectors} sectors, which is more than can be read`);
  if (tableSector < 2 * REGION_SECTORS) throw wrong(`puts the allocation table at sector ${tableSector}`);
  if (clusters === 0 || clusters > 0xfffffff5) throw wrong(`counts ${clusters} clusters`);
  if (tableSectors * sectorSize < (clusters + 2) * 4)
    throw wrong(`has ${tableSectors} sectors of allocation table for ${clusters} clusters`);
  if (dataSector < tableSector + tableSectors * tables)
    throw wrong(`puts the clusters at sector ${dataSector}, within the allocation table`);
  if (dataSector * sectorSize + clusters * clusterSize > size)
    throw wrong(`has ${clusters} clusters of ${clusterSize} bytes from sector ${dataSector} on in ${size} bytes`);
  if (rootCluster < 2 || rootCluster > clusters + 1) throw wrong(`puts the root directory at cluster ${rootCluster}`);
  const flags = sector.readUInt16LE(106);
  const active = tables === 2 ? flags & 1 : 0;
  return {
    sectorSize,
    clusterSize,
    size,
    tablePosition: (tableSector + active * tableSectors) * sectorSize,
    tables,
    active,
    dataPosition: dataSector * sectorSize,
    clusters,
    rootCluster,
    serial: sector.readUInt32LE(100),
    revision: `${sector[105]}.${sector[104]}`,
    isDirty: (flags & 2) !== 0,
    hadErrors: (flags & 4) !== 0,
    warning: damage && `${damage} The backup at byte ${position} is in order and was used.`,
  };
}

/** Flags and the percentage in use change without the checksum being made anew: they don't count. */
function checkRegion(source: ByteSource, position: number, sectorSize: number): void {
  const region = readExactly(source, position, REGION_SECTORS * sectorSize, "the exFAT boot region");
  const end = (REGION_SECTORS - 1) * sectorSize;
  let sum = 0;
  for (let at = 0; at < end; at++) {
    if (at === 106 || at === 107 || at === 112) continue;
    sum = (((sum << 31) | (sum >>> 1)) + region[at]!) >>> 0;
  }
  const stored = region.readUInt32LE(end);
  if (sum !== stored)
    throw corrupt(
      `${source.name}: the exFAT boot region at byte ${position} has checksum ${sum.toString(16)}, and ${stored.toString(16)} is recorded at byte ${position + end}. It is damaged.`,
    );
}
