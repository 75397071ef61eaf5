/**
 * What LUKS 1 and 2 do alike with keys: the spreading over many stripes ("anti-forensic"), all of which are needed, so that
 * wiping some wipes the key.
 */
import type { Hash } from "./hash.js";

/**
 * Puts the stripes of a key together (LUKS 1.2.3, section 2.4, AFmerge).
 * @param material `stripes` times `length` bytes, and what may be behind
 * @param length bytes of the key
 */
export function mergeStripes(material: Uint8Array, length: number, stripes: number, hash: Hash): Buffer {
  let key: Buffer = Buffer.alloc(length);
  for (let stripe = 0; stripe < stripes; stripe++) {
    for (let at = 0; at < length; at++) key[at]! ^= material[stripe * length + at]!;
    if (stripe < stripes - 1) key = diffused(key, hash);
  }
  return key;
}

function diffused(bytes: Buffer, hash: Hash): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0, number = 0; at < bytes.length; at += hash.length, number++) {
    const counter = Buffer.alloc(4);
    counter.writeUInt32BE(number);
    const part = bytes.subarray(at, at + hash.length);
    parts.push(hash.digest(counter, part).subarray(0, part.length));
  }
  return Buffer.concat(parts);
}
