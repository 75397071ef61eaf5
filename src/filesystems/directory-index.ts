import { LRUCache } from "lru-cache";
import { ImageError } from "../errors.js";
import type { Entry, FileId, FileKind } from "./filesystem.js";

/** An entry of a directory, with its name as a string in the form that Names tells. */
export interface NamedEntry {
  readonly name: string;
  readonly file: FileId;
  readonly kind: FileKind;
  /** A second name by which it is found, but not listed. */
  readonly alias?: string;
}

/** How names are bytes for the kernel and strings here, and which of them count as the same. */
export interface Names {
  encode(name: string): Uint8Array;
  /** Undefined for bytes that no name has. */
  decode(bytes: Uint8Array): string | undefined;
  /** Brings names that count as the same to one form; absent where only equal ones do, and there are no aliases. */
  fold?(name: string): string;
}

/** The entries of one directory. A name is found as it is written first, then without regard to case, then as an alias. */
class DirectoryIndex {
  private exact: Map<string, FileId> | undefined;
  private folded: Map<string, FileId> | undefined;

  /** @param damage what ended the listing early: thrown after its entries, and by a search that finds nothing. */
  constructor(
    readonly entries: readonly NamedEntry[],
    readonly damage: ImageError | undefined,
    private readonly names: Names,
  ) {}

  find(name: string): FileId | undefined {
    if (!this.exact) {
      this.exact = new Map();
      for (const { name, file } of this.entries) if (!this.exact.has(name)) this.exact.set(name, file);
    }
    const found = this.exact.get(name);
    if (found !== undefined) return found;
    const fold = this.names.fold?.bind(this.names);
    const file = fold && this.findFolded(fold, name);
    if (file === undefined && this.damage) throw this.damage;
    return file;
  }

  private findFolded(fold: (name: string) => string, name: string): FileId | undefined {
    if (!this.folded) {
      const folded = new Map<string, FileId>();
      const add = (name: string, file: FileId) => {
        const key = fold(name);
        if (!folded.has(key)) folded.set(key, file);
      };
      for (const { name, file } of this.entries) add(name, file);
      for (const { alias, file } of this.entries) if (alias !== undefined) add(alias, file);
      this.folded = folded;
    }
    return this.folded.get(fold(name));
  }
}

/** A directory of more entries is read anew each time: nothing is kept of it. */
const MOST_ENTRIES = 1 << 18;

/** The directories that were listed or searched last, so that looking up all entries of one costs one pass over it. */
export class DirectoryIndexes {
  private readonly kept = new LRUCache<FileId, DirectoryIndex | "large">({
    maxSize: MOST_ENTRIES,
    sizeCalculation: (index) => (index === "large" ? 1 : index.entries.length + 1),
  });

  /**
   * @param read the entries of a directory, in order; called again for each pass.
   */
  constructor(
    private readonly read: (directory: FileId) => Iterable<NamedEntry>,
    private readonly names: Names,
  ) {}

  *list(directory: FileId): Iterable<Entry> {
    const index = this.index(directory);
    for (const { name, file, kind } of index?.entries ?? this.read(directory))
      yield { name: this.names.encode(name), file, kind };
    if (index?.damage) throw index.damage;
  }

  lookup(directory: FileId, bytes: Uint8Array): FileId | undefined {
    const name = this.names.decode(bytes);
    if (name === undefined) return undefined;
    const index = this.index(directory);
    return index ? index.find(name) : this.search(directory, name);
  }

  /** Undefined for a directory that is too large to be kept. */
  private index(directory: FileId): DirectoryIndex | undefined {
    let index = this.kept.get(directory);
    if (index === undefined) {
      index = this.build(directory);
      this.kept.set(directory, index);
    }
    return index === "large" ? undefined : index;
  }

  private build(directory: FileId): DirectoryIndex | "large" {
    const entries: NamedEntry[] = [];
    let damage: ImageError | undefined;
    try {
      for (const entry of this.read(directory)) {
        if (entries.length === MOST_ENTRIES - 1) return "large";
        entries.push(entry);
      }
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      damage = error;
    }
    return new DirectoryIndex(entries, damage, this.names);
  }

  /** The same answer as DirectoryIndex.find, in one pass over the directory. */
  private search(directory: FileId, name: string): FileId | undefined {
    const { names } = this;
    const key = names.fold?.(name);
    let folded: FileId | undefined;
    let aliased: FileId | undefined;
    for (const { name: other, file, alias } of this.read(directory)) {
      if (other === name) return file;
      if (key === undefined) continue;
      if (folded === undefined && names.fold!(other) === key) folded = file;
      if (aliased === undefined && alias !== undefined && names.fold!(alias) === key) aliased = file;
    }
    return folded ?? aliased;
  }
}
