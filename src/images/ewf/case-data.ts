/** What an image tells of its case and its drive: lines of values between tabs, packed. */
import { unpackBzip2 } from "../../bytes/bzip2.js";
import { unpackZlib } from "../../bytes/zlib.js";
import { ImageError } from "../../errors.js";

/** Bytes of the longest text that is looked at: EnCase itself takes some 3000 characters a value. */
const longestText = 1 << 20;
const longestValue = 4000;

export type Packing = "zlib" | "bzip2";

/**
 * The text of a packed section, in UTF-16 where it begins with a byte order mark, and otherwise taken for Windows-1252.
 * @throws ImageError `corrupt`, without a file's name.
 */
export function unpackText(packed: Uint8Array, packing: Packing): string {
  const unpack = packing === "zlib" ? unpackZlib : unpackBzip2;
  // Most are a few hundred bytes long.
  let target = new Uint8Array(16384);
  let length: number;
  try {
    length = unpack(packed, target);
  } catch (error) {
    if (!(error instanceof ImageError) || !error.message.includes("to more than")) throw error;
    target = new Uint8Array(longestText);
    length = unpack(packed, target);
  }
  const bytes = target.subarray(0, length);
  const mark = (bytes[0]! << 8) | bytes[1]!;
  const encoding = mark === 0xfffe ? "utf-16le" : mark === 0xfeff ? "utf-16be" : "windows-1252";
  return new TextDecoder(encoding).decode(bytes);
}

/**
 * The values of the category `main`, by their codes: its second line has the codes, its third the values ("Header
 * section", "Device information", "Case data").
 */
export function mainValues(text: string): Map<string, string> {
  const lines = text.split(/\r\n|\r|\n/);
  const at = lines.indexOf("main");
  const values = new Map<string, string>();
  if (at < 0) return values;
  const cells = (lines[at + 2] ?? "").split("\t");
  for (const [column, code] of (lines[at + 1] ?? "").split("\t").entries())
    if (!values.has(code)) values.set(code, unescaped(cells[column] ?? ""));
  return values;
}

/** EWF2 keeps what would end a line or a value as characters 1 to 3 ("Serialized (file) object data"). */
const unescaped = (value: string) =>
  value.slice(0, longestValue).replaceAll("\x01", "\n").replaceAll("\x02", "\r").replaceAll("\x03", "\t");

/** Our names of the values, with their codes in EWF and in EWF2. */
const names: readonly (readonly [name: string, code1: string, code2: string])[] = [
  ["caseNumber", "c", "cn"],
  ["evidenceNumber", "n", "en"],
  ["description", "a", "nm"],
  ["examiner", "e", "ex"],
  ["notes", "t", "nt"],
  ["model", "md", "md"],
  ["serialNumber", "sn", "sn"],
  ["deviceLabel", "l", "lb"],
  ["acquired", "m", "tt"],
  ["systemDate", "u", "at"],
  ["software", "av", "av"],
  ["operatingSystem", "ov", "os"],
];

/** The values that are there, for `spindle info`. */
export function caseFacts(values: ReadonlyMap<string, string>, version: 1 | 2): Record<string, string> {
  const facts: Record<string, string> = {};
  for (const [name, code1, code2] of names) {
    const value = values.get(version === 1 ? code1 : code2)?.trim();
    if (value) facts[name] = name === "acquired" || name === "systemDate" ? dateText(value) : value;
  }
  return facts;
}

/**
 * Seconds since 1970 as an ISO date in UTC; `2002 3 4 10 19 59`, which is the examiner's local time, as one without a
 * zone; anything else as it is.
 */
function dateText(value: string): string {
  if (/^\d{1,10}$/.test(value)) return new Date(Number(value) * 1000).toISOString().replace(".000Z", "Z");
  const parts = /^(\d{4}) (\d{1,2}) (\d{1,2}) (\d{1,2}) (\d{1,2}) (\d{1,2})$/.exec(value)?.slice(1);
  if (!parts) return value;
  const [year, month, day, ...clock] = parts.map((part) => part.padStart(2, "0"));
  return `${year}-${month}-${day}T${clock.join(":")}`;
}
