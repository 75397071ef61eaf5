import { usage } from "../errors.js";

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** `bytes` for people: `512 B`, `64 KiB`, `1.5 GiB`; at most three digits before the point and one behind it. */
export function humanSize(bytes: number): string {
  let unit = 0;
  let value = bytes;
  // 1023.95 would be rounded to 1024.0, which is 1 of the next unit.
  while (Math.abs(value) >= (unit === 0 ? 1024 : 1023.95) && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 ? String(value) : value.toFixed(1).replace(/\.0$/, "");
  return `${digits} ${units[unit]}`;
}

const powers = ["", "K", "M", "G", "T", "P"];

/**
 * The bytes that `text` means: `4096`, `64K`, `64KiB`, `1.5G` (powers of 1024), `64KB` (powers of 1000), as GNU tools take
 * them; case doesn't matter.
 * @param what names the option in the message, for example `--chunk`.
 * @throws ImageError `usage` for anything else, for a size that isn't a whole number of bytes, or over 2^53 - 1.
 */
export function parseSize(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(?:([KMGTP])(iB|B)?|B)?$/i.exec(text.trim());
  if (!match)
    throw usage(`${what}: "${text}" is no size. Write bytes, or a number with K, M, G or T, for example 64K.`);
  const power = powers.indexOf((match[2] ?? "").toUpperCase());
  const base = match[3]?.toLowerCase() === "b" ? 1000 : 1024;
  const bytes = Number(match[1]) * base ** power;
  if (!Number.isInteger(bytes)) throw usage(`${what}: "${text}" is not a whole number of bytes.`);
  if (!Number.isSafeInteger(bytes)) throw usage(`${what}: "${text}" is larger than any size that can be handled.`);
  return bytes;
}
