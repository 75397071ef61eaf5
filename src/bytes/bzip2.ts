import { createRequire } from "node:module";
import { corrupt, unsupported } from "../errors.js";
import type { StreamUnpacker } from "./stream-unpacker.js";

interface Bzlib {
  address(bytes: Uint8Array): bigint;
  unpack(
    target: Uint8Array,
    targetLength: Uint32Array,
    packed: Uint8Array,
    packedLength: number,
    small: number,
    verbosity: number,
  ): number;
  init(stream: Uint8Array, verbosity: number, small: number): number;
  step(stream: Uint8Array): number;
  end(stream: Uint8Array): number;
}

/** Status codes of bzlib.h. */
const OK = 0;
const STREAM_END = 4;
const MEMORY = -3;
const OUTPUT_FULL = -8;
const meanings: Record<number, string> = {
  [-4]: "is damaged",
  [-5]: "is no bzip2 data",
  [-7]: "ends in the middle",
};

let loaded: Bzlib | undefined;

/** The system's libbz2, through koffi: dpkg, rpm and macOS themselves need it, so it is there. Loaded at the first call. */
function library(): Bzlib {
  if (!loaded) {
    const name = process.platform === "darwin" ? "libbz2.1.0.dylib" : "libbz2.so.1.0";
    try {
      const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
      const library = koffi.load(name);
      const call = (declaration: string) => library.func(declaration) as never;
      loaded = {
        address: (bytes) => koffi.address(bytes) as bigint,
        unpack: call("int BZ2_bzBuffToBuffDecompress(void *, void *, const void *, unsigned int, int, int)"),
        init: call("int BZ2_bzDecompressInit(void *, int, int)"),
        step: call("int BZ2_bzDecompress(void *)"),
        end: call("int BZ2_bzDecompressEnd(void *)"),
      };
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
  const status = library().unpack(target, length, packed, packed.length, 0, 0);
  if (status === OK) return length[0]!;
  if (status === OUTPUT_FULL) throw corrupt(`the bzip2 data unpacks to more than ${target.length} bytes`);
  throw failed(status);
}

function failed(status: number): Error {
  if (status === MEMORY) return new Error("libbz2 could not allocate memory");
  return corrupt(`the bzip2 data ${meanings[status] ?? `can't be unpacked (libbz2's status ${status})`}`);
}

/** struct bz_stream of 64-bit systems. */
const STREAM_SIZE = 80;
const NEXT_IN = 0;
const AVAIL_IN = 8;
const NEXT_OUT = 24;
const AVAIL_OUT = 32;

/** One bzip2 stream, step by step. Its memory, some 4 MB, is the library's until it is closed. */
export class Bunzipper implements StreamUnpacker {
  consumed = 0;
  produced = 0;
  ended = false;
  private readonly library = library();
  private readonly stream = Buffer.allocUnsafeSlow(STREAM_SIZE).fill(0);

  /** @throws ImageError `unsupported` where libbz2 can't be loaded. */
  constructor() {
    const status = this.library.init(this.stream, 0, 0);
    if (status !== OK) throw failed(status);
  }

  step(input: Uint8Array, target: Uint8Array): void {
    const { library, stream } = this;
    stream.writeBigUInt64LE(input.length > 0 ? library.address(input) : 0n, NEXT_IN);
    stream.writeUInt32LE(input.length, AVAIL_IN);
    stream.writeBigUInt64LE(library.address(target), NEXT_OUT);
    stream.writeUInt32LE(target.length, AVAIL_OUT);
    const status = library.step(stream);
    this.consumed = input.length - stream.readUInt32LE(AVAIL_IN);
    this.produced = target.length - stream.readUInt32LE(AVAIL_OUT);
    if (status === STREAM_END) this.ended = true;
    else if (status !== OK) throw failed(status);
  }

  close(): void {
    this.library.end(this.stream);
  }
}
