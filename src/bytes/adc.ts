import { corrupt } from "../errors.js";
import { copyMatch } from "./lz4.js";

/*
 * Apple Data Compression, of old disk images (UDCO): instructions that copy literals or a match. Their first byte:
 *
 *     1LLLLLLL           1 + L literals follow
 *     01LLLLLL d16       4 + L bytes from 1 + d16 back (big-endian)
 *     00LLLLDD d8        3 + L bytes from 1 + 256D + d8 back
 */

/**
 * Unpacks `packed` into the start of `target` and returns how many bytes it gave.
 * @throws ImageError `corrupt` with the byte in `packed`, without a file's name.
 */
export function unpackAdc(packed: Uint8Array, target: Uint8Array): number {
  const end = packed.length;
  let at = 0;
  let filled = 0;
  while (at < end) {
    const start = at;
    const code = packed[at++]!;
    const isLiteral = code >= 0x80;
    const length = isLiteral ? (code & 0x7f) + 1 : code >= 0x40 ? (code & 0x3f) + 4 : (code >>> 2) + 3;
    if (at + (isLiteral ? length : code >= 0x40 ? 2 : 1) > end)
      throw corrupt(`the ADC data ends in the middle, at byte ${start}`);
    if (filled + length > target.length)
      throw corrupt(`the ADC data unpacks to more than ${target.length} bytes, at byte ${start}`);
    if (isLiteral) {
      target.set(packed.subarray(at, at + length), filled);
      at += length;
    } else {
      let distance = packed[at++]! + 1;
      if (code >= 0x40) distance = (distance - 1) * 256 + packed[at++]! + 1;
      else distance += (code & 3) << 8;
      if (distance > filled)
        throw corrupt(`the ADC match at byte ${start} goes ${distance} bytes back where there are ${filled}`);
      copyMatch(target, filled, distance, length);
    }
    filled += length;
  }
  return filled;
}
