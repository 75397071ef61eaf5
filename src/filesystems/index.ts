import type { Format } from "../format.js";
import { ext } from "./ext/ext.js";
import type { FileSystem } from "./filesystem.js";

/**
 * The filesystems, in the order in which they are tried: those with a long signature at a place of their own first, FAT
 * last, whose signature is hardly more than plausible numbers.
 */
export const filesystems: readonly Format<FileSystem>[] = [ext];
