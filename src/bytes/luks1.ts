/**
 * The header of LUKS version 1 ("LUKS On-Disk Format Specification" 1.2.3): up to eight key slots, each with a copy of the
 * one key of the data, encrypted with a key that is made of a password. All numbers are big-endian.
 */
import { timingSafeEqual } from "node:crypto";
import { corrupt, ImageError, locked, unsupported } from "../errors.js";
import { type ByteSource, readExactly } from "./byte-source.js";
import { type Hash, hashNamed, whyNoHash } from "./hash.js";
import { firstKey, mostWork, noSlots, pbkdf2Work, tooMuchWork } from "./luks-slots.js";
import { mergeStripes } from "./luks-stripes.js";
import { type SectorCipher, sectorCipher } from "./sector-cipher.js";

const sector = 512;
const magic = Buffer.from("LUKS\xba\xbe", "latin1");
const Slot = { active: 0x00ac71f3, free: 0x0000dead } as const;
/** Copies into which a slot's key is spread: all writers have so many. */
const stripes = 4000;
/** Bytes of the largest key, of XTS with AES-256. */
const longestKey = 64;

interface KeySlot {
  readonly number: number;
  readonly rounds: number;
  readonly salt: Buffer;
  readonly position: number;
}

interface Place {
  readonly number: number;
  readonly position: number;
  readonly end: number;
}

/** Every slot has its own place for a key, used or not: what lies otherwise was made to deceive. */
function refuseOverlaps(places: Place[], data: number, damaged: (what: string) => Error): void {
  places.sort((a, b) => a.position - b.position);
  for (const [nth, { number, end }] of places.entries()) {
    const next = places[nth + 1];
    if (end > (next?.position ?? data))
      throw damaged(
        `key slot ${number} reaches to byte ${end}, ${next ? `into slot ${next.number}` : "into the data"}`,
      );
  }
}

export class Luks1Header {
  readonly cipher: string;
  /** `xts-plain64` and the like. */
  readonly mode: string;
  readonly hash: string;
  private readonly hashing: Hash;
  readonly uuid: string;
  /** Where the data begin, in bytes; a container of QEMU's has its own place for them. */
  readonly payload: number;
  readonly slots: readonly KeySlot[];
  /** Of the data's key, in bytes. */
  readonly keyLength: number;
  private readonly digest: Buffer;
  private readonly digestSalt: Buffer;
  private readonly digestRounds: number;

  /**
   * @param source begins with the header, and holds the key slots' material.
   * @param name of the file, for messages.
   * @throws ImageError `corrupt` for a header that can't be, or that has no key slot; `unsupported` for a hash that isn't
   *   known, and where all slots ask for too much work.
   */
  constructor(
    private readonly source: ByteSource,
    private readonly name: string,
  ) {
    const bytes = readExactly(source, 0, 592, "the LUKS header");
    const damaged = (what: string) => corrupt(`${name}: ${what}. Its LUKS header is damaged.`);
    if (!bytes.subarray(0, 6).equals(magic)) throw damaged("it should begin with LUKS, and doesn't");
    const version = bytes.readUInt16BE(6);
    if (version !== 1) throw unsupported(`${name}: is encrypted with LUKS of version ${version}, not 1.`);
    const text = (at: number, length: number) => bytes.toString("latin1", at, at + length).replace(/\0.*$/s, "");
    this.cipher = text(8, 32);
    this.mode = text(40, 32);
    this.hash = text(72, 32);
    this.uuid = text(168, 40);
    this.payload = bytes.readUInt32BE(104) * sector;
    this.keyLength = bytes.readUInt32BE(108);
    this.digest = Buffer.from(bytes.subarray(112, 132));
    this.digestSalt = Buffer.from(bytes.subarray(132, 164));
    this.digestRounds = bytes.readUInt32BE(164);
    if (this.keyLength < 1 || this.keyLength > longestKey)
      throw damaged(`it tells of a key of ${this.keyLength} bytes`);
    const hashing = hashNamed(this.hash);
    if (!hashing) throw unsupported(`${name}: makes its keys with the hash ${this.hash}, ${whyNoHash(this.hash)}.`);
    this.hashing = hashing;
    const slots: KeySlot[] = [];
    const places: Place[] = [];
    for (let number = 0; number < 8; number++) {
      const at = 208 + number * 48;
      const state = bytes.readUInt32BE(at);
      if (state !== Slot.active && state !== Slot.free) throw damaged(`key slot ${number} is neither used nor free`);
      const rounds = bytes.readUInt32BE(at + 4);
      const position = bytes.readUInt32BE(at + 40) * sector;
      if (bytes.readUInt32BE(at + 44) !== stripes)
        throw damaged(`key slot ${number} tells of ${bytes.readUInt32BE(at + 44)} stripes`);
      if (position < 592 || position + this.keyLength * stripes > source.size)
        throw damaged(`key slot ${number} should have its key at byte ${position} of ${source.size}`);
      places.push({ number, position, end: position + this.keyLength * stripes });
      if (state !== Slot.active) continue;
      slots.push({ number, rounds, position, salt: Buffer.from(bytes.subarray(at + 8, at + 40)) });
    }
    refuseOverlaps(places, this.payload || source.size, damaged);
    for (const rounds of [this.digestRounds, ...slots.map((slot) => slot.rounds)])
      if (rounds < 1) throw damaged(`it asks for ${rounds} rounds of hashing`);
    const [first] = slots;
    if (!first) throw noSlots(name);
    if (slots.every((slot) => this.workOf(slot) > mostWork)) throw this.tooMuch(first);
    this.slots = slots;
  }

  /** What messages and `info` call it: `LUKS, aes-xts-plain64`. */
  get description(): string {
    return `LUKS, ${this.cipher}-${this.mode}`;
  }

  /** @throws ImageError `unsupported` for a cipher that isn't known, which needs no password to be told. */
  checkCipher(): void {
    this.cipherOf(new Uint8Array(this.keyLength));
  }

  /**
   * The key of the data, from whichever slot `password` opens. Takes seconds, by design of the format.
   * @throws ImageError `locked` when it opens none; `unsupported` for a cipher that isn't known, and where a slot that it may
   *   open asks for too much work.
   */
  open(password: Uint8Array | undefined): Uint8Array {
    if (password === undefined)
      throw locked(
        `${this.name}: is encrypted (${this.description}). Give its password with --password-file FILE, or in the variable SPINDLE_PASSWORD.`,
      );
    const { key, leftOut } = firstKey(
      this.slots,
      (slot) => this.workOf(slot),
      (slot) => this.try(slot, password),
    );
    if (key) return key;
    if (leftOut) throw this.tooMuch(leftOut);
    const many = this.slots.length === 1 ? "its one key slot" : `any of its ${this.slots.length} key slots`;
    throw locked(
      `${this.name}: the password is wrong: it doesn't open ${many} (${this.description}). Give the right one with --password-file FILE.`,
    );
  }

  /** The cipher of the data. @throws ImageError `unsupported`. */
  cipherOf(key: Uint8Array): SectorCipher {
    try {
      return sectorCipher(this.cipher, this.mode, key);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      throw new ImageError(
        error.code,
        `${this.name}: ${error.message}. Copy it with qemu-img convert to an image without encryption.`,
      );
    }
  }

  private workOf({ rounds }: KeySlot): number {
    const { keyLength, digest, digestRounds, hashing } = this;
    return pbkdf2Work(rounds, keyLength, hashing) + pbkdf2Work(digestRounds, digest.length, hashing);
  }

  private tooMuch({ number, rounds }: KeySlot): ImageError {
    return tooMuchWork(this.name, `key slot ${number} asks for ${rounds} rounds of hashing with ${this.hash}`);
  }

  private try(slot: KeySlot, password: Uint8Array): Uint8Array | undefined {
    const cipher = this.cipherOf(this.hashing.pbkdf2(password, slot.salt, slot.rounds, this.keyLength));
    const length = Math.ceil((this.keyLength * stripes) / sector) * sector;
    const material = Buffer.alloc(length);
    readExactly(this.source, slot.position, Math.min(length, this.source.size - slot.position), "a key").copy(material);
    cipher.decrypt(material, 0);
    const key = mergeStripes(material, this.keyLength, stripes, this.hashing);
    const digest = this.hashing.pbkdf2(key, this.digestSalt, this.digestRounds, this.digest.length);
    return timingSafeEqual(digest, this.digest) ? key : undefined;
  }
}
