import type { ByteSource } from "../bytes/byte-source.js";
import { corrupt } from "../errors.js";
import type { Run } from "../layers/layer.js";

/**
 * `length` bytes of the disk from `position` on that a table places at `at` of `file`. Where the file ends before, the
 * run ends with the file, and what lies behind is refused when it is asked for.
 *
 * @param what names the unit for messages, for example `block 5`.
 * @throws ImageError `corrupt` when the file has not one byte of it.
 */
export function storedRun(file: ByteSource, at: number, length: number, position: number, what: string): Run {
  if (at >= file.size)
    throw corrupt(
      `${file.name}: ${what} with disk byte ${position} should be at byte ${at}, but there are only ${file.size} bytes. The file is truncated or damaged.`,
    );
  return { kind: "stored", length: Math.min(length, file.size - at), source: file, at };
}
