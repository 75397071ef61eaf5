import { corrupt } from "../errors.js";
import { HuffmanCode } from "./huffman.js";

/*
 * LZX as WIM files and the system compression of Windows 10 have it. The format is that of cabinet files (MS-PATCH,
 * "LZX DELTA" without the delta), with these differences: each chunk stands alone (codes, recent distances and window
 * begin anew); a block's size is one bit for 32768, or 16 bits more; the x86 call translation is always on, for a file of
 * 12,000,000 bytes. Here the window is 32 KiB, the chunk size of system compression.
 *
 * A stream of 16-bit little-endian words, highest bit first, holds blocks:
 *
 *    3 bits  kind: 1 verbatim, 2 aligned, 3 stored          1 or 17 bits  size of its output
 *    aligned: 8 code lengths of 3 bits                      codes: main (in two parts), lengths
 *    symbols: below 256 a byte; others a match: low three bits the length - 2 (7: and a length symbol), the rest a slot
 *    of distances. Slots 0 to 2 repeat one of the last three distances.
 */

/** Most bytes of output. */
export const largestLzx = 32768;

const slots = 30;
const mainSymbols = 256 + slots * 8;
const lengthSymbols = 249;
const preSymbols = 20;
const callFileSize = 12_000_000;

/** By slot: how many bits more tell the distance, and the least that they are added to (distance + 2). */
const slotBits = new Uint8Array(slots);
const slotBases = new Int32Array(slots);
for (let slot = 0, base = 0; slot < slots; slot++) {
  slotBits[slot] = slot < 4 ? 0 : (slot >> 1) - 1;
  slotBases[slot] = base;
  base += 2 ** slotBits[slot]!;
}

/** Made once: unpacking is synchronous, and these are most of what it would allocate. */
const mainCode = new HuffmanCode(mainSymbols);
const lengthCode = new HuffmanCode(lengthSymbols);
const preCode = new HuffmanCode(preSymbols);
const alignedCode = new HuffmanCode(8);
const mainLengths = new Uint8Array(mainSymbols);
const lengthLengths = new Uint8Array(lengthSymbols);
const smallLengths = new Uint8Array(preSymbols);

/**
 * Unpacks all of `packed`, which has to give exactly `target` (at most 32 KiB).
 * @throws ImageError `corrupt` with the byte in `packed`, without a file's name.
 */
export function unpackLzx(packed: Uint8Array, target: Uint8Array): void {
  if (target.length > largestLzx) throw new Error(`${target.length} bytes are more than one LZX chunk`);
  mainLengths.fill(0);
  lengthLengths.fill(0);
  const bits = new BitReader(packed);
  const recent = [1, 1, 1];
  for (let filled = 0; filled < target.length; ) {
    const kind = bits.take(3);
    const size = bits.take(1) === 1 ? 32768 : bits.take(16);
    if (size === 0 || size > target.length - filled)
      throw bits.damaged(`a block says that it gives ${size} bytes, where ${target.length - filled} are missing`);
    const stop = filled + size;
    if (kind === 1 || kind === 2) {
      readCodes(bits, kind === 2);
      unpackBlock(bits, kind === 2, recent, target, filled, stop);
    } else if (kind === 3) copyBlock(bits, recent, target, filled, stop);
    else throw bits.damaged(`a block is of the unknown kind ${kind}`);
    filled = stop;
  }
  undoCalls(target);
}

class BitReader {
  at = 0;
  private bits = 0;
  private held = 0;

  constructor(readonly packed: Uint8Array) {}

  /** The next 16 bits, which stay. After the end they are zeros. */
  peek(): number {
    if (this.held < 16) {
      const { packed, at } = this;
      const word = at + 1 < packed.length ? packed[at]! | (packed[at + 1]! << 8) : 0;
      this.at += 2;
      // Two words are held at most: more than that beyond the end has been used up.
      if (this.at > packed.length + 4) throw this.damaged("its blocks go on");
      this.bits |= word << (16 - this.held);
      this.held += 16;
    }
    return this.bits >>> 16;
  }

  /** `count` bits, 0 to 16. */
  take(count: number): number {
    const value = this.peek() >>> (16 - count);
    this.drop(count);
    return value;
  }

  symbol(code: HuffmanCode): number {
    const symbol = code.decode(this.peek());
    if (symbol < 0) throw this.damaged("there is a code that isn't in its table");
    this.drop(code.length);
    return symbol;
  }

  /** Goes on to the next word (by one whole, if it is there already) and lets bytes be read from `at`. */
  align(): void {
    if (this.held === 0) this.peek();
    const whole = this.held >> 4;
    this.at -= this.held % 16 === 0 ? (whole - 1) * 2 : whole * 2;
    this.bits = 0;
    this.held = 0;
  }

  damaged(what: string) {
    return corrupt(
      `the LZX data is damaged before byte ${Math.min(this.at, this.packed.length)} of ${this.packed.length}: ${what}`,
    );
  }

  private drop(count: number): void {
    this.bits = count === 32 ? 0 : this.bits << count;
    this.held -= count;
  }
}

function readCodes(bits: BitReader, aligned: boolean): void {
  if (aligned) {
    for (let symbol = 0; symbol < 8; symbol++) smallLengths[symbol] = bits.take(3);
    if (!alignedCode.build(smallLengths, 8)) throw bits.damaged("the aligned code is no Huffman code");
  }
  readLengths(bits, mainLengths, 0, 256);
  readLengths(bits, mainLengths, 256, mainSymbols);
  if (!mainCode.build(mainLengths, mainSymbols)) throw bits.damaged("the main code is no Huffman code");
  readLengths(bits, lengthLengths, 0, lengthSymbols);
  if (!lengthCode.build(lengthLengths, lengthSymbols)) throw bits.damaged("the length code is no Huffman code");
}

/** Code lengths are themselves coded, as differences from the same symbol's in the block before. */
function readLengths(bits: BitReader, lengths: Uint8Array, from: number, stop: number): void {
  for (let symbol = 0; symbol < preSymbols; symbol++) smallLengths[symbol] = bits.take(4);
  if (!preCode.build(smallLengths, preSymbols)) throw bits.damaged("the code of code lengths is no Huffman code");
  const changed = (symbol: number, by: number) => {
    if (by > 16) throw bits.damaged("a run of code lengths repeats a run");
    return (lengths[symbol]! - by + 17) % 17;
  };
  for (let at = from; at < stop; ) {
    const symbol = bits.symbol(preCode);
    if (symbol < 17) {
      lengths[at] = changed(at, symbol);
      at++;
      continue;
    }
    let run: number;
    let length = 0;
    if (symbol === 17) run = 4 + bits.take(4);
    else if (symbol === 18) run = 20 + bits.take(5);
    else {
      run = 4 + bits.take(1);
      length = changed(at, bits.symbol(preCode));
    }
    // A run may go beyond the last symbol: there are writers that rely on it.
    const end = Math.min(at + run, stop);
    lengths.fill(length, at, end);
    at = end;
  }
}

function unpackBlock(
  bits: BitReader,
  aligned: boolean,
  recent: number[],
  target: Uint8Array,
  from: number,
  stop: number,
): void {
  for (let to = from; to < stop; ) {
    const symbol = bits.symbol(mainCode);
    if (symbol < 256) {
      target[to++] = symbol;
      continue;
    }
    let length = (symbol & 7) + 2;
    if (length === 9) length += bits.symbol(lengthCode);
    const slot = (symbol - 256) >> 3;
    let distance: number;
    if (slot < 3) {
      distance = recent[slot]!;
      recent[slot] = recent[0]!;
    } else {
      const more = slotBits[slot]!;
      distance = slotBases[slot]! - 2;
      if (aligned && more >= 3) distance += bits.take(more - 3) * 8 + bits.symbol(alignedCode);
      else distance += bits.take(more);
      recent[2] = recent[1]!;
      recent[1] = recent[0]!;
    }
    recent[0] = distance;
    if (distance > to) throw bits.damaged(`a match copies from ${distance} bytes back, where only ${to} are`);
    if (length > stop - to) throw bits.damaged("a match goes beyond its block");
    if (distance >= length) target.copyWithin(to, to - distance, to - distance + length);
    else for (let index = 0; index < length; index++) target[to + index] = target[to + index - distance]!;
    to += length;
  }
}

function copyBlock(bits: BitReader, recent: number[], target: Uint8Array, from: number, stop: number): void {
  bits.align();
  const { packed } = bits;
  const start = bits.at + 12;
  if (start + (stop - from) > packed.length) throw bits.damaged("a stored block is cut off");
  const view = new DataView(packed.buffer, packed.byteOffset + bits.at, 12);
  for (let index = 0; index < 3; index++) {
    recent[index] = view.getUint32(index * 4, true);
    if (recent[index] === 0) throw bits.damaged("a stored block sets a distance of 0");
  }
  target.set(packed.subarray(start, start + stop - from), from);
  // Words are counted on from here: a block of odd length has a byte of padding.
  bits.at = start + stop - from + ((stop - from) & 1);
}

/** x86 calls (E8 and a 32-bit distance) had their distances made absolute, so that calls of one function are alike. */
function undoCalls(target: Uint8Array): void {
  const stop = target.length - 10;
  for (let at = target.indexOf(0xe8); at >= 0 && at < stop; at = target.indexOf(0xe8, at + 5)) {
    const value = target[at + 1]! | (target[at + 2]! << 8) | (target[at + 3]! << 16) | (target[at + 4]! << 24);
    if (value < -at || value >= callFileSize) continue;
    const distance = value >= 0 ? value - at : value + callFileSize;
    target[at + 1] = distance;
    target[at + 2] = distance >> 8;
    target[at + 3] = distance >> 16;
    target[at + 4] = distance >> 24;
  }
}
