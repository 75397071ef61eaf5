import { readFully } from "../../bytes/byte-source.js";
import { DATA, EA, OBJECT_ID, REPARSE_POINT, SECURITY_DESCRIPTOR } from "./attribute.js";
import { DIRECTORY, DOS_NAME, type FileRecord, NORMAL } from "./file-record.js";
import { kindOf } from "./kinds.js";
import { WOF } from "./reparse.js";
import type { SecurityDescriptors } from "./security.js";
import { RefusedStream } from "./streams.js";
import type { Volume } from "./volume.js";
import { wofStreamName } from "./wof.js";

/** Linux has no longer values. A longer stream is there as a stream only. */
const longestValue = 65536;
/** Nor more than some MiB of values a file: what exceeds that is there as streams only, too. */
const mostBytes = 4 * 1024 * 1024;
/** ntfs-3g keeps attributes that aren't the user's (`security.selinux`) in streams with this before their names. */
const foreign = /^ntfs-3g\.(?=system\.|security\.|trusted\.)/;

/** The names of a file's alternate data streams, without the one that holds a compressed file's own data. */
export function streamNames(volume: Volume, file: FileRecord): string[] {
  const names: string[] = [];
  const packed = volume.reparsePoint(file)?.tag === WOF;
  for (const { type, name } of file.attributes)
    if (type === DATA && name !== "" && !(packed && name === wofStreamName)) names.push(name);
  return names;
}

/** The file's security descriptor: its own, or the one that $Secure keeps for many. */
export const descriptorOf = (volume: Volume, file: FileRecord, security: SecurityDescriptors | undefined) =>
  volume.small(file, SECURITY_DESCRIPTOR) ?? (file.securityId === 0 ? undefined : security?.find(file.securityId));

/**
 * Extended attributes as ntfs-3g names them (streams_interface=xattr): alternate streams as `user.NAME`, and what the
 * filesystem keeps itself as `system.ntfs_...`.
 */
export function xattrsOf(
  volume: Volume,
  file: FileRecord,
  security: SecurityDescriptors | undefined,
): Map<string, Uint8Array> {
  const values = new Map<string, Uint8Array>();
  const kind = kindOf(volume, file);
  // On links and special files Linux has no user attributes.
  let bytes = 0;
  if (kind === "file" || kind === "directory")
    for (const name of streamNames(volume, file)) {
      const stream = volume.named(file, DATA, name)!;
      if (stream.size > longestValue || bytes + stream.size > mostBytes) continue;
      // One that can't be read by its nature (an encrypted one) is there as a stream, whose reading tells why.
      if (stream instanceof RefusedStream) continue;
      bytes += stream.size;
      const value = Buffer.alloc(stream.size);
      readFully(stream, 0, value);
      values.set(foreign.test(name) ? name.replace(foreign, "") : `user.${name}`, value);
    }
  const descriptor = descriptorOf(volume, file, security);
  if (descriptor) values.set("system.ntfs_acl", descriptor);

  const flags = Buffer.alloc(4);
  const shown = file.isDirectory ? file.flags | DIRECTORY : file.flags & ~DIRECTORY;
  flags.writeUInt32LE(shown === 0 ? NORMAL : shown >>> 0);
  values.set("system.ntfs_attrib", flags);

  const set = (name: string, value: Uint8Array | undefined) => {
    if (value) values.set(name, value);
  };
  if (file.hasReparsePoint) set("system.ntfs_reparse_data", volume.small(file, REPARSE_POINT));
  set("system.ntfs_object_id", volume.small(file, OBJECT_ID));
  set("system.ntfs_ea", volume.small(file, EA));
  for (const { namespace, name } of file.names())
    if (namespace === DOS_NAME) set("system.ntfs_dos_name", Buffer.from(name, "utf8"));
  return values;
}
