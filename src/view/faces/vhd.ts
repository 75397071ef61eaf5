import { type Face, type FacedDisk, made, uuidOf } from "./face.js";

const sector = 512;
const largestCylinders = 65535;
/** Seconds from 1970 to 2000, from which the format counts. */
const year2000 = 946_684_800;

/** The largest disk that the format's readers take: 2040 GiB. */
export const largestVhd = 2040 * 2 ** 30;

/** Microsoft's disk image of fixed size: the disk, and 512 bytes behind it (Virtual Hard Disk Image Format Specification). */
export function vhd({ size, id, created }: FacedDisk): Face {
  const footer = Buffer.alloc(sector);
  footer.write("conectix", 0, "latin1");
  footer.writeUInt32BE(2, 8); // no features; this bit is always set
  footer.writeUInt32BE(0x00010000, 12);
  footer.fill(0xff, 16, 24); // no further structure
  footer.writeUInt32BE(Math.max(0, created - year2000), 24);
  // Who made it tells readers whether the size counts, or the geometry, as it did with Virtual PC. With Hyper-V it is the size.
  footer.write("win ", 28, "latin1");
  footer.writeUInt32BE(0x000a0000, 32);
  footer.write("Wi2k", 36, "latin1");
  footer.writeBigUInt64BE(BigInt(size), 40);
  footer.writeBigUInt64BE(BigInt(size), 48);
  const [cylinders, heads, perTrack] = geometry(size / sector);
  footer.writeUInt16BE(cylinders, 56);
  footer[58] = heads;
  footer[59] = perTrack;
  footer.writeUInt32BE(2, 60); // a fixed size
  uuidOf(id).copy(footer, 68);
  let sum = 0;
  for (const byte of footer) sum += byte;
  footer.writeUInt32BE(~sum >>> 0, 64);
  return { file: "disk.vhd", parts: [{ kind: "disk", length: size, disk: 0 }, made(footer)] };
}

/** Cylinders, heads and sectors of a track, as the specification's appendix computes them. */
function geometry(sectors: number): [cylinders: number, heads: number, perTrack: number] {
  const total = Math.min(sectors, largestCylinders * 16 * 255);
  if (total >= largestCylinders * 16 * 63) return [Math.floor(total / 255 / 16), 16, 255];
  let perTrack = 17;
  let tracks = Math.floor(total / perTrack);
  let heads = Math.max(4, Math.floor((tracks + 1023) / 1024));
  if (tracks >= heads * 1024 || heads > 16) {
    perTrack = 31;
    heads = 16;
    tracks = Math.floor(total / perTrack);
  }
  if (tracks >= heads * 1024) {
    perTrack = 63;
    heads = 16;
    tracks = Math.floor(total / perTrack);
  }
  return [Math.floor(tracks / heads), heads, perTrack];
}
