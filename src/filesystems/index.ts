import type { Format } from "../format.js";
import { exfat } from "./exfat/exfat.js";
import { ext } from "./ext/ext.js";
import { fat } from "./fat/fat.js";
import type { FileSystem } from "./filesystem.js";
import { iso9660 } from "./iso9660/iso9660.js";
import { ntfs } from "./ntfs/ntfs.js";
import { squashfs } from "./squashfs/squashfs.js";
import { udf } from "./udf/udf.js";

/**
 * The filesystems, in the order in which they are tried: those with a long signature at a place of their own first.
 *
 * - UDF comes before ISO 9660: a bridge disc has both over the same files, and blkid and mount(8) take it for UDF.
 * - FAT is last: its signature is hardly more than plausible numbers.
 */
export const filesystems: readonly Format<FileSystem>[] = [ext, squashfs, ntfs, exfat, udf, iso9660, fat];

/** Those of optical discs. One over the whole disk is what a disk shows, though it has a partition table (a hybrid ISO). */
export const optical: readonly Format<FileSystem>[] = [udf, iso9660];
