/**
 * The files of an image for chain.ts: each is opened once, and a compressed one is unpacked as soon as its content is asked
 * for. Another thread makes the same of the descriptors (`FilesData`).
 */
import { existsSync, readdirSync } from "node:fs";
import { basename, dirname } from "node:path";
import { type ByteSource, Slice, type WhileWaiting } from "./bytes/byte-source.js";
import { FileSource } from "./bytes/file.js";
import { endToEnd } from "./bytes/joined.js";
import { busy, type ErrorCode, ImageError, missing, unsupported } from "./errors.js";
import type { FolderPart, ImageFormat } from "./images/image-format.js";
import { images } from "./images/index.js";
import { raw } from "./images/raw.js";
import { EWOULDBLOCK, errno, flock, LOCK_NB, LOCK_SH } from "./libc.js";
import { claimsHead } from "./packed/disk-claims.js";
import { OpenPacked, type PackedData, type PassState, packingOf, type Trust } from "./packed/index.js";
import type { Packing } from "./packed/packing.js";
import { silently, type Waiting } from "./packed/waiting.js";

/** How to open an image. */
export interface OpeningOptions {
  /** How sure the size of a compressed disk has to be; by default as sure as for a copy. */
  readonly trust?: Trust;
  /** Who is told when a compressed file has to be gone through first. */
  readonly waiting?: Waiting;
}

/** The files of an image as another thread is given them: structured-cloneable. */
export interface FilesData {
  readonly files: readonly OpenFile[];
  /** What folders held whose names a format asked for: what it makes of them must not change. */
  readonly folders: ReadonlyMap<string, readonly string[]>;
  /** What was computed when the image was opened, by name: see Surroundings.remember. */
  readonly remembered: ReadonlyMap<string, Uint8Array>;
}

interface OpenFile {
  readonly path: string;
  readonly fd: number;
  /** Of a compressed file, or the first part of one. */
  readonly packed?: PackedFileData;
}

interface PackedFileData {
  /** Paths of all its parts. */
  readonly parts: readonly string[];
  /** How to get at its content, and the image format that the content has. */
  readonly content?: PackedData & { readonly format: string };
  /** Why it couldn't be opened. */
  readonly problem?: { readonly code: ErrorCode; readonly message: string };
}

/** A compressed file with the image format that its content has, or why it couldn't be opened. */
interface Unpacked {
  readonly parts: readonly FileSource[];
  readonly content?: { readonly file: OpenPacked; readonly format: ImageFormat };
  readonly problem?: ImageError;
}

/** The files of an image, each opened once. */
export class OpenFiles {
  private readonly sources = new Map<string, FileSource>();
  /** By the path of the first part. */
  private readonly packed = new Map<string, Unpacked>();
  private readonly sealed: boolean;
  readonly folders: Map<string, readonly string[]>;
  readonly remembered: Map<string, Uint8Array>;

  /** @param known files to find by path: no other may be opened then */
  constructor(
    private readonly options: OpeningOptions & {
      /** Whether an image may name whatever file it likes. */
      readonly trusting?: boolean;
      readonly whileWaiting?: WhileWaiting;
    },
    known?: FilesData,
  ) {
    this.sealed = known !== undefined;
    for (const { path, fd } of known?.files ?? []) this.sources.set(path, FileSource.over(fd, path));
    for (const { path, packed } of known?.files ?? [])
      if (packed) this.packed.set(path, this.reopened(packed, options.whileWaiting));
    this.folders = new Map(known?.folders);
    this.remembered = new Map(known?.remembered);
  }

  /** Whether a file that an image names is looked at before it is opened: in a worker it is open already. */
  get wary(): boolean {
    return !this.sealed && this.options.trusting !== true;
  }

  has(path: string): boolean {
    return this.sources.has(path) || (!this.sealed && existsSync(path));
  }

  /** Names of files in `folder`. */
  in(folder: string): string[] {
    if (this.sealed)
      return [...this.sources.keys()].filter((path) => dirname(path) === folder).map((path) => basename(path));
    try {
      return readdirSync(folder);
    } catch {
      return []; // a folder that can't be listed holds no hint
    }
  }

  /** Names of files in `folder`, the same in every thread. */
  names(folder: string): readonly string[] {
    const names = this.folders.get(folder) ?? this.in(folder).sort();
    this.folders.set(folder, names);
    return names;
  }

  /** See Surroundings.remember. */
  remember(name: string, compute: () => Uint8Array): Uint8Array {
    const known = this.remembered.get(name) ?? compute();
    this.remembered.set(name, known);
    return known;
  }

  open(path: string): FileSource {
    let source = this.sources.get(path);
    if (!source) {
      if (this.sealed) throw missing(`${path}: was not open when the image was`);
      source = FileSource.open(path);
      this.sources.set(path, source);
    }
    return source;
  }

  /**
   * The content of a compressed file with the image format that it has; undefined for any other file.
   * @param parts of the file
   * @param known what the content is, where it isn't to be found out
   */
  unpack(parts: readonly FileSource[], known?: FolderPart): Unpacked["content"] {
    const path = parts[0]!.name;
    let found = this.packed.get(path);
    if (!found) {
      const packing = this.sealed ? undefined : packingOf(endToEnd(parts));
      if (!packing) return undefined;
      found = this.unpacked(parts, packing, known);
      this.packed.set(path, found);
    }
    if (found.problem) throw found.problem;
    return found.content;
  }

  private unpacked(parts: readonly FileSource[], packing: Packing, known: FolderPart | undefined): Unpacked {
    const { trust = "proven", waiting = silently } = this.options;
    const lengthOf = (content: ByteSource) =>
      known?.format === raw.name ? known.length : (known?.length ?? lengthByStart(content));
    let file: OpenPacked | undefined;
    try {
      file = OpenPacked.open(parts, packing, { trust, waiting, lengthOf });
      const format = known ? imageFormat(known.format) : formatWithin(file);
      return { parts, content: { file, format } };
    } catch (error) {
      file?.close();
      if (!(error instanceof ImageError)) throw error;
      return { parts, problem: error };
    }
  }

  private reopened({ parts, content, problem }: PackedFileData, whileWaiting: WhileWaiting | undefined): Unpacked {
    const sources = parts.map((path) => this.open(path));
    if (!content) return { parts: sources, problem: new ImageError(problem!.code, problem!.message) };
    const file = OpenPacked.reopen(sources, content, whileWaiting);
    return { parts: sources, content: { file, format: imageFormat(content.format) } };
  }

  get passes(): PassState[] {
    return [...this.packed.values()].flatMap(({ content }) => (content ? [content.file.pass] : []));
  }

  /** Keeps others from writing to a file that is open, for as long as it is. @throws ImageError `busy` where one does */
  holdStill(path: string): void {
    // A thread has the descriptors of the first, and their locks.
    if (this.sealed) return;
    if (flock(this.open(path).fd, LOCK_SH | LOCK_NB) !== 0 && errno() === EWOULDBLOCK)
      throw busy(`${path}: is written to by a mount just now. Unmount that first (spindle unmount), then try again.`);
  }

  /** Closes what was opened since there were `count` files. */
  closeFrom(count: number): void {
    const closing = [...this.sources].slice(count);
    for (const [path, { parts, content }] of this.packed) {
      if (!parts.some((part) => closing.some(([, source]) => source === part))) continue;
      content?.file.close();
      this.packed.delete(path);
    }
    for (const [path, source] of closing) {
      source.close();
      this.sources.delete(path);
    }
  }

  get count(): number {
    return this.sources.size;
  }

  get table(): FilesData["files"] {
    return [...this.sources].map(([path, { fd }]) => {
      const packed = this.packed.get(path);
      return { path, fd, ...(packed && { packed: packedData(packed) }) };
    });
  }
}

function packedData({ parts, content, problem }: Unpacked): PackedFileData {
  return {
    parts: parts.map(({ name }) => name),
    ...(content && { content: { ...content.file.data, format: content.format.name } }),
    ...(problem && { problem: { code: problem.code, message: problem.message } }),
  };
}

export const recognised = (source: ByteSource): ImageFormat => images.find((one) => one.recognises(source)) ?? raw;

export const imageFormat = (name: string): ImageFormat => images.find((one) => one.name === name)!;

/** The length of an image that tells it at its start, of which `content` has at least the first bytes. */
function lengthByStart(content: ByteSource): number | undefined {
  const format = recognised(new Slice(content.name, content, 0, claimsHead));
  return format.lengthOf?.(content);
}

/** The image format that the content of a compressed file has. */
function formatWithin(file: OpenPacked): ImageFormat {
  // Some formats are told by a trailer, and the end of the content may be far: it is looked at only where one can be.
  const head = file.isFilled ? file.start() : file.head();
  const found = recognised(head);
  // A raw disk can be shown before its size is proven; a container's tables may be anywhere in it.
  if (found === raw && packingOf(head) === undefined) return raw;
  // What tells its length had it checked, or waited until it was proven.
  if (found.lengthOf) return found;
  file.prove();
  const whole = file.head();
  const packing = packingOf(whole);
  if (packing)
    throw unsupported(
      `${whole.name}: holds a file that is compressed once more, with ${packing.name}. Unpack the outer one first.`,
    );
  return recognised(whole);
}
