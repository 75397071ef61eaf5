/** The file that a path of the command line names, as bytes: for `cat` and `hash`. */
import { FileBytes } from "../browsing/contents.js";
import { type ByteString, bytesOf, escaped } from "../browsing/names.js";
import { findPath } from "../browsing/paths.js";
import type { ByteSource } from "../bytes/byte-source.js";
import { ImageError, usage } from "../errors.js";
import type { FileId, FileSystem } from "../filesystems/filesystem.js";

/**
 * The content of `file`, which is known to be at `path`.
 * @throws ImageError `usage` for what has no content
 */
export function contentOf(tree: FileSystem, file: FileId, path: ByteString): ByteSource {
  const { kind, size } = tree.attributes(file);
  if (kind !== "file") throw usage(`${escaped(path)}: it is a ${kind === "directory" ? "folder" : kind}, not a file.`);
  return new FileBytes(tree, file, escaped(path), size);
}

/**
 * The file at `path`, or its stream: `file:stream` where no file has that very name.
 * @throws ImageError `missing` where there is neither
 */
export function contentAt(tree: FileSystem, path: ByteString): ByteSource {
  try {
    return contentOf(tree, findPath(tree, path, { follow: true }).file, path);
  } catch (error) {
    if (!(error instanceof ImageError) || error.code !== "missing") throw error;
    return streamAt(tree, path) ?? throwing(error);
  }
}

function streamAt(tree: FileSystem, path: ByteString): ByteSource | undefined {
  const colon = path.lastIndexOf(":");
  if (!tree.stream || colon <= path.lastIndexOf("/") + 1) return undefined;
  try {
    const { file } = findPath(tree, path.slice(0, colon), { follow: true });
    return tree.stream(file, bytesOf(path.slice(colon + 1)));
  } catch (error) {
    if (error instanceof ImageError && error.code === "missing") return undefined;
    throw error;
  }
}

function throwing(error: unknown): never {
  throw error;
}
