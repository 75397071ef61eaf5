/** The parts of a split file, taken together before anything is recognised: a container of any format may be split. */
import { basename, dirname, resolve } from "node:path";
import { type ByteSource, Slice } from "./bytes/byte-source.js";
import type { FileSource } from "./bytes/file.js";
import { splitOf } from "./bytes/split-names.js";
import { missing, usage } from "./errors.js";
import type { ImageFormat, Wrapping } from "./images/image-format.js";
import { raw } from "./images/raw.js";
import { packingOf } from "./packed/index.js";

/** The files of an image, as chain.ts has them. */
interface Files {
  /** Names of the files in a folder. */
  in(folder: string): readonly string[];
  open(path: string): FileSource;
  readonly count: number;
  /** Closes what was opened since there were `count` files. */
  closeFrom(count: number): void;
}

/**
 * The parts of a file of which `file` is the first, where its name tells of parts (bytes/split-names.ts); `file` alone
 * where it doesn't.
 * @param recognised the format that bytes have by their signature; `raw` for none
 * @param wrappings is told of the parts
 * @throws ImageError `missing` or `usage` where a part isn't there, or `file` is not the first
 */
export function partsOf(
  file: FileSource,
  files: Files,
  recognised: (source: ByteSource) => ImageFormat,
  wrappings: Wrapping[],
): readonly FileSource[] {
  const folder = dirname(file.name);
  const split = splitOf(basename(file.name), () => files.in(folder));
  if (!split) return [file];
  const path = (name: string) => resolve(folder, name);
  const other = split.kind === "first" ? split.parts[1]! : split.kind === "later" ? split.first : split.other;
  const before = files.count;
  if (standAlone(file, files.open(path(other)), recognised)) {
    files.closeFrom(before);
    return [file];
  }
  const rename = "Rename it, if it is a whole image.";
  const packing = packingOf(file);
  // Where one stream of a compression ends another may begin, so that a part may begin like a file of its own.
  if (packing && packing === packingOf(files.open(path(other))))
    throw usage(
      `${file.name}: is named like a part of a split file, like ${path(other)}, and both begin like files that are compressed with ${packing.name} by themselves. ${rename} If they are parts, join them: cat PARTS > WHOLE.`,
    );
  if (split.kind === "later")
    throw usage(`${file.name}: is a part of a split image; name its first part, ${path(split.first)}. ${rename}`);
  if (split.kind === "gap")
    throw missing(
      `${file.name}: is a part of a split image, like ${path(other)}, of which ${path(split.missing)} is not there. Put it there. ${rename}`,
    );
  wrappings.push({ name: file.name, format: "split", facts: { parts: split.parts.length } });
  return split.parts.map((name) => files.open(path(name)));
}

/**
 * Whether two files that are numbered like parts are images of their own all the same, two days' backups for example: both
 * begin with one format's signature, as of parts only the first does, or both end with one, as only the last does.
 */
function standAlone(file: ByteSource, other: ByteSource, recognised: (source: ByteSource) => ImageFormat): boolean {
  const [a, b] = [file, other].map((one) => {
    const start = recognised(new Slice(one.name, one, 0, Math.max(0, Math.min(65536, one.size - 512))));
    return { start, whole: recognised(one) };
  });
  const byStart = a!.start === b!.start && a!.start !== raw;
  return byStart || (a!.whole === b!.whole && a!.whole !== a!.start && b!.whole !== b!.start);
}
