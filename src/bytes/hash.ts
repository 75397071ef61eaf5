/** Hashes that keys are made with, by name: OpenSSL's, and libgcrypt's where OpenSSL has none. */
import { createHash, getHashes, pbkdf2Sync } from "node:crypto";
import { libgcrypt } from "./libgcrypt.js";

export interface Hash {
  /** Bytes of a digest. */
  readonly length: number;
  digest(...parts: readonly Uint8Array[]): Buffer;
  /** A key of `length` bytes, made in so many rounds (RFC 8018, section 5.2). */
  pbkdf2(password: Uint8Array, salt: Uint8Array, rounds: number, length: number): Buffer;
}

/** The kernel's name of Whirlpool, cut off to so many bits, and cryptsetup's of the whole one. */
const whirlpool = /^(whirlpool|wp(256|384|512))$/;

/** @param name as cryptsetup and the kernel write it: `sha256`, `whirlpool`. Undefined where it isn't there: `whyNoHash`. */
export function hashNamed(name: string): Hash | undefined {
  // Some of OpenSSL's (SHAKE) have no length of their own.
  if (getHashes().includes(name) && !name.startsWith("shake")) return ofOpenssl(name);
  const [found, , bits = 512] = whirlpool.exec(name) ?? [];
  const library = found === undefined ? undefined : libgcrypt();
  const number = library?.hash("whirlpool") ?? 0;
  if (!library || number === 0) return undefined;
  const length = Number(bits) / 8;
  return {
    length,
    digest: (...parts) => library.digest(number, Buffer.concat(parts)).subarray(0, length),
    pbkdf2: (password, salt, rounds, bytes) => library.pbkdf2(number, password, salt, rounds, bytes),
  };
}

/** The rest of a sentence that names the hash. */
export const whyNoHash = (name: string): string =>
  whirlpool.test(name)
    ? "for which Spindle takes the library libgcrypt, and that isn't installed (Debian: apt install libgcrypt20)"
    : "which Spindle doesn't know";

function ofOpenssl(name: string): Hash {
  return {
    length: createHash(name).digest().length,
    digest(...parts) {
      const hash = createHash(name);
      for (const part of parts) hash.update(part);
      return hash.digest();
    },
    pbkdf2: (password, salt, rounds, length) => pbkdf2Sync(password, salt, rounds, length, name),
  };
}
