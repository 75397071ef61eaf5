/**
 * Canonical Huffman codes as XPRESS and LZX have them: only the lengths of the codewords are stored; the shorter ones come
 * first, and those of one length in the order of their symbols. Words of up to `FAST` bits are found in a table with one
 * look, longer ones by counting on: their tables would cost more to build than they save on data of some KiB.
 */

/** Bits that the table is indexed with. */
const FAST = 10;
/** Most bits a codeword. */
export const longestCode = 16;

export class HuffmanCode {
  /** By the next FAST bits: symbol << 4 | length; 0 where the word is longer, or none. */
  private readonly table = new Uint16Array(1 << FAST);
  private readonly counts = new Uint16Array(longestCode + 1);
  /** By length: the codeword after the last one, shifted to 16 bits, and where its length's symbols begin. */
  private readonly limits = new Uint32Array(longestCode + 2);
  private readonly bases = new Int32Array(longestCode + 2);
  private readonly sorted: Uint16Array;
  private readonly next = new Uint16Array(longestCode + 2);
  /** Bits of the word that `decode` found last. */
  length = 0;

  /** @param symbols at most 4095. */
  constructor(symbols: number) {
    this.sorted = new Uint16Array(symbols);
  }

  /**
   * Makes the code of these lengths (0: the symbol doesn't occur).
   * @returns false when there are more words than the lengths leave room for. Room left over is allowed, and decodes to -1.
   */
  build(lengths: Uint8Array, symbols: number): boolean {
    const { counts, limits, bases, next, sorted, table } = this;
    counts.fill(0);
    for (let symbol = 0; symbol < symbols; symbol++) counts[lengths[symbol]!]!++;
    let code = 0;
    let index = 0;
    for (let length = 1; length <= longestCode; length++) {
      const first = code;
      next[length] = index;
      bases[length] = index - first;
      code += counts[length]!;
      index += counts[length]!;
      if (code > 1 << length) return false;
      limits[length] = code << (longestCode - length);
      code <<= 1;
    }
    for (let symbol = 0; symbol < symbols; symbol++) {
      const length = lengths[symbol]!;
      if (length > 0) sorted[next[length]!++] = symbol;
    }
    let at = 0;
    index = 0;
    for (let length = 1; length <= FAST; length++) {
      const span = 1 << (FAST - length);
      for (let count = counts[length]!; count > 0; count--) {
        table.fill((sorted[index++]! << 4) | length, at, at + span);
        at += span;
      }
    }
    table.fill(0, at);
    return true;
  }

  /** The symbol of the word that the 16 bits begin with, or -1; its length is in `length`. */
  decode(bits: number): number {
    const found = this.table[bits >>> (16 - FAST)]!;
    if (found !== 0) {
      this.length = found & 15;
      return found >>> 4;
    }
    const { limits } = this;
    for (let length = FAST + 1; length <= longestCode; length++) {
      if (bits < limits[length]!) {
        this.length = length;
        return this.sorted[(bits >>> (16 - length)) + this.bases[length]!]!;
      }
    }
    return -1;
  }
}
