/**
 * Decryption of disks sector by sector, each with an initialisation vector of its own, as dm-crypt, QEMU and LUKS do it.
 * The libraries' modes take one vector a call, and a call for each 512 bytes is what would take the time: here a whole read
 * is one call, and what makes each sector its own is put in before and after.
 */
import { unsupported } from "../errors.js";
import { type BlockCipher, block, blockCipher } from "./block-cipher.js";
import { hashNamed, whyNoHash } from "./hash.js";
import { lrwKeyLength, lrwMasks } from "./lrw.js";

/** Bytes of a sector, whatever the disk's own are, unless a volume tells that it was encrypted in larger ones. */
export const cipherSector = 512;

export interface SectorCipher {
  /** Bytes that are encrypted with one vector: a power of two, at least 512. */
  readonly sectorSize: number;
  /**
   * Decrypts `bytes`, whole sectors, in place.
   * @param sector the number of the first, counted in 512 bytes whatever a sector has: that is how dm-crypt makes vectors
   */
  decrypt(bytes: Uint8Array, sector: number): void;
}

/**
 * @param cipher `aes` and others that `blockCipher` knows, and `cipher_null`, which changes nothing
 * @param mode as LUKS writes it: `xts-plain64`, `cbc-essiv:sha256`, `cbc-plain`, `lrw-benbi`, `ecb`.
 * @param sectorSize bytes that are encrypted with one vector: a power of two, at least 512
 * @throws ImageError `unsupported`, without a file's name.
 */
export function sectorCipher(
  cipher: string,
  mode: string,
  key: Uint8Array,
  sectorSize: number = cipherSector,
): SectorCipher {
  const [chaining = "", vectors = "", hash = ""] = mode.split(/[-:]/);
  if (cipher === "cipher_null") return { sectorSize, decrypt: () => {} };
  // XTS has two keys, of the data and of the vectors, and LRW one of the data and one of the masks.
  const [own, second] = keysOf(chaining, key);
  const data = blockCipher(cipher, own);
  if (chaining === "ecb") return { sectorSize, decrypt: (bytes) => bytes.set(data.ecb(bytes, false)) };
  const made = (): Vectors => vectorMaker(mode, vectors, hash, { cipher, key, sectorSize });
  if (chaining === "xts") {
    const ivs = made();
    const tweaks = blockCipher(cipher, second!);
    const decrypt = (bytes: Uint8Array, sector: number) =>
      decryptXts(bytes, data, tweaks.ecb(ivs(sector, bytes.length / sectorSize), true), sectorSize);
    return { sectorSize, decrypt };
  }
  if (chaining === "cbc") {
    const ivs = made();
    const decrypt = (bytes: Uint8Array, sector: number) =>
      decryptCbc(bytes, data, ivs(sector, bytes.length / sectorSize), sectorSize);
    return { sectorSize, decrypt };
  }
  if (chaining === "lrw" && vectorsOfLrw.includes(vectors)) {
    const ivs = made();
    const masks = lrwMasks(second!);
    const decrypt = (bytes: Uint8Array, sector: number) =>
      decryptMasked(bytes, data, masks(ivs(sector, bytes.length / sectorSize), sectorSize / block));
    return { sectorSize, decrypt };
  }
  throw unsupported(`it is encrypted in the mode ${mode}, which Spindle doesn't know`);
}

/** A sector's vector is the number of its first block. `benbi` is made for that, and dm-crypt takes these others too. */
const vectorsOfLrw: readonly string[] = ["benbi", "plain", "plain64", "essiv"];

/** Initialisation vectors of sectors that follow each other, 16 bytes each. */
type Vectors = (first: number, count: number) => Buffer;

interface Keyed {
  readonly cipher: string;
  readonly key: Uint8Array;
  readonly sectorSize: number;
}

function vectorMaker(mode: string, vectors: string, hash: string, { cipher, key, sectorSize }: Keyed): Vectors {
  const step = sectorSize / cipherSector;
  const counted: Vectors = (first, count) => {
    const all = Buffer.alloc(count * block);
    for (let nth = 0, sector = first; nth < count; nth++, sector += step) {
      all.writeUInt32LE(sector % 0x100000000, nth * block);
      // `plain` has 32 bits, and begins anew behind them.
      if (vectors !== "plain") all.writeUInt32LE(Math.floor(sector / 0x100000000), nth * block + 4);
    }
    return all;
  };
  if (vectors === "plain" || vectors === "plain64") return counted;
  if (vectors === "benbi") return (first, count) => blockNumbers(first, count, step);
  // As dm-crypt has it for BitLocker: counted in the volume's own sectors, and positions in bytes, encrypted.
  if (vectors === "large64") return (first, count) => numbers(first / step, count, 1);
  if (vectors === "eboiv") {
    const positions = blockCipher(cipher, key);
    return (first, count) => positions.ecb(numbers(first * cipherSector, count, sectorSize), true);
  }
  if (vectors !== "essiv") throw unsupported(`it is encrypted in the mode ${mode}, which Spindle doesn't know`);
  const hashing = hashNamed(hash);
  if (!hashing) throw unsupported(`it is encrypted in the mode ${mode}, with the hash ${hash}, ${whyNoHash(hash)}`);
  if (![16, 24, 32].includes(hashing.length))
    throw unsupported(`it is encrypted in the mode ${mode}: ${hash} makes no key for ${cipher}`);
  const salted = blockCipher(cipher, hashing.digest(key));
  return (first, count) => salted.ecb(counted(first, count), true);
}

/** The key of the data, and that which the mode has besides. */
function keysOf(chaining: string, key: Uint8Array): [Uint8Array, Uint8Array?] {
  if (chaining !== "xts" && chaining !== "lrw") return [key];
  const own = chaining === "xts" ? key.length / 2 : Math.max(0, key.length - lrwKeyLength);
  return [key.subarray(0, own), key.subarray(own)];
}

/** Of each sector the number of its first block, where the disk's very first is 1: 128 bits, big-endian. */
function blockNumbers(first: number, count: number, step: number): Buffer {
  const all = Buffer.alloc(count * block);
  // 32 blocks a sector, in two halves of 32 bits: a number has up to 58.
  for (let nth = 0, sector = first; nth < count; nth++, sector += step) {
    all.writeUInt32BE(Math.floor(sector / 0x8000000), nth * block + 8);
    all.writeUInt32BE((sector % 0x8000000) * (cipherSector / block) + 1, nth * block + 12);
  }
  return all;
}

/** `first`, `first + step` and so on, each as a vector: 128 bits, little-endian. */
export function numbers(first: number, count: number, step: number): Buffer {
  const all = Buffer.alloc(count * block);
  for (let nth = 0, number = first; nth < count; nth++, number += step) {
    all.writeUInt32LE(number % 0x100000000, nth * block);
    all.writeUInt32LE(Math.floor(number / 0x100000000), nth * block + 4);
  }
  return all;
}

/** CBC of all sectors as if they were one: the first block of each then lacks its own vector and has another's end. */
function decryptCbc(bytes: Uint8Array, cipher: BlockCipher, ivs: Buffer, sectorSize: number): void {
  const plain = cipher.decryptCbc(bytes, ivs.subarray(0, block));
  for (let at = sectorSize, iv = block; at < bytes.length; at += sectorSize, iv += block)
    for (let nth = 0; nth < block; nth++) plain[at + nth]! ^= bytes[at - block + nth]! ^ ivs[iv + nth]!;
  bytes.set(plain);
}

/**
 * XTS (IEEE 1619): each block is masked, decrypted and masked again; the first mask of a sector is its encrypted vector
 * (`tweaks`), and each further one the double of that before it in the field of 2^128.
 */
function decryptXts(bytes: Uint8Array, cipher: BlockCipher, tweaks: Buffer, sectorSize: number): void {
  const words = bytes.length / 4;
  const masks = new Uint32Array(words);
  for (let sector = 0, at = 0; at < words; sector += block) {
    let [a, b, c, d] = [0, 4, 8, 12].map((word) => tweaks.readInt32LE(sector + word)) as [
      number,
      number,
      number,
      number,
    ];
    for (const end = at + sectorSize / 4; at < end; at += 4) {
      masks[at] = a;
      masks[at + 1] = b;
      masks[at + 2] = c;
      masks[at + 3] = d;
      const carry = d >> 31;
      d = (d << 1) | (c >>> 31);
      c = (c << 1) | (b >>> 31);
      b = (b << 1) | (a >>> 31);
      a = (a << 1) ^ (carry & 0x87);
    }
  }
  decryptMasked(bytes, cipher, masks);
}

/** Mixes every block with its mask, before the cipher and behind it. */
function decryptMasked(bytes: Uint8Array, cipher: BlockCipher, masks: Uint32Array): void {
  const words = masks.length;
  // A copy, since words begin at multiples of 4.
  const copy = new Uint32Array(words);
  const copied = new Uint8Array(copy.buffer);
  copied.set(bytes);
  for (let at = 0; at < words; at++) copy[at]! ^= masks[at]!;
  copied.set(cipher.ecb(copied, false));
  for (let at = 0; at < words; at++) copy[at]! ^= masks[at]!;
  bytes.set(copied);
}
