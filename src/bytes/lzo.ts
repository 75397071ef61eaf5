import { corrupt } from "../errors.js";
import { copyMatch } from "./lz4.js";

/*
 * LZO1X, as the kernel's Documentation/staging/lzo.rst describes it: instructions that copy literals, or a match and up to
 * three literals after it. What an instruction byte below 16 means depends on how many literals came before it ("state": 0 to
 * 3, or 4 for a long run).
 *
 *     0000LLLL            state 0: 3 + L literals (L = 0: 18 + more bytes)
 *     0000DDSS h          state 1-3: 2 bytes from 1 + D + 4h back;  state 4: 3 bytes from 2049 + D + 4h back
 *     0001HLLL le16       2 + L bytes (L = 0: 9 + more) from 16384 + 16384H + le16/4 back; exactly 16384: the end
 *     001LLLLL le16       2 + L bytes (L = 0: 33 + more) from 1 + le16/4 back
 *     01LDDDSS h, 1LLDDDSS h   3 or 4, 5 to 8 bytes from 1 + D + 8h back
 *
 * The lowest two bits of the byte before last (SS, or those of le16) count the literals that follow the match.
 */

/**
 * Unpacks `packed` into the start of `target` and returns how many bytes it gave.
 * @throws ImageError `corrupt` with the byte in `packed`, without a file's name.
 */
export function unpackLzo(packed: Uint8Array, target: Uint8Array): number {
  const end = packed.length;
  let at = 0;
  let filled = 0;
  let state = 0;

  /** A length whose bits were all zero: each zero byte adds 255, and the first other one itself. */
  const more = (base: number): number => {
    let length = base;
    while (at < end && packed[at] === 0) {
      length += 255;
      at++;
    }
    if (at >= end) throw ends(at);
    return length + packed[at++]!;
  };
  const literals = (count: number): void => {
    if (at + count > end) throw ends(at);
    if (filled + count > target.length) throw tooLong(at, target);
    if (count < 24) for (let index = 0; index < count; index++) target[filled + index] = packed[at + index]!;
    else target.set(packed.subarray(at, at + count), filled);
    at += count;
    filled += count;
  };
  const byte = (): number => {
    if (at >= end) throw ends(at);
    return packed[at++]!;
  };

  // A first byte above 17 is a run of literals of its own.
  if (end > 0 && packed[0]! > 17) {
    at = 1;
    const count = packed[0]! - 17;
    literals(count);
    state = Math.min(count, 4);
  }
  for (;;) {
    const start = at;
    const code = byte();
    let length: number;
    let distance: number;
    let after: number;
    if (code < 16) {
      if (state === 0) {
        literals(3 + (code === 0 ? more(15) : code));
        state = 4;
        continue;
      }
      after = code & 3;
      const near = (code >>> 2) + (byte() << 2);
      length = state === 4 ? 3 : 2;
      distance = state === 4 ? near + 2049 : near + 1;
    } else if (code >= 64) {
      after = code & 3;
      length = (code >>> 5) + 1;
      distance = 1 + ((code >>> 2) & 7) + (byte() << 3);
    } else {
      const isFar = code < 32;
      length = code & (isFar ? 7 : 31);
      length = 2 + (length === 0 ? more(isFar ? 7 : 31) : length);
      const pair = byte() | (byte() << 8);
      after = pair & 3;
      distance = pair >>> 2;
      if (isFar) {
        distance += (code & 8) << 11;
        if (distance === 0) {
          if (length !== 3 || at !== end) throw corrupt(`the LZO data ends at byte ${start} of ${end}`);
          return filled;
        }
        distance += 16384;
      } else distance += 1;
    }
    if (distance > filled)
      throw corrupt(`the LZO match at byte ${start} goes ${distance} bytes back where there are ${filled}`);
    if (filled + length > target.length) throw tooLong(start, target);
    copyMatch(target, filled, distance, length);
    filled += length;
    literals(after);
    state = after;
  }
}

const ends = (at: number) => corrupt(`the LZO data ends in the middle, at byte ${at}`);
const tooLong = (at: number, target: Uint8Array) =>
  corrupt(`the LZO data unpacks to more than ${target.length} bytes, at byte ${at}`);
