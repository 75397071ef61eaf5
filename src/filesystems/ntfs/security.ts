import { LRUCache } from "lru-cache";
import { readFully } from "../../bytes/byte-source.js";
import { corrupt } from "../../errors.js";
import type { IndexTree } from "./index-tree.js";
import { u64 } from "./numbers.js";
import type { Stream } from "./streams.js";

/*
 * Since NTFS 3.0 files name their security descriptor by a number. $Secure keeps each once: its stream $SDS holds them,
 * each after a header of 20 bytes (hash, number, own position, length), and its index $SII tells by number where.
 */

const headerSize = 20;
/** Windows keeps no larger ones (64 KiB of ACLs, and the rest). */
const largest = 256 * 1024;

/** Owner and group of a self-relative descriptor ([MS-DTYP] 2.4.6), as `S-1-5-32-544`; undefined where it has none. */
export function ownersOf(descriptor: Buffer): {
  readonly owner: string | undefined;
  readonly group: string | undefined;
} {
  if (descriptor.length < 20) return { owner: undefined, group: undefined };
  return { owner: sidAt(descriptor, descriptor.readUInt32LE(4)), group: sidAt(descriptor, descriptor.readUInt32LE(8)) };
}

/** A SID: revision, how many numbers follow, an authority (48 bits, most significant first), the numbers. */
function sidAt(bytes: Buffer, at: number): string | undefined {
  if (at < 20 || at + 8 > bytes.length) return undefined;
  const count = bytes[at + 1]!;
  if (bytes[at] !== 1 || count > 15 || at + 8 + count * 4 > bytes.length) return undefined;
  const authority = bytes.readUIntBE(at + 2, 6);
  const numbers = Array.from({ length: count }, (_, index) => bytes.readUInt32LE(at + 8 + index * 4));
  return ["S-1", authority < 2 ** 32 ? authority : `0x${authority.toString(16)}`, ...numbers].join("-");
}

export class SecurityDescriptors {
  private readonly kept = new LRUCache<number, Buffer>({
    maxSize: 1 << 20,
    sizeCalculation: (bytes) => bytes.length + 100,
  });

  constructor(
    private readonly name: string,
    private readonly index: IndexTree,
    private readonly descriptors: Stream,
  ) {}

  /**
   * The descriptor with this number, self-relative, as Windows stores it; undefined when there is none.
   * @throws ImageError `corrupt`.
   */
  find(id: number): Buffer | undefined {
    const kept = this.kept.get(id);
    if (kept) return kept;
    let position = -1;
    let length = 0;
    this.index.search(
      (bytes, key, keyLength) => (keyLength < 4 ? 1 : id - bytes.readUInt32LE(key)),
      (bytes, entry) => {
        const data = entry + bytes.readUInt16LE(entry);
        if (bytes.readUInt16LE(entry + 2) < headerSize || data + headerSize > entry + bytes.readUInt16LE(entry + 8))
          throw corrupt(`${this.name}: its index has a damaged entry for security id ${id}.`);
        position = u64(bytes, data + 8);
        length = bytes.readUInt32LE(data + 16);
        return true;
      },
    );
    if (position < 0) return undefined;
    const bytes = Buffer.alloc(length >= headerSize && length <= largest ? length : 0);
    const filled = position < this.descriptors.size ? readFully(this.descriptors, position, bytes) : 0;
    if (filled < headerSize || filled !== bytes.length || bytes.readUInt32LE(4) !== id)
      throw corrupt(
        `${this.name}: the descriptor of security id ${id} isn't at byte ${position} of $SDS, ${length} bytes long.`,
      );
    const descriptor = bytes.subarray(headerSize);
    this.kept.set(id, descriptor);
    return descriptor;
  }
}
