import { corrupt } from "../../errors.js";
import { utf16ToBytes } from "../utf16.js";
import type { Target } from "./reparse.js";

/*
 * Windows' links, as Linux can follow them, the way ntfs-3g translates them, with two differences: a target on this volume
 * becomes relative (ntfs-3g puts its mount point before it, which isn't known here and would break when the tree is
 * copied), and `..` never leads above the volume's root.
 *
 * - A relative target keeps its form; each name gets the case that the directory has.
 * - A path with a drive letter is taken as one on this volume if all of it is there, whatever the letter. Else, and for
 *   other volumes and servers, it leads to `.NTFS-3G/C:/...` at the root, where ntfs-3g's users put links to other drives;
 *   if the volume has `.NTFS-3G/C:` itself, so does every path of that letter.
 */

/** A step that may be followed further: a directory that is no link itself. */
export interface Step {
  /** The name as its directory has it. */
  readonly name: string;
  /** Undefined for a file, a link or what isn't there. */
  readonly directory: number | undefined;
}

export interface Tree {
  readonly root: number;
  /** The folder that a file or directory is in, by its first name. */
  parentOf(file: number): number;
  /** Undefined when there is no such name. */
  step(directory: number, name: string): Step | undefined;
}

const deepestFolder = 1000;
const mappings = ".NTFS-3G";
const isDrive = /^[^\\]:$/;

/** @throws ImageError `corrupt` when the link's own place can't be found. */
export function translate(label: string, link: number, target: Target, tree: Tree): Buffer {
  if (target.kind === "linux") return target.path;
  const folders = foldersTo(label, link, tree);
  const names = target.path.split(/[\\/]/).filter((name) => name !== "" && name !== ".");
  if (target.kind === "relative") return utf16ToBytes(follow(folders, names, tree).path.join("/") || ".");

  const up = folders.slice(1).map(() => "..");
  const here = follow([tree.root], names, tree);
  const onThisVolume =
    target.kind === "rooted" ||
    (isDrive.test(target.root) && names.length > 0 && here.found && !isMapped(target.root, tree));
  if (onThisVolume) return utf16ToBytes([...up, ...here.path].join("/") || ".");
  // What stands for the drive is one name, whatever is in it.
  const drive = target.root.replaceAll("/", "_").replace(/^\.*$/, "_");
  return utf16ToBytes([...up, mappings, drive, ...here.path].join("/"));
}

function isMapped(root: string, tree: Tree): boolean {
  const folder = tree.step(tree.root, mappings)?.directory;
  return folder !== undefined && tree.step(folder, root) !== undefined;
}

/** The directories from the root down to the one that the link is in. */
function foldersTo(label: string, link: number, tree: Tree): number[] {
  const folders: number[] = [];
  for (let at = tree.parentOf(link); ; at = tree.parentOf(at)) {
    folders.push(at);
    if (at === tree.root) return folders.reverse();
    if (folders.length > deepestFolder)
      throw corrupt(`${label}: the folders above it lead in a circle. The volume is damaged.`);
  }
}

/** Goes along a path from the last of `folders`, as far as it is there, and no higher than the first of them. */
function follow(
  folders: readonly number[],
  names: readonly string[],
  tree: Tree,
): { readonly path: string[]; readonly found: boolean } {
  const path: string[] = [];
  const stack: (number | undefined)[] = [...folders];
  let found = true;
  let beyondLink = false;
  for (const name of names) {
    if (name === "..") {
      if (stack.length > 1) {
        stack.pop();
        path.push(name);
      }
      continue;
    }
    const folder = stack[stack.length - 1];
    const step = folder === undefined ? undefined : tree.step(folder, name);
    if (!step && !beyondLink) found = false;
    path.push(step?.name ?? name);
    stack.push(step?.directory);
    // What a link in the path leads to is for whoever follows it.
    if (step && step.directory === undefined) beyondLink = true;
  }
  return { path, found };
}
