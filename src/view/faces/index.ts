import { unsupported } from "../../errors.js";
import type { Face, FacedDisk } from "./face.js";
import { vdi } from "./vdi.js";
import { largestVhd, vhd } from "./vhd.js";
import { vmdk } from "./vmdk.js";

interface FaceRow {
  readonly name: string;
  /** Bytes of the largest disk, where the format has a bound. */
  readonly largest?: number;
  make(disk: FacedDisk): Face;
}

/** The faces that a disk can be shown with beside disk.raw. */
const table = [
  { name: "vmdk", make: vmdk },
  { name: "vdi", make: vdi },
  { name: "vhd", largest: largestVhd, make: vhd },
] as const satisfies readonly FaceRow[];

export type FaceName = (typeof table)[number]["name"];

export const faceNames: readonly FaceName[] = table.map(({ name }) => name);

/** @throws ImageError `unsupported` for a disk that a format can't have; `name` names the disk */
export function facesOf(name: string, wanted: readonly FaceName[], disk: FacedDisk): Face[] {
  return (table as readonly FaceRow[])
    .filter((row) => wanted.some((each) => each === row.name))
    .map((row) => {
      if (disk.size === 0 || disk.size % 512 !== 0)
        throw unsupported(
          `${name}: its disk has ${disk.size} bytes, which isn't whole sectors, so it has no ${row.name} face. Leave --face out.`,
        );
      if (row.largest !== undefined && disk.size > row.largest)
        throw unsupported(
          `${name}: its disk has ${disk.size} bytes, and a ${row.name} has ${row.largest} at most. Choose another --face.`,
        );
      return row.make(disk);
    });
}
