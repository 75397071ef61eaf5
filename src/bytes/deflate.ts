import { corrupt } from "../errors.js";
import { inflateWhole } from "./inflate.js";
import { libdeflate } from "./libdeflate.js";

/**
 * Unpacks the start of `packed`, a raw deflate stream (RFC 1951), into `target`, which it must fill exactly. What follows
 * the stream is ignored: containers round lengths up.
 * @throws ImageError `corrupt`, without a file's name; `unsupported` where zlib can't be loaded.
 */
export function unpackDeflate(packed: Uint8Array, target: Uint8Array): void {
  if (libdeflate()?.unpack("deflate", packed, target) === target.length) return;
  // A stream whose end mark was cut off is whole when it gave all its bytes, as the writers of these formats have it.
  const { produced } = inflateWhole("deflate", packed, target);
  if (produced !== target.length)
    throw corrupt(`the deflate data unpacks to ${produced} bytes instead of ${target.length}`);
}
