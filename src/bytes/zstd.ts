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

/** Of this thread: what the last frame was unpacked with. With its window it may have 128 MiB, which no collector sees. */
let spare: InstanceType<typeof binding.DCtx> | undefined;

/** One zstd frame, step by step. A window beyond 128 MiB is refused, as the zstd command does by itself. */
export class Unzstd implements StreamUnpacker {
  consumed = 0;
  produced = 0;
  ended = false;
  private context: InstanceType<typeof binding.DCtx> | undefined;

  constructor() {
    this.context = spare ?? new binding.DCtx();
    if (spare) spare.reset(binding.ResetDirective.sessionOnly);
    spare = undefined;
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
