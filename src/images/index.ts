import type { Format } from "../format.js";
import type { Layer } from "../layers/layer.js";
import { raw } from "./raw.js";
import { spin } from "./spin/reader.js";

/**
 * The image formats, in the order in which they are tried. Formats with a signature come first, the more telling ones
 * before the weaker; raw comes last, since any bytes can be a raw disk.
 */
export const images: readonly Format<Layer>[] = [spin, raw];
