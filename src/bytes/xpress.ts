import { corrupt } from "../errors.js";
import { HuffmanCode } from "./huffman.js";

/*
 * XPRESS with Huffman codes (MS-XCA 2.2, LZ77+Huffman). First 256 bytes of code lengths, two of the 512 symbols
 * a byte (low half first), then a bit stream of 16-bit little-endian words, highest bit first. Symbols below
 * 256 are bytes. Others are matches: low four bits the length - 3, high four the number of bits of the distance without its
 * leading one. Length 15 means that a byte follows, that one 255 a 16-bit number (0: a 32-bit one) — among the words, at
 * the place that the reader of words has reached.
 */

const symbols = 512;
const headSize = 256;
/** Most bytes of output: one block of the format. */
export const largestXpress = 65536;

/** Made once: unpacking is synchronous, and its tables are the larger part of what it would allocate. */
const code = new HuffmanCode(symbols);
const lengths = new Uint8Array(symbols);

/**
 * Unpacks all of `packed`, which has to give exactly `target` (at most 64 KiB).
 * @throws ImageError `corrupt` with the byte in `packed`, without a file's name.
 */
export function unpackXpress(packed: Uint8Array, target: Uint8Array): void {
  const end = packed.length;
  const stop = target.length;
  if (stop > largestXpress) throw new Error(`${stop} bytes are more than one XPRESS block`);
  if (end < headSize + 4) throw corrupt(`${end} bytes are too few for XPRESS data`);
  for (let index = 0; index < headSize; index++) {
    const pair = packed[index]!;
    lengths[index * 2] = pair & 15;
    lengths[index * 2 + 1] = pair >> 4;
  }
  if (!code.build(lengths, symbols)) throw corrupt(`the XPRESS code lengths are no Huffman code`);

  let at = headSize;
  const word = () => {
    // Words after the end are zeros, as Windows and wimlib take them: the last ones aren't always there.
    if (at > end + 4)
      throw corrupt(`the XPRESS data of ${end} bytes ends before the ${stop} bytes that it should give`);
    const low = at < end ? packed[at]! : 0;
    const high = at + 1 < end ? packed[at + 1]! : 0;
    at += 2;
    return low | (high << 8);
  };
  /** The next bits, highest first, of which `held` are real: at least 16 whenever one is wanted. */
  let bits = 0;
  let held = 0;
  let to = 0;
  while (to < stop) {
    if (held < 16) {
      bits |= word() << (16 - held);
      held += 16;
    }
    const symbol = code.decode(bits >>> 16);
    if (symbol < 0) throw corrupt(`the XPRESS data before byte ${at} has a code that isn't in its table`);
    bits <<= code.length;
    held -= code.length;
    if (symbol < 256) {
      target[to++] = symbol;
      continue;
    }
    if (held < 16) {
      bits |= word() << (16 - held);
      held += 16;
    }
    const distanceBits = (symbol >> 4) & 15;
    const distance = (1 << distanceBits) | (distanceBits === 0 ? 0 : bits >>> (32 - distanceBits));
    bits <<= distanceBits;
    held -= distanceBits;
    let length = symbol & 15;
    if (length === 15) {
      const more = at < end ? packed[at]! : 0;
      at++;
      length += more;
      if (more === 255) {
        length = word();
        if (length === 0) length = word() + word() * 65536;
      }
    }
    length += 3;
    if (distance > to)
      throw corrupt(`the XPRESS match before byte ${at} copies from ${distance} bytes back, where only ${to} are`);
    if (length > stop - to)
      throw corrupt(`the XPRESS match before byte ${at} goes beyond the ${stop} bytes that there should be`);
    if (distance >= length) target.copyWithin(to, to - distance, to - distance + length);
    else for (let index = 0; index < length; index++) target[to + index] = target[to + index - distance]!;
    to += length;
  }
}
