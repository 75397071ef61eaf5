import { aff } from "./aff/index.js";
import { bochs } from "./bochs.js";
import { clonezilla } from "./clonezilla/index.js";
import { cloop } from "./cloop.js";
import { bin, cue } from "./cue/index.js";
import { dmg } from "./dmg/index.js";
import { ewf } from "./ewf/index.js";
import type { ImageFormat } from "./image-format.js";
import { ova } from "./ova/index.js";
import { overlay } from "./overlay/index.js";
import { parallels } from "./parallels/index.js";
import { partclone } from "./partclone/index.js";
import { qcow } from "./qcow.js";
import { qcow2 } from "./qcow2/reader.js";
import { qed } from "./qed.js";
import { raw } from "./raw.js";
import { sparsebundle } from "./sparsebundle.js";
import { sparseimage } from "./sparseimage.js";
import { spin } from "./spin/reader.js";
import { unread } from "./unread.js";
import { vdi } from "./vdi.js";
import { vhd } from "./vhd/index.js";
import { vhdx } from "./vhdx/index.js";
import { vmdk } from "./vmdk/index.js";

/**
 * The image formats, in the order in which they are tried. Formats with a signature come first, the more telling ones
 * before the weaker. A fixed VHD and an Apple disk image are told by their last bytes alone, so they come after all that
 * are told by their first, but for compressed files: an Apple disk image may begin as one. Then come containers that are
 * known and not read, which are refused by name; raw comes last, since any bytes can be a raw disk.
 */
export const images: readonly ImageFormat[] = [
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
  bochs,
  cloop,
  sparseimage,
  sparsebundle,
  partclone,
  cue,
  bin,
  ova,
  clonezilla,
  vhd,
  dmg,
  unread,
  raw,
];
