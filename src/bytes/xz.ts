import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { corrupt, unsupported } from "../errors.js";
import type { StreamUnpacker } from "./stream-unpacker.js";

/*
 * Small xz streams of one block, unpacked by liblzma with all its filters and checks. What liblzma would allocate for a
 * dictionary, which a stream may claim to be 4 GiB, is looked at first.
 *
 *     stream header, 12 | block header | LZMA2 data … | check | index | footer, 12        ("The .xz File Format", 1.1.0)
 */

/** Dictionaries that are taken, in bytes: of a chunk of an image or filesystem it never needs to be larger. */
const LARGEST_DICTIONARY = 64 << 20;
const HEADER = 12;
const LZMA2 = 0x21;

/** What node-liblzma's native part has: its own classes are streams, which copy, and don't bound what they give. */
interface Binding {
  readonly STREAM_DECODE: number;
  readonly LZMA_RUN: number;
  readonly LZMA_FINISH: number;
  readonly LZMA: new (mode: number, options: Record<string, unknown>) => Decoder;
}
interface Decoder {
  /** Gives the status, and how many bytes of input and of room are left. */
  codeSync(
    action: number,
    input: Buffer,
    inputAt: number,
    inputLength: number,
    output: Buffer,
    outputAt: number,
  ): [status: number, inputLeft: number, outputLeft: number];
  close(): void;
}

const OK = 0;
const STREAM_END = 1;
const MEMORY = 5;
const NO_PROGRESS = 10;
const meanings: Record<number, string> = {
  7: "is no xz data",
  8: "asks for something that liblzma can't do",
  9: "is damaged",
  10: "ends in the middle",
};

let loaded: Binding | undefined;

/** Loaded when it is needed first: most images have nothing that it could unpack. */
function binding(): Binding {
  if (!loaded) {
    try {
      const require = createRequire(import.meta.url);
      const library = require.resolve("node-liblzma");
      loaded = createRequire(library)("node-gyp-build")(join(dirname(library), "..")) as Binding;
    } catch (error) {
      throw unsupported(
        `xz data can't be unpacked: the native part of node-liblzma is missing for this machine (${error instanceof Error ? error.message.split("\n")[0] : error}). Install a compiler and run npm rebuild node-liblzma.`,
      );
    }
  }
  return loaded;
}

/**
 * Unpacks `packed`, one xz stream of one block, into the start of `target` and returns how many bytes it gave.
 * @throws ImageError `corrupt`, without a file's name; `unsupported` where liblzma can't be loaded.
 */
export function unpackXz(packed: Uint8Array, target: Uint8Array): number {
  checkDictionary(packed);
  const { LZMA, STREAM_DECODE, LZMA_FINISH } = binding();
  const input = Buffer.from(packed.buffer, packed.byteOffset, packed.length);
  const output = Buffer.from(target.buffer, target.byteOffset, target.length);
  const decoder = new LZMA(STREAM_DECODE, { check: 0, preset: 6, filters: [LZMA2], mode: 2, threads: 1 });
  try {
    let [status, left, room] = decoder.codeSync(LZMA_FINISH, input, 0, input.length, output, 0);
    if (status === OK && room === 0) {
      // Full, and the end of the stream not yet looked at: a byte more would be one too many.
      const spare = Buffer.alloc(1);
      let spareRoom: number;
      [status, left, spareRoom] = decoder.codeSync(LZMA_FINISH, input, input.length - left, left, spare, 0);
      if (spareRoom === 0) throw corrupt(`the xz data unpacks to more than ${target.length} bytes`);
    }
    if (status === MEMORY) throw new Error("liblzma could not allocate memory");
    if (status !== STREAM_END || left !== 0)
      throw corrupt(`the xz data ${meanings[status] ?? `can't be unpacked (liblzma's status ${status})`}`);
    return target.length - room;
  } finally {
    decoder.close();
  }
}

/**
 * One xz stream, step by step, with all its filters and checks. Its dictionary is allocated as the stream claims it: who
 * calls has looked at that.
 */
export class Unxz implements StreamUnpacker {
  consumed = 0;
  produced = 0;
  ended = false;
  private readonly binding = binding();
  private readonly decoder: Decoder;

  /** @throws ImageError `unsupported` where liblzma can't be loaded. */
  constructor() {
    const { LZMA, STREAM_DECODE } = this.binding;
    this.decoder = new LZMA(STREAM_DECODE, { check: 0, preset: 6, filters: [LZMA2], mode: 2, threads: 1 });
  }

  /** @param last whether `input` is all that is left: only then does the stream end. */
  step(input: Uint8Array, target: Uint8Array, last = false): void {
    const { LZMA_RUN, LZMA_FINISH } = this.binding;
    const from = Buffer.from(input.buffer, input.byteOffset, input.length);
    const to = Buffer.from(target.buffer, target.byteOffset, target.length);
    const action = last ? LZMA_FINISH : LZMA_RUN;
    const [status, left, room] = this.decoder.codeSync(action, from, 0, from.length, to, 0);
    this.consumed = input.length - left;
    this.produced = target.length - room;
    if (status === STREAM_END) this.ended = true;
    else if (status === MEMORY) throw new Error("liblzma could not allocate memory");
    else if (status !== OK && (status !== NO_PROGRESS || last))
      throw corrupt(`the xz data ${meanings[status] ?? `can't be unpacked (liblzma's status ${status})`}`);
  }

  close(): void {
    this.decoder.close();
  }
}

/** Of the first block, and that there is no other. */
function checkDictionary(packed: Uint8Array): void {
  const blockFlags = packed[HEADER + 1];
  if (blockFlags === undefined || packed.length % 4 !== 0) throw corrupt("the xz data ends in the middle");
  const end = HEADER + (packed[HEADER]! + 1) * 4;
  let at = HEADER + 2;
  let limit = end;
  const number = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      if (at >= limit || at >= packed.length || shift > 42)
        throw corrupt(`the xz data has a damaged header at byte ${at}`);
      const byte = packed[at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  if (blockFlags & 0x40) number();
  if (blockFlags & 0x80) number();
  for (let filter = 0; filter <= (blockFlags & 3); filter++) {
    const id = number();
    const length = number();
    if (id === LZMA2) {
      const bits = packed[at] ?? 0;
      const size = bits === 40 ? 2 ** 32 - 1 : (2 | (bits & 1)) * 2 ** ((bits >> 1) + 11);
      if (bits > 40 || size > LARGEST_DICTIONARY)
        throw corrupt(`the xz data claims a dictionary of ${size} bytes, at byte ${at}`);
    }
    at += length;
  }
  // The index begins with a zero byte, the number of blocks, and how long the first is; the footer tells where it is.
  const backward = Buffer.from(packed.buffer, packed.byteOffset, packed.length).readUInt32LE(packed.length - 8);
  const index = packed.length - HEADER - (backward + 1) * 4;
  at = index + 2;
  limit = packed.length;
  if (index < end || packed[index] !== 0 || packed[index + 1] !== 1 || index !== HEADER + Math.ceil(number() / 4) * 4)
    throw corrupt(`the xz data isn't one stream of one block: its index isn't at byte ${index}`);
}
