/**
 * BitLocker's metadata, of which a volume has three copies (libbde's "BitLocker Drive Encryption (BDE) format", sections "FVE
 * metadata block" to "FVE Volume Master Key"). All numbers are little-endian.
 *
 *     block header, 64 bytes   where the copies and the first sectors are, how far the volume is encrypted
 *     header, 48 bytes         the cipher
 *     entries                  the key of the data, sealed with the master key; the protectors, each of which has the
 *                              master key, sealed with what a password, a file or the TPM gives; a label
 *     validation               CRC-32 of all above, and their SHA-256, sealed with the master key
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { guidText } from "../../bytes/guid.js";
import { corrupt, unsupported } from "../../errors.js";
import { type Entry, protectorId, Role, readEntries, Type, text, u64 } from "./entries.js";

const signature = "-FVE-FS-";
const blockHeader = 64;
const header = 48;
/** Bytes of a copy at most: that much room each is given. */
const largest = 0x10000;

/** Sealed with AES-CCM: who opens it knows that it is unchanged. */
export interface Sealed {
  readonly nonce: Buffer;
  readonly tag: Buffer;
  readonly data: Buffer;
}

export interface Protector {
  /** A GUID, as Windows shows it. */
  readonly id: string;
  /** Bits: 0x100 TPM, 0x200 startup key, 0x400 PIN, 0x800 recovery password, 0x1000 smart card, 0x2000 password; 0 clear key. */
  readonly kind: number;
  /** Of those that are made of a password; undefined where it's done otherwise than by `stretch`. */
  readonly salt: Buffer | undefined;
  /** Of a clear key: that. */
  readonly clear: Buffer | undefined;
  /** The master key. */
  readonly sealed: Sealed | undefined;
}

export const State = { decrypted: 1, paused: 3, encrypted: 4, switchingSmall: 5 } as const;

export interface Metadata {
  /** In the volume, in bytes. */
  readonly position: number;
  /** Of the block that is checked. */
  readonly bytes: Buffer;
  /** 1: Windows Vista, 2: later. */
  readonly version: number;
  readonly state: number;
  /** Bytes from the first on that are encrypted; 0: all. */
  readonly encrypted: number;
  /** Of all copies, in bytes. */
  readonly positions: readonly number[];
  /** Of Windows Vista the cluster number of the copy of the file table, else where the first sectors are, in bytes. */
  readonly moved: number;
  /** How many sectors are there. */
  readonly movedSectors: number;
  /** The same, as an entry tells it, in bytes; older and the newest versions have none. */
  readonly movedPlace: { readonly position: number; readonly size: number } | undefined;
  readonly id: string;
  /** The cipher's number. */
  readonly method: number;
  /** When the volume was encrypted; undefined for a date beyond those that there are. */
  readonly created: string | undefined;
  readonly label: string;
  readonly protectors: readonly Protector[];
  readonly dataKey: Sealed | undefined;
  /** SHA-256 of `bytes` as the metadata tell it: sealed, or plain where there is no key. */
  readonly hash: { readonly sealed?: Sealed; readonly plain?: Buffer };
}

/** @throws ImageError `corrupt` for a copy that isn't there or whose checksum is wrong; `unsupported` for a version */
export function readMetadata(source: ByteSource, position: number): Metadata {
  const damaged = (what: string) => corrupt(`${source.name}: BitLocker's metadata at byte ${position}: ${what}.`);
  const start = readExactly(source, position, blockHeader + header, "BitLocker's metadata");
  if (start.toString("latin1", 0, 8) !== signature) throw damaged("they don't begin with -FVE-FS-");
  const version = start.readUInt16LE(10);
  const size = start.readUInt16LE(8) * (version === 1 ? 1 : 16);
  if (size < start.length || size > largest) throw damaged(`they tell of ${size} bytes`);
  const bytes = readExactly(source, position, size, "BitLocker's metadata");
  const validation = readExactly(source, position + size, 8, "the checksum of BitLocker's metadata");
  if (crc32(bytes) !== validation.readUInt32LE(4)) throw damaged("their checksum is wrong");
  if (version !== 1 && version !== 2)
    throw unsupported(
      `${source.name}: BitLocker's metadata at byte ${position} are of version ${version}, not 1 or 2.`,
    );
  const positions = [32, 40, 48].map((at) => u64(bytes, at));
  if (!positions.includes(position)) throw damaged(`they should be at the bytes ${positions.join(", ")}`);
  const length = bytes.readUInt32LE(blockHeader);
  if (bytes.readUInt32LE(blockHeader + 8) !== header || length < header || blockHeader + length > size)
    throw damaged(`their entries take ${length} bytes of ${size}`);
  const entries = readEntries(bytes.subarray(blockHeader + header, blockHeader + length), damaged);
  const first = (role: number, type: number) => entries.find((entry) => entry.role === role && entry.type === type);
  const place = first(Role.header, Type.place)?.data;
  if (place && place.length < 16) throw damaged(`where the first sectors are is told in ${place.length} bytes`);
  const dataKey = first(Role.dataKey, Type.sealedKey);
  return {
    position,
    bytes,
    version,
    state: bytes.readUInt16LE(12),
    encrypted: u64(bytes, 16),
    positions,
    moved: u64(bytes, 56),
    movedSectors: bytes.readUInt32LE(28),
    movedPlace: place && { position: u64(place, 0), size: u64(place, 8) },
    id: guidText(bytes, blockHeader + 16),
    // The other 16 bits repeat it, or are zeros.
    method: bytes.readUInt16LE(blockHeader + 36),
    created: dateOf(u64(bytes, blockHeader + 40)),
    label: text(first(Role.label, Type.text)?.data ?? Buffer.alloc(0)),
    protectors: entries.filter(({ type }) => type === Type.protector).map((entry) => protectorOf(entry, damaged)),
    dataKey: dataKey && sealedOf(dataKey, damaged),
    hash: hashOf(source, position + size, validation.readUInt16LE(0), damaged),
  };
}

function protectorOf({ data }: Entry, damaged: (what: string) => Error): Protector {
  if (data.length < 28) throw damaged(`a protector has ${data.length} bytes`);
  const properties = readEntries(data.subarray(28), damaged);
  const property = (type: number) => properties.find((entry) => entry.type === type);
  const [stretched, sealed] = [property(Type.stretchedKey), property(Type.sealedKey)];
  if (stretched && stretched.data.length < 20) throw damaged("a protector's salt is cut off");
  // 0x1000 and 0x1001 are the usual way; a flag tells of PBKDF2 in its place.
  const usual =
    stretched && (stretched.data.readUInt16LE(0) | 1) === 0x1001 && !(stretched.data.readUInt16LE(2) & 0x40);
  return {
    id: protectorId(data),
    kind: data.readUInt16LE(26) & 0xff00,
    salt: usual ? stretched.data.subarray(4, 20) : undefined,
    clear: property(Type.key)?.data.subarray(4),
    sealed: sealed && sealedOf(sealed, damaged),
  };
}

function sealedOf({ data }: Entry, damaged: (what: string) => Error): Sealed {
  if (data.length <= 28) throw damaged(`a key is sealed in ${data.length} bytes`);
  return { nonce: data.subarray(0, 12), tag: data.subarray(12, 28), data: data.subarray(28) };
}

/** @param room bytes from the checksum's header on */
function hashOf(source: ByteSource, at: number, room: number, damaged: (what: string) => Error): Metadata["hash"] {
  if (room < 16) throw damaged("their SHA-256 is missing");
  const bytes = readExactly(source, at, Math.min(room, 256), "the SHA-256 of BitLocker's metadata");
  const size = bytes.readUInt16LE(8);
  if (size < 8 || 8 + size > bytes.length) throw damaged(`their SHA-256 takes ${size} bytes`);
  const [entry] = readEntries(bytes.subarray(8, 8 + size), damaged);
  if (entry?.type === Type.sealedKey) return { sealed: sealedOf(entry, damaged) };
  if (entry?.type === Type.key) return { plain: entry.data.subarray(4) };
  throw damaged("their SHA-256 is missing");
}

/** @param time in tenths of a microsecond since 1601 */
function dateOf(time: number): string | undefined {
  const date = new Date(time / 10_000 - 11_644_473_600_000);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}
