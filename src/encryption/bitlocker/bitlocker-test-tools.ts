/**
 * Tests only: makes BitLocker volumes of 1 MiB, of kinds of which there are no images that may be kept. It goes the other way
 * than the reader, after the specifications: each sector is encrypted by itself with OpenSSL, and what is sealed, sealed.
 */
import { createCipheriv, createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Secrets } from "../encryption.js";

export const size = 1 << 20;
export const At = { metadata: [0x20000, 0x40000, 0x60000], moved: 0x80000, conversion: [0x90000, 0x91000] } as const;
const movedBytes = 0x2000;
export const chunk = 0x10000;
const regions = [movedBytes, At.moved, At.moved + movedBytes, size];
export const bitmapAt = (region: number) => 0xa0000 + region * 0x4000;
const logBytes = 0x2000;
/** Its last byte is a newline: what reads a password from a file takes that off. */
export const startupKey = Buffer.alloc(32, "startup key").fill(10, 31);
const clearKey = Buffer.alloc(32, "clear key");
const masterKey = Buffer.alloc(32, "the master key");
export const ids = { clear: 1, startup: 2, password: 3, recovery: 4, tpm: 5 } as const;
/** What a password and a recovery password are stretched to; the stretching has a test of its own. */
export const stretched = {
  password: Buffer.alloc(32, "stretched password"),
  recovery: Buffer.alloc(32, "stretched recovery"),
};

export type Kind = keyof typeof ids;
const kinds: Record<Kind, number> = { clear: 0, startup: 0x200, password: 0x2000, recovery: 0x800, tpm: 0x500 };
const keys: Partial<Record<Kind, Buffer>> = { clear: clearKey, startup: startupKey, ...stretched };

export interface Options {
  readonly method?: number;
  readonly version?: 1 | 2;
  readonly sectorSize?: number;
  readonly toGo?: boolean;
  readonly state?: number;
  /** Of how many bytes the metadata tell that they are encrypted. */
  readonly encrypted?: number;
  readonly protectors?: readonly Kind[];
  /** Of each chunk of each region whether it is encrypted; with it the volume is converting. */
  readonly chunks?: readonly (readonly boolean[])[];
}

export interface Made {
  readonly image: Buffer;
  /** What the volume is to people. */
  readonly plain: Buffer;
}

export const idOf = (kind: Kind) => `00000000-0000-0000-0000-0000000000${ids[kind].toString(16).padStart(2, "0")}`;

const u16 = (value: number) => Buffer.from(Uint16Array.of(value).buffer);
const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer);
const u64 = (value: number) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
const guid = (kind: Kind) => Buffer.alloc(16).fill(ids[kind], 15);

function entry(role: number, type: number, ...data: Buffer[]): Buffer {
  const all = Buffer.concat(data);
  return Buffer.concat([u16(all.length + 8), u16(role), u16(type), u16(1), all]);
}

let nonces = 0;
function sealed(role: number, key: Buffer, plain: Buffer): Buffer {
  const nonce = Buffer.concat([u64(0x1d0000000000000), u32(++nonces)]);
  const cipher = createCipheriv("aes-256-ccm", key, nonce, { authTagLength: 16 });
  const data = cipher.update(plain);
  cipher.final();
  return entry(role, 5, nonce, cipher.getAuthTag(), data);
}

const keyEntry = (method: number, key: Buffer) => entry(0, 1, u32(method), key);

function protector(kind: Kind): Buffer {
  const head = Buffer.concat([guid(kind), u64(0), u16(0), u16(kinds[kind])]);
  const key = keys[kind];
  if (!key) return entry(2, 8, head, entry(0, 6, Buffer.alloc(40)));
  const own =
    kind === "clear"
      ? keyEntry(0x2000, key)
      : kind === "startup"
        ? entry(0, 2, Buffer.from("ExternalKey\0", "utf16le"))
        : entry(0, 3, u32(0x1000), Buffer.alloc(16, kind));
  return entry(2, 8, head, own, sealed(0, key, keyEntry(0x2003, masterKey)));
}

/** A startup key's file as Windows writes it, for `kind`'s protector. */
export function startupFile(key: Buffer = startupKey, kind: Kind = "startup"): Buffer {
  const inner = entry(
    6,
    9,
    guid(kind),
    u64(0),
    entry(0, 2, Buffer.from("ExternalKey\0", "utf16le")),
    keyEntry(0x2002, key),
  );
  return Buffer.concat([
    u32(48 + inner.length),
    u32(1),
    u32(48),
    u32(48 + inner.length),
    guid(kind),
    u32(1),
    u32(0),
    u64(0),
    inner,
  ]);
}

const keyBytes: Record<number, number> = { 32768: 64, 32769: 64, 32770: 16, 32771: 32, 32772: 32, 32773: 64 };

/** The CRC-32 of a copy at `at`, after it was changed; not where it tells of a size that no copy here has. */
export function renewChecksum(image: Buffer, at: number): void {
  const length = image.readUInt16LE(at + 8) * (image.readUInt16LE(at + 10) === 1 ? 1 : 16);
  if (length >= 112 && length < 0x1000) image.writeUInt32LE(crc32(image.subarray(at, at + length)), at + length + 4);
}

function metadata(options: Required<Omit<Options, "chunks">>, dataKey: Buffer): Buffer {
  const { version, state, method, protectors, sectorSize } = options;
  const isPlain = state === 1;
  const entries = Buffer.concat([
    entry(7, 2, Buffer.from("A label of 2026\0", "utf16le")),
    ...protectors.map(protector),
    ...(isPlain ? [] : [sealed(3, masterKey, keyEntry(method, dataKey))]),
    ...(version === 1 ? [] : [entry(15, 15, u64(At.moved), u64(movedBytes))]),
  ]);
  const unit = version === 1 ? 1 : 16;
  const block = Buffer.alloc(Math.ceil((112 + entries.length) / unit) * unit);
  Buffer.concat([
    Buffer.from("-FVE-FS-"),
    ...[block.length / unit, version, state, state].map(u16),
    u64(version === 1 ? 0 : options.encrypted),
    u32(0),
    u32(version === 1 ? 0 : movedBytes / sectorSize),
    ...At.metadata.map(u64),
    u64(version === 1 ? 0x1234 : At.moved),
    ...[48 + entries.length, 1, 48, 48 + entries.length].map(u32),
    Buffer.alloc(16, 0xab),
    u32(99),
    u32(isPlain ? 0 : method),
    u64(132_000_000_000_000_000),
    entries,
  ]).copy(block);
  const hash = keyEntry(0x2005, createHash("sha256").update(block).digest());
  const validation = isPlain ? hash : sealed(0, masterKey, hash);
  return Buffer.concat([block, u16(0x4000 - block.length), u16(version), u32(crc32(block)), validation]);
}

/** Bytes that look random, and are always the same. */
export function noise(length: number, seed: string): Buffer {
  const cipher = createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16));
  return cipher.update(Buffer.alloc(length));
}

export function makeVolume(given: Options = {}): Made {
  const version = given.version ?? 2;
  const options = {
    method: 0x8004,
    sectorSize: 512,
    toGo: false,
    state: 4,
    encrypted: size,
    protectors: ["clear"] as const,
    ...given,
    version,
  };
  const { sectorSize, method, state } = options;
  const dataKey = noise(keyBytes[method] ?? 32, "data key");
  const plain = noise(size, "content");
  plain.write("NTFS    ", 3, "latin1");
  plain.writeUInt16LE(sectorSize, 11);
  plain[13] = 8;
  plain.writeBigUInt64LE(BigInt(size / 512 - 1), 40);
  plain.writeBigUInt64LE(0x1234n, 56);
  if (version === 1) plain.copy(plain, size - 512, 0, 512);
  const image = Buffer.from(plain);
  const isEncrypted = (at: number) => {
    if (state === 1) return false;
    if (!given.chunks) return version === 1 ? at >= movedBytes && at < size - 512 : at < options.encrypted;
    const region = regions.findIndex((end, nth) => nth > 0 && at < end) - 1;
    // What the table doesn't reach may be encrypted.
    return given.chunks[region]?.[Math.floor((at - regions[region]!) / chunk)] ?? true;
  };
  for (let at = 0; at < size; at += sectorSize) {
    const stored = version === 2 && at < movedBytes ? At.moved + at : at;
    if (version === 2 && at >= At.moved && at < At.moved + movedBytes) continue;
    const sector = plain.subarray(at, at + sectorSize);
    (isEncrypted(stored) ? encryptSector(method, dataKey, sector, stored) : sector).copy(image, stored);
  }
  const bytes = metadata(options, dataKey);
  for (const at of At.metadata) {
    bytes.copy(image, at);
    plain.fill(0, at, at + (version === 1 ? 0x4000 : 0x10000));
  }
  if (version === 1) {
    for (const at of [0, size - 512]) {
      image.write("-FVE-FS-", at + 3, "latin1");
      Buffer.from([0xeb, 0x52, 0x90]).copy(image, at);
      image.writeBigUInt64LE(BigInt(At.metadata[0] / 4096), at + 56);
      Buffer.from([0xeb, 0x52, 0x90]).copy(plain, at);
    }
    return { image, plain };
  }
  plain.fill(0, At.moved, At.moved + movedBytes);
  Buffer.from([0xeb, 0x58, 0x90]).copy(image);
  image.write(options.toGo ? "MSWIN4.1" : "-FVE-FS-", 3, "latin1");
  image.writeUInt16LE(sectorSize, 11);
  const marker = given.chunks ? "3b4da89280dd0e4d9e4eb1e3284eaed8" : "3bd66749292ed84a8399f6a339e3d001";
  const places = [...At.metadata, ...(given.chunks ? At.conversion : [])].map(u64);
  Buffer.concat([Buffer.from(marker, "hex"), ...places]).copy(image, options.toGo ? 424 : 160);
  if (given.chunks) writeConversion(image, plain, given.chunks, sectorSize);
  return { image, plain };
}

/** `bytes` with their CRC-32, themselves counted as zeros there, at `at`. */
function summed(bytes: Buffer, at: number, length = bytes.length): Buffer {
  bytes.writeUInt32LE(crc32(bytes.subarray(0, length)), at);
  return bytes;
}

function writeConversion(
  image: Buffer,
  plain: Buffer,
  chunks: readonly (readonly boolean[])[],
  sectorSize: number,
): void {
  const bitmaps = chunks.map((_, nth) => bitmapAt(nth));
  const numbers = [sectorSize, sectorSize, chunk, logBytes, 0, chunks.length, 0].map(u32);
  const positions = [...At.conversion, ...bitmaps].map(u64);
  const head = [Buffer.from("FVE-EOW\0"), u16(56), u16(56 + bitmaps.length * 8)];
  const information = summed(Buffer.concat([...head, ...numbers, ...positions]), 36);
  for (const at of At.conversion) {
    information.copy(image, at);
    plain.fill(0, at, at + sectorSize);
  }
  for (const [nth, bits] of chunks.entries()) {
    const record = (sequence: number, isSet: (bit: boolean) => boolean) => {
      const bitmap = Buffer.alloc(512 - 36);
      for (const [bit, value] of bits.entries()) if (isSet(value)) bitmap[bit >> 3]! |= 1 << (bit & 7);
      const start = [Buffer.from("FVE-EOWBR\0"), u16(36), u32(512), u32(bits.length), u64(sequence), u32(2), u32(0)];
      return summed(Buffer.concat([...start, bitmap]), 32);
    };
    const at = bitmaps[nth]!;
    const region = [regions[nth]!, regions[nth + 1]! - regions[nth]!, at + 0x1000];
    const start = [Buffer.from("FVE-EOWBM\0"), u16(60), u32(1536), u32(nth), ...region.map(u64)];
    const bytes = Buffer.concat([...start, ...[512, 1024, 512, 0].map(u32), Buffer.alloc(512 - 60)]);
    // The older record tells the opposite.
    const records = [record(7, (bit) => bit), record(6, (bit) => !bit)];
    if (nth % 2 === 1) records.reverse();
    Buffer.concat([summed(bytes, 56), ...records]).copy(image, at);
    plain.fill(0, at, at + 1536);
    plain.fill(0, at + 0x1000, at + 0x1000 + logBytes);
  }
}

function ecb(key: Buffer, bytes: Buffer): Buffer {
  return createCipheriv(`aes-${key.length * 8}-ecb`, key, null)
    .setAutoPadding(false)
    .update(bytes);
}

export function encryptSector(method: number, key: Buffer, sector: Buffer, position: number): Buffer {
  const number = (value: number, last = 0) => Buffer.concat([u64(value), Buffer.alloc(8)]).fill(last, 15);
  if (method >= 0x8004) {
    const iv = number(position / sector.length);
    return createCipheriv(`aes-${key.length * 4}-xts` as "aes-128-xts", key, iv).update(sector);
  }
  let bytes: Buffer = Buffer.from(sector);
  let first = key;
  if (method < 0x8002) {
    const length = method === 0x8000 ? 16 : 32;
    const tweak = key.subarray(32, 32 + length);
    first = key.subarray(0, length);
    const sectorKey = ecb(tweak, Buffer.concat([number(position), number(position, 0x80)]));
    bytes = diffused(bytes.map((byte, at) => byte ^ sectorKey[at % 32]!) as Buffer);
  }
  const cipher = createCipheriv(`aes-${first.length * 8}-cbc`, first, ecb(first, number(position)));
  return cipher.setAutoPadding(false).update(bytes);
}

/** Ferguson's diffusers, encrypting: A, then B, as section 5 writes them. */
function diffused(bytes: Buffer): Buffer {
  const n = bytes.length / 4;
  const d = Uint32Array.from({ length: n }, (_, i) => bytes.readUInt32LE(i * 4));
  const rotate = (value: number, by: number) => (by === 0 ? value : (value << by) | (value >>> (32 - by)));
  for (let round = 0; round < 5; round++)
    for (let i = n - 1; i >= 0; i--) d[i]! -= d[(i + n - 2) % n]! ^ rotate(d[(i + n - 5) % n]!, [9, 0, 13, 0][i % 4]!);
  for (let round = 0; round < 3; round++)
    for (let i = n - 1; i >= 0; i--) d[i]! -= d[(i + 2) % n]! ^ rotate(d[(i + 5) % n]!, [0, 10, 0, 25][i % 4]!);
  return Buffer.from(d.buffer);
}

/** What a user gives; what is stretched is taken from above by the protector's kind. */
export function given(password?: Uint8Array | string): Secrets {
  return {
    password: typeof password === "string" ? Buffer.from(password) : password,
    remember: (name) => (name.includes("recovery") ? stretched.recovery : stretched.password),
  };
}
