import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import { corrupt, ImageError } from "../../errors.js";
import { isPowerOfTwo, u64 } from "./numbers.js";

/*
 * The boot sector ($Boot, the first sector of the volume):
 *
 *    3  "NTFS    "
 *   11  bytes a sector                       13  sectors a cluster; from 0xF4 on: 2 to the power of 256 - value
 *   40  sectors of the volume (64 bits)      48  cluster of $MFT          56  cluster of $MFTMirr
 *   64  size of a file record: clusters, or where negative: 2 to the power of -value bytes
 *   68  size of an index block, likewise (each index says its own again, which is what counts)
 *   72  serial number                       510  55 AA
 */

export interface Geometry {
  /** Bytes of the volume as the boot sector tells: whole clusters. */
  readonly size: number;
  readonly clusterSize: number;
  readonly clusters: number;
  readonly sectorSize: number;
  /** Bytes of a file record. */
  readonly recordSize: number;
  readonly mftPosition: number;
  readonly mirrorPosition: number;
  /** 16 hexadecimal digits, as blkid shows it. */
  readonly serial: string;
}

export function hasBootSector(source: ByteSource): boolean {
  const bytes = Buffer.alloc(16);
  try {
    return readFully(source, 0, bytes) === 16 && bytes.toString("latin1", 3, 11) === "NTFS    ";
  } catch (error) {
    if (error instanceof ImageError) return false;
    throw error;
  }
}

/** @throws ImageError `corrupt` when a field is out of its range. */
export function readBootSector(source: ByteSource): Geometry {
  const boot = readExactly(source, 0, 512, "the NTFS boot sector");
  const bad = (at: number, what: string) =>
    corrupt(`${source.name}: the NTFS boot sector's ${what} (byte ${at}). The volume is damaged.`);

  const sectorSize = boot.readUInt16LE(11);
  if (!isPowerOfTwo(sectorSize) || sectorSize < 256 || sectorSize > 4096)
    throw bad(11, `sector size ${sectorSize} is none of 256, 512, 1024, 2048 and 4096`);
  const perCluster = boot[13]!;
  const clusterSize = sectorSize * (perCluster > 128 ? 2 ** (256 - perCluster) : perCluster);
  if (!isPowerOfTwo(clusterSize) || clusterSize > 2 * 1024 * 1024)
    throw bad(13, `cluster size of ${perCluster} sectors is not a power of two up to 2 MiB`);
  const sectors = u64(boot, 40);
  const clusters = Math.floor((sectors * sectorSize) / clusterSize);
  const size = clusters * clusterSize;
  if (clusters === 0 || !Number.isSafeInteger(size)) throw bad(40, `volume size of ${sectors} sectors can't be`);
  const recordSize = sizeField(boot.readInt8(64), clusterSize);
  if (!isPowerOfTwo(recordSize) || recordSize < 512 || recordSize > 65536)
    throw bad(64, `file record size ${recordSize} is not a power of two from 512 to 65536`);

  const position = (at: number, what: string) => {
    const cluster = u64(boot, at);
    if (cluster >= clusters)
      throw bad(at, `cluster of ${what}, ${cluster}, lies beyond the volume's ${clusters} clusters`);
    return cluster * clusterSize;
  };
  return {
    size,
    clusterSize,
    clusters,
    sectorSize,
    recordSize,
    mftPosition: position(48, "$MFT"),
    // Used only where $MFT itself is damaged: then a wrong position is one more thing that is.
    mirrorPosition: Math.min(u64(boot, 56), clusters) * clusterSize,
    serial: boot.readBigUInt64LE(72).toString(16).toUpperCase().padStart(16, "0"),
  };
}

const sizeField = (value: number, clusterSize: number) => (value < 0 ? 2 ** -value : value * clusterSize);
