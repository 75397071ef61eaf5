import type { ByteSource } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, type ImageError, unsupported } from "../../errors.js";

/** Logical sectors, in which volume descriptors lie and directories are divided; logical blocks may be smaller (6.1.2). */
export const SECTOR = 2048;

/** The volume as the readers of its records see it. */
export class Volume {
  readonly name: string;
  readonly pages: MetadataPages;

  constructor(
    readonly source: ByteSource,
    /** Bytes a logical block: 512, 1024 or 2048. */
    readonly blockSize: number,
    /** This volume's number in its set, and how many there are. */
    readonly sequence: number,
    readonly setSize: number,
  ) {
    this.name = source.name;
    this.pages = new MetadataPages(source, 16384, 512);
  }

  corrupt(position: number, what: string): ImageError {
    return corrupt(`${this.name}: byte ${position}: ${what}. The image is damaged or cut off.`);
  }

  unsupported(position: number, what: string): ImageError {
    return unsupported(`${this.name}: byte ${position}: ${what}.`);
  }
}
