import { Xxh64 as Sum } from "@node-rs/xxhash";

/** XXH64 with seed 0, as the bytes that files keep of it. */
export class Xxh64 {
  private readonly sum = new Sum();

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
