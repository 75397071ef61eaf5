/**
 * The first sector of a BitLocker volume, which is never encrypted: it tells where the metadata are. Where a volume of FAT
 * was encrypted (BitLocker To Go) it is that of a small FAT volume, which shows other computers a program that reads the
 * rest. What marks both is a GUID; Windows Vista had none yet.
 */
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { corrupt } from "../../errors.js";
import { u64 } from "./entries.js";

const sectorBytes = 512;
/** 4967d63b-2e29-4ad8-8399-f6a339e3d001: the positions of the metadata follow. */
const marker = Buffer.from("3bd66749292ed84a8399f6a339e3d001", "hex");
/**
 * 92a84d3b-dd80-4d0e-9e4e-b1e3284eaed8: and behind those the positions of the tables that tell which parts are encrypted, of
 * a volume that is being encrypted or decrypted in any order ("encrypt on write", since Windows 8).
 */
const convertingMarker = Buffer.from("3b4da89280dd0e4d9e4eb1e3284eaed8", "hex");
const At = { jump: 0, system: 3, sectorSize: 11, clusterSectors: 13, sectors: 40, vistaMetadata: 56 } as const;

export interface BootSector {
  readonly bytes: Buffer;
  readonly isToGo: boolean;
  /** In bytes; 0 where it isn't told, as of volumes of exFAT. */
  readonly sectorSize: number;
  readonly clusterSize: number;
  /** Of the volume, as Windows Vista's tells them; else 0. */
  readonly sectors: number;
  /** Positions of the copies of the metadata in bytes. Of Windows Vista the first alone: it tells the others. */
  readonly metadata: readonly number[];
  /** Positions of the two copies of the table of what is encrypted; none where all is. */
  readonly conversion: readonly number[];
}

const systemOf = (bytes: Buffer) => bytes.toString("latin1", At.system, At.system + 8);

export function isBitLocker(source: ByteSource): boolean {
  const bytes = Buffer.alloc(sectorBytes);
  if (source.size < sectorBytes || readFully(source, 0, bytes) < sectorBytes) return false;
  if (systemOf(bytes) === "-FVE-FS-") return true;
  return systemOf(bytes) === "MSWIN4.1" && (bytes.includes(marker) || bytes.includes(convertingMarker));
}

/** @throws ImageError `corrupt` where it tells no positions */
export function readBootSector(source: ByteSource): BootSector {
  const bytes = Buffer.alloc(sectorBytes);
  readFully(source, 0, bytes);
  const sectorSize = bytes.readUInt16LE(At.sectorSize);
  const clusterSize = sectorSize * bytes[At.clusterSectors]!;
  const common = { bytes, sectorSize, clusterSize, isToGo: systemOf(bytes) === "MSWIN4.1" };
  const converting = bytes.indexOf(convertingMarker);
  const found = converting >= 0 ? converting : bytes.indexOf(marker);
  // The driver of Windows, too, looks for the GUID wherever it is: in one kind it is at byte 160, in the other at 424.
  if (found >= 0 && found + 16 + 40 <= sectorBytes) {
    const positions = [0, 1, 2, 3, 4].map((nth) => u64(bytes, found + 16 + nth * 8));
    const conversion = converting >= 0 ? positions.slice(3) : [];
    return { ...common, sectors: 0, metadata: positions.slice(0, 3), conversion };
  }
  // Windows Vista's: nearly that of NTFS.
  if (bytes[At.jump + 1] !== 0x52 || clusterSize === 0)
    throw corrupt(
      `${source.name}: its first sector is one of BitLocker, but doesn't tell where the metadata are (no GUID). It is damaged.`,
    );
  const metadata = [u64(bytes, At.vistaMetadata) * clusterSize];
  return { ...common, sectors: u64(bytes, At.sectors), metadata, conversion: [] };
}
