import type { ByteSource } from "../bytes/byte-source.js";

/** What one image file says about a disk: where each byte is kept, and which bytes it leaves to the layer beneath. */
export interface Layer {
  /** How messages name this layer: its path. */
  readonly name: string;
  /** The format's name, for example `spin`. */
  readonly format: string;
  /** Size of the disk in bytes as this layer has it. */
  readonly size: number;
  /** The layer beneath, as this file names and identifies it; undefined for a base. */
  readonly parent: ParentReference | undefined;
  /** Where the bytes at `position` are, and how far on the same answer holds (at least 1 byte). `position` < size. */
  locate(position: number): Run;
  /**
   * A stretch from `position` on, ending at or before `end`, of which the format knows without walking how many bytes
   * of the whole disk (this layer over its parents) aren't holes; undefined where it doesn't know.
   */
  dataWithin?(position: number, end: number): { readonly length: number; readonly bytes: number } | undefined;
  /** The largest unpacked unit this layer puts in the chunk cache, in bytes; 0 or absent for none. */
  readonly chunkSize?: number;
  /** The format's own checksums, or what can be checked without. */
  readonly integrity?: Integrity;
  /** What `spindle info` tells of this layer beside its name, format and size: plain JSON data. */
  readonly facts: Record<string, unknown>;
}

export type Run =
  /** Left to the layer beneath. */
  | { readonly kind: "absent"; readonly length: number }
  /** Zeros, and nothing is stored for them. */
  | { readonly kind: "zero"; readonly length: number }
  /** Kept in `source`, from `at` on. */
  | { readonly kind: "stored"; readonly length: number; readonly source: ByteSource; readonly at: number };

/** The layer beneath, as a child knows it. */
export interface ParentReference {
  /** Paths to try in order, as the child records them: absolute, or relative to the child's folder. */
  readonly paths: readonly string[];
  /** Whom to look for in words, for messages: `base.spin (id 1b2c…)`. */
  readonly description: string;
  /** The parent's format as the child records it: it isn't recognised by its bytes then, where this program knows it. */
  readonly format?: string;
  /**
   * False where the child records nothing of its parent's content: then only the recorded path tells it, no other file
   * is looked for, and one that the user names is taken only where nothing usable is at that path.
   */
  readonly identified?: boolean;
  /**
   * Checks that `candidate` is the parent that was recorded.
   * @throws ImageError `mismatch` naming both files, what differs and what to do.
   */
  check(candidate: Layer, file: ParentFile): void;
}

/** What the system tells of the file that a candidate was opened from. */
export interface ParentFile {
  /** In bytes. */
  readonly size: number;
  /** When it was changed last, in nanoseconds since 1970, as decimal digits; empty where that isn't told. */
  readonly modified: string;
}

/** What can be checked of a layer, in pieces that many workers can check side by side. */
export interface Integrity {
  /**
   * What a sound layer is known to be: `content`, byte for byte as it was written, which takes checksums (the default);
   * or `tables`, such that every byte is found and everything packed unpacks.
   */
  readonly proves?: "content" | "tables";
  /** What a sound layer still has to be told of, as sentences that name the file. */
  readonly notes?: readonly string[];
  /** How many pieces there are; they are checked by number from 0. */
  readonly pieces: number;
  /** Checks one piece. */
  check(piece: number): PieceReport;
}

/** What checking one piece found. */
export interface PieceReport {
  /** Chunks that were checked. */
  readonly chunks: number;
  /** Disk bytes that were unpacked and checked. */
  readonly bytes: number;
  readonly damages: readonly Damage[];
  /** What was left out, as sentences that name the file. */
  readonly notes?: readonly string[];
  /**
   * How many pieces, this one the first, the report speaks for, where it isn't 1: a stretch in which nothing is stored,
   * or whose index is damaged, is passed at once.
   */
  readonly pieces?: number;
}

/** One damaged stretch of a layer. */
export interface Damage {
  /** The image file. */
  readonly file: string;
  /** The damaged range of the disk: first byte and length. */
  readonly position: number;
  readonly length: number;
  /** What is wrong, as a sentence that names the file and its byte. */
  readonly message: string;
}
