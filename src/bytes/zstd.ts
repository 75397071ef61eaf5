import binding from "zstd-napi/binding.js";
import { corrupt } from "../errors.js";

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
