/**
 * Finding a name in a directory of many blocks: a hash table of the places of its entries, made in one pass and kept
 * while there is room. 200,000 names take 4 MiB and some tens of milliseconds.
 */
import { LRUCache } from "lru-cache";
import { ImageError } from "../../errors.js";
import { entryAt, findLinearly, pieces } from "./directory.js";
import type { Inode } from "./inode.js";
import { keptIndexBytes, mostIndexedNames } from "./limits.js";

class NameIndex {
  /** By slot: place of an entry / 4 + 1, or 0 where there is none, and the hash of its name. At most half full. */
  private places = new Uint32Array(256);
  private hashes = new Uint32Array(256);
  private count = 0;
  /** What was found damaged in the directory: a name that isn't here may have been there. */
  private damage: ImageError | undefined;
  /** Whether there are more names than an index may have. */
  readonly tooLarge: boolean = false;

  constructor(directory: Inode) {
    try {
      for (const { cursor, offset } of pieces(directory))
        while (cursor.next()) {
          if (this.count === mostIndexedNames || offset >= 2 ** 34) {
            this.tooLarge = true;
            this.places = new Uint32Array(0);
            this.hashes = this.places;
            return;
          }
          if (++this.count * 2 > this.places.length) this.grow();
          this.insert(hashOf(cursor.bytes, cursor.nameStart, cursor.nameEnd), (offset + cursor.at) / 4 + 1);
        }
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.damage = error;
    }
  }

  get bytes(): number {
    return Math.max(1, this.places.length * 8);
  }

  /** @throws ImageError `corrupt` when the name isn't found, but parts of the directory can't be read. */
  find(directory: Inode, name: Uint8Array): number | undefined {
    const { places, hashes } = this;
    const hash = hashOf(name, 0, name.length);
    const mask = places.length - 1;
    for (let slot = hash & mask; places[slot] !== 0; slot = (slot + 1) & mask) {
      if (hashes[slot] !== hash) continue;
      const found = entryAt(directory, (places[slot] - 1) * 4, name);
      if (found !== undefined) return found;
    }
    if (this.damage) throw this.damage;
    return undefined;
  }

  private insert(hash: number, place: number): void {
    const { places, hashes } = this;
    const mask = places.length - 1;
    let slot = hash & mask;
    while (places[slot] !== 0) slot = (slot + 1) & mask;
    places[slot] = place;
    hashes[slot] = hash;
  }

  private grow(): void {
    const { places, hashes } = this;
    this.places = new Uint32Array(places.length * 2);
    this.hashes = new Uint32Array(places.length * 2);
    for (let slot = 0; slot < places.length; slot++) if (places[slot] !== 0) this.insert(hashes[slot], places[slot]);
  }
}

/** FNV-1a, and a last step so that its low bits depend on all. A crafted directory can at worst make itself slow. */
function hashOf(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let at = start; at < end; at++) hash = Math.imul(hash ^ bytes[at], 0x01000193);
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** The indexes of the directories that were searched last. */
export class NameIndexes {
  private readonly kept = new LRUCache<number, NameIndex>({
    maxSize: keptIndexBytes,
    sizeCalculation: (index) => index.bytes,
  });
  /** One that is larger than all that may be kept: searching its directory without it would take a pass a name. */
  private large: { readonly directory: number; readonly index: NameIndex } | undefined;

  /**
   * The inode of `name`; undefined if there is none.
   * @throws ImageError `corrupt` when the name isn't found, but parts of the directory can't be read.
   */
  find(directory: Inode, name: Uint8Array): number | undefined {
    const changed = directory.volume.changes?.directory(directory.number);
    if (changed) {
      const text = Buffer.from(name).toString("latin1");
      if (changed.names.has(text)) return changed.names.get(text)?.inode;
      if (changed.fresh) return undefined;
    }
    return this.findOnDisk(directory, name);
  }

  /** As `find`, without what fast commits changed. */
  findOnDisk(directory: Inode, name: Uint8Array): number | undefined {
    if (directory.inline || directory.size <= directory.volume.superblock.blockSize)
      return findLinearly(directory, name);
    const index = this.index(directory);
    return index.tooLarge ? findLinearly(directory, name) : index.find(directory, name);
  }

  private index(directory: Inode): NameIndex {
    const { number } = directory;
    let index = this.kept.get(number) ?? (this.large?.directory === number ? this.large.index : undefined);
    if (index === undefined) {
      index = new NameIndex(directory);
      if (index.bytes > keptIndexBytes) this.large = { directory: number, index };
      else this.kept.set(number, index);
    }
    return index;
  }
}
