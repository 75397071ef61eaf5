/** Filesystems, and those versions of ours that aren't read. Their structures are those of Linux's headers, where a row doesn't name another source. */
import { hfsPlusLabel, hfsUuid, minixFits, zfsValue } from "./deeper.js";
import { type Signature, text, uuid } from "./signature.js";

const KiB = 1024;

const ufs2 = ["\x19\x01\x54\x19", "\x19\x54\x01\x19"] as const;

export const filesystemSignatures: readonly Signature[] = [
  {
    type: "jbd",
    what: "the external journal of an ext filesystem",
    at: [[KiB, 56, "\x53\xef"]],
    fits: (volume, start) => (volume.u32(start + 96) & 8) !== 0,
    label: text(120, 16),
    uuid: uuid(104),
  },
  {
    type: "squashfs3",
    what: "a SquashFS filesystem of a version before 4",
    at: [
      [0, 0, "hsqs"],
      [0, 0, "sqsh"],
    ],
    fits: (volume) => volume.has(0, "sqsh") || volume.u16(28) < 4,
  },
  { type: "xfs", what: "an XFS filesystem", at: [[0, 0, "XFSB"]], label: text(108, 12), uuid: uuid(32) },
  {
    type: "btrfs",
    what: "a Btrfs filesystem",
    at: [[64 * KiB, 64, "_BHRfS_M"]],
    label: text(299, 256),
    uuid: uuid(32),
  },
  {
    type: "bcachefs",
    what: "a bcachefs filesystem",
    at: [
      [4 * KiB, 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"],
      [4 * KiB, 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"],
    ],
    // Older ones have the signature of bcache, which notes its own sector (8) first of all.
    fits: (volume, start) => volume.u64(start + 8) !== 8n,
    label: text(72, 32),
    uuid: uuid(56),
  },
  // Apple File System Reference, nx_superblock_t.
  { type: "apfs", what: "an APFS container", at: [[0, 32, "NXSB"]], uuid: uuid(72) },
  // Apple's TN1150: the volume header, and the HFS volume that one may be embedded in.
  {
    type: "hfsplus",
    what: "an HFS+ filesystem",
    at: [
      [KiB, 0, "H+\0\x04"],
      [KiB, 0, "HX\0\x05"],
      [KiB, 124, "H+"],
      [KiB, 124, "HX"],
    ],
    fits: (volume, start) => volume.has(start, "H") || volume.has(start, "BD"),
    label: hfsPlusLabel,
    uuid: hfsUuid,
  },
  {
    type: "hfs",
    what: "an HFS filesystem",
    at: [[KiB, 0, "BD"]],
    // Blocks of whole sectors; a volume around an HFS+ one is that.
    fits: (volume, start) => volume.u32be(start + 20) !== 0 && volume.u32be(start + 20) % 512 === 0,
    label: (volume, start) => text(37, Math.min(27, volume.bytes(start + 36, 1)[0]!), "latin1")(volume, start),
    uuid: hfsUuid,
  },
  {
    type: "f2fs",
    what: "an F2FS filesystem",
    at: [[KiB, 0, "\x10\x20\xf5\xf2"]],
    label: text(124, 1024, "utf16le"),
    uuid: uuid(108),
  },
  {
    type: "erofs",
    what: "an EROFS filesystem",
    at: [[KiB, 0, "\xe2\xe1\xf5\xe0"]],
    label: text(64, 16),
    uuid: uuid(48),
  },
  {
    type: "reiserfs",
    what: "a ReiserFS filesystem",
    at: [
      [64 * KiB, 52, "ReIsEr2Fs"],
      [64 * KiB, 52, "ReIsEr3Fs"],
      [64 * KiB, 52, "ReIsErFs"],
      [8 * KiB, 52, "ReIsErFs"],
      [8 * KiB, 20, "ReIsErFs"],
    ],
    // Version 3.5 had neither.
    label: (volume, start) => (volume.has(start + 52, "ReIsErFs") ? "" : text(100, 16)(volume, start)),
    uuid: (volume, start) => (volume.has(start + 52, "ReIsErFs") ? "" : uuid(84)(volume, start)),
  },
  {
    type: "reiser4",
    what: "a Reiser4 filesystem",
    at: [[64 * KiB, 0, "ReIsEr4"]],
    label: text(36, 16),
    uuid: uuid(20),
  },
  { type: "jfs", what: "a JFS filesystem", at: [[32 * KiB, 0, "JFS1"]], label: text(152, 16), uuid: uuid(136) },
  {
    type: "nilfs2",
    what: "a NILFS2 filesystem",
    at: [[KiB, 6, "\x34\x34"]],
    fits: (volume, start) => {
      const size = volume.u64(start + 32);
      const bytes = volume.u16(start + 8);
      return (
        volume.u32(start) === 2 && bytes >= 20 && bytes <= KiB && volume.u32(start + 20) <= 6 && size >= BigInt(KiB)
      );
    },
    label: text(168, 80),
    uuid: uuid(152),
  },
  {
    type: "zfs_member",
    what: "part of a ZFS pool",
    // A label's list of names and values, in XDR (1) and written on a machine of either byte order.
    at: [0, 256 * KiB].flatMap((start) =>
      ["\x01\x01\0\0", "\x01\0\0\0"].map((head) => [start, 16 * KiB, head] as const),
    ),
    fits: (volume, start) => zfsValue(volume, start, "pool_guid") !== undefined,
    label: (volume, start) => zfsValue(volume, start, "name") ?? "",
    uuid: (volume, start) => zfsValue(volume, start, "pool_guid") ?? "",
  },
  {
    type: "gfs2",
    what: "a GFS2 filesystem",
    at: [[64 * KiB, 0, "\x01\x16\x19\x70"]],
    fits: (volume, start) => Math.floor(volume.u32be(start + 24) / 100) === 18,
    label: text(160, 64),
    uuid: uuid(256),
  },
  {
    type: "gfs",
    what: "a GFS filesystem",
    at: [[64 * KiB, 0, "\x01\x16\x19\x70"]],
    label: text(160, 64),
    uuid: uuid(256),
  },
  {
    type: "ocfs2",
    what: "an OCFS2 filesystem",
    at: [1, 2, 4, 8].map((start) => [start * KiB, 0, "OCFSV2"] as const),
    label: text(272, 64),
    uuid: uuid(336),
  },
  { type: "ocfs", what: "an OCFS filesystem", at: [[8 * KiB, 0, "OracleCFS"]] },
  { type: "oracleasm", what: "a disk of Oracle ASM", at: [[0, 32, "ORCLDISK"]], label: text(40, 24) },
  {
    type: "VMFS",
    what: "a VMFS filesystem",
    at: [[2 << 20, 0, "\x5e\xf1\xab\x2f"]],
    label: text(29, 128),
    uuid: (volume, start) => {
      const bytes = volume.bytes(start + 9, 16);
      for (const [from, to] of [
        [0, 4],
        [4, 8],
        [8, 10],
      ] as const)
        bytes.subarray(from, to).reverse();
      return bytes.toString("hex").replace(/^(.{8})(.{8})(.{4})/, "$1-$2-$3-");
    },
  },
  { type: "ReFS", what: "a ReFS filesystem", at: [[0, 0, "\0\0\0ReFS\0"]] },
  {
    type: "hpfs",
    what: "an HPFS filesystem",
    at: [[0, 8 * KiB, "\x49\xe8\x95\xf9"]],
    label: text(43, 11),
    uuid: (volume, start) => {
      const serial = volume
        .u32(start + 39)
        .toString(16)
        .toUpperCase()
        .padStart(8, "0");
      return `${serial.slice(0, 4)}-${serial.slice(4)}`;
    },
  },
  {
    type: "ufs",
    what: "a UFS filesystem",
    // fs_magic of UFS2 and UFS1, in either byte order.
    at: [0, 8, 64, 256].flatMap((start) =>
      [...ufs2, "\x54\x19\x01\0", "\0\x01\x19\x54"].map((magic) => [start * KiB, 1372, magic] as const),
    ),
    label: (volume, start) =>
      ufs2.some((magic) => volume.has(start + 1372, magic)) ? text(680, 32)(volume, start) : "",
    uuid: (volume, start) => {
      const isBig = volume.has(start + 1372, ufs2[1]) || volume.has(start + 1372, "\0\x01\x19\x54");
      const id = volume.bytes(start + 144, 8);
      return id.every((byte) => byte === 0) ? "" : (isBig ? id : id.swap32()).toString("hex");
    },
  },
  {
    type: "vxfs",
    what: "a VxFS filesystem",
    at: [
      [KiB, 0, "\xf5\xfc\x01\xa5"],
      [8 * KiB, 0, "\xa5\x01\xfc\xf5"],
    ],
  },
  { type: "nss", what: "a NetWare (NSS) filesystem", at: [[4 * KiB, 0, "SPB5"]] },
  {
    type: "sysv",
    what: "a System V filesystem",
    at: [0, 9, 15, 18].flatMap((block) =>
      ["\x20\x7e\x18\xfd", "\xfd\x18\x7e\x20"].map((magic) => [block * KiB + 512, 504, magic] as const),
    ),
  },
  {
    type: "minix",
    what: "a Minix filesystem",
    at: [
      ...["\x7f\x13", "\x8f\x13", "\x68\x24", "\x78\x24", "\x13\x7f", "\x13\x8f", "\x24\x68", "\x24\x78"].map(
        (magic) => [KiB, 16, magic] as const,
      ),
      [KiB, 24, "\x5a\x4d"],
      [KiB, 24, "\x4d\x5a"],
    ],
    fits: minixFits,
  },
  {
    type: "cramfs",
    what: "a cramfs filesystem",
    at: [
      [0, 0, "\x45\x3d\xcd\x28"],
      [0, 0, "\x28\xcd\x3d\x45"],
    ],
    label: text(48, 16),
  },
  { type: "romfs", what: "a romfs filesystem", at: [[0, 0, "-rom1fs-"]], label: text(16, 16) },
  { type: "bfs", what: "an SCO BFS filesystem", at: [[0, 0, "\xce\xfa\xad\x1b"]] },
  {
    type: "befs",
    what: "a BeFS filesystem",
    at: [0, 512].flatMap((start) => ["BFS1", "1SFB"].map((magic) => [start, 32, magic] as const)),
    label: text(0, 32),
  },
  { type: "ubifs", what: "a UBIFS filesystem", at: [[0, 0, "\x31\x18\x10\x06"]], uuid: uuid(108) },
  {
    type: "scoutfs_meta",
    what: "the metadata of a ScoutFS filesystem",
    at: [[64 * KiB, 4, "\x8b\x42\x3c\x10"]],
    fits: (volume, start) => (volume.u64(start + 48) & 1n) !== 0n,
    uuid: uuid(56),
  },
  {
    type: "scoutfs_data",
    what: "the data of a ScoutFS filesystem",
    at: [[64 * KiB, 4, "\x8b\x42\x3c\x10"]],
    uuid: uuid(56),
  },
  { type: "zonefs", what: "a zonefs filesystem", at: [[0, 0, "SFOZ"]], label: text(8, 32), uuid: uuid(40) },
  { type: "mpool", what: "part of an mpool", at: [[0, 0, "mpoolDev"]], label: text(8, 32), uuid: uuid(40) },
  {
    type: "xfs_external_log",
    what: "the log of an XFS filesystem that is elsewhere",
    // A log is written in a ring: a record may begin in any of its first sectors.
    at: Array.from({ length: 512 }, (_, sector) => [sector * 512, 0, "\xfe\xed\xba\xbe"] as const),
    fits: (volume, start) => [1, 2].includes(volume.u32be(start + 8)) && [1, 2, 3].includes(volume.u32be(start + 300)),
    uuid: uuid(304),
  },
];
