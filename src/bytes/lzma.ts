import { createRequire } from "node:module";
import { corrupt, unsupported } from "../errors.js";
import type { StreamUnpacker } from "./stream-unpacker.js";

/*
 * Data of LZMA's older format, .lzma, by the system's liblzma through koffi: node-liblzma reads only .xz. What liblzma
 * would allocate for a dictionary, which the header may claim to be 4 GiB, is bounded.
 */

interface Library {
  readonly alone: (stream: Uint8Array, memoryLimit: bigint) => number;
  readonly code: (stream: Uint8Array, action: number) => number;
  readonly end: (stream: Uint8Array) => void;
  readonly address: (bytes: Uint8Array) => bigint;
}

/** Bytes that unpacking may take: AFF's pages, with the largest dictionaries in use, need 16 MiB and a little. */
const MEMORY = 80n << 20n;
/** `lzma_stream` of lzma/base.h, on machines of 64 bits. */
const STREAM_SIZE = 136;
const At = { nextIn: 0, availIn: 8, nextOut: 24, availOut: 32 } as const;
const RUN = 0;
const FINISH = 3;
/** Statuses of lzma/base.h. */
const OK = 0;
const STREAM_END = 1;
const OUT_OF_MEMORY = 5;
const BUFFER = 10;
const meanings: Record<number, string> = {
  6: "needs a dictionary that is too large",
  7: "is no LZMA data",
  8: "asks for something that liblzma can't do",
  9: "is damaged",
  [BUFFER]: "ends in the middle",
};

let loaded: Library | undefined;

/** dpkg and xz themselves need it, so it is there. Loaded at the first call. */
function library(): Library {
  if (!loaded) {
    const name = process.platform === "darwin" ? "liblzma.5.dylib" : "liblzma.so.5";
    try {
      const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
      const lib = koffi.load(name);
      loaded = {
        alone: lib.func("int lzma_alone_decoder(void *, uint64_t)") as unknown as Library["alone"],
        code: lib.func("int lzma_code(void *, int)") as unknown as Library["code"],
        end: lib.func("void lzma_end(void *)") as unknown as Library["end"],
        address: (bytes) => BigInt(koffi.address(bytes)),
      };
    } catch (error) {
      throw unsupported(
        `LZMA data can't be unpacked: ${name} can't be loaded (${error instanceof Error ? error.message.split("\n")[0] : error}). Install liblzma (Debian: apt-get install liblzma5).`,
      );
    }
  }
  return loaded;
}

/**
 * Unpacks the start of `packed`, one .lzma stream, into the start of `target` and returns how many bytes it gave.
 * @throws ImageError `corrupt`, without a file's name; `unsupported` where liblzma can't be loaded.
 */
export function unpackLzma(packed: Uint8Array, target: Uint8Array): number {
  const { alone, code, end, address } = library();
  const stream = Buffer.alloc(STREAM_SIZE);
  const spare = Buffer.alloc(1);
  const room = (bytes: Uint8Array) => {
    stream.writeBigUInt64LE(address(bytes), At.nextOut);
    stream.writeBigUInt64LE(BigInt(bytes.length), At.availOut);
  };
  if (alone(stream, MEMORY) !== OK) throw new Error("liblzma could not be started");
  try {
    stream.writeBigUInt64LE(address(packed), At.nextIn);
    stream.writeBigUInt64LE(BigInt(packed.length), At.availIn);
    room(target);
    let status = code(stream, FINISH);
    const left = Number(stream.readBigUInt64LE(At.availOut));
    if ((status === OK || status === BUFFER) && left === 0) {
      // Full, and the end of the stream not yet looked at: a byte more would be one too many.
      room(spare);
      status = code(stream, FINISH);
      if (stream.readBigUInt64LE(At.availOut) === 0n)
        throw corrupt(`the LZMA data unpacks to more than ${target.length} bytes`);
    }
    if (status === OUT_OF_MEMORY) throw new Error("liblzma could not allocate memory");
    if (status !== STREAM_END)
      throw corrupt(
        `the LZMA data ${status === OK ? meanings[BUFFER] : (meanings[status] ?? `can't be unpacked (liblzma's status ${status})`)}`,
      );
    return target.length - left;
  } finally {
    end(stream);
  }
}

/** One .lzma stream, step by step. */
export class Unlzma implements StreamUnpacker {
  consumed = 0;
  produced = 0;
  ended = false;
  private readonly library = library();
  private readonly stream = Buffer.alloc(STREAM_SIZE);

  /**
   * @param dictionary bytes of the largest one that is taken
   * @throws ImageError `unsupported` where liblzma can't be loaded.
   */
  constructor(dictionary: number) {
    // What it takes besides the dictionary is far less than a mebibyte.
    if (this.library.alone(this.stream, BigInt(dictionary + (1 << 20))) !== OK)
      throw new Error("liblzma could not be started");
  }

  step(input: Uint8Array, target: Uint8Array): void {
    const { stream } = this;
    const { code, address } = this.library;
    stream.writeBigUInt64LE(address(input), At.nextIn);
    stream.writeBigUInt64LE(BigInt(input.length), At.availIn);
    stream.writeBigUInt64LE(address(target), At.nextOut);
    stream.writeBigUInt64LE(BigInt(target.length), At.availOut);
    const status = code(stream, RUN);
    this.consumed = input.length - Number(stream.readBigUInt64LE(At.availIn));
    this.produced = target.length - Number(stream.readBigUInt64LE(At.availOut));
    if (status === STREAM_END) this.ended = true;
    else if (status === OUT_OF_MEMORY) throw new Error("liblzma could not allocate memory");
    else if (status !== OK && status !== BUFFER)
      throw corrupt(`the LZMA data ${meanings[status] ?? `can't be unpacked (liblzma's status ${status})`}`);
  }

  close(): void {
    this.library.end(this.stream);
  }
}
