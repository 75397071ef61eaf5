/** The manifest of an appliance (OVF, DMTF DSP0243, section 6.4): a digest of each member, `SHA256(disk1.vmdk)= 12ab…`. */
import { createHash } from "node:crypto";
import { type ByteSource, readFully, Slice } from "../../bytes/byte-source.js";
import type { Integrity, PieceReport } from "../../layers/layer.js";
import type { Member } from "./tar.js";

/** What is hashed at once, in bytes. */
const step = 1 << 20;

/**
 * Checks the digests that `manifest` tells of the members of one disk and of others, a member a piece.
 * @returns undefined where it tells none of a member of the disk: the disk would then not be checked
 */
export function manifestIntegrity(
  archive: ByteSource,
  manifest: string,
  disk: readonly Member[],
  others: readonly Member[],
): Integrity | undefined {
  const members = [...disk, ...others];
  const digests = manifest.split(/\r?\n/).flatMap((line) => {
    const [, algorithm, name, digest] =
      /^(SHA1|SHA256|SHA384|SHA512)\s*\((.+)\)\s*=\s*([0-9a-f]+)\s*$/i.exec(line) ?? [];
    const member = members.find((one) => one.name === name);
    return member ? [{ member, algorithm: algorithm!.toLowerCase(), digest: digest!.toLowerCase() }] : [];
  });
  if (!disk.every((member) => digests.some((one) => one.member === member))) return undefined;
  const check = (piece: number): PieceReport => {
    const { member, algorithm, digest } = digests[piece]!;
    const hash = createHash(algorithm);
    const source = new Slice(archive.name, archive, member.position, member.size);
    const buffer = Buffer.allocUnsafe(Math.min(step, member.size));
    for (let at = 0; at < member.size; ) {
      const count = readFully(source, at, buffer);
      if (count === 0) break; // it shrank while it was read: the digest tells
      hash.update(buffer.subarray(0, count));
      at += count;
    }
    const damages =
      hash.digest("hex") === digest
        ? []
        : [
            {
              file: archive.name,
              position: 0,
              length: member.size,
              message: `${archive.name}: its member ${member.name} does not have the ${algorithm.toUpperCase()} that its manifest tells: it is damaged, or was changed.`,
            },
          ];
    return { chunks: 1, bytes: member.size, damages };
  };
  return { pieces: digests.length, check };
}
