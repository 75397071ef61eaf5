/** The volume's own table of upper-case letters, by which names count as the same (specification, 7.2). */

/** Units of UTF-16, two bytes each. */
export const LARGEST_TABLE = 0x10000 * 2;

export function upcaseChecksum(table: Uint8Array): number {
  let sum = 0;
  for (const byte of table) sum = (((sum << 31) | (sum >>> 1)) + byte) >>> 0;
  return sum;
}

/** Unpacks a table in which 0xffff and a count stand for that many units which are their own upper case. */
export function readUpcase(table: Buffer): (name: string) => string {
  const upper = new Uint16Array(0x10000);
  for (let unit = 0; unit < 0x10000; unit++) upper[unit] = unit;
  let unit = 0;
  for (let at = 0; at + 2 <= table.length && unit < 0x10000; at += 2) {
    const value = table.readUInt16LE(at);
    if (value === 0xffff && at + 4 <= table.length) {
      at += 2;
      unit += table.readUInt16LE(at);
    } else upper[unit++] = value;
  }
  return (name) => {
    let raised = "";
    for (let at = 0; at < name.length; at++) raised += String.fromCharCode(upper[name.charCodeAt(at)]!);
    return raised;
  };
}
