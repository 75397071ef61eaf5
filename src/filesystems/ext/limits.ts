/** Every number of the ext reader that one may want to change, with its unit and its reason. */

const KiB = 1024;
const MiB = 1024 * KiB;

/** Bytes of metadata blocks (inode tables, directories, extent trees) that each thread keeps. */
export const keptMetadataBytes = 4 * MiB;
/** Bytes of directory indexes that each thread keeps: one of 200,000 names takes 4 MiB. */
export const keptIndexBytes = 16 * MiB;
/** Names of one directory that are indexed, in 128 MiB; in a larger one every search is a pass over it. */
export const mostIndexedNames = 1 << 23;
/** Inodes kept, parsed. Each may keep a metadata block alive, so their number falls with the size of a block. */
export const keptInodes = (blockSize: number) => Math.max(128, Math.min(4096, (8 * MiB) / blockSize));
/** Most bytes of all extended attributes of one file: with 64 KiB each, more than one block of them can name. */
export const mostAttributeBytes = 16 * MiB;
/** Longest value of one extended attribute in bytes: the kernel's XATTR_SIZE_MAX. */
export const longestAttribute = 64 * KiB;
/** Longest target of a symbolic link in bytes: the kernel's PATH_MAX. */
export const longestTarget = 4 * KiB;
/** Most block groups: 2 PiB of 128 MiB each. */
export const mostGroups = 1 << 24;
/** Stretches of one kind that `extentAt` joins: a caller that meets the next one asks again. */
export const joinedStretches = 256;
/** Damaged blocks of one directory after which no more are tried: a crafted size would have zeros read for hours. */
export const mostDamagedBlocks = 1000;
/** Bytes of fast commits that are looked through: mke2fs gives them 1 MiB. */
export const mostFastCommitBytes = 64 * MiB;
/** Ranges of blocks of all files together that fast commits may change. */
export const mostChangedRanges = 1 << 16;
/** Pieces that a journal's file may be in: it is made in one. */
export const mostJournalPieces = 1 << 16;
