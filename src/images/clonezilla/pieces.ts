/**
 * The files of a Clonezilla folder that hold a partition or a logical volume, told by their names (save_part_by_partclone,
 * save_part_by_dd, save_part_by_ntfsclone and get_image_cat_zip_cmd of its ocs-functions):
 *
 *   sda1.ext4-ptcl-img.zst.aa, .ab …     partclone, packed as told, in pieces; `uncomp` for not packed; no end when in one piece
 *   sda1.ext4-img.aa …                   the same from older versions, whose packing only the bytes tell
 *   sda1.dd-ptcl-img.gz.aa …             every byte of it, packed as told: partclone.dd puts nothing around them
 *   sda1.dd-img.aa …                     the same from older versions
 *   sda1.ntfs-img.aa …                   ntfsclone; sda1.aa, sda1.000: partimage
 *
 * The letters are those of split(1): two, or more where Clonezilla is set up so.
 */
import { splitOf } from "../../bytes/split-names.js";
import { missing, unsupported } from "../../errors.js";

export interface Pieces {
  /** The files, in order. */
  readonly files: readonly string[];
  /** Without the piece's own letters: `sda1.ext4-ptcl-img.gz`. */
  readonly name: string;
  /** Whether partclone made them; otherwise they are every byte. */
  readonly byPartclone: boolean;
  /** Their compression, `none` too; undefined where the name doesn't tell. */
  readonly packing: string | undefined;
}

const image = /^([\w+-]+?)(-ptcl)?-img(?:\.(gz|bz2|lzo|lzma|xz|lzip|lrz|lz4|zst|uncomp))?(?:\.([a-z]{2,10}))?$/;

/** Names of packed/packings.ts, by the ends that Clonezilla gives (ocs-get-comp-suffix). */
const packings: Record<string, string> = {
  gz: "gzip",
  bz2: "bzip2",
  xz: "xz",
  zst: "zstd",
  lz4: "lz4",
  lzip: "lzip",
  lzma: "lzma",
  uncomp: "none",
};
/** Those that Spindle doesn't read: their names, and what unpacks them. */
const unread: Record<string, readonly [name: string, command: string]> = {
  lzo: ["lzop", "lzop -dc"],
  lrz: ["lrzip", "lrzip -q -d -o -"],
};

/**
 * @param device `sda1`
 * @param names of the folder's files
 * @returns undefined where the folder has nothing of it
 * @throws ImageError `missing` where a piece isn't there, `unsupported` for another program's image
 */
export function piecesOf(folder: string, device: string, names: readonly string[]): Pieces | undefined {
  const own = names.filter((name) => name.startsWith(`${device}.`)).sort();
  for (const name of own) {
    const [, kind, partclone, packed, letters] = image.exec(name.slice(device.length + 1)) ?? [];
    if (kind === undefined || letters === "info") continue;
    if (kind === "ntfs" && !partclone)
      throw unsupported(
        `${folder}: ${device} was saved with ntfsclone (${name}), which Spindle doesn't read. Restore it with ntfsclone first.`,
      );
    const common = letters === undefined ? name : name.slice(0, -letters.length - 1);
    const [compression, command] = (packed && unread[packed]) || [];
    if (compression)
      throw unsupported(
        `${folder}: ${device} is compressed with ${compression} (${name}), which Spindle doesn't read. Unpack it: cat ${common}${letters === undefined ? "" : ".*"} | ${command} > ${common.slice(0, -packed!.length)}uncomp, and move ${common}${letters === undefined ? "" : ".*"} elsewhere.`,
      );
    const files = letters === undefined ? [name] : inOrder(folder, name, names);
    return { files, name: common, byPartclone: kind !== "dd", packing: packed && packings[packed] };
  }
  if (own.some((name) => /^\.(000|aa+)$/.test(name.slice(device.length))))
    throw unsupported(`${folder}: ${device} was saved with partimage, which Spindle doesn't read.`);
  return undefined;
}

function inOrder(folder: string, name: string, names: readonly string[]): readonly string[] {
  const split = splitOf(name, () => names);
  if (split === undefined && !/\.a+$/.test(name))
    throw missing(`${folder}: has ${name}, but not the first piece of it.`);
  if (split?.kind === "gap") throw missing(`${folder}: has ${split.other}, but not ${split.missing}. Put it there.`);
  return split?.kind === "first" ? split.parts : [name];
}
