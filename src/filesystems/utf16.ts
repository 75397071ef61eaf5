/**
 * Names that are kept as UTF-16, as bytes for the kernel: UTF-8, and a surrogate without its other half as the three bytes
 * that UTF-8's rule gives it (WTF-8), so that two different names stay different and both can be opened.
 */

import type { Names } from "./directory-index.js";

const loneSurrogate = /\p{Surrogate}/u;

export function utf16ToBytes(name: string): Buffer {
  if (!loneSurrogate.test(name)) return Buffer.from(name, "utf8");
  const parts: Buffer[] = [];
  for (const character of name) {
    const code = character.codePointAt(0)!;
    if (code >= 0xd800 && code <= 0xdfff)
      parts.push(Buffer.from([0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)]));
    else parts.push(Buffer.from(character, "utf8"));
  }
  return Buffer.concat(parts);
}

/** The reverse of utf16ToBytes; undefined for bytes that it never gives. */
export function bytesToUtf16(bytes: Uint8Array): string | undefined {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const plain = buffer.toString("utf8");
  if (!plain.includes("\ufffd")) return plain;
  const surrogates = /\xed[\xa0-\xbf][\x80-\xbf]/g;
  let name = "";
  let from = 0;
  const latin1 = buffer.toString("latin1");
  for (const { index } of latin1.matchAll(surrogates)) {
    name += buffer.toString("utf8", from, index);
    name += String.fromCharCode(0xd000 | ((buffer[index + 1]! & 0x3f) << 6) | (buffer[index + 2]! & 0x3f));
    from = index + 3;
  }
  name += buffer.toString("utf8", from);
  return utf16ToBytes(name).equals(buffer) ? name : undefined;
}

/** For DirectoryIndexes: names that are found whatever their case, as `fold` has it. */
export const utf16Names = (fold: (name: string) => string): Names => ({
  encode: utf16ToBytes,
  decode: bytesToUtf16,
  fold,
});

/** Whether the kernel can be given this as the name of a directory entry. */
export const isUsableName = (name: string) =>
  name !== "" && name !== "." && name !== ".." && !name.includes("/") && !name.includes("\0");

const ascii = /^[\0-\x7f]*$/;

/** Upper case as FAT and exFAT compare names: unit by unit, so that the length stays the same (ß stays ß). */
export function upperCase(name: string): string {
  if (ascii.test(name)) return name.toUpperCase();
  let upper = "";
  for (let at = 0; at < name.length; at++) {
    const unit = name[at]!;
    const raised = unit.toUpperCase();
    upper += raised.length === 1 ? raised : unit;
  }
  return upper;
}
