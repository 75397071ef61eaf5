/** What is kept of a file besides its content, as far as the system lets it be kept. */
import { fchmodSync, fchownSync } from "node:fs";
import { ImageError } from "../errors.js";
import type { Attributes, FileId, FileSystem } from "../filesystems/filesystem.js";
import { failure, fchmodat, fchownat, fsetxattr, futimens, setxattrAt, utimensat } from "../libc.js";
import type { ByteString } from "./names.js";
import type { Problem } from "./walk.js";

/** Something that could not be kept, of one file or of many. */
export interface NotKept {
  /** For example `owner`, `extended attributes (trusted)`. */
  readonly what: string;
  /** The system's name for the reason, for example `EPERM`. */
  readonly why: string;
  files: number;
  /** The path of the first file that it happened to. */
  readonly first: ByteString;
}

export class Losses {
  private readonly all = new Map<string, NotKept>();

  add(what: string, why: string, path: ByteString): void {
    const key = `${what} ${why}`;
    const known = this.all.get(key);
    if (known) known.files++;
    else this.all.set(key, { what, why, files: 1, first: path });
  }

  get list(): NotKept[] {
    return [...this.all.values()];
  }
}

/** Where the metadata goes: an open file or folder, or a name in an open folder for what can't be opened. */
export type Recipient = { readonly fd: number } | { readonly folder: number; readonly name: Uint8Array };

export interface Original {
  readonly tree: FileSystem;
  readonly file: FileId;
  readonly path: ByteString;
  readonly attributes: Attributes;
}

const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code ?? "unknown error";

/**
 * Sets owner, extended attributes, mode and times, in this order: a new owner takes capabilities and set-id bits away,
 * attributes are refused where the mode forbids writing, and each of them changes the times.
 */
export function keepMetadata(original: Original, to: Recipient, losses: Losses, problem: Problem): void {
  const { attributes, path } = original;
  const owned = keepOwner(attributes, to, losses, path);
  keepExtendedAttributes(original, to, losses, problem);
  // Set-id bits would act for whoever copies.
  const bits = owned ? 0o7777 : 0o1777;
  if (attributes.mode & ~bits & 0o7777) losses.add("set-id bits", "the owner was not kept", path);
  if (attributes.kind !== "symlink") setMode(attributes.mode & bits, to, losses, path);
  keepTimes(attributes, to, losses, path);
}

/** The permissions that a new file of this mode gets from any program, and the times. */
export function keepPlainly({ attributes, path }: Original, to: Recipient, umask: number, losses: Losses): void {
  if (attributes.kind !== "symlink") setMode(attributes.mode & 0o777 & ~umask, to, losses, path);
  keepTimes(attributes, to, losses, path);
}

function keepOwner({ owner, group }: Attributes, to: Recipient, losses: Losses, path: ByteString): boolean {
  try {
    if ("fd" in to) fchownSync(to.fd, owner, group);
    else if (fchownat(to.folder, to.name, owner, group) < 0) throw failure("fchownat");
    return true;
  } catch (error) {
    losses.add("owner", codeOf(error), path);
    return false;
  }
}

function setMode(mode: number, to: Recipient, losses: Losses, path: ByteString): void {
  try {
    if ("fd" in to) fchmodSync(to.fd, mode);
    else if (fchmodat(to.folder, to.name, mode) < 0) throw failure("fchmodat");
  } catch (error) {
    losses.add("mode", codeOf(error), path);
  }
}

function keepTimes({ accessed, modified }: Attributes, to: Recipient, losses: Losses, path: ByteString): void {
  const result = "fd" in to ? futimens(to.fd, accessed, modified) : utimensat(to.folder, to.name, accessed, modified);
  if (result < 0) losses.add("times", codeOf(failure("utimensat")), path);
}

function keepExtendedAttributes({ tree, file, path }: Original, to: Recipient, losses: Losses, problem: Problem): void {
  let attributes: ReadonlyMap<string, Uint8Array> | undefined;
  try {
    attributes = tree.extendedAttributes?.(file);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    problem(path, error);
  }
  for (const [name, value] of attributes ?? []) {
    const what = `extended attributes (${name.split(".", 1)[0]})`;
    if (process.platform !== "linux") {
      losses.add(what, `not on ${process.platform}`, path);
      continue;
    }
    const result = "fd" in to ? fsetxattr(to.fd, name, value) : setxattrAt(to.folder, to.name, name, value);
    if (result < 0) losses.add(what, codeOf(failure("setxattr")), path);
  }
}
