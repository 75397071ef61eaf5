/**
 * Multi-sector protection: the last two bytes of every 512 bytes of a file record or index block are replaced by the
 * same number, so that a write torn in the middle shows. The replaced bytes wait in an array in the header (its position
 * in bytes at 4, its count at 6, the number itself first).
 */

/** 512, whatever the disk's sector size is. */
const stride = 512;

/**
 * Puts the protected bytes back in place.
 * @returns what is wrong, to follow `the record`; undefined when it is whole.
 */
export function applyFixups(record: Buffer, magic: string): string | undefined {
  const found = record.toString("latin1", 0, 4);
  if (found !== magic)
    return found === "BAAD"
      ? "is marked BAAD: a check of the disk found it torn"
      : `begins with ${JSON.stringify(found)} instead of ${magic}`;
  const at = record.readUInt16LE(4);
  const sectors = record.length / stride;
  if (record.readUInt16LE(6) !== sectors + 1) return `has ${record.readUInt16LE(6)} fixups instead of ${sectors + 1}`;
  // The array lies in the first sector, before its protected bytes.
  if (at % 2 !== 0 || at < 8 || at + 2 * (sectors + 1) > stride - 2) return `has its fixups at byte ${at}`;
  const low = record[at]!;
  const high = record[at + 1]!;
  for (let sector = 0; sector < sectors; sector++) {
    const end = (sector + 1) * stride - 2;
    if (record[end] !== low || record[end + 1] !== high) return `is torn: its sector ${sector} is from another write`;
  }
  for (let sector = 0; sector < sectors; sector++) {
    const end = (sector + 1) * stride - 2;
    record[end] = record[at + 2 + sector * 2]!;
    record[end + 1] = record[at + 3 + sector * 2]!;
  }
  return undefined;
}
