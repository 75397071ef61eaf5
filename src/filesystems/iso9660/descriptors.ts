/**
 * The volume descriptors, from sector 16 of a session on (ECMA-119, 8). The primary one has the plain tree, which Rock Ridge
 * may extend; a supplementary one with an escape sequence for UCS-2 has Joliet's tree; a boot record points to the boot
 * catalog of El Torito. Enhanced descriptors (version 2) repeat the plain tree and are passed over.
 */
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { corrupt, ImageError } from "../../errors.js";
import { utf16ToBytes } from "../utf16.js";
import { isoText, longTime } from "./times.js";
import { SECTOR } from "./volume.js";

export const FIRST_DESCRIPTOR = 16;
/** More descriptors than this are taken for damage. */
const MOST_DESCRIPTORS = 256;

export interface VolumeDescriptor {
  /** Byte in the image. */
  readonly position: number;
  readonly bytes: Buffer;
  readonly blockSize: number;
  /** Size of the volume in blocks; of a later session, counted from that session's start. */
  readonly blocks: number;
  /** Byte at which the root directory lies. */
  readonly root: number;
}

export interface Descriptors {
  readonly primary: VolumeDescriptor;
  readonly joliet: VolumeDescriptor | undefined;
  /** Sector of El Torito's boot catalog. */
  readonly bootCatalog: number | undefined;
}

const isDescriptor = (bytes: Buffer) => bytes.toString("latin1", 1, 6) === "CD001";

/** Whether a session that begins at `sector` has volume descriptors of ISO 9660. */
export function hasDescriptors(source: ByteSource, sector = 0): boolean {
  const bytes = Buffer.alloc(7);
  const position = (sector + FIRST_DESCRIPTOR) * SECTOR;
  return position + SECTOR <= source.size && readFully(source, position, bytes) === 7 && isDescriptor(bytes);
}

/** @throws ImageError `corrupt` when there is no usable primary descriptor. */
export function readDescriptors(source: ByteSource, session: number): Descriptors {
  let primary: VolumeDescriptor | undefined;
  let joliet: VolumeDescriptor | undefined;
  let bootCatalog: number | undefined;
  let damage: ImageError | undefined;
  for (let index = 0; index < MOST_DESCRIPTORS; index++) {
    const position = (session + FIRST_DESCRIPTOR + index) * SECTOR;
    const bytes = Buffer.alloc(SECTOR);
    if (readFully(source, position, bytes) < SECTOR || !isDescriptor(bytes)) break;
    const [type] = bytes;
    if (type === 255) break;
    try {
      if (type === 1) primary ??= parse(source, position, bytes);
      else if (type === 2 && isJoliet(bytes)) joliet ??= parse(source, position, bytes);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      damage ??= error;
    }
    if (type === 0 && bytes.toString("latin1", 7, 30) === "EL TORITO SPECIFICATION")
      bootCatalog ??= bytes.readUInt32LE(71);
  }
  if (primary) return { primary, joliet, bootCatalog };
  const position = (session + FIRST_DESCRIPTOR) * SECTOR;
  throw damage ?? corrupt(`${source.name}: no primary volume descriptor of ISO 9660 follows byte ${position}.`);
}

function parse(source: ByteSource, position: number, bytes: Buffer): VolumeDescriptor {
  const blockSize = bytes.readUInt16LE(128);
  if (blockSize !== 512 && blockSize !== 1024 && blockSize !== 2048)
    throw corrupt(
      `${source.name}: the volume descriptor at byte ${position} gives blocks of ${blockSize} bytes; ISO 9660 has 512, 1024 or 2048.`,
    );
  // The root's directory record, at 156: its extent, and behind which extended attribute record the data begin.
  const root = (bytes.readUInt32LE(158) + bytes[157]) * blockSize;
  return { position, bytes, blockSize, blocks: bytes.readUInt32LE(80), root };
}

/** Escape sequences for UCS-2 of level 1, 2 or 3 (Joliet, "Supplementary Volume Descriptor"). */
const isJoliet = (bytes: Buffer) =>
  bytes[6] === 1 && bytes[88] === 0x25 && bytes[89] === 0x2f && [0x40, 0x43, 0x45].includes(bytes[90]);

const plainText = (bytes: Buffer, at: number, length: number) =>
  bytes.toString("latin1", at, at + length).replace(/[ \0]+$/, "");

/** UCS-2, most significant byte first, without the spaces or zeros that fill the field. */
export function jolietText(bytes: Buffer, at: number, length: number): string {
  let text = "";
  for (let index = at; index + 1 < at + length; index += 2) text += String.fromCharCode(bytes.readUInt16BE(index));
  return text.replace(/[ \0]+$/, "");
}

/**
 * Joliet's volume name where there is one. It has room for 16 characters and the primary one for 32, of fewer kinds: the end
 * of a long name is taken from there, as blkid does.
 */
export function labelOf({ primary, joliet }: Descriptors): string {
  const plain = plainText(primary.bytes, 40, 32);
  if (!joliet) return plain;
  const label = jolietText(joliet.bytes, 40, 32);
  if (label === "") return plain;
  const wide = utf16ToBytes(label).toString("utf8");
  if (label.length === 16 && plain.length > 16) return wide + plain.slice(16);
  return wide;
}

/** What else the descriptors tell, for `spindle info`. The UUID is blkid's: when the volume was changed last, or made. */
export function volumeFacts({ bytes }: VolumeDescriptor): Record<string, unknown> {
  const text = (at: number, length: number) => plainText(bytes, at, length) || undefined;
  const time = (at: number) => {
    const found = longTime(bytes, at);
    return found && isoText(found);
  };
  const created = bytes.toString("latin1", 813, 829);
  const modified = bytes.toString("latin1", 830, 846);
  const stamp = [modified, created].find((digits) => /^\d{16}$/.test(digits) && !/^0*$/.test(digits));
  return {
    uuid: stamp?.replace(/^(....)(..)(..)(..)(..)(..)(..)$/, "$1-$2-$3-$4-$5-$6-$7"),
    system: text(8, 32),
    volumeSet: text(190, 128),
    publisher: text(318, 128),
    preparer: text(446, 128),
    application: text(574, 128),
    created: time(813),
    modified: time(830),
    expires: time(847),
    effective: time(864),
    blockSize: bytes.readUInt16LE(128),
  };
}
