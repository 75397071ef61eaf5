/**
 * What LUKS 1 and 2 do alike with keys: the spreading over many stripes ("anti-forensic"), all of which are needed, so that
 * wiping some wipes the key.
 */
import { createHash, getHashes } from "node:crypto";

/** Whether keys can be made with a hash of this name: OpenSSL has some (SHAKE) that have no length of their own. */
export const makesKeys = (hash: string): boolean => getHashes().includes(hash) && !hash.startsWith("shake");

/**
 * Puts the stripes of a key together (LUKS 1.2.3, section 2.4, AFmerge).
 * @param material `stripes` times `length` bytes, and what may be behind
 * @param length bytes of the key
 * @param hash a name that OpenSSL knows
 */
export function mergeStripes(material: Uint8Array, length: number, stripes: number, hash: string): Buffer {
  const size = createHash(hash).digest().length;
  let key: Buffer = Buffer.alloc(length);
  for (let stripe = 0; stripe < stripes; stripe++) {
    for (let at = 0; at < length; at++) key[at]! ^= material[stripe * length + at]!;
    if (stripe < stripes - 1) key = diffused(key, hash, size);
  }
  return key;
}

function diffused(bytes: Buffer, hash: string, size: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0, number = 0; at < bytes.length; at += size, number++) {
    const counter = Buffer.alloc(4);
    counter.writeUInt32BE(number);
    const part = bytes.subarray(at, at + size);
    parts.push(createHash(hash).update(counter).update(part).digest().subarray(0, part.length));
  }
  return Buffer.concat(parts);
}
