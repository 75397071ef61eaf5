/**
 * Goes through all that is in a folder, to any depth. A hostile image has folders that contain themselves or each other:
 * each folder is entered once, however many names lead to it, and the depth has a bound.
 */
import { corrupt, ImageError } from "../errors.js";
import type { Entry, FileId, FileKind, FileSystem } from "../filesystems/filesystem.js";
import { type ByteString, byteString, escaped, joined } from "./names.js";

/** Levels of folders within each other: far more than paths of a working system have, few enough to keep. */
export const deepest = 10_000;
/** Entries of one folder that are sorted, which keeps them in memory; more are given as they come. */
export const mostSorted = 4_000_000;

export interface Listed {
  readonly name: ByteString;
  readonly file: FileId;
  readonly kind: FileKind;
  /** Where the listing tells it. */
  readonly inode: number | undefined;
}

/** A failure that concerns one file, while the rest goes on. */
export type Problem = (path: ByteString, error: ImageError) => void;

const listed = ({ name, file, kind, inode }: Entry): Listed => ({ name: byteString(name), file, kind, inode });

/** The entries of a folder in the order in which they are stored; damage ends them and is told. */
export function* entriesOf(tree: FileSystem, folder: FileId, path: ByteString, problem: Problem): Generator<Listed> {
  try {
    for (const entry of tree.list(folder)) yield listed(entry);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    problem(path, error);
  }
}

/** The entries of a folder sorted by the bytes of their names. */
export function* sortedEntries(
  tree: FileSystem,
  folder: FileId,
  path: ByteString,
  problem: Problem,
  most = mostSorted,
): Generator<Listed> {
  let entries: Listed[] = [];
  const rest = entriesOf(tree, folder, path, problem);
  for (let next = rest.next(); !next.done; next = rest.next()) {
    entries.push(next.value);
    if (entries.length < most) continue;
    yield* entries;
    entries = [];
    yield* rest;
  }
  yield* entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** Remembers the folders that were entered. */
export class Entered {
  private readonly folders = new Set<FileId>();

  /** Whether `folder` may be entered; otherwise `problem` is told why not. */
  admit(folder: FileId, path: ByteString, depth: number, problem: Problem): boolean {
    if (this.folders.has(folder)) {
      problem(
        path,
        corrupt(`${escaped(path)}: this folder was met before under another name; it is not entered again.`),
      );
      return false;
    }
    if (depth > deepest) {
      problem(path, corrupt(`${escaped(path)}: lies ${depth} folders deep; nothing deeper is looked at.`));
      return false;
    }
    this.folders.add(folder);
    return true;
  }
}

export interface Visit extends Listed {
  /** The path of the start and the names from there on. */
  readonly path: ByteString;
  /** 0 for the start itself. */
  readonly depth: number;
  /** A folder is met twice: before what is in it, and after. */
  readonly after: boolean;
  /** May be set on a folder's first visit: what is in it is left out, and so is the second visit. */
  skip: boolean;
}

export interface WalkOptions {
  readonly problem: Problem;
  readonly sorted?: boolean;
  /** Levels beneath the start; by default all. */
  readonly maxDepth?: number;
  /** Folders that other walks of the same command entered. */
  readonly entered?: Entered;
}

/** The start and, where it is a folder, all that is in it. */
export function* walk(
  tree: FileSystem,
  start: { file: FileId; name: ByteString; kind: FileKind },
  startPath: ByteString,
  { problem, sorted, maxDepth = Number.POSITIVE_INFINITY, entered = new Entered() }: WalkOptions,
): Generator<Visit> {
  const visit = (one: Listed, path: ByteString, depth: number, after: boolean): Visit => ({
    name: one.name,
    file: one.file,
    kind: one.kind,
    inode: one.inode,
    path,
    depth,
    after,
    skip: false,
  });
  interface Open {
    readonly entry: Listed;
    readonly path: ByteString;
    readonly children: Iterator<Listed>;
  }
  const open: Open[] = [];
  const list = sorted ? sortedEntries : entriesOf;

  function* meet(entry: Listed, path: ByteString): Generator<Visit> {
    const depth = open.length;
    const before = visit(entry, path, depth, false);
    yield before;
    if (entry.kind !== "directory" || before.skip) return;
    if (depth < maxDepth && entered.admit(entry.file, path, depth, problem))
      open.push({ entry, path, children: list(tree, entry.file, path, problem) });
    else yield visit(entry, path, depth, true);
  }

  yield* meet({ inode: undefined, ...start }, startPath);
  for (let folder = open.at(-1); folder; folder = open.at(-1)) {
    const next = folder.children.next();
    if (next.done) {
      open.pop();
      yield visit(folder.entry, folder.path, open.length, true);
    } else yield* meet(next.value, joined(folder.path, next.value.name));
  }
}
