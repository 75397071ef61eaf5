/** The names of the bits that are set; a bit without a name appears as `0x…`. */
export function flagNames(names: Readonly<Record<number, string>>, bits: number): string[] {
  const found: string[] = [];
  for (let bit = 0; bit < 32; bit++) {
    const value = (1 << bit) >>> 0;
    if (bits & value) found.push(names[value] ?? `0x${value.toString(16)}`);
  }
  return found;
}

/** Attributes of DOS, as FAT, exFAT and NTFS keep them. */
export const dosFlags: Readonly<Record<number, string>> = {
  1: "read-only",
  2: "hidden",
  4: "system",
  8: "volume label",
  16: "directory",
  32: "archive",
};
