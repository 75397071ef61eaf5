/** Argon2 (RFC 9106), which makes keys of passwords in a way that takes much memory: the package's native code. */
import { createRequire } from "node:module";
import { ImageError } from "../errors.js";

export interface Argon2Costs {
  readonly kind: "argon2i" | "argon2id";
  /** In KiB, at least 8 for each lane. */
  readonly memory: number;
  /** Passes over the memory, at least 1. */
  readonly passes: number;
  /** From 1 to 255. They are part of the result, and one thread computes them all. */
  readonly lanes: number;
}

/** As the package numbers them. */
const numbers = { argon2i: 1, argon2id: 2 } as const;
const KiB = 1024;

/**
 * @param length of the result, in bytes, at least 4
 * @throws ImageError `system` where the machine hasn't so much memory
 */
export function argon2(password: Uint8Array, salt: Uint8Array, length: number, costs: Argon2Costs): Uint8Array {
  const { kind, memory, passes, lanes } = costs;
  // Native code that gets no memory ends the process.
  const free = process.availableMemory();
  if (memory * KiB > free)
    throw new ImageError(
      "system",
      `${kind} takes ${Math.ceil(memory / KiB)} MiB of memory to make a key of a password, and ${Math.floor(free / KiB / KiB)} MiB are free. End other programs, or use a machine with more`,
    );
  const { hashRawSync } = createRequire(import.meta.url)("@node-rs/argon2") as typeof import("@node-rs/argon2");
  return hashRawSync(password, {
    salt,
    algorithm: numbers[kind] as number,
    memoryCost: memory,
    timeCost: passes,
    parallelism: lanes,
    outputLen: length,
  });
}
