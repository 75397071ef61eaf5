/**
 * The cipher of Windows Vista and 7: AES-CBC, around which a "diffuser" makes each bit of a sector depend on all others
 * (Niels Ferguson, "AES-CBC + Elephant diffuser", 2006, with its names). It has no key; a key of each sector is put in last.
 */
import { blockCipher } from "../../bytes/block-cipher.js";
import { cipherSector, numbers, type SectorCipher, sectorCipher } from "../../bytes/sector-cipher.js";

/** @param key of AES-CBC. @param tweak the key of which the sectors' keys are made; as long */
export function elephant(key: Uint8Array, tweak: Uint8Array, sectorSize: number): SectorCipher {
  const cbc = sectorCipher("aes", "cbc-eboiv", key, sectorSize);
  const decrypt = (bytes: Uint8Array, sector: number) => {
    cbc.decrypt(bytes, sector);
    const keys = sectorKeys(tweak, sector * cipherSector, bytes.length / sectorSize, sectorSize);
    // A copy, since words begin at multiples of 4.
    const words = new Int32Array(bytes.length / 4);
    const copy = new Uint8Array(words.buffer);
    copy.set(bytes);
    const perSector = sectorSize / 4;
    for (let at = 0, key = 0; at < words.length; at += perSector, key += 8) {
      const d = words.subarray(at, at + perSector);
      diffuseB(d);
      diffuseA(d);
      for (let nth = 0; nth < perSector; nth++) d[nth]! ^= keys[key + (nth & 7)]!;
    }
    bytes.set(copy);
  };
  return { sectorSize, decrypt };
}

/** Of each sector 32 bytes: its position encrypted, and encrypted with 0x80 in the last byte. */
function sectorKeys(tweak: Uint8Array, position: number, count: number, sectorSize: number): Int32Array {
  const plain = Buffer.alloc(count * 32);
  const positions = numbers(position, count, sectorSize);
  for (let nth = 0; nth < count; nth++) {
    positions.copy(plain, nth * 32, nth * 16, nth * 16 + 16);
    positions.copy(plain, nth * 32 + 16, nth * 16, nth * 16 + 16);
    plain[nth * 32 + 31] = 0x80;
  }
  const keys = blockCipher("aes", tweak).ecb(plain, true);
  return Int32Array.from({ length: count * 8 }, (_, nth) => keys.readInt32LE(nth * 4));
}

/** Section 5.1: five rounds, over words that were added to before. */
function diffuseA(d: Int32Array): void {
  const n = d.length;
  for (let round = 0; round < 5; round++) {
    // All but the first words need no thought of where the sector begins.
    for (let i = 0; i < 8; i++) {
      const x = d[(i + n - 5) % n]!;
      const turned = i % 4 === 0 ? (x << 9) | (x >>> 23) : i % 4 === 2 ? (x << 13) | (x >>> 19) : x;
      d[i]! += d[(i + n - 2) % n]! ^ turned;
    }
    for (let i = 8; i < n; i += 4) {
      const [x, y] = [d[i - 5]!, d[i - 3]!];
      d[i]! += d[i - 2]! ^ ((x << 9) | (x >>> 23));
      d[i + 1]! += d[i - 1]! ^ d[i - 4]!;
      d[i + 2]! += d[i]! ^ ((y << 13) | (y >>> 19));
      d[i + 3]! += d[i + 1]! ^ d[i - 2]!;
    }
  }
}

/** Section 5.2: three rounds, over words that are still to come. */
function diffuseB(d: Int32Array): void {
  const n = d.length;
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < n - 8; i += 4) {
      const [x, y] = [d[i + 6]!, d[i + 8]!];
      d[i]! += d[i + 2]! ^ d[i + 5]!;
      d[i + 1]! += d[i + 3]! ^ ((x << 10) | (x >>> 22));
      d[i + 2]! += d[i + 4]! ^ d[i + 7]!;
      d[i + 3]! += d[i + 5]! ^ ((y << 25) | (y >>> 7));
    }
    for (let i = n - 8; i < n; i++) {
      const x = d[(i + 5) % n]!;
      const turned = i % 4 === 1 ? (x << 10) | (x >>> 22) : i % 4 === 3 ? (x << 25) | (x >>> 7) : x;
      d[i]! += d[(i + 2) % n]! ^ turned;
    }
  }
}
