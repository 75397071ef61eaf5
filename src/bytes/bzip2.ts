import { createRequire } from "node:module";
import { corrupt, unsupported } from "../errors.js";

type Unpack = (
  target: Uint8Array,
  targetLength: Uint32Array,
  packed: Uint8Array,
  packedLength: number,
  small: number,
  verbosity: number,
) => number;

/** Status codes of bzlib.h. */
const OK = 0;
const MEMORY = -3;
const OUTPUT_FULL = -8;
const meanings: Record<number, string> = {
  [-4]: "is damaged",
  [-5]: "is no bzip2 data",
  [-7]: "ends in the middle",
};

let loaded: Unpack | undefined;

/** The system's libbz2, through koffi: dpkg, rpm and macOS themselves need it, so it is there. Loaded at the first call. */
function library(): Unpack {
  if (!loaded) {
    const name = process.platform === "darwin" ? "libbz2.1.0.dylib" : "libbz2.so.1.0";
    try {
      const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
      loaded = koffi
        .load(name)
        .func(
          "int BZ2_bzBuffToBuffDecompress(void *, void *, const void *, unsigned int, int, int)",
        ) as unknown as Unpack;
    } catch (error) {
      throw unsupported(
        `bzip2 data can't be unpacked: ${name} can't be loaded (${error instanceof Error ? error.message.split("\n")[0] : error}). Install libbz2 (Debian: apt-get install libbz2-1.0).`,
      );
    }
  }
  return loaded;
}

/**
 * Unpacks the start of `packed`, one bzip2 stream, into the start of `target` and returns how many bytes it gave.
 * @throws ImageError `corrupt`, without a file's name; `unsupported` where libbz2 can't be loaded.
 */
export function unpackBzip2(packed: Uint8Array, target: Uint8Array): number {
  const length = new Uint32Array([target.length]);
  const status = library()(target, length, packed, packed.length, 0, 0);
  if (status === OK) return length[0]!;
  if (status === OUTPUT_FULL) throw corrupt(`the bzip2 data unpacks to more than ${target.length} bytes`);
  if (status === MEMORY) throw new Error("libbz2 could not allocate memory");
  throw corrupt(`the bzip2 data ${meanings[status] ?? `can't be unpacked (libbz2's status ${status})`}`);
}
