import type { ByteSource, Extent } from "../bytes/byte-source.js";
import { missing, unsupported } from "../errors.js";
import type { Attributes, Entry, FileId, FileSystem, Statistics, Time } from "../filesystems/filesystem.js";

/** A filesystem under a name of its own: `p1`. */
export interface NamedFileSystem {
  readonly name: string;
  readonly tree: FileSystem;
}

/** The files of a disk: the one filesystem's own tree, or a directory with a folder for each. */
export function filesView(parts: readonly NamedFileSystem[], created: Time): FileSystem {
  return parts.length === 1 ? parts[0]!.tree : new JoinedView(parts, created);
}

/**
 * Several filesystems as folders of one directory.
 *
 * A file's id here is its own times the number of filesystems, plus the place of its filesystem: it is computed, so all
 * workers have the same. Inode numbers are these ids too, since tools take files of one mount with the same number for
 * hard links of each other.
 */
class JoinedView implements FileSystem {
  readonly type = "several";
  readonly label = "";
  readonly root: FileId = 0;
  readonly statistics: Statistics;
  /** Asked for only when one of the filesystems has them: the kernel stops asking a tree that has none. */
  readonly extendedAttributes?: (file: FileId) => ReadonlyMap<string, Uint8Array>;
  readonly details?: (file: FileId) => Record<string, unknown>;
  readonly streams?: (file: FileId) => readonly Uint8Array[];
  readonly stream?: (file: FileId, name: Uint8Array) => ByteSource | undefined;
  private readonly entries: readonly Entry[];

  constructor(
    private readonly parts: readonly NamedFileSystem[],
    private readonly created: Time,
  ) {
    const blockSize = 4096;
    const sum = (count: (one: Statistics) => number) =>
      parts.reduce((total, { tree }) => total + count(tree.statistics), 0);
    this.statistics = {
      blockSize,
      blocks: Math.floor(sum((one) => (one.blocks * one.blockSize) / blockSize)),
      freeBlocks: Math.floor(sum((one) => (one.freeBlocks * one.blockSize) / blockSize)),
      availableBlocks: Math.floor(sum((one) => ((one.availableBlocks ?? one.freeBlocks) * one.blockSize) / blockSize)),
      files: sum((one) => one.files),
      freeFiles: sum((one) => one.freeFiles),
      nameLength: Math.max(255, ...parts.map(({ tree }) => tree.statistics.nameLength)),
    };
    this.entries = parts.map(({ name, tree }, place) => ({
      name: Buffer.from(name),
      file: this.outer(place, tree.root),
      kind: "directory",
    }));
    if (parts.some(({ tree }) => tree.extendedAttributes))
      this.extendedAttributes = (file) =>
        file === this.root ? new Map() : this.within(file, (tree, id) => tree.extendedAttributes?.(id) ?? new Map());
    if (parts.some(({ tree }) => tree.details))
      this.details = (file) => (file === this.root ? {} : this.within(file, (tree, id) => tree.details?.(id) ?? {}));
    if (parts.some(({ tree }) => tree.streams)) {
      this.streams = (file) => (file === this.root ? [] : this.within(file, (tree, id) => tree.streams?.(id) ?? []));
      this.stream = (file, name) =>
        file === this.root ? undefined : this.within(file, (tree, id) => tree.stream?.(id, name));
    }
  }

  attributes(file: FileId): Attributes {
    if (file !== this.root) return { ...this.within(file, (tree, id) => tree.attributes(id)), inode: file };
    return {
      kind: "directory",
      mode: 0o555,
      inode: 1,
      links: 2 + this.parts.length,
      owner: process.getuid?.() ?? 0,
      group: process.getgid?.() ?? 0,
      size: 0,
      allocated: 0,
      accessed: this.created,
      modified: this.created,
      changed: this.created,
      born: this.created,
    };
  }

  lookup(directory: FileId, name: Uint8Array): FileId | undefined {
    if (directory === this.root) return this.entries.find((entry) => Buffer.compare(entry.name, name) === 0)?.file;
    return this.within(directory, (tree, id, place) => {
      const found = tree.lookup(id, name);
      return found === undefined ? undefined : this.outer(place, found);
    });
  }

  list(directory: FileId): Iterable<Entry> {
    if (directory === this.root) return this.entries;
    return this.within(directory, (tree, id, place) => this.renumbered(tree.list(id), place));
  }

  read(file: FileId, position: number, target: Uint8Array): number {
    return this.within(file, (tree, id) => tree.read(id, position, target));
  }

  readLink(link: FileId): Uint8Array {
    return this.within(link, (tree, id) => tree.readLink(id));
  }

  extentAt(file: FileId, position: number): Extent {
    return this.within(
      file,
      (tree, id) => tree.extentAt?.(id, position) ?? { hole: false, length: tree.attributes(id).size - position },
    );
  }

  private *renumbered(entries: Iterable<Entry>, place: number): Generator<Entry> {
    for (const entry of entries) {
      const file = this.outer(place, entry.file);
      yield { ...entry, file, inode: file };
    }
  }

  /** Id 0 is the root, so that the others begin at 1. */
  private outer(place: number, id: FileId): FileId {
    const outer = 1 + id * this.parts.length + place;
    if (Number.isSafeInteger(outer)) return outer;
    throw unsupported(
      `file ${id} of ${this.parts[place]!.name}: its number is too large beside other filesystems; mount it alone with --volume ${this.parts[place]!.name}.`,
    );
  }

  private within<T>(file: FileId, act: (tree: FileSystem, id: FileId, place: number) => T): T {
    const place = (file - 1) % this.parts.length;
    const part = this.parts[place];
    if (!part || file < 1) throw missing(`there is no file with number ${file}`);
    return act(part.tree, Math.floor((file - 1) / this.parts.length), place);
  }
}
