import type { ByteSource } from "./bytes/byte-source.js";
import type { ChunkCache } from "./bytes/chunk-cache.js";

/** A format this program reads: how to recognise its bytes, and what they become. */
export interface Format<Opened> {
  /** The format's usual name in lower case, for example `qcow2`. */
  readonly name: string;
  /** Whether a file of this format may keep older states of its disk, one of which `options.snapshot` names. */
  readonly hasSnapshots?: boolean;
  /** Whether a file of this format is written to while it is in use, so that whoever reads it must be alone with it. */
  readonly changes?: boolean;
  /** Whether an image of this format is a folder, whose parts lie in it at any depth under names that the format makes. */
  readonly isFolder?: boolean;
  /** Whether `source` carries this format's signature. Reads a few hundred bytes at most, and throws nothing. */
  recognises(source: ByteSource): boolean;
  /** @throws ImageError `corrupt` or `unsupported`, with the position in `source`. */
  open(source: ByteSource, around: Surroundings): Opened;
}

/** What a format may use of the world around its file: nothing else reaches it. */
export interface Surroundings {
  /** Absolute path of the file that is opened, for messages and for references relative to it. */
  readonly path: string;
  /** Unpacked chunks are kept here, see bytes/chunk-cache.ts. */
  readonly cache: ChunkCache;
  /** What the user chose for this file: a state kept inside it, by id or name; what it is encrypted with; one of its disks. */
  readonly options?: {
    readonly snapshot?: string;
    readonly password?: Uint8Array;
    /** Of a file that holds several disks, the one to open, by its name there. */
    readonly disk?: string;
    /** Of a filesystem that doesn't tell its own: FAT's short names. */
    readonly codePage?: number;
    /** Of a disc that was written in several sessions, the one to show, from 1 on. */
    readonly session?: number;
    /** Whether all is read, in order, to be copied: checksums of far more than is asked for at a time are compared then too. */
    readonly copied?: boolean;
  };
  /**
   * What takes long to compute and is the same for every thread that opens this image (a key made of a password): it is
   * computed when it is first asked for by `name`, and remembered.
   */
  remember?(name: string, compute: () => Uint8Array): Uint8Array;
  /**
   * Another file of the same image (a split's next part, an extent, an external data file), by path relative to this
   * file's folder.
   * @throws ImageError `missing`, naming both files.
   */
  companion(path: string): ByteSource;
}
