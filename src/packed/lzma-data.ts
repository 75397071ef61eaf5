/** LZMA data in a packed file, of whatever is around it: what .lzma and lzip have in common. */
import type { ByteSource } from "../bytes/byte-source.js";
import { Unlzma } from "../bytes/lzma.js";
import { corrupt, unsupported } from "../errors.js";
import { settings } from "../settings.js";
import type { Unpacking } from "./kept-content.js";
import { damaged, PackedInput, truncated } from "./packed-input.js";

/** LZMA data between two places of a file. */
export class LzmaData implements Unpacking {
  private readonly unpacker = new Unlzma(settings.largestDictionary);
  private readonly input: PackedInput;

  /**
   * @param before what is put before the data: the header of a .lzma stream, or nothing where there is one
   * @param end where it ends at the latest
   */
  constructor(
    private readonly source: ByteSource,
    private before: Buffer,
    position: number,
    private readonly end: number,
  ) {
    this.input = new PackedInput(source);
    this.input.seek(position);
  }

  /** Where the data ends, once all of it was read. */
  get position(): number {
    return this.input.position;
  }

  read(target: Uint8Array): number {
    const { unpacker, input, end } = this;
    for (let filled = 0; ; ) {
      if (unpacker.ended || filled === target.length) return filled;
      const room = target.subarray(filled);
      if (this.before.length > 0) {
        this.step(this.before, room);
        this.before = this.before.subarray(unpacker.consumed);
      } else {
        // At the end too, since the last bytes may still be in the unpacker.
        this.step(input.bytes().subarray(0, end - input.position), room);
        input.skip(unpacker.consumed);
      }
      filled += unpacker.produced;
    }
  }

  close(): void {
    this.unpacker.close();
  }

  private step(bytes: Uint8Array, room: Uint8Array): void {
    const { unpacker, source, input } = this;
    try {
      unpacker.step(bytes, room);
    } catch (error) {
      throw damaged(source, input.position, error);
    }
    if (unpacker.ended || unpacker.consumed > 0 || unpacker.produced > 0) return;
    if (input.position >= source.size) throw truncated(source, "LZMA data");
    throw damaged(source, input.position, corrupt("the LZMA data goes on where it should end"));
  }
}

/** @throws ImageError `unsupported` for a dictionary that would take too much memory */
export function checkDictionary({ name }: ByteSource, position: number, size: number, command: string): void {
  if (size > settings.largestDictionary)
    throw unsupported(
      `${name}: was packed with a dictionary of ${size} bytes, by byte ${position}; Spindle takes up to ${settings.largestDictionary}. Unpack it with ${command}.`,
    );
}
