/**
 * The boot catalog of El Torito: which images a PC may boot from this medium. A validation entry, the default image, then
 * sections of further images, each for a platform; 32 bytes an entry.
 */
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { SECTOR } from "./volume.js";

export interface BootImage {
  readonly platform: string;
  readonly bootable: boolean;
  readonly emulation: string;
  /** Where a BIOS puts it, as a real-mode segment. */
  readonly loadSegment: number;
  /** Byte in the image. */
  readonly position: number;
  /** Bytes that the firmware loads; of an emulated floppy, its size. UEFI images often tell 0 or 512 for "all". */
  readonly size: number;
}

const platforms: Record<number, string> = { 0: "x86 BIOS", 1: "PowerPC", 2: "Mac", 239: "UEFI" };
const emulations = ["none", "1.2 MB floppy", "1.44 MB floppy", "2.88 MB floppy", "hard disk"];
const floppySizes: Record<number, number> = { 1: 1_228_800, 2: 1_474_560, 3: 2_949_120 };

const ENTRY = 32;
const MOST_ENTRIES = 64;

/** @param warn is told what is wrong with a catalog; then there are no images, or fewer. */
export function readBootImages(source: ByteSource, sector: number, warn: (what: string) => void): BootImage[] {
  const position = sector * SECTOR;
  const catalog = Buffer.alloc(SECTOR);
  const length = readFully(source, position, catalog);
  let sum = 0;
  for (let at = 0; at < ENTRY; at += 2) sum = (sum + catalog.readUInt16LE(at)) & 0xffff;
  if (length < SECTOR || catalog[0] !== 1 || catalog[30] !== 0x55 || catalog[31] !== 0xaa || sum !== 0) {
    warn(`The boot catalog at byte ${position} is damaged: no boot images are listed.`);
    return [];
  }
  const images: BootImage[] = [];
  const add = (at: number, platform: number) => {
    const media = catalog[at + 1] & 0x0f;
    images.push({
      platform: platforms[platform] ?? `0x${platform.toString(16)}`,
      bootable: catalog[at] === 0x88,
      emulation: emulations[media] ?? `type ${media}`,
      loadSegment: catalog.readUInt16LE(at + 2) || 0x7c0,
      position: catalog.readUInt32LE(at + 8) * SECTOR,
      size: floppySizes[media] ?? catalog.readUInt16LE(at + 6) * 512,
    });
  };
  const isEntry = (at: number) => catalog[at] === 0x88 || catalog[at] === 0;
  if (isEntry(ENTRY)) add(ENTRY, catalog[1]);
  else warn(`The default entry of the boot catalog at byte ${position} is damaged.`);
  for (let at = 2 * ENTRY, entries = 0; at < SECTOR && (catalog[at] & 0xfe) === 0x90; ) {
    const last = catalog[at] === 0x91;
    const platform = catalog[at + 1];
    let left = catalog.readUInt16LE(at + 2);
    at += ENTRY;
    for (; left > 0 && at < SECTOR && entries < MOST_ENTRIES; at += ENTRY) {
      // A continuation of the selection criteria, which nobody but firmware reads.
      if (catalog[at] === 0x44) continue;
      if (!isEntry(at)) break;
      add(at, platform);
      entries++;
      left--;
    }
    if (left > 0) warn(`The boot catalog at byte ${position} names more images than it has.`);
    if (last) break;
  }
  return images;
}
