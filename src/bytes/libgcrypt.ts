import { createRequire } from "node:module";

/**
 * The system's libgcrypt, through koffi, where it is installed (systemd, APT and GnuPG bring it): for the ciphers and hashes
 * of encrypted disks that the OpenSSL in Node leaves out. The reference is "The Libgcrypt Reference Manual" 1.8.
 */
export interface Libgcrypt {
  /** The number of a cipher by its name there (`SERPENT256`), 0 where it has none. */
  cipher(name: string): number;
  /**
   * Bytes in whole blocks, encrypted or decrypted.
   * @param vector for CBC; without one each block is by itself (ECB)
   */
  crypt(cipher: number, key: Uint8Array, bytes: Uint8Array, encrypt: boolean, vector?: Uint8Array): Buffer;
  /** The number of a hash by its name (`whirlpool`), 0 where it has none. */
  hash(name: string): number;
  digest(hash: number, bytes: Uint8Array): Buffer;
  pbkdf2(hash: number, password: Uint8Array, salt: Uint8Array, rounds: number, length: number): Buffer;
}

const Mode = { ecb: 1, cbc: 3 } as const;
const PBKDF2 = 34;
const Control = { disableSecureMemory: 37, initializationFinished: 38 } as const;

let loaded: Libgcrypt | null | undefined;

/** Undefined where it isn't there. Loaded at the first call. */
export function libgcrypt(): Libgcrypt | undefined {
  if (loaded === undefined) loaded = load() ?? null;
  return loaded ?? undefined;
}

type Call = (...parameters: unknown[]) => number;

/** Of an error that libgcrypt numbers, which can only be of our making: all that an image brings is checked before. */
function must(error: number, call: string): void {
  if (error !== 0) throw new Error(`libgcrypt: ${call} failed with ${error & 0xffff}`);
}

function load(): Libgcrypt | undefined {
  try {
    const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
    const library = koffi.load(process.platform === "darwin" ? "libgcrypt.20.dylib" : "libgcrypt.so.20");
    const func = (declaration: string) => library.func(declaration) as unknown as Call;
    const checkVersion = library.func("const char *gcry_check_version(const char *)") as unknown as (
      least: string,
    ) => string | null;
    if (checkVersion("1.8.0") === null) return undefined;
    // Keys lie in Node's memory anyway, which is not locked.
    const control = func("int gcry_control(int, ...)");
    control(Control.disableSecureMemory, "int", 0);
    control(Control.initializationFinished, "int", 0);
    const cipherNamed = func("int gcry_cipher_map_name(const char *)");
    const open = func("unsigned int gcry_cipher_open(_Out_ void **, int, int, unsigned int)");
    const setKey = func("unsigned int gcry_cipher_setkey(void *, const void *, size_t)");
    const setVector = func("unsigned int gcry_cipher_setiv(void *, const void *, size_t)");
    const encryptBytes = func("unsigned int gcry_cipher_encrypt(void *, void *, size_t, const void *, size_t)");
    const decryptBytes = func("unsigned int gcry_cipher_decrypt(void *, void *, size_t, const void *, size_t)");
    const close = func("void gcry_cipher_close(void *)");
    const hashNamed = func("int gcry_md_map_name(const char *)");
    const digestLength = func("unsigned int gcry_md_get_algo_dlen(int)");
    const hashBytes = func("void gcry_md_hash_buffer(int, void *, const void *, size_t)");
    const derive = func(
      "unsigned int gcry_kdf_derive(const void *, size_t, int, int, const void *, size_t, unsigned long, size_t, void *)",
    );
    return {
      cipher: (name) => cipherNamed(name),
      crypt(cipher, key, bytes, encrypt, vector) {
        const result = Buffer.allocUnsafeSlow(bytes.length);
        const handle: [unknown] = [null];
        must(open(handle, cipher, vector ? Mode.cbc : Mode.ecb, 0), "gcry_cipher_open");
        try {
          must(setKey(handle[0], key, key.length), "gcry_cipher_setkey");
          if (vector) must(setVector(handle[0], vector, vector.length), "gcry_cipher_setiv");
          const crypt = encrypt ? encryptBytes : decryptBytes;
          must(crypt(handle[0], result, result.length, bytes, bytes.length), "gcry_cipher_crypt");
        } finally {
          close(handle[0]);
        }
        return result;
      },
      hash: (name) => hashNamed(name),
      digest(hash, bytes) {
        const result = Buffer.allocUnsafeSlow(digestLength(hash));
        hashBytes(hash, result, bytes, bytes.length);
        return result;
      },
      pbkdf2(hash, password, salt, rounds, length) {
        const result = Buffer.allocUnsafeSlow(length);
        const error = derive(password, password.length, PBKDF2, hash, salt, salt.length, rounds, length, result);
        must(error, "gcry_kdf_derive");
        return result;
      },
    };
  } catch {
    return undefined; // it isn't installed
  }
}
