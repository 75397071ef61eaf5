/**
 * The three feature words of a superblock (Documentation/filesystems/ext4, "Super Block"). A reader may ignore compatible
 * features, read with unknown ro_compat ones, and must refuse unknown incompat ones: they change where things lie.
 */
export const compat = { hasJournal: 0x4, sparseSuper2: 0x200, fastCommit: 0x400, orphanFile: 0x1000 } as const;

export const incompat = {
  filetype: 0x2,
  recover: 0x4,
  journalDevice: 0x8,
  metaBg: 0x10,
  extents: 0x40,
  sixtyFourBit: 0x80,
  flexBg: 0x200,
  eaInode: 0x400,
  csumSeed: 0x2000,
  largeDir: 0x4000,
  inlineData: 0x8000,
  encrypt: 0x10000,
  casefold: 0x20000,
} as const;

export const roCompat = {
  sparseSuper: 0x1,
  hugeFile: 0x8,
  gdtChecksum: 0x10,
  bigalloc: 0x200,
  metadataChecksum: 0x400,
  project: 0x2000,
} as const;

/** Names as mke2fs and dumpe2fs have them, by bit. */
const names = {
  compat: {
    0: "dir_prealloc",
    1: "imagic_inodes",
    2: "has_journal",
    3: "ext_attr",
    4: "resize_inode",
    5: "dir_index",
    6: "lazy_bg",
    8: "snapshot_bitmap",
    9: "sparse_super2",
    10: "fast_commit",
    11: "stable_inodes",
    12: "orphan_file",
  },
  incompat: {
    0: "compression",
    1: "filetype",
    2: "needs_recovery",
    3: "journal_dev",
    4: "meta_bg",
    6: "extent",
    7: "64bit",
    8: "mmp",
    9: "flex_bg",
    10: "ea_inode",
    12: "dirdata",
    13: "metadata_csum_seed",
    14: "large_dir",
    15: "inline_data",
    16: "encrypt",
    17: "casefold",
  },
  roCompat: {
    0: "sparse_super",
    1: "large_file",
    3: "huge_file",
    4: "uninit_bg",
    5: "dir_nlink",
    6: "extra_isize",
    7: "snapshot",
    8: "quota",
    9: "bigalloc",
    10: "metadata_csum",
    11: "replica",
    12: "read-only",
    13: "project",
    14: "shared_blocks",
    15: "verity",
    16: "orphan_present",
  },
} as const;

/** The names of the features that are set in one word; one without a name appears as `incompat 0x100000`. */
export function featureNames(word: keyof typeof names, bits: number): string[] {
  const known: Record<number, string> = names[word];
  const found: string[] = [];
  for (let bit = 0; bit < 32; bit++)
    if ((bits >>> bit) & 1)
      found.push(known[bit] ?? `${word.replace("roC", "ro_c")} 0x${((1 << bit) >>> 0).toString(16)}`);
  return found;
}

/** Incompatible features that this reader handles; `mmp` concerns writers only. */
const readable = Object.values(incompat).reduce((sum, bit) => sum | bit, 0x100) & ~incompat.journalDevice;

/** The names of incompatible features that this reader does not handle. */
export const unreadableFeatures = (bits: number) => featureNames("incompat", bits & ~readable);

/** `ext2`, `ext3` or `ext4`, by the same rule as blkid: what the older drivers could not mount is the newer type. */
export function typeName(words: { compat: number; incompat: number; roCompat: number }): string {
  const ext3Incompat = incompat.filetype | incompat.recover | incompat.metaBg;
  const ext3RoCompat = 0x7;
  if ((words.incompat & ~ext3Incompat) !== 0 || (words.roCompat & ~ext3RoCompat) !== 0) return "ext4";
  return words.compat & compat.hasJournal ? "ext3" : "ext2";
}
