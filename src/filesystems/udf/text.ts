/** Text: OSTA compressed Unicode, one byte (8) or two (16) a unit behind the byte that tells which (UDF 2.60, 2.1.1). */

/** Undefined when the first byte is neither 8 nor 16, or half a unit is left. */
export function compressedText(bytes: Buffer, start: number, end: number): string | undefined {
  if (start === end) return "";
  const kind = bytes[start];
  if (kind === 8) return bytes.toString("latin1", start + 1, end);
  if (kind !== 16 || (end - start) % 2 !== 1) return undefined;
  let text = "";
  for (let at = start + 1; at < end; at += 2) text += String.fromCharCode((bytes[at] << 8) | bytes[at + 1]);
  return text;
}

/** A field of fixed size whose last byte tells how much of it is used; empty when it makes no sense. */
export function fixedText(bytes: Buffer, at: number, size: number): string {
  const used = Math.min(bytes[at + size - 1], size - 1);
  return (compressedText(bytes, at, at + used) ?? "").replace(/\0.*$/s, "");
}

/** The identifier in a regid (ECMA-167, 1/7.4). */
export const identifierOf = (bytes: Buffer, at: number) =>
  bytes.toString("latin1", at + 1, at + 24).replace(/\0.*$/s, "");

/** Of the volume set's name, as blkid takes it: 16 hexadecimal digits, or what does not look so written in them. */
export function uuidOf(volumeSet: string): string | undefined {
  const bytes = Buffer.from(volumeSet, "utf8");
  if (bytes.length < 8) return undefined;
  const text = bytes.toString("latin1");
  if (/^[0-9a-fA-F]{16}/.test(text)) return text.slice(0, 16).toLowerCase();
  if (/^[0-9a-fA-F]{8}/.test(text))
    return text.slice(0, 8).toLowerCase() + bytes.subarray(8, 12).toString("hex").padEnd(8, "0");
  return bytes.subarray(0, 8).toString("hex");
}
