import { constants, inflateRawSync } from "node:zlib";
import { corrupt } from "../errors.js";
import { libdeflate } from "./libdeflate.js";

/**
 * Unpacks the start of `packed`, a raw deflate stream (RFC 1951), into `target`, which it must fill exactly. What follows
 * the stream is ignored: containers round lengths up.
 * @throws ImageError `corrupt`, without a file's name.
 */
export function unpackDeflate(packed: Uint8Array, target: Uint8Array): void {
  if (libdeflate()?.unpack("deflate", packed, target) === target.length) return;
  let bytes: Buffer;
  try {
    bytes = inflateRawSync(packed, {
      maxOutputLength: target.length,
      chunkSize: Math.max(64, target.length),
      // A stream whose end mark was cut off is whole when it gave all its bytes, as the writers of these formats have it.
      finishFlush: constants.Z_SYNC_FLUSH,
    });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ERR_BUFFER_TOO_LARGE") throw corrupt(`the deflate data unpacks to more than ${target.length} bytes`);
    if (code?.startsWith("Z_")) throw corrupt(`the deflate data is damaged: ${(error as Error).message}`);
    throw error;
  }
  if (bytes.length !== target.length)
    throw corrupt(`the deflate data unpacks to ${bytes.length} bytes instead of ${target.length}`);
  target.set(bytes);
}
