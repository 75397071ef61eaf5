/**
 * Finding a name in a directory that has no index of its own: a hash table of the places of its entries, made in one pass
 * and kept while there is room. A table of 200,000 names takes 4 MiB.
 */
import { LRUCache } from "lru-cache";
import { ImageError } from "../errors.js";
import type { FileId } from "./filesystem.js";

/** A name of a directory, and where its entry lies. */
export interface PlacedName {
  /** Byte in the directory, at most 2^32 - 2. */
  readonly place: number;
  readonly name: Uint8Array;
  readonly file: FileId;
}

/** What a filesystem tells of its directories. */
export interface PlacedNames {
  /** The names in the order of the listing; may throw an ImageError at the end, when parts were damaged. */
  names(directory: FileId): Iterable<PlacedName>;
  /** The entry at a place that `names` gave. */
  nameAt(directory: FileId, place: number): PlacedName | undefined;
}

/** Bytes of all indexes that are kept, and the most names an index may have; a directory of more is searched linearly. */
const KEPT_BYTES = 16 << 20;
const MOST_NAMES = 1 << 22;

class PlaceIndex {
  /** By slot: place + 1, or 0 where there is none, and the hash of the name. At most half full. */
  private places = new Uint32Array(64);
  private hashes = new Uint32Array(64);
  private count = 0;
  private damage: ImageError | undefined;
  readonly tooLarge: boolean = false;

  constructor(
    private readonly source: PlacedNames,
    readonly directory: FileId,
  ) {
    try {
      for (const { place, name } of source.names(directory)) {
        if (this.count === MOST_NAMES) {
          this.tooLarge = true;
          this.places = new Uint32Array(0);
          this.hashes = this.places;
          return;
        }
        if (++this.count * 2 > this.places.length) this.grow();
        this.insert(hashOf(name), place + 1);
      }
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.damage = error;
    }
  }

  get bytes(): number {
    return Math.max(1, this.places.length * 8);
  }

  /** @throws ImageError when the name isn't found, but parts of the directory can't be read. */
  find(name: Uint8Array): FileId | undefined {
    const { places, hashes } = this;
    const hash = hashOf(name);
    const mask = places.length - 1;
    let first: PlacedName | undefined;
    for (let slot = hash & mask; places[slot] !== 0; slot = (slot + 1) & mask) {
      if (hashes[slot] !== hash) continue;
      const found = this.source.nameAt(this.directory, places[slot] - 1);
      if (found && sameBytes(found.name, name) && !(first && first.place <= found.place)) first = found;
    }
    if (!first && this.damage) throw this.damage;
    return first?.file;
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
function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < bytes.length; at++) hash = Math.imul(hash ^ bytes[at], 0x01000193);
  return (hash ^ (hash >>> 15)) >>> 0;
}

function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== other.length) return false;
  for (let at = 0; at < one.length; at++) if (one[at] !== other[at]) return false;
  return true;
}

/** The indexes of the directories that were searched last. */
export class PlaceIndexes {
  private readonly kept = new LRUCache<FileId, PlaceIndex>({
    maxSize: KEPT_BYTES,
    sizeCalculation: (index) => index.bytes,
  });
  /** One that is larger than all that may be kept: searching its directory without it would take a pass a name. */
  private large: PlaceIndex | undefined;

  constructor(private readonly source: PlacedNames) {}

  /**
   * The file of that name, of the first entry where several have it; undefined when there is none.
   * @throws ImageError when the name isn't found, but parts of the directory can't be read.
   */
  find(directory: FileId, name: Uint8Array): FileId | undefined {
    let index = this.kept.get(directory) ?? (this.large?.directory === directory ? this.large : undefined);
    if (index === undefined) {
      index = new PlaceIndex(this.source, directory);
      if (index.bytes > KEPT_BYTES) this.large = index;
      else this.kept.set(directory, index);
    }
    if (!index.tooLarge) return index.find(name);
    for (const entry of this.source.names(directory)) if (sameBytes(entry.name, name)) return entry.file;
    return undefined;
  }
}

/** Whether the kernel can be given these bytes as the name of a directory entry. */
export function isUsableNameBytes(name: Uint8Array): boolean {
  const { length } = name;
  if (length === 0 || length > MOST_NAME_BYTES) return false;
  if (name[0] === 0x2e && (length === 1 || (length === 2 && name[1] === 0x2e))) return false;
  for (let at = 0; at < length; at++) if (name[at] === 0x2f || name[at] === 0) return false;
  return true;
}

/** FUSE's own limit. */
const MOST_NAME_BYTES = 1024;
