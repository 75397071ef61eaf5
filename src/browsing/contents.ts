/**
 * The bytes of a file in order, as data, holes and damaged stretches. Damage is found out to 4 KiB: what lies before and
 * behind it is read.
 */
import { type ByteSource, type Extent, readFully } from "../bytes/byte-source.js";
import { corrupt, ImageError } from "../errors.js";
import type { FileId, FileSystem } from "../filesystems/filesystem.js";

/** Bytes of one read: the largest request that a mount gets, too. */
export const readSize = 1024 * 1024;
const probeSize = 4096;
/** Damaged bytes of one file after which the rest is given up: a hostile file claims any size. */
export const mostDamage = 256 * 1024 * 1024;

/** A file of a tree as bytes. */
export class FileBytes implements ByteSource {
  constructor(
    private readonly tree: FileSystem,
    private readonly file: FileId,
    readonly name: string,
    readonly size: number,
  ) {}

  read(position: number, target: Uint8Array): number {
    return this.tree.read(this.file, position, target);
  }

  extentAt(position: number): Extent {
    return this.tree.extentAt?.(this.file, position) ?? { hole: false, length: this.size - position };
  }
}

export type Stretch =
  | { readonly kind: "data"; readonly position: number; readonly length: number; readonly bytes: Uint8Array }
  | { readonly kind: "hole"; readonly position: number; readonly length: number }
  | { readonly kind: "damage"; readonly position: number; readonly length: number; readonly error: ImageError };

/** All stretches of `source`. The bytes of one are in `buffer` (of `readSize`) and gone when the next is asked for. */
export function* stretchesOf(source: ByteSource, buffer: Uint8Array): Generator<Stretch> {
  let damaged = 0;
  let carefulUntil = 0;
  for (let position = 0; position < source.size; ) {
    const extent = extentAt(source, position);
    const end = position + Math.min(extent.length, source.size - position);
    if (extent.hole) {
      yield { kind: "hole", position, length: end - position };
      position = end;
      continue;
    }
    while (position < end) {
      const careful = position < carefulUntil;
      const most = careful ? probeSize - (position % probeSize) : buffer.length;
      const stretch = readAt(source, position, buffer.subarray(0, Math.min(most, end - position)));
      if (stretch.kind === "damage" && !careful) {
        // Somewhere in it is the damage: once more, page by page.
        carefulUntil = position + stretch.length;
        if (stretch.length > probeSize) continue;
      }
      if (stretch.kind === "damage") damaged += stretch.length;
      if (damaged > mostDamage) {
        const error = corrupt(`${source.name}: so much of it is damaged that it was given up at byte ${position}.`);
        yield { kind: "damage", position, length: source.size - position, error };
        return;
      }
      yield stretch;
      position += stretch.length;
    }
  }
}

/** Where the map is damaged the reads will say so. */
function extentAt(source: ByteSource, position: number): Extent {
  try {
    const extent = source.extentAt?.(position);
    if (extent && extent.length > 0) return extent;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return { hole: false, length: probeSize - (position % probeSize) };
  }
  return { hole: false, length: source.size - position };
}

/** The data at `position`, or the damage that is somewhere in it. */
function readAt(source: ByteSource, position: number, target: Uint8Array): Stretch {
  try {
    const length = readFully(source, position, target);
    if (length > 0) return { kind: "data", position, length, bytes: target.subarray(0, length) };
    const error = corrupt(`${source.name}: ends at byte ${position}, but its size is ${source.size} bytes.`);
    return { kind: "damage", position, length: target.length, error };
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return { kind: "damage", position, length: target.length, error };
  }
}
