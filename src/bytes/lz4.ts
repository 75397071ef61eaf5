import { corrupt } from "../errors.js";

/*
 * A raw LZ4 block ("LZ4 Block Format Description"): sequences of a token, literals, and a match to copy. The token's high
 * four bits count literals, its low four bits match bytes beyond four; 15 means that more bytes follow, to be added. A match
 * is told by its distance, 16 bits. The last sequence ends after its literals.
 */

/** Shorter stretches are copied byte by byte: a call costs more. */
const WORTH_A_CALL = 24;

/**
 * Unpacks `packed` into the start of `target` and returns how many bytes it gave.
 * @param start where to begin in `target` instead: what is before is content that `packed` may refer to
 * @throws ImageError `corrupt` with the byte in `packed`, without a file's name.
 */
export function unpackLz4(packed: Uint8Array, target: Uint8Array, start = 0): number {
  const end = packed.length;
  let at = 0;
  let filled = start;
  while (at < end) {
    const token = packed[at++]!;
    let literals = token >>> 4;
    if (literals === 15) {
      let more: number;
      do {
        if (at >= end) throw ends(at);
        more = packed[at++]!;
        literals += more;
      } while (more === 255);
    }
    if (at + literals > end) throw ends(at);
    if (filled + literals > target.length) throw tooLong(at, target);
    if (literals < WORTH_A_CALL)
      for (let index = 0; index < literals; index++) target[filled + index] = packed[at + index]!;
    else target.set(packed.subarray(at, at + literals), filled);
    at += literals;
    filled += literals;
    if (at === end) return filled - start;

    if (at + 2 > end) throw ends(at);
    const distance = packed[at]! | (packed[at + 1]! << 8);
    if (distance === 0 || distance > filled)
      throw corrupt(`the LZ4 match at byte ${at} goes ${distance} bytes back where there are ${filled}`);
    at += 2;
    let length = token & 15;
    if (length === 15) {
      let more: number;
      do {
        if (at >= end) throw ends(at);
        more = packed[at++]!;
        length += more;
      } while (more === 255);
    }
    length += 4;
    if (filled + length > target.length) throw tooLong(at, target);
    copyMatch(target, filled, distance, length);
    filled += length;
  }
  throw ends(at);
}

/** Copies what lies `distance` bytes before `filled` to `filled`; it repeats where it is longer than that. */
export function copyMatch(target: Uint8Array, filled: number, distance: number, length: number): void {
  if (distance >= length && length >= WORTH_A_CALL)
    target.copyWithin(filled, filled - distance, filled - distance + length);
  else if (distance === 1 && length >= WORTH_A_CALL) target.fill(target[filled - 1]!, filled, filled + length);
  else for (let index = filled; index < filled + length; index++) target[index] = target[index - distance]!;
}

const ends = (at: number) => corrupt(`the LZ4 data ends in the middle, at byte ${at}`);
const tooLong = (at: number, target: Uint8Array) =>
  corrupt(`the LZ4 data unpacks to more than ${target.length} bytes, at byte ${at}`);
