import type { ByteSource } from "../bytes/byte-source.js";
import type { Format, Surroundings } from "../format.js";
import type { Integrity, Layer } from "../layers/layer.js";

/** A format of images: of a map of a disk, or of a wrapping around files that are images in their turn. */
export interface ImageFormat extends Format<Layer> {
  /**
   * Whether a file of this format holds whole images, which `open` gives to `imageIn`: what the user chose (a snapshot, a
   * password) then goes on to the image within.
   */
  readonly wraps?: boolean;
  /** Whether a file of this format may hold several disks, one of which `options.disk` names. */
  readonly hasDisks?: boolean;
  /** Of a format whose images are folders: the file in a folder with these names that is opened for it. */
  fileOf?(names: ReadonlySet<string>): string | undefined;
  /**
   * Of a format whose files tell their length in their first bytes: that, in bytes. `source` begins like a file of it, and
   * what is behind the file isn't looked at. What is compressed can then be opened before it is unpacked to its end.
   * @throws ImageError `corrupt` or `unsupported`
   */
  lengthOf?(source: ByteSource): number;
  open(source: ByteSource, around: ImageSurroundings): Layer;
}

export interface ImageSurroundings extends Surroundings {
  /** Names of the files in this file's folder, this one's too: the same in every thread. */
  beside(): readonly string[];
  /**
   * Opens bytes that this file holds, a disk in an archive or what a packed file unpacks to, as an image of its own: its
   * format is told by its signature anew. `source.name` is how messages name it, for example `vm.ova > disk1.vmdk`.
   * A format that is itself a layer, made of several images, opens each without `wrapping`.
   * @throws ImageError as opening a file does, and `unsupported` where wrapping within wrapping goes too deep.
   */
  imageIn(source: ByteSource, wrapping?: Wrapping): Layer;
  /**
   * Of a format whose images are folders: opens an image that lies in files of the folder, end to end, unpacked where they
   * are compressed. Its format isn't looked for.
   * @throws ImageError as opening a file does, and `unsupported` where the files hold another format
   */
  imageOf(files: readonly string[], as: FolderPart): PartOfFolder;
}

/** What is known of an image that is in a folder. */
export interface FolderPart {
  /** The format's name. */
  readonly format: string;
  /** The name of the compression, or `none`; where it isn't known, the bytes tell. */
  readonly packing?: string;
  /** Bytes that it has unpacked, where that is known. */
  readonly length?: number;
  /** Whether it is all that is opened: what it is packed in is then told of as of any file's. */
  readonly alone?: boolean;
}

export interface PartOfFolder {
  readonly layer: Layer;
  /** What it is packed in, unless it is opened alone. */
  readonly packed?: Wrapping;
}

/** What is around an image within its file: an archive, a compression. It is no layer, since it maps no disk. */
export interface Wrapping {
  /** How messages name the file that is wrapped: its path. */
  readonly name: string;
  /** The format's name, for example `gzip`. */
  readonly format: string;
  /** What `spindle info` tells of it: plain JSON data. */
  readonly facts: Record<string, unknown>;
  /** The largest unpacked unit it puts in the chunk cache, in bytes; 0 or absent for none. */
  readonly chunkSize?: number;
  /** Its own checksums, where it has them. Damages are ranges of the image within. */
  readonly integrity?: Integrity;
  /**
   * Another file of the image within, by name: for an archive, which must not reach outside itself. Absent, the files
   * beside the wrapped one are taken.
   * @throws ImageError `missing`
   */
  companion?(name: string): ByteSource;
}
