import type { Format } from "../format.js";
import type { Layer } from "../layers/layer.js";
import { aff } from "./aff/index.js";
import { ewf } from "./ewf/index.js";
import { overlay } from "./overlay/index.js";
import { parallels } from "./parallels.js";
import { qcow } from "./qcow.js";
import { qcow2 } from "./qcow2/reader.js";
import { qed } from "./qed.js";
import { raw } from "./raw.js";
import { spin } from "./spin/reader.js";
import { unread } from "./unread.js";
import { vdi } from "./vdi.js";
import { vhd } from "./vhd/index.js";
import { vhdx } from "./vhdx/index.js";
import { vmdk } from "./vmdk/index.js";

/**
 * The image formats, in the order in which they are tried. Formats with a signature come first, the more telling ones
 * before the weaker. A fixed VHD is told by its last bytes alone, so it comes after all that are told by their first. Then
 * come containers that are known and not read, which are refused by name; raw comes last, since any bytes can be a raw disk.
 */
export const images: readonly Format<Layer>[] = [
  spin,
  overlay,
  parallels,
  vhdx,
  qcow2,
  qcow,
  qed,
  vmdk,
  vdi,
  ewf,
  aff,
  vhd,
  unread,
  raw,
];
