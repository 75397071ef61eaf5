/**
 * What sysfs tells of a block device: the sizes of its sectors, and what disk it is. The kinds of disks have the latter in
 * different places beneath the folder of the disk; a partition has its disk's:
 *
 *     virtio    serial                                      no model
 *     NVMe      device/model, device/serial                 of the controller, or the subsystem where there are several paths
 *     SCSI      device/model, device/vpd_pg80               SATA and SAS too, and many on USB
 *     USB       device/model, serial of the USB device      one that has no vpd_pg80
 *     SD, eMMC  device/name, device/serial                  beside device/cid
 *
 * Loop devices, device mapper, RAID, NBD and the like have nothing of it. Left out: the full name of a SATA disk, of which
 * device/model has 16 letters.
 */
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";

export interface DeviceFacts {
  readonly model?: string;
  readonly serial?: string;
  /** Bytes. */
  readonly logicalSectorSize: number;
  /** Bytes. */
  readonly physicalSectorSize: number;
}

/**
 * The folder of a block device in sysfs, with links resolved.
 * @param rdev as Linux packs it
 * @param sysfs where sysfs is mounted
 */
export function deviceFolder(rdev: number, sysfs = "/sys"): string {
  const major = Math.floor(rdev / 256) % 4096;
  const minor = (rdev % 256) + Math.floor(rdev / 2 ** 20) * 256;
  const link = `${sysfs}/dev/block/${major}:${minor}`;
  try {
    return realpathSync(link);
  } catch {
    return link;
  }
}

/** @param folder as deviceFolder gives it; one that isn't there tells nothing */
export function deviceFacts(folder: string): DeviceFacts {
  const disk = existsSync(join(folder, "partition")) ? dirname(folder) : folder;
  const device = join(disk, "device");
  const logical = Number(text(join(disk, "queue/logical_block_size"))) || 512;
  const isCard = existsSync(join(device, "cid"));
  const model = text(join(device, "model")) ?? (isCard ? text(join(device, "name")) : undefined);
  const serial =
    text(join(disk, "serial")) ??
    text(join(device, "serial")) ??
    serialPage(join(device, "vpd_pg80")) ??
    serialOfUsb(device);
  return {
    ...(model ? { model } : {}),
    ...(serial ? { serial } : {}),
    logicalSectorSize: logical,
    physicalSectorSize: Number(text(join(disk, "queue/physical_block_size"))) || logical,
  };
}

/** A page of Vital Product Data, Unit Serial Number (SPC-4, 7.8.18): byte 1 its code, bytes 2 and 3 the length of what follows. */
function serialPage(path: string): string | undefined {
  const page = bytes(path);
  if (!page || page.length < 4 || page[1] !== 0x80) return undefined;
  return cleaned(page.subarray(4, 4 + page.readUInt16BE(2)));
}

/** The serial number of the USB device that a disk is a part of: the first folder above it with an idVendor. */
function serialOfUsb(device: string): string | undefined {
  let folder: string;
  try {
    folder = realpathSync(device);
  } catch {
    return undefined;
  }
  for (; folder !== dirname(folder); folder = dirname(folder))
    if (existsSync(join(folder, "idVendor"))) return text(join(folder, "serial"));
  return undefined;
}

function text(path: string): string | undefined {
  const found = bytes(path);
  return found && cleaned(found);
}

/** Without what disks fill their names up with, spaces or zeros, and without control characters, which some have. */
function cleaned(name: Buffer): string | undefined {
  return (
    name
      .toString("latin1")
      .replace(/[\0-\x1f\x7f-\x9f]/g, " ")
      .trim() || undefined
  );
}

/** A small file's bytes; undefined where it isn't there, or the driver refuses to tell, which sysfs does by an error of the read. */
function bytes(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}
