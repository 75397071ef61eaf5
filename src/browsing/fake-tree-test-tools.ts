/** A tree in memory whose directories may be anything: names twice, folders within themselves, damage. */
import type { ByteSource, Extent } from "../bytes/byte-source.js";
import { corrupt } from "../errors.js";
import type { Attributes, Entry, FileId, FileKind, FileSystem } from "../filesystems/filesystem.js";
import { byteStringOfText, bytesOf } from "./names.js";

export interface FakeFile {
  readonly kind: FileKind;
  readonly attributes?: Partial<Attributes>;
  /** Of a file. */
  readonly content?: Uint8Array;
  /** Bytes from here on can't be read, up to `to`. */
  readonly damage?: { readonly from: number; readonly to: number };
  /** Bytes from here to there are a hole. */
  readonly hole?: { readonly from: number; readonly to: number };
  readonly target?: string;
  /** Of a directory: names (one character a byte), each of a file or of the number of one. */
  readonly entries?: readonly (readonly [string, FakeFile | number])[];
  readonly extended?: readonly (readonly [string, Uint8Array])[];
  readonly streams?: Readonly<Record<string, Uint8Array>>;
  /** Its record is damaged: `attributes` throws. */
  readonly broken?: boolean;
  /** The listing ends with an error. */
  readonly tornListing?: boolean;
}

export const file = (content = "", more: Partial<FakeFile> = {}): FakeFile => ({
  kind: "file",
  content: Buffer.from(content),
  ...more,
});
export const folder = (
  entries: Record<string, FakeFile | number> | FakeFile["entries"] = [],
  more: Partial<FakeFile> = {},
): FakeFile => ({
  kind: "directory",
  entries: Array.isArray(entries)
    ? entries
    : Object.entries(entries).map(([name, one]) => [byteStringOfText(name), one] as const),
  ...more,
});
export const link = (target: string): FakeFile => ({ kind: "symlink", target });

const time = { seconds: 1_700_000_000, nanoseconds: 123_456_789 };

export class FakeTree implements FileSystem {
  type = "fake";
  readonly label = "";
  /** Number 1; the others are counted in the order of a walk. */
  readonly root: FileId = 1;
  readonly statistics = { blockSize: 4096, blocks: 10, freeBlocks: 5, files: 10, freeFiles: 5, nameLength: 255 };
  readonly calls = { attributes: 0, lookup: 0, list: 0, entries: 0, read: 0 };
  private readonly files: FakeFile[] = [];
  private readonly children = new Map<FileId, Entry[]>();

  constructor(root: FakeFile) {
    this.add(root);
    for (const entries of this.children.values())
      for (const entry of entries) Object.assign(entry, { kind: this.at(entry.file).kind });
  }

  private add(one: FakeFile): FileId {
    const id = this.files.push(one);
    if (one.kind === "directory") {
      const entries: Entry[] = [];
      this.children.set(id, entries);
      for (const [name, child] of one.entries ?? [])
        entries.push({ name: bytesOf(name), file: typeof child === "number" ? child : this.add(child), kind: "file" });
    }
    return id;
  }

  private at(id: FileId): FakeFile {
    return this.files[id - 1]!;
  }

  attributes(id: FileId): Attributes {
    this.calls.attributes++;
    const one = this.at(id);
    if (one.broken) throw corrupt(`fake: the record of file ${id} is damaged`);
    const size = one.content?.length ?? one.target?.length ?? 0;
    return {
      kind: one.kind,
      mode: one.kind === "directory" ? 0o755 : 0o644,
      inode: id,
      links: 1,
      owner: process.getuid?.() ?? 0,
      group: process.getgid?.() ?? 0,
      size,
      allocated: Math.ceil(size / 4096) * 4096,
      accessed: time,
      modified: time,
      changed: time,
      ...one.attributes,
    };
  }

  lookup(id: FileId, name: Uint8Array): FileId | undefined {
    this.calls.lookup++;
    return this.children.get(id)?.find((entry) => Buffer.compare(entry.name, name) === 0)?.file;
  }

  *list(id: FileId): Generator<Entry> {
    this.calls.list++;
    for (const entry of this.children.get(id) ?? []) {
      this.calls.entries++;
      yield entry;
    }
    if (this.at(id).tornListing) throw corrupt(`fake: folder ${id} is damaged`);
  }

  read(id: FileId, position: number, target: Uint8Array): number {
    this.calls.read++;
    const { content, damage } = this.at(id);
    const part = content!.subarray(position, position + target.length);
    if (damage && position < damage.to && position + part.length > damage.from)
      throw corrupt(`fake: bytes ${damage.from} to ${damage.to - 1} of file ${id} are damaged`);
    target.set(part);
    return part.length;
  }

  readLink(id: FileId): Uint8Array {
    return Buffer.from(this.at(id).target!);
  }

  extentAt(id: FileId, position: number): Extent {
    const { hole } = this.at(id);
    const { size } = this.attributes(id);
    if (!hole || position >= hole.to) return { hole: false, length: size - position };
    if (position < hole.from) return { hole: false, length: hole.from - position };
    return { hole: true, length: hole.to - position };
  }

  extendedAttributes(id: FileId): ReadonlyMap<string, Uint8Array> {
    return new Map(this.at(id).extended ?? []);
  }

  streams(id: FileId): Uint8Array[] {
    return Object.keys(this.at(id).streams ?? {}).map((name) => Buffer.from(name));
  }

  stream(id: FileId, name: Uint8Array): ByteSource | undefined {
    const bytes = this.at(id).streams?.[Buffer.from(name).toString()];
    if (!bytes) return undefined;
    return {
      name: "stream",
      size: bytes.length,
      read(position, target) {
        const part = bytes.subarray(position, position + target.length);
        target.set(part);
        return part.length;
      },
    };
  }
}
