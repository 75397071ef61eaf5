import { LRUCache } from "lru-cache";
import { ImageError } from "../../errors.js";
import { isUsableName } from "../utf16.js";
import { DOS_NAME } from "./file-record.js";
import { type IndexTree, isLast } from "./index-tree.js";
import { referenceRecord, referenceSequence } from "./numbers.js";
import type { UpCase } from "./upcase.js";

/** An entry as a directory has it: the key is a copy of the file's $FILE_NAME. */
export interface DirectoryEntry {
  readonly name: string;
  readonly namespace: number;
  readonly record: number;
  readonly sequence: number;
  /** The file's DOS flags, as the directory has them. */
  readonly flags: number;
}

/** Bytes of a key before the name. */
const nameAt = 66;
/** In the flags of a directory's entry: it is a directory. */
export const INDEX_PRESENT = 0x10000000;

/** A directory of more bytes of index is searched in its tree only; of a smaller one all names are kept at hand. */
const largestKept = 32 * 1024 * 1024;
/** Names that are kept, of all directories together. */
const mostKept = 1 << 18;

/** The names of one directory. */
interface Names {
  readonly exact: ReadonlyMap<string, DirectoryEntry>;
  readonly folded: ReadonlyMap<string, DirectoryEntry>;
}

/**
 * Finding by name: as it is written first, then whatever its case (by the volume's own table, as Windows does), then
 * as a short DOS name. The tree is asked first, which costs a few blocks. It is right unless its order is damaged; so
 * before a name is said not to be there, or not in this case, all entries are looked through, once for many questions.
 */
export class Directories {
  private readonly kept = new LRUCache<number, Names>({
    maxSize: mostKept,
    sizeCalculation: ({ exact }) => exact.size + 1,
  });

  constructor(private readonly upCase: UpCase) {}

  /** All entries that the kernel can be given, DOS names included; damage is thrown after the last. */
  *entries(tree: IndexTree): Iterable<DirectoryEntry> {
    for (const { bytes, first, end } of tree.nodes())
      for (let at = first; at < end && !isLast(bytes, at); at += bytes.readUInt16LE(at + 8)) {
        const entry = readEntry(bytes, at);
        if (entry && isUsableName(entry.name)) yield entry;
      }
  }

  find(directory: number, tree: IndexTree, name: string): DirectoryEntry | undefined {
    const folded = this.upCase.raise(name);
    let found: Found | undefined;
    try {
      found = this.search(tree, name, folded);
      if (found?.exact) return found.entry;
    } catch (error) {
      if (!(error instanceof ImageError) || tree.size > largestKept) throw error;
    }
    if (tree.size > largestKept) return found?.entry;
    const names = this.names(directory, tree);
    return names.exact.get(name) ?? names.folded.get(folded);
  }

  private search(tree: IndexTree, name: string, folded: string): Found | undefined {
    let best: Found | undefined;
    tree.search(
      (bytes, key, length) =>
        length < nameAt ? 1 : this.upCase.compare(folded, bytes, key + nameAt, bytes[key + 64]!),
      (bytes, at) => {
        const entry = readEntry(bytes, at);
        if (!entry) return false;
        const exact = entry.name === name;
        if (exact || !best || (best.entry.namespace === DOS_NAME && entry.namespace !== DOS_NAME))
          best = { entry, exact };
        return exact;
      },
    );
    return best;
  }

  private names(directory: number, tree: IndexTree): Names {
    const kept = this.kept.get(directory);
    if (kept) return kept;
    const exact = new Map<string, DirectoryEntry>();
    const folded = new Map<string, DirectoryEntry>();
    try {
      for (const entry of this.entries(tree)) {
        if (!exact.has(entry.name)) exact.set(entry.name, entry);
        const key = this.upCase.raise(entry.name);
        const other = folded.get(key);
        if (!other || (other.namespace === DOS_NAME && entry.namespace !== DOS_NAME)) folded.set(key, entry);
      }
    } catch (error) {
      // The names that can be read are found; that some can't be, the listing tells.
      if (!(error instanceof ImageError)) throw error;
    }
    const names = { exact, folded };
    this.kept.set(directory, names);
    return names;
  }
}

interface Found {
  readonly entry: DirectoryEntry;
  readonly exact: boolean;
}

function readName(bytes: Buffer, key: number, length: number): string | undefined {
  if (length < nameAt) return undefined;
  const units = bytes[key + 64]!;
  if (nameAt + units * 2 > length) return undefined;
  return bytes.toString("utf16le", key + nameAt, key + nameAt + units * 2);
}

function readEntry(bytes: Buffer, at: number): DirectoryEntry | undefined {
  const key = at + 16;
  const name = readName(bytes, key, bytes.readUInt16LE(at + 10));
  if (name === undefined) return undefined;
  return {
    name,
    namespace: bytes[key + 65]!,
    record: referenceRecord(bytes, at),
    sequence: referenceSequence(bytes, at),
    flags: bytes.readUInt32LE(key + 56),
  };
}
