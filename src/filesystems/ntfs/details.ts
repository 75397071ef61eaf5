/** What `spindle stat` tells of a file besides its attributes: Windows' own view of it. */
import { ImageError } from "../../errors.js";
import { dosFlags, flagNames } from "../flag-names.js";
import { DIRECTORY, DOS_NAME, type FileRecord, NORMAL } from "./file-record.js";
import { tagName } from "./reparse.js";
import { ownersOf, type SecurityDescriptors } from "./security.js";
import type { Volume } from "./volume.js";
import { descriptorOf } from "./xattrs.js";

/** Beyond those of DOS ([MS-FSCC] 2.6). */
const names: Readonly<Record<number, string>> = {
  ...dosFlags,
  64: "device",
  128: "normal",
  256: "temporary",
  512: "sparse",
  1024: "reparse point",
  2048: "compressed",
  4096: "offline",
  8192: "not indexed",
  16384: "encrypted",
  32768: "integrity stream",
  131072: "no scrub",
  262144: "recall on open",
  524288: "pinned",
  1048576: "unpinned",
  4194304: "recall on data access",
};

export function detailsOf(
  volume: Volume,
  file: FileRecord,
  security: SecurityDescriptors | undefined,
): Record<string, unknown> {
  const flags = flagNames(names, (file.flags & 0x0fffffff & ~NORMAL) | (file.isDirectory ? DIRECTORY : 0));
  const shortName = [...file.names()].find(({ namespace }) => namespace === DOS_NAME)?.name;
  return {
    ...(flags.length > 0 ? { flags } : {}),
    ...securityOf(volume, file, security),
    ...(shortName === undefined ? {} : { shortName }),
    ...reparseOf(volume, file),
    sequence: file.sequence,
  };
}

/** Who owns it, as Windows names users and groups (SIDs). */
function securityOf(volume: Volume, file: FileRecord, security: SecurityDescriptors | undefined) {
  const id = file.securityId === 0 ? {} : { securityId: file.securityId };
  try {
    const descriptor = descriptorOf(volume, file, security);
    if (!descriptor) return id;
    const { owner, group } = ownersOf(descriptor);
    return { ...id, ...(owner ? { ownerSid: owner } : {}), ...(group ? { groupSid: group } : {}) };
  } catch (error) {
    // The extended attributes, of which it is one, tell what is wrong.
    if (!(error instanceof ImageError)) throw error;
    return id;
  }
}

function reparseOf(volume: Volume, file: FileRecord) {
  const point = volume.reparsePoint(file);
  return point ? { reparsePoint: tagName(point.tag) } : {};
}
