/**
 * Copies files of an image to this machine with all that it takes: content with its holes, hard links, symbolic links as
 * they are, devices, owners, modes, times, extended attributes. A damaged file is copied as far as it can be read.
 */
import { closeSync, constants, ftruncateSync, writeSync } from "node:fs";
import { corrupt, ImageError, system, unsupported, usage } from "../errors.js";
import type { Attributes, FileId, FileKind, FileSystem } from "../filesystems/filesystem.js";
import { failure, linkat, mknodat, openat, symlinkat, unlinkat } from "../libc.js";
import { FileBytes, readSize, stretchesOf } from "./contents.js";
import { keepMetadata, keepPlainly, Losses, type NotKept, type Original, type Recipient } from "./metadata.js";
import { kindBits } from "./modes.js";
import { type ByteString, byteString, bytesOf, escaped } from "./names.js";
import { TargetFolders } from "./target-folders.js";
import { mostSorted, type Problem, type Visit, walk } from "./walk.js";

export interface CopyOptions {
  /** Replace files that are there, and give folders that are there the image's metadata. */
  readonly force: boolean;
  /** Leave out owners, set-id bits, extended attributes and special files. */
  readonly plain: boolean;
  readonly problem: Problem;
  /** Called often; bytes of content so far, holes not counted. */
  readonly progress: (bytes: number, files: number) => void;
}

export interface Copied {
  /** Regular files, hard links to them not counted. */
  files: number;
  folders: number;
  symlinks: number;
  hardLinks: number;
  /** Devices, fifos and sockets. */
  specials: number;
  /** Of content, holes not counted. */
  bytes: number;
  /** What the system didn't let be kept. */
  notKept: readonly NotKept[];
}

export interface CopyStart {
  readonly file: FileId;
  readonly kind: FileKind;
  /** Its path in the image, for messages. */
  readonly path: ByteString;
  /** Its name in the target; undefined for a folder whose content goes right into the target. */
  readonly name: ByteString | undefined;
}

/** Failures after which nothing else would succeed either. */
const fatal = new Set(["ENOSPC", "EDQUOT", "EROFS", "EIO"]);

export class Copier {
  readonly copied: Copied = { files: 0, folders: 0, symlinks: 0, hardLinks: 0, specials: 0, bytes: 0, notKept: [] };
  private readonly losses = new Losses();
  private readonly folders: TargetFolders;
  private readonly buffer = Buffer.allocUnsafe(readSize);
  /** Where the first copy of a file with several names is. */
  private readonly linked = new Map<FileId, { folder: ByteString[]; name: ByteString }>();
  /** Whether each folder that is being filled gets the image's metadata. */
  private readonly adopts: boolean[] = [];
  /** The names that each of them, and what is around them all, has got from the image. */
  private names: Set<ByteString>[] = [];
  private readonly umask = process.umask();

  /** @param target an open folder, which stays open */
  constructor(
    private readonly tree: FileSystem,
    target: number,
    private readonly options: CopyOptions,
  ) {
    this.folders = new TargetFolders(target);
  }

  /** Copies one file, or a folder with all that is in it. @throws ImageError when nothing more can be written */
  copy({ file, kind, path, name }: CopyStart): Copied {
    const { problem } = this.options;
    const into = name === undefined;
    this.names = [new Set()];
    try {
      for (const visit of walk(this.tree, { file, kind, name: name ?? "" }, path, { problem })) {
        if (into && visit.depth === 0) continue;
        try {
          this.visit(visit);
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
          if (fatal.has((error.cause as NodeJS.ErrnoException)?.code ?? "")) throw error;
          problem(visit.path, error);
          visit.skip = true;
        }
        this.options.progress(this.copied.bytes, this.copied.files);
      }
    } finally {
      this.folders.close();
    }
    this.copied.notKept = this.losses.list;
    return this.copied;
  }

  private visit(visit: Visit): void {
    const { path, file, name } = visit;
    // No filesystem should give such a name; one that does must not lead out of the target.
    if (name === "" || name === "." || name === ".." || /[/\0]/.test(name))
      throw corrupt(`${escaped(path)}: a file can't have this name.`);
    if (visit.after) {
      this.leave(visit);
      return;
    }
    const names = this.names.at(-1)!;
    // Replacing the first with the second, or asking for --force, would be no answer to that.
    if (names.has(name)) throw corrupt(`${escaped(path)}: its folder has this name twice; only the first is copied.`);
    if (names.size < mostSorted) names.add(name);
    const attributes = this.tree.attributes(file);
    if (attributes.kind === "directory") {
      this.enter(visit);
      return;
    }
    if (visit.kind === "directory") throw corrupt(`${escaped(path)}: is listed as a folder, but is none.`);
    if (attributes.links > 1 && this.linkAgain(visit)) return;
    const original: Original = { tree: this.tree, file, path, attributes };
    if (attributes.kind === "file") this.file(original, name);
    else if (attributes.kind === "symlink") this.symlink(original, name);
    else if (!this.special(original, name)) return;
    if (attributes.links > 1) this.linked.set(file, { folder: this.folders.path, name });
  }

  private enter({ path, name, kind }: Visit): void {
    if (kind !== "directory") throw corrupt(`${escaped(path)}: is listed as a ${kind}, but is a folder.`);
    let made: boolean;
    try {
      made = this.folders.enter(name);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "ENOTDIR" || code === "ELOOP")
        throw usage(`${escaped(path)}: something that is no folder has its name in the target; it is left as it is.`);
      throw system(`making the folder ${escaped(path)}`, error);
    }
    if (made) this.copied.folders++;
    this.adopts.push(made || this.options.force);
    this.names.push(new Set());
  }

  /** A folder's times last: what is written into it changes them. */
  private leave({ path, file }: Visit): void {
    this.names.pop();
    try {
      if (this.adopts.pop())
        this.keep({ tree: this.tree, file, path, attributes: this.tree.attributes(file) }, { fd: this.folders.fd });
    } finally {
      this.folders.leave();
    }
  }

  private keep(original: Original, to: Recipient): void {
    if (this.options.plain) keepPlainly(original, to, this.umask, this.losses);
    else keepMetadata(original, to, this.losses, this.options.problem);
  }

  /** Whether `name` became one more name of a file that was copied before. */
  private linkAgain({ file, name, path }: Visit): boolean {
    const first = this.linked.get(file);
    if (!first) return false;
    try {
      this.folders.within(first.folder, (folder) =>
        this.make(name, path, () => linkat(folder, bytesOf(first.name), this.folders.fd, bytesOf(name))),
      );
    } catch (error) {
      if (error instanceof ImageError && error.code === "usage") throw error;
      const cause = error instanceof ImageError ? error.cause : error;
      this.losses.add("hard links", (cause as NodeJS.ErrnoException)?.code ?? "unknown error", path);
      return false;
    }
    this.copied.hardLinks++;
    return true;
  }

  private file(original: Original, name: ByteString): void {
    const { path, attributes } = original;
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    const fd = this.make(name, path, () => openat(this.folders.fd, bytesOf(name), flags, 0o600));
    try {
      const damage = this.content(original, attributes, fd);
      this.keep(original, { fd });
      this.copied.files++;
      if (damage) this.options.problem(path, damage);
    } catch (error) {
      unlinkat(this.folders.fd, bytesOf(name));
      throw system(`writing ${escaped(path)}`, error);
    } finally {
      closeSync(fd);
    }
  }

  /** Writes the content; what is damaged stays a hole, which the error that is returned tells of. */
  private content({ tree, file, path }: Original, { size }: Attributes, fd: number): ImageError | undefined {
    let end = 0;
    let damaged = 0;
    let places = 0;
    let damageEnd = -1;
    let first: { position: number; message: string } | undefined;
    for (const stretch of stretchesOf(new FileBytes(tree, file, escaped(path), size), this.buffer)) {
      const { position, length } = stretch;
      if (stretch.kind === "data") {
        for (let done = 0; done < length; ) done += writeSync(fd, stretch.bytes, done, length - done, position + done);
        end = position + length;
        this.copied.bytes += length;
        this.options.progress(this.copied.bytes, this.copied.files);
      } else if (stretch.kind === "damage") {
        first ??= { position, message: stretch.error.message };
        if (position !== damageEnd) places++;
        damageEnd = position + length;
        damaged += length;
      }
    }
    if (end < size) ftruncateSync(fd, size);
    if (!first) return undefined;
    const where =
      places === 1 ? `at byte ${first.position}` : `in ${places} places, the first at byte ${first.position}`;
    return corrupt(
      `${escaped(path)}: ${damaged} of its ${size} bytes are damaged, ${where}; the copy has zeros there. ${first.message}`,
    );
  }

  private symlink(original: Original, name: ByteString): void {
    const { tree, file, path } = original;
    const target = tree.readLink(file);
    if (target.includes(0) || target.length === 0)
      throw corrupt(`${escaped(path)}: no symbolic link can lead to "${escaped(byteString(target))}".`);
    this.make(name, path, () => symlinkat(target, this.folders.fd, bytesOf(name)));
    this.keep(original, { folder: this.folders.fd, name: bytesOf(name) });
    this.copied.symlinks++;
  }

  /** Makes a device, fifo or socket; false where it was left out, which is noted. */
  private special(original: Original, name: ByteString): boolean {
    const { path, attributes } = original;
    const { kind, device } = attributes;
    const what = kind === "character" || kind === "block" ? "device nodes" : kind === "fifo" ? "fifos" : "sockets";
    if (this.options.plain) {
      this.losses.add(what, "--plain", path);
      return false;
    }
    try {
      this.make(name, path, () =>
        mknodat(this.folders.fd, bytesOf(name), kindBits[kind] | 0o600, device?.major ?? 0, device?.minor ?? 0),
      );
    } catch (error) {
      const code = error instanceof ImageError ? (error.cause as NodeJS.ErrnoException)?.code : undefined;
      if (code !== "EPERM" && code !== "EOPNOTSUPP") throw error;
      this.losses.add(what, code, path);
      return false;
    }
    this.keep(original, { folder: this.folders.fd, name: bytesOf(name) });
    this.copied.specials++;
    return true;
  }

  /** Creates what isn't there; with --force what is there and is no folder goes first. `act` returns -1 on failure. */
  private make(name: ByteString, path: ByteString, act: () => number): number {
    const doing = `making ${escaped(path)}`;
    const result = act();
    if (result >= 0) return result;
    const error = failure("create");
    if (error.code === "ENAMETOOLONG" || error.code === "EILSEQ" || error.code === "EINVAL")
      throw unsupported(`${escaped(path)}: the target's filesystem does not take this name (${error.code}).`);
    if (error.code !== "EEXIST") throw system(doing, error);
    if (!this.options.force) throw usage(`${escaped(path)}: is in the target already; pass --force to replace it.`);
    if (unlinkat(this.folders.fd, bytesOf(name)) < 0) {
      const refusal = failure("unlinkat");
      if (refusal.code === "EISDIR" || refusal.code === "EPERM")
        throw usage(`${escaped(path)}: in the target this is a folder; it is left as it is.`);
      throw system(`replacing ${escaped(path)}`, refusal);
    }
    const again = act();
    if (again < 0) throw system(doing, failure("create"));
    return again;
  }
}
