/** What takes more than a look at one place to recognise a thing, or to tell its label. */
import { createHash } from "node:crypto";
import { type Glance, guid, hyphened } from "./signature.js";

/**
 * Where the HFS+ volume begins whose header is at `header`, or around which the HFS volume there is (TN1150, "HFS Wrapper").
 */
function hfsPlusStart(volume: Glance, header: number): number {
  if (!volume.has(header, "BD")) return header - 1024;
  return volume.u16be(header + 28) * 512 + volume.u16be(header + 126) * volume.u32be(header + 20);
}

/** Of HFS and HFS+: made of eight bytes of the Finder's, as Apple's own tools do it (a UUID of version 3). */
export function hfsUuid(volume: Glance, header: number): string {
  const isPlain = volume.has(header, "BD") && !volume.has(header + 124, "H");
  const id = volume.bytes(isPlain ? header + 116 : hfsPlusStart(volume, header) + 1024 + 104, 8);
  if (id.every((byte) => byte === 0)) return "";
  const space = Buffer.from("b3e20f39f29211d697a400306543ecac", "hex");
  const digest = createHash("md5").update(space).update(id).digest();
  digest[6] = 0x30 | (digest[6]! & 0x0f);
  digest[8] = 0x80 | (digest[8]! & 0x3f);
  return hyphened(digest);
}

/** The name of the root folder: the first key of the catalog's first leaf. Only the catalog's first extents are followed. */
export function hfsPlusLabel(volume: Glance, header: number): string {
  const start = hfsPlusStart(volume, header);
  const blockSize = volume.u32be(start + 1024 + 40);
  const extents = Array.from({ length: 8 }, (_, index) => {
    const at = start + 1024 + 272 + 16 + index * 8;
    return { block: volume.u32be(at), blocks: volume.u32be(at + 4) };
  });
  const place = (position: number): number => {
    let rest = position;
    for (const { block, blocks } of extents) {
      if (rest < blocks * blockSize) return start + block * blockSize + rest;
      rest -= blocks * blockSize;
    }
    return -1;
  };
  const catalog = place(0);
  const leaf = place(volume.u32be(catalog + 14 + 10) * volume.u16be(catalog + 14 + 18));
  // A leaf (-1) whose first key is of the root's parent (1).
  const key = leaf + 14;
  if (leaf < 0 || !volume.has(leaf + 8, "\xff") || volume.u32be(key + 2) !== 1) return "";
  const length = volume.u16be(key + 6);
  if (length > 255) return "";
  return volume
    .bytes(key + 8, length * 2)
    .swap16()
    .toString("utf16le");
}

/** A value of the list of names and values in a ZFS label, of the list's own level; undefined when it has none such. */
export function zfsValue(volume: Glance, label: number, wanted: string): string | undefined {
  const list = volume.bytes(label + 16 * 1024, 112 * 1024);
  // Behind the header are version and flags; then each pair: its size, its size unpacked, and its name.
  for (let at = 12; at + 12 <= list.length; ) {
    const size = list.readUInt32BE(at);
    const nameLength = list.readUInt32BE(at + 8);
    const value = at + 12 + nameLength + (-nameLength & 3);
    if (size < 12 || value + 16 > at + size || at + size > list.length) return undefined;
    if (list.toString("latin1", at + 12, at + 12 + nameLength) === wanted) {
      const type = list.readUInt32BE(value);
      if (type === 8) return list.readBigUInt64BE(value + 8).toString();
      const length = list.readUInt32BE(value + 8);
      if (type !== 9 || value + 12 + length > at + size) return undefined;
      return list.toString("utf8", value + 12, value + 12 + length);
    }
    at += size;
  }
  return undefined;
}

/** Its signature is two bytes of what may be anything. */
export function minixFits(volume: Glance, start: number): boolean {
  if (volume.has(start, "\xe2\xe1\xf5\xe0")) return false; // EROFS, by its number of files
  const third = volume.has(start + 24, "\x5a\x4d") || volume.has(start + 24, "\x4d\x5a");
  const bigEndian = third
    ? volume.has(start + 24, "\x4d")
    : volume.has(start + 16, "\x13") || volume.has(start + 16, "\x24");
  const small = bigEndian ? volume.u16be : volume.u16;
  const large = bigEndian ? volume.u32be : volume.u32;
  const second = /[\x24]/.test(volume.bytes(start + 16, 2).toString("latin1"));
  const inodes = third ? large(start) : small(start);
  const maps = start + (third ? 6 : 4);
  const zones = third ? large(start + 20) : second ? large(start + 20) : small(start + 2);
  const [inodeBlocks, zoneBlocks, firstZone] = [small(maps), small(maps + 2), small(maps + 4)];
  if (volume.bytes(maps + 6, 2).some((byte) => byte !== 0)) return false; // zones are blocks everywhere
  return (
    inodes > 0 && inodeBlocks * 8192 >= inodes + 1 && firstZone <= zones && zoneBlocks * 8192 >= zones - firstZone + 1
  );
}

/** Where the metadata of a BitLocker volume is (libbde's description of the format); undefined when it has none. */
export function bitLockerMetadata(volume: Glance): number | undefined {
  // BitLocker To Go looks like FAT32.
  const field = volume.has(3, "MSWIN4.1") ? 440 : 176;
  const position = volume.u64(field);
  return position < BigInt(volume.size) && volume.has(Number(position), "-FVE-FS-") ? Number(position) : undefined;
}

export function bitLockerUuid(volume: Glance): string {
  const metadata = bitLockerMetadata(volume);
  return metadata === undefined ? "" : guid(volume.bytes(metadata + 64 + 16, 16));
}

/** The description among the entries of its metadata: the machine's name, the drive's and the day. */
export function bitLockerLabel(volume: Glance): string {
  const metadata = bitLockerMetadata(volume);
  if (metadata === undefined) return "";
  const header = metadata + 64;
  const end = header + Math.min(volume.u32(header), 64 * 1024);
  for (let entry = header + 48; entry + 8 < end; ) {
    const size = volume.u16(entry);
    if (size < 8 || entry + size > end) return "";
    if (volume.u16(entry + 2) === 7 && volume.u16(entry + 4) === 2)
      return volume
        .bytes(entry + 8, size - 8)
        .toString("utf16le")
        .replace(/\0.*/s, "");
    entry += size;
  }
  return "";
}
