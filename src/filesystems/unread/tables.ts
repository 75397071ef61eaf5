/** Partition tables of other machines than PCs and Macs, which Linux knows too. */
import type { Signature } from "./signature.js";

/** In EBCDIC, the label of a volume of IBM's mainframes: VOL1, LNX1, CMS1. */
const volumeLabels = ["\xe5\xd6\xd3\xf1", "\xd3\xd5\xe7\xf1", "\xc3\xd4\xe2\xf1"];

export const tableSignatures: readonly Signature[] = [
  { type: "sgi", what: "a disk with SGI's partition table", at: [[0, 0, "\x0b\xe5\xa9\x41"]] },
  {
    type: "sun",
    what: "a disk with Sun's partition table",
    at: [[0, 508, "\xda\xbe"]],
    // All of its 16-bit words together, by exclusive or, are zero.
    fits: (volume, start) =>
      new Uint16Array(volume.bytes(start, 512).buffer).reduce((sum, word) => sum ^ word, 0) === 0,
  },
  {
    type: "bsd",
    what: "a disk with BSD's partition table",
    at: [0, 64, 512].map((at) => [at, 0, "\x57\x45\x56\x82"] as const),
    fits: (volume, start) => volume.has(start + 132, "\x57\x45\x56\x82"),
  },
  {
    type: "dasd",
    what: "a disk of an IBM mainframe (DASD)",
    // In the third block, in some layouts behind a key of four bytes.
    at: [512, 1024, 2048, 4096].flatMap((block) =>
      volumeLabels.flatMap((label) => [0, 4].map((key) => [2 * block, key, label] as const)),
    ),
  },
  { type: "aix", what: "a disk of AIX", at: [[0, 0, "\xc9\xc2\xd4\xc1"]] },
  {
    type: "atari",
    what: "a disk with Atari's partition table",
    at: ["GEM", "BGM", "LNX", "SWP", "RAW", "XGM"].flatMap((id) =>
      [0x1c6, 0x1d2, 0x1de, 0x1ea].map((entry) => [entry, 1, id] as const),
    ),
    // It has no signature but that its entries make sense: in use, and within the disk's number of sectors.
    fits: (volume, entry) => {
      const [flags] = volume.bytes(entry, 1);
      const sectors = volume.u32be(0x1c2);
      const [start, count] = [volume.u32be(entry + 4), volume.u32be(entry + 8)];
      return (flags! & 1) !== 0 && start > 0 && count > 0 && start + count <= sectors && sectors * 512 <= volume.size;
    },
  },
];
