/**
 * Directories are files of file identifier descriptors (ECMA-167, 4/14.4), each of which names an ICB:
 *
 *     0 tag   18 characteristics   19 length of the name   20 ICB   36 length of what implementations add   38 that, name
 *
 * Each is filled up to a multiple of 4 bytes; they may lie across the edges of blocks and extents.
 */
import type { ImageError } from "../../errors.js";
import { isUsableName, utf16ToBytes } from "../utf16.js";
import type { Contents } from "./contents.js";
import { type Address, type FileEntry, longAddress } from "./entry.js";
import { tagProblem, tags } from "./tag.js";
import { compressedText } from "./text.js";
import type { Volume } from "./volume.js";

const HEADER = 38;
/** The longest descriptor: a header, 64 KiB of additions, a name, and what fills it up. */
const LONGEST = 66_000;
const WINDOW = 1 << 17;
const FIRST_WINDOW = 4096;

const DIRECTORY = 0x02;
const DELETED = 0x04;
const PARENT = 0x08;

export interface Identifier {
  /** Byte in the directory. */
  readonly place: number;
  readonly name: Buffer;
  readonly address: Address;
  readonly isDirectory: boolean;
}

export class Directory {
  constructor(
    private readonly volume: Volume,
    private readonly entry: FileEntry,
    private readonly contents: Contents,
  ) {}

  /** @throws ImageError `corrupt` at a damaged descriptor, behind which nothing can be told. */
  *identifiers(): Generator<Identifier> {
    const { size } = this.contents;
    let window: Buffer = Buffer.alloc(0);
    let start = 0;
    for (let place = 0; place < size; ) {
      if (place + LONGEST > start + window.length && start + window.length < size) {
        // Most directories are small; a large one is read in large steps.
        const length = Math.min(start === 0 && window.length === 0 ? FIRST_WINDOW : WINDOW, size - place);
        if (place + length > start + window.length) {
          window = this.contents.bytes(place, length);
          start = place;
        }
      }
      let length = this.lengthAt(window, place - start, place);
      if (place + length > start + window.length) {
        window = this.contents.bytes(place, Math.min(WINDOW, size - place));
        start = place;
        length = this.lengthAt(window, 0, place);
      }
      const found = this.parse(window.subarray(place - start, place - start + length), place);
      if (found) yield found;
      place += length;
    }
  }

  identifierAt(place: number): Identifier | undefined {
    const { size } = this.contents;
    const bytes = this.contents.bytes(place, Math.min(512, size - place));
    const length = this.lengthAt(bytes, 0, place);
    return this.parse(length <= bytes.length ? bytes.subarray(0, length) : this.contents.bytes(place, length), place);
  }

  private lengthAt(bytes: Buffer, at: number, place: number): number {
    const left = this.contents.size - place;
    // The window may end here, and be moved on.
    if (at + HEADER > bytes.length && left >= HEADER) return HEADER;
    const length = left < HEADER ? 0 : (HEADER + bytes.readUInt16LE(at + 36) + bytes[at + 19] + 3) & ~3;
    // The last one need not be filled up.
    if (length === 0 || length - 3 > left) throw this.corrupt(place, "is cut off");
    return Math.min(length, left);
  }

  /** Undefined for a deleted one, for the parent's, and for a name that no path can have. */
  private parse(bytes: Buffer, place: number): Identifier | undefined {
    const problem = tagProblem(bytes, [tags.fileIdentifier]);
    if (problem !== undefined) throw this.corrupt(place, problem);
    const characteristics = bytes[18];
    if (characteristics & (DELETED | PARENT)) return undefined;
    const start = HEADER + bytes.readUInt16LE(36);
    const name = compressedText(bytes, start, start + bytes[19]);
    if (name === undefined || !isUsableName(name)) return undefined;
    const { partition, block } = longAddress(bytes, 20);
    return {
      place,
      name: utf16ToBytes(name),
      address: { partition, block },
      isDirectory: (characteristics & DIRECTORY) !== 0,
    };
  }

  private corrupt(place: number, what: string): ImageError {
    return this.volume.corrupt(
      this.entry.position,
      `the directory of this ICB has a descriptor at its byte ${place} that ${what}`,
    );
  }
}
