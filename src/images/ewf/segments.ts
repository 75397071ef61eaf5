/**
 * The files of one image, which the format calls segment files: found by the naming rule of "Segment file extensions",
 * numbered in their headers, and joined into one source through which all tables are paged.
 *
 *   disk.E01 … disk.E99, disk.EAA … disk.EZZ, disk.FAA … disk.ZZZ        EWF; SMART the same from disk.s01 on
 *   disk.Ex01 … disk.Ex99, disk.ExAA … disk.ExZZ, disk.EyAA … disk.EzZZ  EWF2
 */
import { basename } from "node:path";
import type { ByteSource } from "../../bytes/byte-source.js";
import { JoinedSource } from "../../bytes/joined.js";
import { ImageError, mismatch, missing, unsupported, usage } from "../../errors.js";
import type { Surroundings } from "../../format.js";

export interface Segment {
  readonly file: ByteSource;
  /** As its header numbers it, from 1. */
  readonly number: number;
  /** Where its first byte is in the joined source. */
  readonly start: number;
}

/**
 * The name of segment `number` of the image whose first file is called `first`; undefined where the rule has no name for
 * it, or `first` isn't named by the rule.
 */
export function segmentName(first: string, number: number): string | undefined {
  const match = /^(.*\.)([a-z])(x?)01$/is.exec(first);
  if (!match) return undefined;
  const [, stem, letter, x] = match as unknown as [string, string, string, string];
  if (number < 100) return `${stem}${letter}${x}${String(number).padStart(2, "0")}`;
  const a = letter === letter.toLowerCase() ? "a" : "A";
  const counted = number - 100;
  const at = (base: string, steps: number) => String.fromCharCode(base.charCodeAt(0) + steps);
  const carry = Math.floor(counted / (26 * 26));
  const rising = x === "" ? letter : x;
  const lead = at(rising, carry);
  if (carry > 25 || !/[a-z]/i.test(lead) || lead < "a" !== rising < "a") return undefined;
  return `${stem}${x === "" ? "" : letter}${lead}${at(a, Math.floor(counted / 26) % 26)}${at(a, counted % 26)}`;
}

/**
 * Opens the segments one after another.
 *
 * @param numberOf reads a file's header, checks that it belongs to the image, and gives the segment's number.
 * @param walk reads a segment's sections; whether it says that another segment follows.
 * @throws ImageError `missing` or `mismatch` naming the file that isn't there, or isn't the right one.
 */
export function openSegments(
  first: ByteSource,
  around: Surroundings,
  numberOf: (file: ByteSource) => number,
  walk: (segment: Segment, all: JoinedSource) => boolean,
): JoinedSource {
  const all = new JoinedSource(first.name);
  const own = numberOf(first);
  if (own !== 1)
    throw usage(`${first.name}: is segment ${own} of an image. Open its first segment, whose name ends with 01.`);
  for (let file = first; ; ) {
    const segment = { file, number: all.count + 1, start: all.add(file) };
    if (!walk(segment, all)) return all;
    const number = segment.number + 1;
    file = nextFile(first, around, number);
    const found = numberOf(file);
    if (found !== number)
      throw mismatch(
        `${file.name}: is segment ${found} of an image, where its name makes it segment ${number} of ${first.name}. Put the right file there.`,
      );
  }
}

function nextFile(first: ByteSource, around: Surroundings, number: number): ByteSource {
  const name = segmentName(basename(around.path), number);
  if (name === undefined)
    throw unsupported(
      `${first.name}: continues in segment ${number}, for which there is no file name: the first must end with .E01, .s01 or .Ex01, and the last with ZZ.`,
    );
  // Windows doesn't tell capitals from small letters, and what was copied from there may mix them.
  const extension = name.lastIndexOf(".");
  const turned = [name.slice(extension).toUpperCase(), name.slice(extension).toLowerCase()];
  let problem: unknown;
  for (const candidate of new Set([name, ...turned.map((end) => name.slice(0, extension) + end)]))
    try {
      return around.companion(candidate);
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "missing") throw error;
      problem ??= error;
    }
  throw missing(
    `${(problem as ImageError).message} It is segment ${number} of the image: put all its files in one folder.`,
  );
}
