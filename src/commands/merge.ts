import type { Command } from "./command.js";
import { makeImage } from "./create.js";
import { type OpeningArguments, openingOptions } from "./opening.js";

interface Arguments extends OpeningArguments {
  image: string;
  out: string;
  base?: string;
  level?: string;
  chunk?: string;
  threads?: string;
  label?: string;
  comment?: string;
  force?: boolean;
}

export const merge: Command<Arguments> = {
  syntax: "merge <image> <out>",
  summary: "Make one image of a chain",
  description:
    "Makes OUT, one .spin image, of IMAGE and all that it builds on, whatever their formats: a full image, or with --base a differential against a .spin image further down the chain (or any other), so that those between can go. " +
    "The chunks of .spin images are checked against their digests and taken as they are, at the level at which they were packed, unless --level is given; what the base has is not even read. IMAGE and its bases are not changed.",
  positionals: {
    image: { describe: "The newest image of the chain: any format that Spindle reads" },
    out: { describe: "The .spin file to write" },
  },
  options: {
    base: { completes: "file", describe: "Make a differential against this .spin image" },
    level: { value: "N", describe: "Pack all chunks anew at this zstd level, 1 to 19" },
    chunk: { value: "SIZE", describe: "Chunk size, 16K to 4M, a power of two [the base's, or IMAGE's]" },
    threads: { value: "N", describe: "Worker threads [one a processor]" },
    label: { value: "TEXT", describe: "A name for OUT, kept in it [IMAGE's]" },
    comment: { value: "TEXT", describe: "A text kept in OUT [IMAGE's]" },
    force: { type: "boolean", describe: "Replace OUT if it exists" },
    ...openingOptions,
  },
  examples: [
    ["spindle merge friday.spin full.spin", "One full image of a week of differentials"],
    ["spindle merge --base monday.spin friday.spin week.spin", "What changed since Monday, in one differential"],
    ["spindle merge vm.qcow2 vm.spin", "A qcow2 image with its backing files"],
  ],

  async run({ image, out, ...given }, terminal) {
    await makeImage({ ...given, source: image, image: out }, terminal, "merging", {
      goesOn: { frames: given.level === undefined },
    });
  },
};
