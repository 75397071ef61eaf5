/*
 * $EA, the extended attributes of OS/2, in which the Windows Subsystem for Linux keeps owner, mode and device:
 *
 *    0  to the next (0: the last)   4  flags   5  length of the name   6  of the value   8  name, NUL, value
 */

/** The values by name; those after a damaged one are left out. */
export function parseExtendedAttributes(bytes: Buffer): Map<string, Buffer> {
  const values = new Map<string, Buffer>();
  for (let at = 0; at + 8 <= bytes.length; ) {
    const next = bytes.readUInt32LE(at);
    const nameEnd = at + 8 + bytes[at + 5]!;
    const end = nameEnd + 1 + bytes.readUInt16LE(at + 6);
    if (end > bytes.length) break;
    values.set(bytes.toString("latin1", at + 8, nameEnd), bytes.subarray(nameEnd + 1, end));
    if (next < 8) break;
    at += next;
  }
  return values;
}
