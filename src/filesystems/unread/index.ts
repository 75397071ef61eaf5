/**
 * What Spindle knows by its signature and doesn't read: filesystems, encryption, parts of RAIDs and volume groups, other
 * machines' partition tables. They are named, so that nobody takes them for an empty disk. blkid(8) has the same names.
 *
 * Left out: those that are told by little but chance (a checksum over two bytes at the end, for example).
 */
import type { ByteSource } from "../../bytes/byte-source.js";
import { filesystemSignatures } from "./filesystems.js";
import { endSignatures, memberSignatures } from "./members.js";
import { Glance, type Signature } from "./signature.js";
import { tableSignatures } from "./tables.js";

export interface Unread {
  /** As blkid(8) calls it, for example `xfs` or `crypto_LUKS`. */
  readonly type: string;
  /** In words, to follow "is": `an XFS filesystem`. */
  readonly what: string;
  /** Empty where there is none; so is `uuid`, which is written as blkid writes it. */
  readonly label: string;
  readonly uuid: string;
  /** Whether it is a partition table, which leaves room for a filesystem around it. */
  readonly isTable: boolean;
}

/**
 * What the volume is; undefined when it has no signature that is known.
 * @throws ImageError when the image is damaged where one may be
 */
export function identify(source: ByteSource): Unread | undefined {
  const volume = new Glance(source);
  // What is around a filesystem comes before what may be left of an older one.
  const tables = [memberSignatures, filesystemSignatures, tableSignatures, endSignatures(source.size)];
  for (const signature of tables.flat()) {
    const start = startOf(volume, signature);
    if (start === undefined) continue;
    const { type, what, label, uuid } = signature;
    const isTable = tableSignatures.includes(signature);
    return { type, what, label: label?.(volume, start) ?? "", uuid: uuid?.(volume, start) ?? "", isTable };
  }
  return undefined;
}

function startOf(volume: Glance, { at, fits }: Signature): number | undefined {
  for (const [start, offset, signature] of at)
    if (volume.has(start + offset, signature) && (fits?.(volume, start) ?? true)) return start;
  return undefined;
}
