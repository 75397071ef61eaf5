import { readFully } from "../../bytes/byte-source.js";
import { ImageError } from "../../errors.js";
import type { FileKind } from "../filesystem.js";
import { EA } from "./attribute.js";
import { parseExtendedAttributes } from "./extended-attributes.js";
import { type FileRecord, firstUserRecord, HIDDEN, SYSTEM } from "./file-record.js";
import { longestInterix, parseInterix, type Special } from "./interix.js";
import { kindsByTag } from "./reparse.js";
import type { Volume } from "./volume.js";

/** What the file is to the outside, after its flags, reparse point and (of special files) content. */
export function kindOf(volume: Volume, file: FileRecord): FileKind {
  file.kind ??= decide(volume, file);
  return file.kind;
}

function decide(volume: Volume, file: FileRecord): FileKind {
  const point = volume.reparsePoint(file);
  const byTag = point && kindsByTag.get(point.tag);
  if (byTag) return byTag;
  if (file.isDirectory) return "directory";
  return interix(volume, file)?.kind ?? "file";
}

/** The special file that a file with the flag `system` may be. */
export function interix(volume: Volume, file: FileRecord): Special | undefined {
  if ((file.flags & SYSTEM) === 0 || file.number < firstUserRecord || file.isDirectory || file.hasReparsePoint)
    return undefined;
  try {
    const content = volume.content(file);
    if (content.size > longestInterix) return undefined;
    const bytes = Buffer.alloc(content.size);
    return parseInterix(bytes.subarray(0, readFully(content, 0, bytes)), (file.flags & HIDDEN) !== 0);
  } catch (error) {
    // A file that can't be read (an encrypted one, say) is a file: its reading tells why.
    if (error instanceof ImageError) return undefined;
    throw error;
  }
}

/** Owner, mode and device as the Windows Subsystem for Linux keeps them; undefined where it didn't. */
export function linuxMetadata(
  volume: Volume,
  file: FileRecord,
): { owner?: number; group?: number; mode?: number; device?: { major: number; minor: number } } | undefined {
  const bytes = volume.small(file, EA);
  if (!bytes) return undefined;
  const values = parseExtendedAttributes(bytes);
  const number = (name: string) => {
    const value = values.get(name);
    return value && value.length >= 4 ? value.readUInt32LE(0) : undefined;
  };
  const mode = number("$LXMOD");
  const device = values.get("$LXDEV");
  return {
    owner: number("$LXUID"),
    group: number("$LXGID"),
    mode: mode === undefined ? undefined : mode & 0o7777,
    device: device && device.length >= 8 ? { major: device.readUInt32LE(0), minor: device.readUInt32LE(4) } : undefined,
  };
}
