/** A volume of LUKS version 2: its key found with a password, and its data decrypted. */
import { timingSafeEqual } from "node:crypto";
import { argon2 } from "../../bytes/argon2.js";
import { type ByteSource, readExactly, Slice } from "../../bytes/byte-source.js";
import { DecryptedSource } from "../../bytes/decrypted.js";
import { firstKey, mostWork, noSlots, pbkdf2Work, tooMuchWork } from "../../bytes/luks-slots.js";
import { mergeStripes } from "../../bytes/luks-stripes.js";
import { type SectorCipher, sectorCipher } from "../../bytes/sector-cipher.js";
import { corrupt, ImageError, locked, unsupported } from "../../errors.js";
import type { PlainVolume, Secrets } from "../encryption.js";
import { readHeader2 } from "./header2.js";
import { type Cipher, type Digest, type KeyMaking, type KeySlot, readMetadata2, type Segment } from "./metadata2.js";

const sector = 512;
/** Most memory that a key is made with, in KiB: as much as cryptsetup allows, 4 GiB. */
const mostMemory = 4 * 2 ** 20;

export function openLuks2(source: ByteSource, secrets: Secrets): PlainVolume {
  const { name } = source;
  const header = readHeader2(source);
  const { segment, digest, slots } = readMetadata2(name, source.size, header);
  const description = `LUKS 2, ${segment.cipher}-${segment.mode}`;
  for (const { keyLength } of slots) namedCipher(name, segment, new Uint8Array(keyLength), segment.sectorSize);
  const data = dataOf(source, segment);
  const { usable, unusable } = slotsByUse(name, slots, digest);
  const key = secrets.remember(`${name}: key of LUKS ${header.uuid}`, () => {
    if (secrets.password === undefined)
      throw locked(
        `${name}: is encrypted (${description}). Give its password with --password-file FILE, or in the variable SPINDLE_PASSWORD.`,
      );
    const { key, leftOut } = firstKey(
      usable,
      (slot) => workOf(slot, digest),
      (slot) => keyIn(source, slot, digest, secrets.password!),
    );
    if (key) return key;
    if (unusable) throw unusable;
    if (leftOut) throw tooMuch(name, leftOut);
    const many = slots.length === 1 ? "its one key slot" : `any of its ${slots.length} key slots`;
    throw locked(
      `${name}: the password is wrong: it doesn't open ${many} (${description}). Give the right one with --password-file FILE.`,
    );
  });
  return {
    source: new DecryptedSource(data, namedCipher(name, segment, key, segment.sectorSize), segment.firstVector),
    facts: {
      version: 2,
      cipher: `${segment.cipher}-${segment.mode}`,
      keyBits: key.length * 8,
      sectorSize: segment.sectorSize,
      label: header.label || undefined,
      subsystem: header.subsystem || undefined,
      uuid: header.uuid,
      keySlots: slots.length,
      keysMadeWith: [...new Set(slots.map(({ making }) => making.kind))].join(", "),
      header: header.second && `the second one was taken, since ${header.second}`,
    },
  };
}

export const detachedHeader = (name: string): ImageError =>
  unsupported(
    `${name}: holds a LUKS header and none of the data, which are in another place (a detached header). Spindle opens volumes that have both.`,
  );

/** @throws ImageError `unsupported` where they aren't in this file, `corrupt` where it ends before them */
function dataOf(source: ByteSource, { position, size, sectorSize }: Segment): ByteSource {
  const { name } = source;
  const rest = source.size - position;
  if (position === 0 || rest === 0) throw detachedHeader(name);
  if (rest < (size ?? sectorSize))
    throw corrupt(
      `${name}: its data should be ${size === undefined ? "" : `${size} bytes `}from byte ${position} on, but there are only ${source.size} bytes. It is truncated.`,
    );
  return new Slice(name, source, position, size ?? rest);
}

/** @throws ImageError `unsupported` */
function namedCipher(name: string, { cipher, mode }: Cipher, key: Uint8Array, sectorSize?: number): SectorCipher {
  try {
    return sectorCipher(cipher, mode, key, sectorSize);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw new ImageError(
      error.code,
      `${name}: ${error.message}. Open it with cryptsetup, and make an image of what it opens.`,
    );
  }
}

/**
 * The slots that can be tried, and what keeps the first of the others from it.
 * @throws ImageError `corrupt` where there are none; `unsupported` where none can be tried: no password is needed to tell
 */
function slotsByUse(
  name: string,
  slots: readonly KeySlot[],
  digest: Digest,
): { readonly usable: readonly KeySlot[]; readonly unusable: ImageError | undefined } {
  let unusable: ImageError | undefined;
  const usable = slots.filter((slot) => {
    try {
      namedCipher(name, slot, new Uint8Array(slot.ownKeyLength));
      if (workOf(slot, digest) > mostWork) throw tooMuch(name, slot);
      return true;
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      unusable ??= error;
      return false;
    }
  });
  if (usable.length === 0) throw unusable ?? noSlots(name);
  return { usable, unusable };
}

/** As `mostWork` counts it. */
function workOf({ making, ownKeyLength }: KeySlot, { rounds, value, hash }: Digest): number {
  const check = pbkdf2Work(rounds, value.length, hash);
  if (making.kind === "pbkdf2") return check + pbkdf2Work(making.rounds, ownKeyLength, making.hash);
  return making.memory > mostMemory ? Number.POSITIVE_INFINITY : check + making.memory * making.passes;
}

const tooMuch = (name: string, slot: KeySlot) =>
  tooMuchWork(name, `key slot ${slot.name} asks for ${inWords(slot.making)}`);

const inWords = (making: KeyMaking) =>
  making.kind === "pbkdf2"
    ? `${making.rounds} rounds of hashing`
    : `${making.passes} passes over ${Math.ceil(making.memory / 1024)} MiB of memory`;

/** The key that is in a slot, if `password` opens it. */
function keyIn(source: ByteSource, slot: KeySlot, digest: Digest, password: Uint8Array): Uint8Array | undefined {
  const { keyLength, stripes, position } = slot;
  const cipher = namedCipher(source.name, slot, keyOf(source.name, slot, password));
  const length = Math.ceil((keyLength * stripes) / sector) * sector;
  const material = readExactly(source, position, length, `the key in slot ${slot.name}`);
  cipher.decrypt(material, 0);
  const key = mergeStripes(material, keyLength, stripes, slot.stripeHash);
  const { salt, rounds, value, hash } = digest;
  return timingSafeEqual(hash.pbkdf2(key, salt, rounds, value.length), value) ? key : undefined;
}

function keyOf(name: string, { making, ownKeyLength }: KeySlot, password: Uint8Array): Uint8Array {
  if (making.kind === "pbkdf2") return making.hash.pbkdf2(password, making.salt, making.rounds, ownKeyLength);
  try {
    return argon2(password, making.salt, ownKeyLength, making);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw new ImageError(error.code, `${name}: ${error.message}.`);
  }
}
