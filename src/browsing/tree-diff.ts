/** Two trees → what was added, removed and changed, in the order of the names' bytes. */
import { readFully } from "../bytes/byte-source.js";
import { ImageError, unsupported } from "../errors.js";
import type { Attributes, FileId, FileKind, FileSystem } from "../filesystems/filesystem.js";
import { FileBytes, readSize } from "./contents.js";
import { type ByteString, byteString, bytesOf, joined } from "./names.js";
import { Entered, entriesOf, type Listed, mostSorted, type Problem, walk } from "./walk.js";

/** What can differ in a file that both trees have. */
export type Aspect =
  | "kind"
  | "content"
  | "size"
  | "mode"
  | "owner"
  | "group"
  | "modified"
  | "target"
  | "device"
  | "attributes"
  | "streams";

export type Change =
  | { readonly change: "added" | "removed"; readonly path: ByteString; readonly kind: FileKind }
  | {
      readonly change: "changed";
      readonly path: ByteString;
      readonly kind: FileKind;
      /** What differs; never empty. */
      readonly what: readonly Aspect[];
    };

export interface TreeDiffOptions {
  /** The path of both roots. */
  readonly path: ByteString;
  /** A file that can't be read is told of here; the rest goes on. */
  readonly problem: Problem;
  /** Whether the bytes of two files are known to be equal in a stretch, without reading them. */
  knownEqual?(a: FileId, b: FileId, position: number, length: number): boolean;
}

/** What was made of tree `a` to become tree `b`. Times of access, inode numbers and places on the disk don't count. */
export function* treeDiff(a: FileSystem, b: FileSystem, options: TreeDiffOptions): Generator<Change> {
  const { problem } = options;
  const compare = new FileComparison(a, b, options);
  const entered = { a: new Entered(), b: new Entered() };

  function* only(tree: FileSystem, change: "added" | "removed", entry: Listed, path: ByteString): Generator<Change> {
    const seen = tree === a ? entered.a : entered.b;
    for (const { path: at, kind, after } of walk(tree, entry, path, { problem, sorted: true, entered: seen }))
      if (!after) yield { change, path: at, kind };
  }

  function* both(ours: Listed, theirs: Listed, path: ByteString): Generator<Change> {
    if (ours.kind !== theirs.kind) {
      yield { change: "changed", path, kind: theirs.kind, what: ["kind"] };
      // Of what is no folder any more, or only now, the rest is removed or added.
      if (ours.kind === "directory") yield* inside(a, "removed", ours, path);
      if (theirs.kind === "directory") yield* inside(b, "added", theirs, path);
      return;
    }
    const what = tried(path, problem, () => compare.aspects(ours.file, theirs.file, path));
    if (what && what.length > 0) yield { change: "changed", path, kind: theirs.kind, what };
  }

  function* inside(tree: FileSystem, change: "added" | "removed", entry: Listed, path: ByteString): Generator<Change> {
    let first = true;
    for (const found of only(tree, change, entry, path)) {
      if (!first) yield found;
      first = false;
    }
  }

  const open: {
    readonly path: ByteString;
    readonly pairs: Iterator<readonly [Listed | undefined, Listed | undefined]>;
  }[] = [];
  const enter = (ours: Listed, theirs: Listed, path: ByteString) => {
    const depth = open.length;
    if (!entered.a.admit(ours.file, path, depth, problem) || !entered.b.admit(theirs.file, path, depth, problem))
      return;
    const lists = [listing(a, ours.file, path, problem), listing(b, theirs.file, path, problem)] as const;
    // Of a folder that can't be listed whole nothing can be said to be missing.
    if (lists[0] && lists[1]) open.push({ path, pairs: paired(lists[0], lists[1]) });
  };

  const roots = [a, b].map((tree): Listed => ({ name: "", file: tree.root, kind: "directory", inode: undefined }));
  yield* both(roots[0]!, roots[1]!, options.path);
  enter(roots[0]!, roots[1]!, options.path);
  for (let folder = open.at(-1); folder; folder = open.at(-1)) {
    const next = folder.pairs.next();
    if (next.done) {
      open.pop();
      continue;
    }
    const [ours, theirs] = next.value;
    const path = joined(folder.path, (ours ?? theirs)!.name);
    if (!theirs) yield* only(a, "removed", ours!, path);
    else if (!ours) yield* only(b, "added", theirs, path);
    else {
      yield* both(ours, theirs, path);
      if (ours.kind === "directory" && theirs.kind === "directory") enter(ours, theirs, path);
    }
  }
}

/** What `act` returns; undefined when it failed, which `problem` is told. */
function tried<T>(path: ByteString, problem: Problem, act: () => T): T | undefined {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    problem(path, error);
    return undefined;
  }
}

/** All entries of a folder, sorted by the bytes of their names; undefined where it can't be listed whole. */
function listing(tree: FileSystem, folder: FileId, path: ByteString, problem: Problem): Listed[] | undefined {
  let whole = true;
  const failed: Problem = (at, error) => {
    whole = false;
    problem(at, error);
  };
  const entries: Listed[] = [];
  for (const entry of entriesOf(tree, folder, path, failed)) {
    if (entries.length === mostSorted) {
      problem(path, unsupported(`has more than ${mostSorted} entries, and is not compared.`));
      return undefined;
    }
    entries.push(entry);
  }
  return whole ? entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)) : undefined;
}

/** Entries of the same name together, in order; undefined for the one that only the other list has. */
function* paired(
  a: readonly Listed[],
  b: readonly Listed[],
): Generator<readonly [Listed | undefined, Listed | undefined]> {
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    const [ours, theirs] = [a[i], b[j]];
    if (ours && (!theirs || ours.name < theirs.name)) {
      yield [ours, undefined];
      i++;
    } else if (theirs && (!ours || theirs.name < ours.name)) {
      yield [undefined, theirs];
      j++;
    } else {
      yield [ours, theirs];
      i++;
      j++;
    }
  }
}

/** Two files of the same kind. */
class FileComparison {
  private readonly ours = Buffer.allocUnsafeSlow(readSize);
  private readonly theirs = Buffer.allocUnsafeSlow(readSize);

  constructor(
    private readonly a: FileSystem,
    private readonly b: FileSystem,
    private readonly options: TreeDiffOptions,
  ) {}

  /** @throws ImageError when either can't be read */
  aspects(a: FileId, b: FileId, path: ByteString): Aspect[] {
    const [ours, theirs] = [this.a.attributes(a), this.b.attributes(b)];
    const what: Aspect[] = [];
    if (ours.kind === "file") {
      if (ours.size !== theirs.size) what.push("size", "content");
      else if (!this.isContentEqual(a, b, ours.size, path)) what.push("content");
    }
    if (ours.kind === "symlink" && !equal(this.a.readLink(a), this.b.readLink(b))) what.push("target");
    what.push(...recordAspects(ours, theirs));
    if (!this.areAttributesEqual(a, b)) what.push("attributes");
    if (!this.areStreamsEqual(a, b)) what.push("streams");
    return what;
  }

  private isContentEqual(a: FileId, b: FileId, size: number, path: ByteString): boolean {
    const [ours, theirs] = [new FileBytes(this.a, a, path, size), new FileBytes(this.b, b, path, size)];
    for (let position = 0; position < size; ) {
      const [one, other] = [ours.extentAt(position), theirs.extentAt(position)];
      const rest = size - position;
      if (one.hole && other.hole) {
        position += Math.min(Math.max(1, Math.min(one.length, other.length)), rest);
        continue;
      }
      const length = Math.min(readSize, rest);
      if (!this.options.knownEqual?.(a, b, position, length)) {
        const [x, y] = [this.ours.subarray(0, length), this.theirs.subarray(0, length)];
        const [got, gotToo] = [readFully(ours, position, x), readFully(theirs, position, y)];
        if (got !== gotToo || !x.subarray(0, got).equals(y.subarray(0, got))) return false;
      }
      position += length;
    }
    return true;
  }

  private areAttributesEqual(a: FileId, b: FileId): boolean {
    return equalMaps(this.a.extendedAttributes?.(a), this.b.extendedAttributes?.(b));
  }

  private areStreamsEqual(a: FileId, b: FileId): boolean {
    const names = (tree: FileSystem, file: FileId) => (tree.streams?.(file) ?? []).map(byteString).sort();
    const [ours, theirs] = [names(this.a, a), names(this.b, b)];
    if (ours.length !== theirs.length) return false;
    return ours.every((name, index) => {
      if (name !== theirs[index]) return false;
      const [x, y] = [this.a.stream!(a, bytesOf(name)), this.b.stream!(b, bytesOf(name))];
      if (!x || !y || x.size !== y.size) return x === y;
      for (let position = 0; position < x.size; position += readSize) {
        const length = Math.min(readSize, x.size - position);
        readFully(x, position, this.ours.subarray(0, length));
        readFully(y, position, this.theirs.subarray(0, length));
        if (!this.ours.subarray(0, length).equals(this.theirs.subarray(0, length))) return false;
      }
      return true;
    });
  }
}

function recordAspects(a: Attributes, b: Attributes): Aspect[] {
  const what: Aspect[] = [];
  for (const name of ["mode", "owner", "group"] as const) if (a[name] !== b[name]) what.push(name);
  if (a.modified.seconds !== b.modified.seconds || a.modified.nanoseconds !== b.modified.nanoseconds)
    what.push("modified");
  if (a.device?.major !== b.device?.major || a.device?.minor !== b.device?.minor) what.push("device");
  return what;
}

const equal = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

function equalMaps(
  a: ReadonlyMap<string, Uint8Array> = new Map(),
  b: ReadonlyMap<string, Uint8Array> = new Map(),
): boolean {
  if (a.size !== b.size) return false;
  for (const [name, value] of a) {
    const other = b.get(name);
    if (!other || !equal(value, other)) return false;
  }
  return true;
}
