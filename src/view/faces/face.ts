/** A stretch of a file of the disk view, of at least one byte. */
export type Part =
  /** Bytes of the disk, from `disk` on. */
  | { readonly kind: "disk"; readonly length: number; readonly disk: number }
  /** Made up: a header. */
  | { readonly kind: "made"; readonly length: number; fill(position: number, target: Uint8Array): void }
  | { readonly kind: "zeros"; readonly length: number };

/**
 * The disk as a file of another program's format, made up around the same bytes. What is written to the bytes of the disk
 * is written to the disk; what is written to what is made up is dropped: programs set a modification mark in a header
 * when they open a disk to write to it, and would refuse one that can't be set.
 */
export interface Face {
  readonly file: string;
  readonly parts: readonly Part[];
}

export interface FacedDisk {
  /** Bytes, whole sectors of 512. */
  readonly size: number;
  /** 16 bytes that stay the same for the same disk. */
  readonly id: Uint8Array;
  /** Seconds since 1970. */
  readonly created: number;
}

export const made = (bytes: Uint8Array): Part => ({
  kind: "made",
  length: bytes.length,
  fill: (position, target) => target.set(bytes.subarray(position, position + target.length)),
});

/** `id` as a UUID: its version (4) and variant bits set. */
export function uuidOf(id: Uint8Array): Buffer {
  const uuid = Buffer.from(id);
  uuid[6] = (uuid[6]! & 0x0f) | 0x40;
  uuid[8] = (uuid[8]! & 0x3f) | 0x80;
  return uuid;
}
