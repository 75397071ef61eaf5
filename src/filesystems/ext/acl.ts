/**
 * POSIX ACLs. On disk: version 1, then entries of a tag and permissions, with an id only where the tag names somebody.
 * As getxattr(2) gives them (and FUSE wants them): version 2, and every entry has an id.
 */
import type { ImageError } from "../../errors.js";

const namedUser = 0x02;
const namedGroup = 0x08;
/** Owner, owning group, mask, others. */
const withoutId = [0x01, 0x04, 0x10, 0x20];
const noId = 0xffffffff;

/** @param corrupt makes the error; its sentence goes on behind `inode N`. */
export function aclAttribute(stored: Buffer, corrupt: (what: string) => ImageError): Buffer {
  if (stored.length < 4 || stored.readUInt32LE(0) !== 1) throw corrupt("has an access control list of unknown version");
  const entries: Buffer[] = [];
  for (let at = 4; at < stored.length; ) {
    if (at + 4 > stored.length) throw corrupt("has an access control list that ends within an entry");
    const tag = stored.readUInt16LE(at);
    const entry = Buffer.alloc(8);
    stored.copy(entry, 0, at, at + 4);
    if (tag === namedUser || tag === namedGroup) {
      if (at + 8 > stored.length) throw corrupt("has an access control list that ends within an entry");
      stored.copy(entry, 4, at + 4, at + 8);
      at += 8;
    } else if (withoutId.includes(tag)) {
      entry.writeUInt32LE(noId, 4);
      at += 4;
    } else throw corrupt(`has an access control list with the unknown tag ${tag}`);
    entries.push(entry);
  }
  const version = Buffer.alloc(4);
  version.writeUInt32LE(2);
  return Buffer.concat([version, ...entries]);
}
