/**
 * The files of a Clonezilla folder that hold a partition or a logical volume, told by their names:
 *
 *   sda1.ext4-ptcl-img.gz.aa, .ab …      partclone, packed, in pieces; `uncomp` for not packed; no end when in one piece
 *   sda1.ext4-img.aa …                   the same from older versions, packed with gzip mostly
 *   sda1.dd-img.aa …                     every byte of it, packed or not
 *   sda1.ntfs-img.aa …                   ntfsclone; sda1.aa, sda1.000: partimage
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
}

const image = /^([\w+-]+?)(-ptcl)?-img(?:\.(?:gz|bz2|lzo|lzma|xz|lzip|lrz|lz4|zst|uncomp))?(?:\.([a-z]{2,5}))?$/;

/**
 * @param device `sda1`
 * @param names of the folder's files
 * @returns undefined where the folder has nothing of it
 * @throws ImageError `missing` where a piece isn't there, `unsupported` for another program's image
 */
export function piecesOf(folder: string, device: string, names: readonly string[]): Pieces | undefined {
  const own = names.filter((name) => name.startsWith(`${device}.`)).sort();
  for (const name of own) {
    const [, kind, partclone, letters] = image.exec(name.slice(device.length + 1)) ?? [];
    if (kind === undefined || letters === "info") continue;
    if (kind === "ntfs" && !partclone)
      throw unsupported(
        `${folder}: ${device} was saved with ntfsclone (${name}), which Spindle doesn't read. Restore it with ntfsclone first.`,
      );
    const files = letters === undefined ? [name] : inOrder(folder, name, names);
    const common = letters === undefined ? name : name.slice(0, -letters.length - 1);
    return { files, name: common, byPartclone: kind !== "dd" || partclone !== undefined };
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
