import type { ByteSource, Extent } from "../bytes/byte-source.js";

/** Names a file within its filesystem: a non-negative safe integer, computed from where the file's record lies. */
export type FileId = number;

export type FileKind = "file" | "directory" | "symlink" | "character" | "block" | "fifo" | "socket";

/** A moment; nanoseconds 0 to 999,999,999 count upward from `seconds` (which may be negative: before 1970). */
export interface Time {
  readonly seconds: number;
  readonly nanoseconds: number;
}

export interface Attributes {
  readonly kind: FileKind;
  /** Permission bits with set-id and sticky: 0 to 0o7777. */
  readonly mode: number;
  /** st_ino. */
  readonly inode: number;
  readonly links: number;
  readonly owner: number;
  readonly group: number;
  /** In bytes; the target's length for a symlink. */
  readonly size: number;
  /** Bytes that are stored for this file (st_blocks × 512). */
  readonly allocated: number;
  /** Of a device node. */
  readonly device?: { readonly major: number; readonly minor: number };
  readonly accessed: Time;
  readonly modified: Time;
  readonly changed: Time;
  /** Birth time, where the format has one. */
  readonly born?: Time;
}

export interface Entry {
  /** Bytes, as the kernel sends and wants them: never empty, without `/` and NUL, not `.` or `..`. */
  readonly name: Uint8Array;
  readonly file: FileId;
  readonly kind: FileKind;
  /** The file's `attributes().inode`, where the listing tells it without reading the file's record. */
  readonly inode?: number;
}

export interface Statistics {
  /** Bytes a block. */
  readonly blockSize: number;
  readonly blocks: number;
  readonly freeBlocks: number;
  /** Free blocks that an ordinary user could fill, where the format keeps some for root; otherwise all that are free. */
  readonly availableBlocks?: number;
  readonly files: number;
  readonly freeFiles: number;
  /** Longest name in bytes. */
  readonly nameLength: number;
}

/** A tree of files read from a volume. Names are bytes, as the kernel sends and wants them. */
export interface FileSystem {
  /** The format's name, for example `ext4`. */
  readonly type: string;
  readonly label: string;
  readonly root: FileId;
  /** What `spindle info` tells beside type and label (the UUID, features): plain JSON data. */
  readonly facts?: Record<string, unknown>;
  /** Sentences on what is odd or damaged in the filesystem as a whole, and what was done about it. */
  readonly warnings?: readonly string[];
  readonly statistics: Statistics;
  /** @throws ImageError `corrupt` when the file's record is damaged. */
  attributes(file: FileId): Attributes;
  lookup(directory: FileId, name: Uint8Array): FileId | undefined;
  /** All entries except `.` and `..`, in the same order on every call and in every worker. */
  list(directory: FileId): Iterable<Entry>;
  /**
   * As ByteSource.read, within one file. What is read from the volume straight into `target` is the file's bytes as they
   * are; whatever is packed or enciphered is read elsewhere first (layers/traced-disk.ts counts on it).
   */
  read(file: FileId, position: number, target: Uint8Array): number;
  readLink(link: FileId): Uint8Array;
  /** The hole or data at `position` (< the file's size). Absent where the format has no holes. */
  extentAt?(file: FileId, position: number): Extent;
  /** How many bytes from `position` (< the file's size) on are zeros, where that is told more quickly than reading them. */
  zerosAt?(file: FileId, position: number): number;
  /** Extended attributes by full name (`user.note`), values as bytes. Absent where the format has none. */
  extendedAttributes?(file: FileId): ReadonlyMap<string, Uint8Array>;
  /**
   * What `spindle stat` tells of a file besides all that: flags, security ids. Plain JSON data. Absent where the format has
   * nothing of the kind.
   */
  details?(file: FileId): Record<string, unknown>;
  /** Names of the further streams of a file (NTFS: `file:stream`). Absent where the format has none. */
  streams?(file: FileId): readonly Uint8Array[];
  /** Present where files can be written to: they keep their sizes, like devices. */
  readonly changes?: Changes;
  /** The bytes of a further stream; undefined where the file has none of this name. */
  stream?(file: FileId, name: Uint8Array): ByteSource | undefined;
}

/** Writing to files of a fixed size. Every failure is thrown; ENOSPC and the like as the cause of an ImageError `system`. */
export interface Changes {
  /** Writes all of `bytes` at `position`, both within the file. Seen through every file that shares them from then on. */
  write(file: FileId, position: number, bytes: Uint8Array): void;
  /** Makes `length` bytes from `position` on zeros. */
  clear(file: FileId, position: number, length: number): void;
  /** Returns when all that was written before, by any thread, is durable. */
  flush(): void;
  /** The other files that share bytes with this stretch of a file, and where in them those bytes are. */
  others(file: FileId, position: number, length: number): readonly Share[];
}

export interface Share {
  readonly file: FileId;
  readonly position: number;
  readonly length: number;
}
