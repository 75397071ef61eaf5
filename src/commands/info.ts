import { ImageError } from "../errors.js";
import type { FileSystem } from "../filesystems/filesystem.js";
import { type FoundVolume, openFound } from "../open.js";
import type { Command } from "./command.js";
import { type FileSystemFacts, type FoundPlace, type InfoResult, infoText } from "./info-text.js";
import { type OpeningArguments, opening, openingOptions } from "./opening.js";
import { type ViewingArguments, viewingOf, viewingOptions } from "./viewing.js";

interface Arguments extends OpeningArguments, ViewingArguments {
  image: string;
}

export const info: Command<Arguments> = {
  syntax: "info <image>",
  summary: "Tell what an image holds",
  description:
    "Tells the image's format, the disk's size, every layer of the chain with what it records (id, content root, source, label, comment), the partitions, and the filesystems with their label, UUID, size and use. What Spindle knows but doesn't read (XFS, LVM, LUKS and so on) is named. Of the data only the records of the filesystems are read.",
  positionals: { image: { type: "string", describe: "the image" } },
  options: { ...openingOptions, ...viewingOptions },
  examples: [
    ["spindle info tuesday.spin", "the image, its base, its partitions"],
    ["spindle info --json backup.spin | jq .size", "one fact, for a script"],
  ],

  async run(given, terminal) {
    const viewing = viewingOf(given);
    const opened = await opening(given.image, given, (spec) => openFound({ ...spec, ...viewing }, undefined, terminal));
    try {
      const result: InfoResult = {
        path: given.image,
        format: opened.layers[0]!.format,
        size: opened.disk.size,
        chain: opened.layers.map(({ name, format, facts }, number) => ({
          file: name,
          format,
          facts,
          wrappings: opened.wrappings[number]!.map((wrapping) => ({
            file: wrapping.name,
            format: wrapping.format,
            facts: wrapping.facts,
          })),
        })),
        volumes: opened.table,
        filesystems: opened.found.map(placeFacts),
      };
      terminal.result(result, infoText);
    } finally {
      opened.close();
    }
  },
};

function placeFacts({ name, tree, problem, unread, encryption }: FoundVolume): FoundPlace {
  if (tree) return { name, filesystem: fileSystemFacts(tree), encryption };
  const told = unread && { type: unread.type, what: unread.what, label: unread.label, uuid: unread.uuid };
  return {
    name,
    filesystem: undefined,
    encryption,
    ...(told ? { unread: told } : {}),
    ...(problem ? { problem: problem.message } : {}),
  };
}

function fileSystemFacts(tree: FileSystem): FileSystemFacts {
  const { type, label, facts = {} } = tree;
  const warnings = [...(tree.warnings ?? [])];
  let size: number | undefined;
  let free: number | undefined;
  try {
    const { blockSize, blocks, freeBlocks } = tree.statistics;
    size = blocks * blockSize;
    free = freeBlocks * blockSize;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    warnings.push(error.message);
  }
  return { type, label, size, free, facts, warnings };
}
