import { closeSync, constants, openSync, type Stats } from "node:fs";
import { basename, dirname } from "node:path";
import { Copier, type CopyStart } from "../browsing/copy.js";
import { type ByteString, byteStringOfText, escaped, told } from "../browsing/names.js";
import { findPath } from "../browsing/paths.js";
import { system, usage } from "../errors.js";
import type { FileSystem } from "../filesystems/filesystem.js";
import { statOf } from "../imaging/output-file.js";
import type { Command } from "./command.js";
import {
  type ImageArguments,
  imageOptions,
  imagePositional,
  type Problems,
  pathsInWords,
  withFiles,
} from "./image-files.js";
import { humanSize } from "./sizes.js";

interface Arguments extends ImageArguments {
  path: string[];
  force?: boolean;
  plain?: boolean;
}

export const cp: Command<Arguments> = {
  syntax: "cp <image> <path..>",
  usage: "cp IMAGE PATH... TARGET",
  summary: "Copy files out of an image",
  description:
    "Copies files, and folders with all that is in them, to TARGET: into it when it is a folder, otherwise under its name. / is the whole image. " +
    "Everything that TARGET's filesystem and your rights allow is kept: content with its holes, hard links, symbolic links (never followed), modes, owners, times to the nanosecond, extended attributes with access control lists and capabilities, device nodes. What could not be kept is told once. " +
    `Nothing is written outside TARGET, whatever links the image has. A damaged file is copied as far as it can be read, the rest goes on, and the exit code is 5. ${pathsInWords}`,
  positionals: { image: imagePositional, path: { describe: "What to copy, and where to", array: true } },
  options: {
    force: { type: "boolean", describe: "Replace files that are there" },
    plain: {
      type: "boolean",
      describe:
        "Content, links, times and usual permissions only: no owners, set-id bits, extended attributes, devices",
    },
    ...imageOptions,
  },
  examples: [
    ["spindle cp disk.spin /etc/fstab .", "One file"],
    ["spindle cp disk.spin / /srv/copy", "Everything"],
    ["spindle cp --volume 2 disk.spin /home/ann /home/ben /srv", "Two folders of partition 2"],
  ],

  async run(given, terminal) {
    const words = [...given.path];
    const target = words.pop()!;
    if (words.length === 0) throw usage("PATH or TARGET is missing. See: spindle cp --help");
    const there = statOf(target);
    if (words.length > 1 && !there?.isDirectory())
      throw usage(
        `${target}: several files are copied to a folder only, and there is none of this name; make it first.`,
      );
    await withFiles(given, terminal, async (tree, problems) => {
      const started = performance.now();
      const starts = startsOf(tree, words, target, there, problems);
      const folder = openTarget(there?.isDirectory() ? target : dirname(target));
      const bar = terminal.progress("copying", contentOf(tree, starts));
      let copier: Copier;
      try {
        copier = new Copier(tree, folder, {
          force: given.force ?? false,
          plain: given.plain ?? false,
          problem: problems.add,
          progress: (bytes, files) => bar.update(bytes, `${files} files`),
        });
        for (const start of starts) copier.copy(start);
      } finally {
        bar.stop();
        closeSync(folder);
      }
      const { notKept, ...copied } = copier.copied;
      for (const { what, why, files, first } of notKept)
        terminal.note(
          `spindle: ${what} of ${files} ${files === 1 ? "file" : "files"} not kept (${why}), the first is ${escaped(first)}`,
        );
      const data = {
        target,
        ...copied,
        notKept: notKept.map(({ first, ...one }) => ({ ...one, ...told("first", first) })),
        failed: problems.kept,
        failures: problems.count,
        seconds: (performance.now() - started) / 1000,
      };
      terminal.result(data, ({ files, folders, bytes, failures, seconds }) => {
        const failed = failures === 0 ? "" : `, ${failures} ${failures === 1 ? "problem" : "problems"}`;
        return `${target}: ${files} files and ${folders} folders, ${humanSize(bytes)} copied${failed}, ${seconds.toFixed(1)} s`;
      });
    });
  },
};

/** What to copy, with the names in the folder that is written to. */
function startsOf(
  tree: FileSystem,
  words: readonly string[],
  target: string,
  there: Stats | undefined,
  problems: Problems,
): CopyStart[] {
  const into = there?.isDirectory() ?? false;
  return words.map(byteStringOfText).flatMap((path): CopyStart[] => {
    const start = problems.try(path, () => {
      const { file, name } = findPath(tree, path, { follow: false });
      const { kind } = tree.attributes(file);
      if (!into && kind !== "directory" && target.endsWith("/"))
        throw usage(`${escaped(path)}: ${target} is no folder that is there; make it first.`);
      return { file, kind, path, name: nameIn(into, name, target) };
    });
    return start ? [start] : [];
  });
}

/** The root has no name: what is in it goes right into a folder that is there. */
function nameIn(into: boolean, name: ByteString, target: string): ByteString | undefined {
  if (into) return name === "" ? undefined : name;
  return byteStringOfText(basename(target));
}

/** Bytes that will be copied, where that is known without a walk: of single files. */
function contentOf(tree: FileSystem, starts: readonly CopyStart[]): number | undefined {
  let total = 0;
  for (const { file, kind } of starts) {
    if (kind === "directory") return undefined;
    if (kind !== "file") continue;
    const { size, allocated } = tree.attributes(file);
    total += Math.min(size, allocated || size);
  }
  return total;
}

function openTarget(folder: string): number {
  try {
    return openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    throw system(`opening the target folder ${folder}`, error);
  }
}
