/**
 * BitLocker volumes of Windows Vista to 11, and BitLocker To Go, after libbde's "BitLocker Drive Encryption (BDE) format",
 * and checked against cryptsetup's and dissect.fve's images.
 *
 *     0           boot sector      BitLocker's own; where the metadata are
 *     ...         metadata         three copies, 64 KiB each, where the volume has room; zeros in the plain volume
 *     ...         moved sectors    the first sectors of the plain volume; zeros in it, too
 *     all else    encrypted        sector by sector, where it belongs
 *
 * Left out, and refused in words: keys of the TPM, of smart cards and of domains; drives that encrypt themselves; volumes whose
 * conversion was cut off.
 */
import { createHash } from "node:crypto";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { MemorySource } from "../../bytes/memory.js";
import { type SectorCipher, sectorCipher } from "../../bytes/sector-cipher.js";
import { corrupt, ImageError, unsupported } from "../../errors.js";
import type { Encryption, Secrets } from "../encryption.js";
import { type BootSector, isBitLocker, readBootSector } from "./boot-sector.js";
import { readConversion } from "./conversion.js";
import { elephant } from "./elephant.js";
import { inWords, kindInWords, type OpenedKeys, openKeys } from "./keys.js";
import { type Metadata, readMetadata, State } from "./metadata.js";
import { type Layout, PlainSource } from "./plain-source.js";

interface Cipher {
  readonly name: string;
  /** Of the cipher; the key of the data may be longer. */
  readonly bits: number;
  readonly keyBytes: number;
  make(key: Buffer, sectorSize: number): SectorCipher;
}

const cbc = (key: Buffer, sectorSize: number) => sectorCipher("aes", "cbc-eboiv", key, sectorSize);
const xts = (key: Buffer, sectorSize: number) => sectorCipher("aes", "xts-large64", key, sectorSize);

/** The key of the data has room for two of 256 bits with the diffuser, however long they are. */
const diffused = (bits: number): Cipher => ({
  name: "AES-CBC with Elephant diffuser",
  bits,
  keyBytes: 64,
  make: (key, sectorSize) => elephant(key.subarray(0, bits / 8), key.subarray(32, 32 + bits / 8), sectorSize),
});

const ciphers: Readonly<Record<number, Cipher>> = {
  32768: diffused(128),
  32769: diffused(256),
  32770: { name: "AES-CBC", bits: 128, keyBytes: 16, make: cbc },
  32771: { name: "AES-CBC", bits: 256, keyBytes: 32, make: cbc },
  32772: { name: "AES-XTS", bits: 128, keyBytes: 32, make: xts },
  32773: { name: "AES-XTS", bits: 256, keyBytes: 64, make: xts },
};

export const bitlocker: Encryption = {
  name: "BitLocker",
  recognises: isBitLocker,
  open(source, secrets) {
    const boot = readBootSector(source);
    const problems: string[] = [];
    const { metadata, keys } = openedMetadata(source, boot, secrets, problems);
    const sectorSize = sectorSizeOf(source, boot, metadata);
    const layout = layoutOf(source, boot, metadata, sectorSize);
    const plain = new PlainSource(source, keys?.cipher.make(keys.key, sectorSize), layout);
    const facts = {
      version: metadata.version === 1 ? "Windows Vista" : "Windows 7 and later",
      ...(boot.isToGo && { toGo: true }),
      ...(keys && { cipher: keys.cipher.name, keyBits: keys.cipher.bits }),
      sectorSize,
      label: metadata.label,
      uuid: metadata.id,
      ...(metadata.created !== undefined && { created: metadata.created }),
      state: stateInWords(boot, metadata),
      ...(metadata.encrypted > 0 && { encryptedSize: metadata.encrypted }),
      protectors: metadata.protectors.map(({ id, kind }) => ({ id, kind: kindInWords(kind) })),
      ...(keys && { openedWith: inWords(keys.by) }),
      ...(problems.length > 0 && { metadataAt: metadata.position, damagedMetadata: problems }),
    };
    return { source: plain, facts };
  },
};

type Keys = OpenedKeys & { readonly cipher: Cipher };

/** The first copy that is whole. @param problems what is wrong with those before it is added, in sentences */
function openedMetadata(
  source: ByteSource,
  boot: BootSector,
  secrets: Secrets,
  problems: string[],
): { metadata: Metadata; keys: Keys | undefined } {
  for (const position of boot.metadata)
    try {
      const metadata = readMetadata(source, position);
      // A copy may have the right checksum and not be what was sealed; then another is better, or none.
      return { metadata, keys: keysOf(source, metadata, secrets) };
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "corrupt") throw error;
      problems.push(error.message);
    }
  const many = problems.length === 1 ? "" : ` None of the ${problems.length} copies can be used.`;
  throw corrupt(`${problems[0]!}${many}`);
}

/** Undefined where the volume was decrypted, and only its first sectors are still elsewhere. */
function keysOf(source: ByteSource, metadata: Metadata, secrets: Secrets): Keys | undefined {
  refuseStates(source, metadata);
  if (metadata.state === State.decrypted) {
    if (metadata.hash.plain?.equals(createHash("sha256").update(metadata.bytes).digest())) return undefined;
    throw corrupt(`${source.name}: BitLocker's metadata at byte ${metadata.position}: their SHA-256 is wrong.`);
  }
  const cipher = ciphers[metadata.method];
  if (!cipher)
    throw unsupported(
      `${source.name}: is encrypted (BitLocker) by the method 0x${metadata.method.toString(16)}, which Spindle doesn't know. Where a drive encrypts by itself, only that drive decrypts it.`,
    );
  const keys = openKeys(source.name, `${cipher.name}, ${cipher.bits} bits`, metadata, secrets);
  if (keys.key.length === cipher.keyBytes) return { ...keys, cipher };
  throw corrupt(`${source.name}: the key of the data has ${keys.key.length} bytes, not ${cipher.keyBytes}.`);
}

/** In bytes. The metadata, which are checked, count the moved sectors; the boot sector, which isn't, has to agree. */
function sectorSizeOf(source: ByteSource, boot: BootSector, metadata: Metadata): number {
  const { movedSectors, movedPlace } = metadata;
  const size = boot.sectorSize || (movedPlace && movedSectors ? movedPlace.size / movedSectors : 512);
  if (size !== 512 && size !== 4096)
    throw unsupported(`${source.name}: has sectors of ${size} bytes, and BitLocker's have 512 or 4096.`);
  if (metadata.version > 1 && movedPlace && movedPlace.size !== movedSectors * size)
    throw corrupt(
      `${source.name}: BitLocker's metadata tell of ${movedSectors} moved sectors in ${movedPlace.size} bytes, and the first sector of sectors of ${size} bytes. One of them is damaged.`,
    );
  return size;
}

function refuseStates(source: ByteSource, metadata: Metadata): void {
  const { state, encrypted } = metadata;
  const known = [State.decrypted, State.paused, State.encrypted, State.switchingSmall] as readonly number[];
  const isPart = state === State.paused || state === State.switchingSmall;
  if (known.includes(state) && !(isPart && encrypted === 0)) return;
  throw unsupported(
    `${source.name}: Windows was encrypting or decrypting this volume (BitLocker, state ${state}) and was stopped, and Spindle can't tell how far it was. Let Windows finish it, and make the image anew.`,
  );
}

function stateInWords({ conversion }: BootSector, { state }: Metadata): string {
  if (state === State.decrypted) return "decrypted";
  if (conversion.length > 0) return "some parts encrypted";
  return state === State.encrypted ? "encrypted" : "encrypted up to a boundary";
}

function layoutOf(source: ByteSource, boot: BootSector, metadata: Metadata, sectorSize: number): Layout {
  const { version, state, encrypted } = metadata;
  const size = source.size - (source.size % sectorSize);
  const told = version === 1 ? boot.sectors * sectorSize : encrypted;
  if (told > source.size)
    throw corrupt(
      `${source.name}: BitLocker's metadata tell of ${told} encrypted bytes, and there are only ${source.size}. It is truncated.`,
    );
  if (encrypted % sectorSize !== 0)
    throw corrupt(`${source.name}: BitLocker's metadata tell of ${encrypted} encrypted bytes, not whole sectors.`);
  const room = roomOf(boot, version, sectorSize);
  const reserved = metadata.positions.map((at) => [at, at + room] as const);
  const moved = movedOf(source, metadata, sectorSize);
  const everything = { end: Number.POSITIVE_INFINITY, isEncrypted: state !== State.decrypted };
  let stretches = [everything];
  if (state !== State.decrypted && encrypted > 0)
    stretches = [
      { end: encrypted, isEncrypted: true },
      { end: Number.POSITIVE_INFINITY, isEncrypted: false },
    ];
  if (version === 1) {
    // The first 8 KiB are plain, and nearly what they were.
    const first = vistaBootSector(source, boot, metadata);
    return {
      size,
      moved,
      first,
      ...repeated(source, boot, sectorSize),
      stretches: [{ end: moved.size, isEncrypted: false }, ...stretches],
      reserved,
    };
  }
  reserved.push([moved.position, moved.position + moved.size]);
  if (boot.conversion.length === 0) return { size, moved, stretches, reserved };
  const conversion = readConversion(source, boot.conversion, moved.size, encrypted || size, sectorSize);
  return {
    size,
    moved,
    stretches: state === State.decrypted ? stretches : conversion.stretches,
    reserved: [...reserved, ...conversion.reserved],
  };
}

/** Bytes that each copy of the metadata is given. */
function roomOf({ clusterSize }: BootSector, version: number, sectorSize: number): number {
  const [least, unit] = version === 1 ? [0x4000, clusterSize] : [0x10000, sectorSize];
  return Math.ceil(least / unit) * unit;
}

/** Where the first sectors are; those of Windows Vista are where they belong. */
function movedOf(source: ByteSource, metadata: Metadata, sectorSize: number): Layout["moved"] {
  const { version, moved, movedSectors, movedPlace, positions } = metadata;
  if (version === 1) return { position: 0, size: 0x2000 };
  const size = movedSectors * sectorSize;
  const isOdd = moved % sectorSize !== 0 || positions.some((at) => at < size || at % sectorSize !== 0) || moved < size;
  if (size === 0 || isOdd || (movedPlace && movedPlace.position !== moved))
    throw corrupt(
      `${source.name}: BitLocker's metadata tell that the first ${movedSectors} sectors are at byte ${moved}, and copies of the metadata at ${positions.join(", ")}. That can't be.`,
    );
  return { position: moved, size };
}

/** What was changed in the first sector of NTFS: its name, and where the copy of the file table's first part is. */
function vistaBootSector(source: ByteSource, boot: BootSector, metadata: Metadata): ByteSource {
  const bytes = Buffer.from(boot.bytes);
  bytes.write("NTFS    ", 3, "latin1");
  bytes.writeBigUInt64LE(metadata.bytes.readBigUInt64LE(56), 56);
  return new MemorySource(source.name, bytes);
}

/** NTFS keeps a copy of its first sector behind its last one; that of Windows Vista was changed, too, and left plain. */
function repeated(source: ByteSource, boot: BootSector, sectorSize: number): { again?: number } {
  for (const at of [boot.sectors * sectorSize, (boot.sectors - 1) * sectorSize])
    if (at > 0 && at + boot.bytes.length <= source.size)
      if (readExactly(source, at, boot.bytes.length, "the copy of the first sector").equals(boot.bytes))
        return { again: at };
  return {};
}
