/** What an EFI system partition has to boot from: whether a disk boots by UEFI, and what its firmware has to be told. */
import type { FileId, FileSystem } from "../filesystems/filesystem.js";
import type { Volume, VolumeTable } from "../volumes/volume.js";

export interface FoundLoader {
  readonly volume: Volume;
  /** `\EFI\debian\shimx64.efi` */
  readonly path: string;
  /** Whether a firmware looks for it there by itself. */
  readonly isUsual: boolean;
}

const isEfiSystem = ({ typeCode }: Volume) => /^(c12a7328-f81f-11d2-ba4b-00a0c93ec93b|0xef)$/i.test(typeCode);

/** What every firmware looks for (UEFI 2.10, 3.5.1.1). */
const usual = ["EFI", "BOOT", "BOOTX64.EFI"];
/** Loaders of systems, in a folder of theirs below \EFI; the first that is there is taken. shim starts GRUB. */
const known = ["shimx64.efi", "grubx64.efi", "systemd-bootx64.efi", "bootmgfw.efi", "refind_x64.efi"];
/** Files below \EFI that are looked at: a hostile disk may have very many. */
const mostFiles = 10_000;

/** The EFI system partitions of a disk. */
export const efiPartitions = ({ volumes }: VolumeTable): Volume[] => volumes.filter(isEfiSystem);

/**
 * What boots from an EFI system partition; undefined where it has nothing for this processor.
 * @param tree its filesystem
 * @throws ImageError where that is damaged
 */
export function loaderIn(volume: Volume, tree: FileSystem): FoundLoader | undefined {
  if (at(tree, usual) !== undefined) return { volume, path: `\\${usual.join("\\")}`, isUsual: true };
  const efi = at(tree, usual.slice(0, 1));
  const files = efi === undefined ? [] : [...filesBelow(tree, efi, "\\EFI", { left: mostFiles })];
  for (const name of known) {
    const path = files.find((each) => each.toLowerCase().endsWith(`\\${name}`));
    if (path !== undefined) return { volume, path, isUsual: false };
  }
  return undefined;
}

/** FAT knows no capitals. */
function at(tree: FileSystem, names: readonly string[]): FileId | undefined {
  let file: FileId | undefined = tree.root;
  for (const name of names) file = file === undefined ? undefined : tree.lookup(file, Buffer.from(name));
  return file;
}

function* filesBelow(
  tree: FileSystem,
  folder: FileId,
  path: string,
  count: { left: number },
  depth = 0,
): Iterable<string> {
  for (const { name, file, kind } of tree.list(folder)) {
    if (count.left-- <= 0) return;
    const place = `${path}\\${Buffer.from(name).toString()}`;
    if (kind === "file") yield place;
    // \EFI\Microsoft\Boot\bootmgfw.efi
    else if (kind === "directory" && depth < 2) yield* filesBelow(tree, file, place, count, depth + 1);
  }
}
