import { inflateSync } from "node:zlib";
import { corrupt } from "../errors.js";
import { libdeflate } from "./libdeflate.js";

/**
 * Unpacks `packed`, a zlib stream (RFC 1950), into the start of `target` and returns how many bytes it gave.
 * @throws ImageError `corrupt`, without a file's name.
 */
export function unpackZlib(packed: Uint8Array, target: Uint8Array): number {
  const got = libdeflate()?.unpack("zlib", packed, target) ?? -1;
  if (got >= 0) return got;
  let bytes: Buffer;
  try {
    bytes = inflateSync(packed, { maxOutputLength: target.length, chunkSize: Math.max(64, target.length) });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ERR_BUFFER_TOO_LARGE") throw corrupt(`the zlib data unpacks to more than ${target.length} bytes`);
    if (code?.startsWith("Z_")) throw corrupt(`the zlib data is damaged: ${(error as Error).message}`);
    throw error;
  }
  target.set(bytes);
  return bytes.length;
}
