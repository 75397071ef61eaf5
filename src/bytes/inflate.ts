/**
 * Raw deflate (RFC 1951) step by step, and from the middle of a stream: what a seek point needs and Node's own zlib module
 * doesn't give are the bit at which a block begins (Z_BLOCK), starting at a bit (inflatePrime) and with the bytes before
 * (inflateSetDictionary). zlib is called through koffi: the one that Node itself has linked in and lets addons call, which
 * is faster than most systems', or the system's, which dpkg, rpm and macOS need themselves.
 *
 *     struct z_stream of 64-bit systems, 112 bytes: next_in 0, avail_in 8, next_out 24, avail_out 32, msg 48, data_type 88
 */
import { createRequire } from "node:module";
import { corrupt, unsupported } from "../errors.js";
import type { StreamUnpacker } from "./stream-unpacker.js";

/** Bytes before a place that its unpacking may refer to. */
export const windowSize = 32768;

interface Zlib {
  address(bytes: Uint8Array): bigint;
  /** A text of the library's. */
  text(address: bigint): string;
  inflateInit2_(stream: Uint8Array, windowBits: number, version: string, size: number): number;
  inflateReset(stream: Uint8Array): number;
  inflatePrime(stream: Uint8Array, bits: number, value: number): number;
  inflateSetDictionary(stream: Uint8Array, window: Uint8Array, length: number): number;
  inflate(stream: Uint8Array, flush: number): number;
  inflateEnd(stream: Uint8Array): number;
  crc32_combine(first: number, second: number, secondLength: number): number;
}

const STREAM_SIZE = 112;
const NEXT_IN = 0;
const AVAIL_IN = 8;
const NEXT_OUT = 24;
const AVAIL_OUT = 32;
const MESSAGE = 48;
const DATA_TYPE = 88;

const NO_FLUSH = 0;
const FINISH = 4;
const BLOCK = 5;
const STREAM_END = 1;
const NEED_DICTIONARY = 2;
const DATA_ERROR = -3;
const MEMORY_ERROR = -4;
const NO_PROGRESS = -5;

const AT_BOUNDARY = 128;
const IN_LAST_BLOCK = 64;

let loaded: Zlib | undefined;

function zlib(): Zlib {
  loaded ??= load();
  return loaded;
}

function load(): Zlib {
  const system = process.platform === "darwin" ? "libz.dylib" : "libz.so.1";
  let failure: unknown;
  for (const name of [null, system]) {
    try {
      const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
      const library = koffi.load(name);
      const call = (declaration: string) => library.func(declaration) as never;
      return {
        address: (bytes) => koffi.address(bytes) as bigint,
        text: (address) => koffi.decode(address, "char", -1) as string,
        inflateInit2_: call("int inflateInit2_(void *, int, const char *, int)"),
        inflateReset: call("int inflateReset(void *)"),
        inflatePrime: call("int inflatePrime(void *, int, int)"),
        inflateSetDictionary: call("int inflateSetDictionary(void *, const void *, unsigned int)"),
        inflate: call("int inflate(void *, int)"),
        inflateEnd: call("int inflateEnd(void *)"),
        crc32_combine: call("unsigned long crc32_combine(unsigned long, unsigned long, int64_t)"),
      };
    } catch (error) {
      failure = error;
    }
  }
  throw unsupported(
    `deflate data can't be unpacked at any position: ${system} can't be loaded (${failure instanceof Error ? failure.message.split("\n")[0] : failure}). Install zlib (Debian: apt-get install zlib1g).`,
  );
}

/** The CRC-32 of two stretches one after the other, from that of each. */
export function combineCrc32(first: number, second: number, secondLength: number): number {
  return zlib().crc32_combine(first, second, secondLength);
}

/** Of a thread: a stream of each kind, begun anew for each use. */
const streams: { zlib?: Buffer; deflate?: Buffer } = {};
const windowBits = { zlib: 15, deflate: -15 } as const;

/**
 * Unpacks the start of `packed`, one stream of zlib's (RFC 1950) or of raw deflate, into the start of `target`. This is not
 * Node's inflateSync: what that allocates for a stream that is damaged stays allocated until the event loop turns, and in a
 * thread that only serves it never does.
 * @returns how many bytes it gave, and whether the stream ended with them
 * @throws ImageError `corrupt`, without a file's name: for damage, and for a stream that gives more than the target has room for
 */
export function inflateWhole(
  kind: "zlib" | "deflate",
  packed: Uint8Array,
  target: Uint8Array,
): { readonly produced: number; readonly ended: boolean } {
  const library = zlib();
  const stream = streams[kind] ?? begunStream(library, windowBits[kind]);
  streams[kind] = stream;
  library.inflateReset(stream);
  stream.writeBigUInt64LE(packed.length > 0 ? library.address(packed) : 0n, NEXT_IN);
  stream.writeUInt32LE(packed.length, AVAIL_IN);
  const into = (room: Uint8Array): number => {
    // Empty arrays may have no address, and zlib wants one.
    stream.writeBigUInt64LE(library.address(room.length > 0 ? room : stream), NEXT_OUT);
    stream.writeUInt32LE(room.length, AVAIL_OUT);
    return library.inflate(stream, FINISH);
  };
  let status = into(target);
  const produced = target.length - stream.readUInt32LE(AVAIL_OUT);
  if (status === NO_PROGRESS && produced === target.length) {
    // Full, and the end of the stream not reached: a byte more is one too many.
    const spare = Buffer.alloc(1);
    status = into(spare);
    if (stream.readUInt32LE(AVAIL_OUT) === 0)
      throw corrupt(`the ${kind} data unpacks to more than ${target.length} bytes`);
  }
  if (status === STREAM_END) return { produced, ended: true };
  if (status === NO_PROGRESS) return { produced, ended: false };
  if (status === NEED_DICTIONARY) throw corrupt(`the ${kind} data is damaged: it wants a dictionary`);
  if (status === DATA_ERROR)
    throw corrupt(`the ${kind} data is damaged: ${library.text(stream.readBigUInt64LE(MESSAGE))}`);
  if (status === MEMORY_ERROR) throw new Error("zlib could not allocate memory");
  throw new Error(`zlib failed with status ${status}`);
}

function begunStream(library: Zlib, bits: number): Buffer {
  const stream = Buffer.allocUnsafeSlow(STREAM_SIZE).fill(0);
  const status = library.inflateInit2_(stream, bits, "1.2.11", STREAM_SIZE);
  if (status === MEMORY_ERROR) throw new Error("zlib could not allocate memory");
  if (status !== 0) throw new Error(`zlib refuses to begin (status ${status})`);
  return stream;
}

export class Inflater implements StreamUnpacker {
  consumed = 0;
  produced = 0;
  ended = false;
  /**
   * After a step that stopped at the end of a block, and not of the last: how many bits of the last byte consumed belong
   * to the next block, 0 to 7. Otherwise undefined.
   */
  boundary: number | undefined;
  private readonly zlib = zlib();
  private readonly stream = begunStream(this.zlib, windowBits.deflate);

  /** Begins a stream, at its first byte. */
  begin(): void {
    this.zlib.inflateReset(this.stream);
    this.ended = false;
    this.boundary = undefined;
  }

  /**
   * Begins in the middle, at a block.
   * @param bits of the byte before the input that belong to the block, 0 to 7; @param before that byte
   * @param window the unpacked bytes before the block, at most 32 KiB
   */
  beginAt(bits: number, before: number, window: Uint8Array): void {
    this.begin();
    if (bits > 0) this.zlib.inflatePrime(this.stream, bits, before >> (8 - bits));
    if (window.length > 0) this.zlib.inflateSetDictionary(this.stream, window, window.length);
  }

  step(input: Uint8Array, target: Uint8Array, stopAtBlocks = false): void {
    const { stream } = this;
    // Empty arrays may have no address; nothing is read or written there.
    stream.writeBigUInt64LE(input.length > 0 ? this.zlib.address(input) : 0n, NEXT_IN);
    stream.writeUInt32LE(input.length, AVAIL_IN);
    stream.writeBigUInt64LE(this.zlib.address(target), NEXT_OUT);
    stream.writeUInt32LE(target.length, AVAIL_OUT);
    const status = this.zlib.inflate(stream, stopAtBlocks ? BLOCK : NO_FLUSH);
    this.consumed = input.length - stream.readUInt32LE(AVAIL_IN);
    this.produced = target.length - stream.readUInt32LE(AVAIL_OUT);
    const type = stream.readInt32LE(DATA_TYPE);
    this.boundary = (type & AT_BOUNDARY) !== 0 && (type & IN_LAST_BLOCK) === 0 ? type & 7 : undefined;
    if (status === STREAM_END) this.ended = true;
    else if (status === DATA_ERROR || status === NEED_DICTIONARY) throw corrupt("the deflate data is damaged");
    else if (status === MEMORY_ERROR) throw new Error("zlib could not allocate memory");
    else if (status !== 0 && status !== NO_PROGRESS) throw new Error(`zlib failed with status ${status}`);
  }

  close(): void {
    this.zlib.inflateEnd(this.stream);
  }
}
