import { bzip2 } from "./bzip2.js";
import { gzip } from "./gzip.js";
import { lz4 } from "./lz4.js";
import { lzip } from "./lzip.js";
import { lzma } from "./lzma.js";
import type { Packing } from "./packing.js";
import { xz } from "./xz.js";
import { zip } from "./zip.js";
import { zstd } from "./zstd.js";

/** The compressions, told by their signatures; no two have the same. The last has none but numbers that are usual. */
export const packings: readonly Packing[] = [gzip, bzip2, xz, zstd, lz4, zip, lzip, lzma];
