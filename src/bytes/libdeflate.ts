import { createRequire } from "node:module";

/**
 * The system's libdeflate, through koffi, where it is installed: it is nearly twice as fast as zlib. What it can't unpack is
 * left to zlib (inflate.ts), which says why, so that nothing but time depends on it.
 */
export interface Libdeflate {
  /** Unpacks one stream (of zlib, or raw deflate) into the start of `target`: how many bytes it gave, or -1. */
  unpack(kind: "zlib" | "deflate", packed: Uint8Array, target: Uint8Array): number;
}

type Decompress = (
  decompressor: unknown,
  packed: Uint8Array,
  packedLength: number,
  target: Uint8Array,
  targetLength: number,
  got: BigUint64Array,
) => number;

let loaded: Libdeflate | null | undefined;

/** Undefined where it isn't there. Loaded at the first call. */
export function libdeflate(): Libdeflate | undefined {
  if (loaded === undefined) loaded = load() ?? null;
  return loaded ?? undefined;
}

function load(): Libdeflate | undefined {
  try {
    const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
    const library = koffi.load(process.platform === "darwin" ? "libdeflate.0.dylib" : "libdeflate.so.0");
    const parameters = "(void *, const void *, size_t, void *, size_t, void *)";
    const decompress = {
      zlib: library.func(`int libdeflate_zlib_decompress${parameters}`) as unknown as Decompress,
      deflate: library.func(`int libdeflate_deflate_decompress${parameters}`) as unknown as Decompress,
    };
    const decompressor: unknown = library.func("void *libdeflate_alloc_decompressor()")();
    if (!decompressor) return undefined;
    const got = new BigUint64Array(1);
    return {
      unpack(kind, packed, target) {
        const status = decompress[kind](decompressor, packed, packed.length, target, target.length, got);
        return status === 0 ? Number(got[0]) : -1;
      },
    };
  } catch {
    return undefined; // it isn't installed
  }
}
