import binding from "zstd-napi/binding.js";
import { corrupt } from "../errors.js";
import type { StreamUnpacker } from "./stream-unpacker.js";

let decompressor: InstanceType<typeof binding.DCtx> | undefined;

/**
 * Unpacks `packed`, one zstd frame, into the start of `target` and returns how many bytes it gave.
 * @throws ImageError `corrupt`, without a file's name.
 */
export function unpackZstd(packed: Uint8Array, target: Uint8Array): number {
  decompressor ??= new binding.DCtx();
  try {
    return decompressor.decompress(target, packed);
  } catch (error) {
    throw corrupt(`the zstd data is damaged: ${error instanceof Error ? error.message : error}`);
  }
}

let compressor: InstanceType<typeof binding.CCtx> | undefined;

/** Packs `bytes` as one zstd frame of `level`. */
export function packZstd(bytes: Uint8Array, level: number): Uint8Array {
  compressor ??= new binding.CCtx();
  const target = Buffer.allocUnsafe(binding.compressBound(bytes.length));
  return target.subarray(0, compressor.compress(target, bytes, level));
}

/** Bytes that a frame of `packZstd` unpacks to: its header tells (RFC 8878, 3.1.1.1). */
export function sizeOfPacked(frame: Uint8Array): number {
  const bytes = Buffer.from(frame.buffer, frame.byteOffset, frame.length);
  const descriptor = bytes[4]!;
  const isSingle = (descriptor & 0x20) !== 0;
  const at = isSingle ? 5 : 6;
  const width = [isSingle ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  if (width === 8) return Number(bytes.readBigUInt64LE(at));
  return width === 0 ? 0 : bytes.readUIntLE(at, width) + (width === 2 ? 256 : 0);
}

/** Of this thread: what the last frame was unpacked with. With its window it may have 128 MiB, which no collector sees. */
let spare: InstanceType<typeof binding.DCtx> | undefined;

/** One zstd frame, step by step. A window beyond 128 MiB is refused, as the zstd command does by itself. */
export class Unzstd implements StreamUnpacker {
  consumed = 0;
  produced = 0;
  ended = false;
  private context: InstanceType<typeof binding.DCtx> | undefined;

  /** @param before content that the frame's blocks refer to, for a frame that begins in the middle of another's content */
  constructor(before?: Uint8Array) {
    const context = spare ?? new binding.DCtx();
    // What the frame before referred to is forgotten too.
    if (spare) spare.reset(binding.ResetDirective.sessionAndParameters);
    spare = undefined;
    this.context = context;
    if (!before || before.length === 0) return;
    // What begins like a dictionary with tables would be taken for one; its first byte is the farthest away.
    const isLikeOne =
      before.length >= 4 && Buffer.from(before.subarray(0, 4)).readUInt32LE() === binding.MAGIC_DICTIONARY;
    context.loadDictionary(isLikeOne ? before.subarray(1) : before);
  }

  step(input: Uint8Array, target: Uint8Array): void {
    if (!this.context) throw new Error("a frame is unpacked on after it was closed");
    try {
      const [wanted, produced, consumed] = this.context.decompressStream(target, input);
      this.produced = produced;
      this.consumed = consumed;
      this.ended = wanted === 0;
    } catch (error) {
      throw corrupt(`the zstd data is damaged: ${error instanceof Error ? error.message : error}`);
    }
  }

  close(): void {
    // The library frees it with the object, which may be late: the next frame takes it over.
    if (this.context) spare = this.context;
    this.context = undefined;
  }
}
