import { corrupt } from "../errors.js";
import { copyMatch } from "./lz4.js";

/*
 * LZVN, the faster of Apple's two compressions, as lzvn_decode_base.c of Apple's lzfse describes it: instructions that copy
 * up to three literals and then a match, or only one of them. L counts literals, M match bytes, D is a distance back.
 *
 *     00000110, seven bytes        the end
 *     00001110, 00010110           nothing
 *     LLMMMDDD d8                  L literals that follow, 3 + M bytes from 256D + d8 back (D is not 6 or 7)
 *     LLMMM111 d16                 from d16 back (little-endian)
 *     LLMMM110                     from as far back as last time (L is not 0)
 *     101LLMMM DDDDDDmm D…         3 + 4M + m bytes; D has 14 bits, the first six the lowest
 *     1110LLLL, 11100000 l8        L literals; 16 + l8 literals
 *     1111MMMM, 11110000 m8        M bytes from as far back as last time; 16 + m8
 *
 * 0111…, 1101… and the five other codes that end in 110 mean nothing.
 */

/**
 * Unpacks `packed`, which begins with LZVN instructions and holds their end, into `target` from `from` on: matches may go
 * back to the start of `target`. Returns where in `packed` the instructions end, and where in `target` what they gave.
 * @throws ImageError `corrupt` with the byte in `packed`, without a file's name.
 */
export function unpackLzvn(packed: Uint8Array, target: Uint8Array, from = 0): { at: number; filled: number } {
  const end = packed.length;
  let at = 0;
  let filled = from;
  let distance = 0;
  for (;;) {
    const start = at;
    const code = packed[at++];
    if (code === undefined) throw ends(start);
    const high = code >>> 4;
    let literals = 0;
    let length = 0;
    if (high === 14) literals = code & 15 || 16 + (packed[at++] ?? 0);
    else if (high === 15) length = code & 15 || 16 + (packed[at++] ?? 0);
    else if (high === 10 || high === 11) {
      const pair = (packed[at] ?? 0) | ((packed[at + 1] ?? 0) << 8);
      at += 2;
      literals = (code >>> 3) & 3;
      length = 3 + ((code & 7) << 2) + (pair & 3);
      distance = pair >>> 2;
    } else if (high === 7 || high === 13) throw meaningless(code, start);
    else {
      literals = code >>> 6;
      length = 3 + ((code >>> 3) & 7);
      if ((code & 7) === 7) {
        distance = (packed[at] ?? 0) | ((packed[at + 1] ?? 0) << 8);
        at += 2;
      } else if ((code & 7) !== 6) distance = ((code & 7) << 8) | (packed[at++] ?? 0);
      else if (code === 6) {
        if (at + 7 > end) throw ends(start);
        return { at: at + 7, filled };
      } else if (code === 14 || code === 22) continue;
      else if (literals === 0) throw meaningless(code, start);
    }
    if (at + literals > end) throw ends(start);
    if (filled + literals + length > target.length)
      throw corrupt(`the LZVN data unpacks to more than ${target.length} bytes, at byte ${start}`);
    for (let index = 0; index < literals; index++) target[filled + index] = packed[at + index]!;
    at += literals;
    filled += literals;
    if (length === 0) continue;
    if (distance === 0 || distance > filled)
      throw corrupt(`the LZVN match at byte ${start} goes ${distance} bytes back where there are ${filled}`);
    copyMatch(target, filled, distance, length);
    filled += length;
  }
}

const ends = (at: number) => corrupt(`the LZVN data ends in the middle, at byte ${at}`);
const meaningless = (code: number, at: number) =>
  corrupt(`the LZVN data has ${code} at byte ${at}, which is no instruction`);
