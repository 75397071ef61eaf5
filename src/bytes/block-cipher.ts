/** The ciphers that disks are encrypted with, block by block: OpenSSL's, and libgcrypt's where OpenSSL has none. */
import { createCipheriv, createDecipheriv } from "node:crypto";
import { unsupported } from "../errors.js";
import { libgcrypt } from "./libgcrypt.js";

/** Bytes of a block, of all of them. */
export const block = 16;

/** With its key. All take whole blocks. */
export interface BlockCipher {
  /** Every block by itself. */
  ecb(bytes: Uint8Array, encrypt: boolean): Buffer;
  /** Each block mixed with the one before it, and the first with `vector`. */
  decryptCbc(bytes: Uint8Array, vector: Uint8Array): Buffer;
}

/** Ciphers by the names that dm-crypt has for them, and the lengths of their keys in bits. */
const inOpenssl: Record<string, readonly number[]> = { aes: [128, 192, 256], camellia: [128, 192, 256] };
const inLibgcrypt: Record<string, Record<number, string>> = {
  serpent: { 128: "SERPENT128", 192: "SERPENT192", 256: "SERPENT256" },
  twofish: { 128: "TWOFISH128", 256: "TWOFISH" },
};

/**
 * @param cipher as LUKS writes it: `aes`, `serpent`
 * @throws ImageError `unsupported` for one that isn't known, a key of a length that it doesn't have, and where libgcrypt is
 *   needed and missing; without a file's name, and without a full stop.
 */
export function blockCipher(cipher: string, key: Uint8Array): BlockCipher {
  const bits = key.length * 8;
  const ofOpenssl = Object.hasOwn(inOpenssl, cipher) ? inOpenssl[cipher] : undefined;
  const ofLibgcrypt = Object.hasOwn(inLibgcrypt, cipher) ? inLibgcrypt[cipher] : undefined;
  if (!ofOpenssl && !ofLibgcrypt) {
    const known = [...Object.keys(inOpenssl), ...Object.keys(inLibgcrypt)].join(", ");
    throw unsupported(`it is encrypted with ${cipher}, and Spindle decrypts ${known} only`);
  }
  if (ofOpenssl?.includes(bits)) return opensslCipher(cipher, key);
  const name = ofLibgcrypt?.[bits];
  if (name === undefined) throw unsupported(`it is encrypted by ${cipher} with a key of ${bits} bits`);
  const library = libgcrypt();
  if (!library)
    throw unsupported(
      `it is encrypted with ${cipher}, for which Spindle takes the library libgcrypt, and that isn't installed (Debian: apt install libgcrypt20)`,
    );
  const number = library.cipher(name);
  if (number === 0) throw unsupported(`it is encrypted with ${cipher}, which the libgcrypt of this system leaves out`);
  return {
    ecb: (bytes, encrypt) => library.crypt(number, key, bytes, encrypt),
    decryptCbc: (bytes, vector) => library.crypt(number, key, bytes, false, vector),
  };
}

function opensslCipher(cipher: string, key: Uint8Array): BlockCipher {
  const name = `${cipher}-${key.length * 8}`;
  return {
    ecb(bytes, encrypt) {
      const of = (encrypt ? createCipheriv : createDecipheriv)(`${name}-ecb`, key, null);
      of.setAutoPadding(false);
      return of.update(bytes);
    },
    decryptCbc(bytes, vector) {
      const of = createDecipheriv(`${name}-cbc`, key, vector);
      of.setAutoPadding(false);
      return of.update(bytes);
    },
  };
}
