/**
 * The variables of a UEFI firmware, as OVMF keeps them in its second flash: enough to tell it what to boot. A firmware that
 * starts with empty variables knows only \EFI\BOOT\BOOTX64.EFI of a disk; many systems (Debian's is one) put their loader
 * elsewhere and its path in a variable, which isn't on the disk.
 *
 *     EFI_FIRMWARE_VOLUME_HEADER | VARIABLE_STORE_HEADER (28 bytes) | variables, each at a multiple of 4 | 0xff ...
 *     a variable: 0x55aa | state | - | attributes | count (8) | time (16) | key | bytes of name, of data | vendor (16) | name | data
 *
 * (PI 1.7, volume 3, 3.2.1; EDK II, MdeModulePkg/Include/Guid/VariableFormat.h; UEFI 2.10, 3.1.3 and 10.3.)
 */
import { corrupt } from "../errors.js";

/** Where a loader lies. */
export interface BootLoader {
  readonly partition: {
    readonly number: number;
    /** Bytes of the disk. */
    readonly position: number;
    readonly size: number;
  };
  /** The partition's GUID in text, or the 32 bits of the MBR's signature in hexadecimal digits. */
  readonly id: string;
  readonly scheme: "gpt" | "mbr";
  /** Bytes that the table counts in. */
  readonly sectorSize: number;
  /** From the partition's root: `\EFI\debian\shimx64.efi`. */
  readonly path: string;
}

const volumeSignature = "_FVH";
const storeHeader = 28;
const variableHeader = 60;
const startMark = 0x55aa;
const added = 0x3f;
/** Kept, and told at boot and at run time. */
const attributes = 7;
const globalVariable = guidBytes("8be4df61-93ca-11d2-aa0d-00e098032b8c");
/** Of the store's header: variables with a time, which is what a firmware with signatures has. */
const authenticated = guidBytes("aaf32c78-947b-439a-a180-2e144ec37792");
const formatted = 0x5a;
const healthy = 0xfe;

/**
 * The variables `template` and a boot entry before all others.
 * @param template a flash of OVMF, without entries of its own
 * @throws ImageError `corrupt` where it isn't one; `name` tells whose
 */
export function withBootEntry(template: Uint8Array, name: string, loader: BootLoader): Buffer {
  const flash = Buffer.from(template);
  const start = flash.toString("latin1", 40, 44) === volumeSignature ? flash.readUInt16LE(48) : flash.length;
  const known =
    start + storeHeader <= flash.length &&
    flash.subarray(start, start + 16).equals(authenticated) &&
    flash[start + 20] === formatted &&
    flash[start + 21] === healthy;
  const end = known ? Math.min(flash.length, start + flash.readUInt32LE(start + 16)) : 0;
  let at = aligned(start + storeHeader);
  while (at + variableHeader <= end && flash.readUInt16LE(at) === startMark)
    at = aligned(at + variableHeader + flash.readUInt32LE(at + 36) + flash.readUInt32LE(at + 40));
  for (const [title, data] of [
    ["Boot0000", loadOption(loader)],
    ["BootOrder", Buffer.alloc(2)],
  ] as const) {
    const bytes = variable(title, data);
    if (at + bytes.length > end || !flash.subarray(at, at + bytes.length).every((byte) => byte === 0xff))
      throw corrupt(`${name}: is no empty flash of UEFI variables, so nothing can be told to the firmware by it.`);
    bytes.copy(flash, at);
    at = aligned(at + bytes.length);
  }
  return flash;
}

const aligned = (position: number) => Math.ceil(position / 4) * 4;

function variable(title: string, data: Buffer): Buffer {
  const name = text(title);
  const header = Buffer.alloc(variableHeader);
  header.writeUInt16LE(startMark, 0);
  header[2] = added;
  header.writeUInt32LE(attributes, 4);
  header.writeUInt32LE(name.length, 36);
  header.writeUInt32LE(data.length, 40);
  globalVariable.copy(header, 44);
  return Buffer.concat([header, name, data]);
}

/** EFI_LOAD_OPTION: the short form of a path, which begins at a partition and is found on whatever disk has it. */
function loadOption({ partition, id, scheme, sectorSize, path }: BootLoader): Buffer {
  const drive = Buffer.alloc(38);
  drive.writeUInt32LE(partition.number, 0);
  drive.writeBigUInt64LE(BigInt(partition.position / sectorSize), 4);
  drive.writeBigUInt64LE(BigInt(Math.floor(partition.size / sectorSize)), 12);
  if (scheme === "gpt") guidBytes(id).copy(drive, 20);
  else drive.writeUInt32LE(Number.parseInt(id, 16), 20);
  drive[36] = scheme === "gpt" ? 2 : 1;
  drive[37] = scheme === "gpt" ? 2 : 1;
  const paths = Buffer.concat([node(4, 1, drive), node(4, 4, text(path)), node(0x7f, 0xff, Buffer.alloc(0))]);
  const start = Buffer.alloc(6);
  start.writeUInt32LE(1, 0); // LOAD_OPTION_ACTIVE
  start.writeUInt16LE(paths.length, 4);
  return Buffer.concat([start, text("disk"), paths]);
}

function node(type: number, subtype: number, data: Buffer): Buffer {
  const header = Buffer.from([type, subtype, 0, 0]);
  header.writeUInt16LE(4 + data.length, 2);
  return Buffer.concat([header, data]);
}

const text = (value: string) => Buffer.from(`${value}\0`, "utf16le");

/** A GUID's 16 bytes: the first three groups are little-endian numbers (UEFI 2.10, appendix A). */
function guidBytes(value: string): Buffer {
  const bytes = Buffer.from(value.replaceAll("-", ""), "hex");
  for (const [from, to] of [
    [0, 4],
    [4, 6],
    [6, 8],
  ] as const)
    bytes.subarray(from, to).reverse();
  return bytes;
}
