/**
 * A filesystem's boot sector ends in 55 AA as an MBR does, and where the MBR has its entries it has code or messages.
 * blkid and Linux tell them apart by what a boot sector must hold, and so does this.
 */

/** Whether the first 512 bytes of a disk are the boot sector of a FAT, exFAT, NTFS, HPFS or BitLocker volume. */
export function isFilesystemBootSector(sector: Buffer): boolean {
  const maker = sector.toString("latin1", 3, 11);
  if (maker === "NTFS    " || maker === "EXFAT   " || maker === "-FVE-FS-") return true;
  return isFatBootSector(sector);
}

/**
 * By the BIOS parameter block alone: every value that mkfs.fat, DOS and Windows must write is in its range. Its place is
 * boot code in an MBR, which doesn't pass for all of them at once.
 */
function isFatBootSector(sector: Buffer): boolean {
  const jump = sector[0] === 0xe9 || (sector[0] === 0xeb && sector[2] === 0x90);
  const sectorSize = sector.readUInt16LE(11);
  const clusterSectors = sector[13]!;
  const reserved = sector.readUInt16LE(14);
  const tables = sector[16]!;
  const media = sector[21]!;
  const sectors = sector.readUInt16LE(19) || sector.readUInt32LE(32);
  const tableSectors = sector.readUInt16LE(22) || sector.readUInt32LE(36);
  return (
    jump &&
    isPowerOfTwo(sectorSize) &&
    sectorSize >= 512 &&
    sectorSize <= 4096 &&
    isPowerOfTwo(clusterSectors) &&
    reserved > 0 &&
    (tables === 1 || tables === 2) &&
    (media === 0xf0 || media >= 0xf8) &&
    sectors > reserved &&
    tableSectors > 0
  );
}

const isPowerOfTwo = (value: number) => value > 0 && (value & (value - 1)) === 0;
