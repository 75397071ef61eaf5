import { createHash } from "node:crypto";
import { readSize, stretchesOf } from "../browsing/contents.js";
import { type ByteString, escaped, told } from "../browsing/names.js";
import { findPath } from "../browsing/paths.js";
import { walk } from "../browsing/walk.js";
import type { ByteSource } from "../bytes/byte-source.js";
import { corrupt } from "../errors.js";
import type { FileSystem } from "../filesystems/filesystem.js";
import type { Command } from "./command.js";
import { contentAt, contentOf } from "./file-contents.js";
import {
  type ImageArguments,
  imageOptions,
  imagePositional,
  type Problems,
  pathsInWords,
  pathsOf,
  withFiles,
} from "./image-files.js";
import { writeJson, writeParts } from "./long-results.js";

const algorithms = ["sha256", "sha1", "md5", "sha512", "blake2b512"];

interface Arguments extends ImageArguments {
  path?: string[];
  algorithm: string;
}

export const hash: Command<Arguments> = {
  syntax: "hash <image> [path..]",
  summary: "Checksums of files of an image",
  description:
    "Writes a checksum of each file, and of each file within a folder, as sha256sum does; the names begin at the root, so that sha256sum -c checks them in a folder where the image is mounted or copied to. " +
    `A file that can't be read whole has no checksum, but a message. ${pathsInWords}`,
  positionals: {
    image: imagePositional,
    path: { completes: "nothing", describe: "Files and folders; the root by default", array: true },
  },
  options: {
    algorithm: {
      choices: algorithms,
      default: "sha256",
      describe: "Which checksum; blake2b512 is what b2sum computes",
    },
    ...imageOptions,
  },
  examples: [
    ["spindle hash disk.spin > sums && cd /mnt/disk && sha256sum -c ~/sums", "Compare a mount with its image"],
    ["spindle hash --algorithm md5 disk.spin /boot", "As md5sum has them"],
  ],

  async run(given, terminal) {
    await withFiles(given, terminal, async (tree, problems) => {
      const hashed = digests(tree, given, problems);
      if (terminal.json)
        await writeJson(terminal, "files", inJson(hashed), () => ({
          algorithm: given.algorithm,
          problems: problems.kept,
        }));
      else await writeParts(terminal, inLines(hashed));
    });
  },
};

interface Hashed {
  readonly path: ByteString;
  readonly size: number;
  readonly digest: string;
}

function* digests(tree: FileSystem, given: Arguments, problems: Problems): Generator<Hashed> {
  const buffer = Buffer.allocUnsafe(readSize);
  const digest = (source: ByteSource, path: ByteString): Hashed => ({
    path,
    size: source.size,
    digest: digestOf(source, path, given.algorithm, buffer),
  });
  for (const path of pathsOf(given.path)) {
    const start = problems.try(path, () => folderAt(tree, path));
    if (start === undefined) continue;
    if (start === "no folder") {
      const one = problems.try(path, () => digest(contentAt(tree, path), path));
      if (one) yield one;
      continue;
    }
    for (const visit of walk(tree, start, path, { problem: problems.add, sorted: true })) {
      if (visit.kind !== "file") continue;
      const one = problems.try(visit.path, () => digest(contentOf(tree, visit.file, visit.path), visit.path));
      if (one) yield one;
    }
  }
}

function folderAt(tree: FileSystem, path: ByteString) {
  let found: ReturnType<typeof findPath>;
  try {
    found = findPath(tree, path, { follow: true });
  } catch (error) {
    // It may be a stream of a file, or nothing at all: contentAt tells.
    if ((error as { code?: string }).code === "missing") return "no folder";
    throw error;
  }
  const { kind } = tree.attributes(found.file);
  return kind === "directory" ? { file: found.file, name: found.name, kind } : "no folder";
}

const zeros = Buffer.alloc(readSize);

function digestOf(source: ByteSource, path: ByteString, algorithm: string, buffer: Uint8Array): string {
  const digest = createHash(algorithm);
  for (const stretch of stretchesOf(source, buffer)) {
    if (stretch.kind === "damage")
      throw corrupt(`${escaped(path)}: damaged at byte ${stretch.position}: ${stretch.error.message}`);
    if (stretch.kind === "data") digest.update(stretch.bytes);
    else
      for (let done = 0; done < stretch.length; done += zeros.length)
        digest.update(zeros.subarray(0, stretch.length - done));
  }
  return digest.digest("hex");
}

/** A name with a backslash or a line break is escaped, and its line begins with a backslash: so sha256sum has it. */
function* inLines(hashed: Iterable<Hashed>): Generator<ByteString> {
  const letters: Record<string, string> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r" };
  for (const { path, digest } of hashed) {
    // So that sha256sum -c looks for it in the folder where it is called.
    const name = path.replace(/^\/+/, "").replace(/[\\\n\r]/g, (character) => letters[character]!);
    yield `${/[\\\n\r]/.test(path) ? "\\" : ""}${digest}  ${name}\n`;
  }
}

function* inJson(hashed: Iterable<Hashed>): Generator<unknown> {
  for (const { path, size, digest } of hashed) yield { ...told("path", path), size, digest };
}
