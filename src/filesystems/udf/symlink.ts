import { utf16ToBytes } from "../utf16.js";
import { compressedText } from "./text.js";

/** Longer targets than Linux has paths aren't read. */
export const LONGEST_LINK = 1 << 16;

/**
 * The path that a symbolic link's path components make (ECMA-167, 4/14.16.1): a type, a length, a version, a name. As Linux
 * reads them; undefined when they are damaged.
 */
export function linkTarget(bytes: Buffer): Buffer | undefined {
  const parts: Buffer[] = [];
  let absolute = false;
  for (let at = 0; at + 4 <= bytes.length; ) {
    const [type, length] = [bytes[at], bytes[at + 1]];
    const end = at + 4 + length;
    if (end > bytes.length) return undefined;
    // 1 with a name is a place that writer and reader have to agree upon; without one, it is the root as 2 is.
    if (type === 2 || (type === 1 && length === 0)) {
      parts.length = 0;
      absolute = true;
    } else if (type === 3) parts.push(Buffer.from(".."));
    else if (type === 4) parts.push(Buffer.from("."));
    else if (type === 5) {
      const name = compressedText(bytes, at + 4, end);
      if (name === undefined) return undefined;
      parts.push(utf16ToBytes(name));
    }
    at = end;
  }
  const path = Buffer.concat(parts.flatMap((part, index) => (index === 0 ? [part] : [Buffer.from("/"), part])));
  return absolute ? Buffer.concat([Buffer.from("/"), path]) : path;
}
