import { unpackLz4 } from "../../bytes/lz4.js";
import { unpackLzo } from "../../bytes/lzo.js";
import { unpackXz } from "../../bytes/xz.js";
import { unpackZlib } from "../../bytes/zlib.js";
import { unpackZstd } from "../../bytes/zstd.js";
import { unsupported } from "../../errors.js";

/**
 * Unpacks `packed` into the start of `target` and returns how many bytes it gave.
 * @throws ImageError `corrupt`, without a file's name.
 */
export type Unpack = (packed: Uint8Array, target: Uint8Array) => number;

export interface Compressor {
  readonly name: string;
  readonly unpack: Unpack;
}

/** By their numbers in the superblock. */
const compressors: Record<number, Compressor | string> = {
  1: { name: "gzip", unpack: unpackZlib },
  2: "lzma",
  3: { name: "lzo", unpack: unpackLzo },
  4: { name: "xz", unpack: unpackXz },
  5: { name: "lz4", unpack: unpackLz4 },
  6: { name: "zstd", unpack: unpackZstd },
};

/** @throws ImageError `unsupported` naming the compressor. */
export function findCompressor(number: number, name: string): Compressor {
  const found = compressors[number];
  if (typeof found === "object") return found;
  const what =
    found === undefined
      ? `compressor ${number}, which is unknown`
      : `the old ${found} format, as Linux can't read it either`;
  throw unsupported(`${name}: its SquashFS is packed with ${what}. Those that can be read: gzip, lzo, xz, lz4, zstd.`);
}
