import type { ByteSource } from "./byte-source.js";

/** Bytes that can also be changed, at any position below their size. */
export interface ByteStore extends ByteSource {
  /**
   * Writes all of `bytes` at `position`. What is written is seen by the next read, and is durable after `flush`.
   * @throws ImageError `system` with the system's error as its cause (ENOSPC, EDQUOT, EIO): then any part may be written
   */
  write(position: number, bytes: Uint8Array): void;
  /** Makes `length` bytes from `position` on zeros, and gives back the room they took where the filesystem can. */
  clear(position: number, length: number): void;
  /** Takes the room for these bytes, so that writing them can't fail for lack of it, where the filesystem can. They stay as they are. */
  reserve(position: number, length: number): void;
  /** Returns when all that was written before is durable. @throws ImageError `system` */
  flush(): void;
}
