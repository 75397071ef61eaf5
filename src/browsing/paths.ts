/**
 * From a path to a file of the image. Symbolic links are followed within the image only: an absolute target begins at the
 * root of the link's own filesystem, and `..` doesn't lead above it.
 */
import { ImageError, missing } from "../errors.js";
import type { FileId, FileSystem } from "../filesystems/filesystem.js";
import { type ByteString, byteString, bytesOf, escaped, unescaped } from "./names.js";

/** A file, and the folders that lead to it. */
export interface Place {
  readonly file: FileId;
  /** Its name; empty for the root. */
  readonly name: ByteString;
  /** From the root to its folder; the root's is the root alone. */
  readonly folders: readonly FileId[];
}

export interface PathOptions {
  /** Whether a symbolic link at the end of the path is followed. One before, or with a slash behind it, always is. */
  readonly follow: boolean;
}

/** As many as Linux follows. */
const mostLinks = 40;

/**
 * The file at `path`, as it is written or, where there is none, with its escapes (`\377`, `\xff`) undone.
 * @throws ImageError `missing` where no file has this path; `corrupt` where a directory on the way is damaged.
 */
export function findPath(tree: FileSystem, path: ByteString, options: PathOptions): Place {
  try {
    return follow(tree, path, options);
  } catch (error) {
    const other = unescaped(path);
    if (other === path || !(error instanceof ImageError) || error.code !== "missing") throw error;
    return follow(tree, other, options);
  }
}

interface Step {
  readonly name: ByteString;
  readonly fromLink: boolean;
}

function follow(tree: FileSystem, path: ByteString, options: PathOptions): Place {
  const refused = (why: string) => missing(`${escaped(path)}: ${why}`);
  const mustBeFolder = /\/\.?$/.test(path);
  // Of several filesystems each has its own root, one step down.
  const lowest = tree.type === "several" ? 2 : 1;
  const trail: { file: FileId; name: ByteString }[] = [{ file: tree.root, name: "" }];
  const steps = stepsOf(path, false);
  let links = 0;
  for (let step = steps.pop(); step; step = steps.pop()) {
    const folder = trail.at(-1)!;
    if (tree.attributes(folder.file).kind !== "directory") throw refused(`${escaped(folder.name)} is not a folder`);
    if (step.name === "..") {
      if (trail.length > (step.fromLink ? lowest : 1)) trail.pop();
      continue;
    }
    const file = tree.lookup(folder.file, bytesOf(step.name));
    if (file === undefined) throw refused("the image has no such file or folder");
    const followed = steps.length > 0 || mustBeFolder || options.follow;
    if (!followed || tree.attributes(file).kind !== "symlink") {
      trail.push({ file, name: step.name });
      continue;
    }
    if (++links > mostLinks) throw refused(`more than ${mostLinks} symbolic links lead on from one to the next`);
    const target = byteString(tree.readLink(file));
    if (target.startsWith("/")) trail.length = Math.min(trail.length, lowest);
    steps.push(...stepsOf(target, true));
  }
  const { file, name } = trail.at(-1)!;
  if (mustBeFolder && tree.attributes(file).kind !== "directory") throw refused("it is not a folder");
  const folders = trail.length === 1 ? trail : trail.slice(0, -1);
  return { file, name, folders: folders.map((one) => one.file) };
}

/** The components of a path, last first. */
function stepsOf(path: ByteString, fromLink: boolean): Step[] {
  return path
    .split("/")
    .filter((name) => name !== "" && name !== ".")
    .map((name) => ({ name, fromLink }))
    .reverse();
}
