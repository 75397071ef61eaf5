/** Tests only: differencing VDI images, which QEMU does not make, from two of its own. */
import { readFileSync, writeFileSync } from "node:fs";
import { wholeDisk } from "./qemu-test-tools.js";

const MiB = 1 << 20;

/** Where the header has what, in VirtualBox's VDICore.h. */
export const vdiAt = {
  type: 0x4c,
  map: 0x154,
  data: 0x158,
  extra: 0x17c,
  id: 0x188,
  change: 0x198,
  link: 0x1a8,
  linkChange: 0x1b8,
};

/** Turns `child` into a differencing image of `parent`, and gives what it then has to show. */
export function makeDiffer(child: string, parent: { path: string; disk: Buffer }): Buffer {
  const [own, theirs] = [readFileSync(child), readFileSync(parent.path)];
  const disk = wholeDisk({ path: child });
  own.writeUInt32LE(4, vdiAt.type);
  theirs.copy(own, vdiAt.link, vdiAt.id, vdiAt.id + 16);
  theirs.copy(own, vdiAt.linkChange, vdiAt.change, vdiAt.change + 16);
  writeFileSync(child, own);
  const map = own.readUInt32LE(vdiAt.map);
  for (let block = 0; block * MiB < disk.length; block++)
    if (own.readUInt32LE(map + block * 4) === 0xffffffff) {
      const end = Math.min((block + 1) * MiB, disk.length);
      disk.fill(0, block * MiB, end);
      if (block * MiB < parent.disk.length) parent.disk.copy(disk, block * MiB, block * MiB, end);
    }
  return disk;
}
