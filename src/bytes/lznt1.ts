import { corrupt } from "../errors.js";

/*
 * LZNT1 (MS-XCA 2.5): chunks that unpack to 4096 bytes each. A chunk has a 16-bit header: bits 0 to 11 its length - 1,
 * bits 12 to 14 the number 3, bit 15 whether it is compressed at all. Then groups of a flag byte and eight things, lowest
 * bit first: 0 a byte, 1 a 16-bit pair of distance - 1 (high bits) and length - 3 (low bits). As the chunk fills, the
 * distance gets more of the bits: 4 up to 16 bytes, 5 up to 32, and so on to 12.
 */

const chunkSize = 4096;

/**
 * Unpacks `packed` into `target`. What the chunks leave open is filled with zeros: a chunk that ends early to its 4096
 * bytes, and the rest after the last chunk.
 * @throws ImageError `corrupt` with the byte in `packed`, without a file's name.
 */
export function unpackLznt1(packed: Uint8Array, target: Uint8Array): void {
  let at = 0;
  let filled = 0;
  while (filled < target.length && at + 2 <= packed.length) {
    const header = packed[at]! | (packed[at + 1]! << 8);
    if (header === 0) break;
    const end = at + 3 + (header & 0xfff);
    if (end > packed.length)
      throw corrupt(`the LZNT1 chunk at byte ${at} goes beyond the ${packed.length} bytes packed`);
    const chunkEnd = Math.min(filled + chunkSize, target.length);
    const stop =
      (header & 0x8000) === 0
        ? copyChunk(packed, at + 2, end, target, filled, chunkEnd)
        : unpackChunk(packed, at + 2, end, target, filled, chunkEnd);
    target.fill(0, stop, chunkEnd);
    filled = chunkEnd;
    at = end;
  }
  target.fill(0, filled);
}

function copyChunk(
  packed: Uint8Array,
  at: number,
  end: number,
  target: Uint8Array,
  start: number,
  stop: number,
): number {
  const count = Math.min(end - at, stop - start);
  target.set(packed.subarray(at, at + count), start);
  return start + count;
}

/** @returns where the unpacked bytes end. */
function unpackChunk(
  packed: Uint8Array,
  at: number,
  end: number,
  target: Uint8Array,
  start: number,
  stop: number,
): number {
  let to = start;
  /** Bits of a pair's length, and the byte of `target` from which on they are one fewer. */
  let lengthBits = 12;
  let fewerFrom = start + 16;
  while (at < end && to < stop) {
    const flags = packed[at++]!;
    for (let bit = 0; bit < 8 && at < end && to < stop; bit++) {
      if ((flags & (1 << bit)) === 0) {
        target[to++] = packed[at++]!;
        continue;
      }
      if (at + 2 > end) throw corrupt(`the LZNT1 pair at byte ${at} is cut off`);
      const pair = packed[at]! | (packed[at + 1]! << 8);
      while (to > fewerFrom) {
        lengthBits--;
        fewerFrom = start + (fewerFrom - start) * 2;
      }
      const distance = (pair >> lengthBits) + 1;
      const length = Math.min((pair & ((1 << lengthBits) - 1)) + 3, stop - to);
      if (distance > to - start)
        throw corrupt(`the LZNT1 pair at byte ${at} copies from ${distance} bytes back, where only ${to - start} are`);
      at += 2;
      if (distance >= length) target.copyWithin(to, to - distance, to - distance + length);
      else for (let index = 0; index < length; index++) target[to + index] = target[to + index - distance]!;
      to += length;
    }
  }
  return to;
}
