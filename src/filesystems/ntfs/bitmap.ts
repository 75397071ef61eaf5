import { readFully } from "../../bytes/byte-source.js";
import { ImageError } from "../../errors.js";
import type { Stream } from "./streams.js";

const zeroBits = Uint8Array.from({ length: 256 }, (_, byte) => {
  let zeros = 8;
  for (let rest = byte; rest > 0; rest >>= 1) zeros -= rest & 1;
  return zeros;
});

/** How many of the first `count` bits of a bitmap are 0. A part that can't be read, or isn't there, counts as ones. */
export function countZeroBits(open: () => Stream | undefined, count: number): number {
  let zeros = 0;
  try {
    const stream = open();
    if (!stream) return 0;
    const bytes = Buffer.alloc(65536);
    for (let position = 0; position * 8 < count; position += bytes.length) {
      const filled = readFully(stream, position, bytes);
      if (filled === 0) break;
      const bits = Math.min(count - position * 8, filled * 8);
      for (let index = 0; index < bits >> 3; index++) zeros += zeroBits[bytes[index]!]!;
      for (let bit = bits & ~7; bit < bits; bit++) if ((bytes[bit >> 3]! & (1 << (bit & 7))) === 0) zeros++;
    }
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
  }
  return zeros;
}
