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
