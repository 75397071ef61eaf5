import type { FileKind } from "../filesystem.js";

/*
 * Special files as Services for Unix (Interix) have them, which is how ntfs-3g makes them too: files with the flag
 * `system` and without `hidden`, told by their content: 8 bytes of magic, then two 64-bit device numbers or a path in
 * UTF-16. Empty ones are fifos, those of one byte sockets.
 */

/** No longer content is looked at: a path of 4096 units. */
export const longestInterix = 8 + 2 * 4096;

export interface Special {
  readonly kind: FileKind;
  readonly target?: string;
  readonly device?: { readonly major: number; readonly minor: number };
}

/** @param content all of the file, as it is at most `longestInterix` bytes long. */
export function parseInterix(content: Buffer, hidden: boolean): Special | undefined {
  if (content.length === 0) return hidden ? undefined : { kind: "fifo" };
  if (content.length === 1) return hidden ? undefined : { kind: "socket" };
  const magic = content.toString("latin1", 0, 8);
  if (magic === "IntxLNK\x01" && content.length > 8) {
    const target = content.toString("utf16le", 8);
    return target.includes("\0") ? undefined : { kind: "symlink", target };
  }
  const kind = magic === "IntxCHR\0" ? "character" : magic === "IntxBLK\0" ? "block" : undefined;
  if (!kind || content.length !== 24) return undefined;
  return { kind, device: { major: content.readUInt32LE(8), minor: content.readUInt32LE(16) } };
}
