/** xxHash by @node-rs/xxhash, which is loaded with the first sum: most images have none. */
import { createRequire } from "node:module";

type Library = typeof import("@node-rs/xxhash");

let loaded: Library | undefined;

function library(): Library {
  loaded ??= createRequire(import.meta.url)("@node-rs/xxhash") as Library;
  return loaded;
}

/** XXH32 with seed 0, the checksum of LZ4's frames. */
export const newXxh32 = (): InstanceType<Library["Xxh32"]> => new (library().Xxh32)();

/** XXH64 with seed 0, as the bytes that files keep of it. */
export class Xxh64 {
  private readonly sum = new (library().Xxh64)();

  update(input: Uint8Array): this {
    this.sum.update(input);
    return this;
  }

  /** Of all bytes so far; more may follow. @returns 8 bytes, the lowest first */
  digest(): Buffer {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(this.sum.digest());
    return bytes;
  }
}
