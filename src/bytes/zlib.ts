import { corrupt } from "../errors.js";
import { inflateWhole } from "./inflate.js";
import { libdeflate } from "./libdeflate.js";

/**
 * Unpacks `packed`, a zlib stream (RFC 1950), into the start of `target` and returns how many bytes it gave.
 * @throws ImageError `corrupt`, without a file's name; `unsupported` where zlib can't be loaded.
 */
export function unpackZlib(packed: Uint8Array, target: Uint8Array): number {
  const got = libdeflate()?.unpack("zlib", packed, target) ?? -1;
  if (got >= 0) return got;
  const { produced, ended } = inflateWhole("zlib", packed, target);
  if (!ended) throw corrupt("the zlib data is damaged: unexpected end of file");
  return produced;
}
