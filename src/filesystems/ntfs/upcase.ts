import { readFully } from "../../bytes/byte-source.js";
import type { Stream } from "./streams.js";

/** Upper case as this volume has it: $UpCase, a UTF-16 unit for each of the 65536. The length of a name stays the same. */
export class UpCase {
  /** Whether ASCII is as it is everywhere, which lets most names be raised at once. */
  private readonly usual: boolean;

  private constructor(private readonly table: Uint16Array) {
    this.usual = true;
    for (let unit = 0; unit < 128; unit++)
      if (table[unit] !== String.fromCharCode(unit).toUpperCase().charCodeAt(0)) this.usual = false;
  }

  /** Undefined where the file hasn't its 128 KiB. */
  static read(stream: Stream): UpCase | undefined {
    const bytes = Buffer.alloc(2 * 65536);
    if (readFully(stream, 0, bytes) !== bytes.length) return undefined;
    return new UpCase(Uint16Array.from({ length: 65536 }, (_, unit) => bytes.readUInt16LE(unit * 2)));
  }

  /** Where the volume's own table can't be read. */
  static ofUnicode(): UpCase {
    return new UpCase(
      Uint16Array.from({ length: 65536 }, (_, unit) => {
        const upper = String.fromCharCode(unit).toUpperCase();
        return upper.length === 1 ? upper.charCodeAt(0) : unit;
      }),
    );
  }

  raise(name: string): string {
    if (this.usual && ascii.test(name)) return name.toUpperCase();
    let raised = "";
    for (let at = 0; at < name.length; at++) raised += String.fromCharCode(this.table[name.charCodeAt(at)]!);
    return raised;
  }

  /**
   * Compares a name in upper case with one of `units` units at `at` in `bytes`, as directories are ordered: negative where
   * the first comes before. Units beyond the end of `bytes` are none.
   */
  compare(raised: string, bytes: Uint8Array, at: number, units: number): number {
    const { table } = this;
    const count = Math.min(units, (bytes.length - at) >> 1);
    const both = Math.min(raised.length, count);
    for (let index = 0; index < both; index++) {
      const unit = bytes[at + index * 2]! | (bytes[at + index * 2 + 1]! << 8);
      const order = raised.charCodeAt(index) - table[unit]!;
      if (order !== 0) return order;
    }
    return raised.length - count;
  }
}

const ascii = /^[\0-\x7f]*$/;
