import { availableParallelism } from "node:os";
import type { ImageSpec } from "../chain.js";
import { usage } from "../errors.js";
import { createImage } from "../imaging/create.js";
import { settings } from "../settings.js";
import { version } from "../version.js";
import type { Command } from "./command.js";
import { counted, wholeNumber } from "./numbers.js";
import { type OpeningArguments, opening, openingOptions } from "./opening.js";
import { humanSize, parseSize } from "./sizes.js";
import type { Progress } from "./terminal.js";

interface Arguments extends OpeningArguments {
  source: string;
  image: string;
  base?: string;
  parent?: string;
  level?: string;
  chunk?: string;
  threads?: string;
  label?: string;
  comment?: string;
  force?: boolean;
}

export const create: Command<Arguments> = {
  syntax: "create <source> <image>",
  summary: "Make an image of a disk",
  description:
    "Makes IMAGE, a compressed .spin image, of SOURCE: a disk image file, a block device, or - for standard input. With --base it is a differential, which holds only what differs from that image. Holes are not read, and zeros take no room. A full image is a valid zstd stream of the disk: zstd -d unpacks it without Spindle.",
  positionals: {
    source: { type: "string", describe: "file or block device to image; - reads standard input to its end" },
    image: { type: "string", describe: "the .spin file to write" },
  },
  options: {
    base: { type: "string", completes: "file", describe: "make a differential against this .spin image" },
    level: { type: "string", value: "N", describe: `zstd level, 1 to 19 (default ${settings.level})` },
    chunk: {
      type: "string",
      value: "SIZE",
      describe: "chunk size, 16K to 4M, a power of two (default 64K, or the base's)",
    },
    threads: { type: "string", value: "N", describe: "worker threads (default: one a processor)" },
    label: { type: "string", value: "TEXT", describe: "a name for the image, kept in it" },
    comment: { type: "string", value: "TEXT", describe: "a text kept in the image" },
    force: { type: "boolean", describe: "replace IMAGE if it exists" },
    ...openingOptions,
    parent: { completes: "file", describe: "where the base of that base, or of SOURCE, is, when it was moved" },
    format: { ...openingOptions.format, alias: "source-format" },
  },
  examples: [
    ["spindle create /dev/sda backup.spin", "image a whole disk"],
    ["spindle create --base monday.spin disk.raw tuesday.spin", "only what changed since monday.spin"],
    ["spindle create vm.qcow2 vm.spin", "convert the image of another tool"],
    ["ssh host cat /dev/sda | spindle create - host.spin", "image a disk of another machine"],
  ],

  async run(given, terminal) {
    const stream = given.source === "-";
    if (stream && process.stdin.isTTY) throw usage("create -: standard input is a terminal; pipe a disk into it.");
    const started = performance.now();
    let bar: Progress | undefined;
    let made: Awaited<ReturnType<typeof createImage>>;
    try {
      const create = (spec: ImageSpec) =>
        createImage({
          source: given.source,
          opening: spec,
          stream: stream ? process.stdin : undefined,
          image: given.image,
          base: given.base,
          parent: spec.parent,
          chunkSize: given.chunk === undefined ? undefined : parseSize(given.chunk, "--chunk"),
          level: wholeNumber(given.level, "--level", 1, 19) ?? settings.level,
          threads: wholeNumber(given.threads, "--threads", 1, 256) ?? availableParallelism(),
          label: given.label,
          comment: given.comment,
          force: given.force ?? false,
          tool: `spindle ${version}`,
          progress(done, total, written) {
            bar ??= terminal.progress("creating", total);
            bar.update(done, written > 0 ? `ratio ${(done / written).toFixed(1)}` : undefined);
          },
        });
      made = await opening(given.source, given, create);
    } finally {
      bar?.stop();
    }
    const seconds = (performance.now() - started) / 1000;
    const data = {
      image: given.image,
      kind: given.base === undefined ? "full" : "differential",
      base: given.base,
      id: made.id.toString("hex"),
      contentRoot: made.contentRoot.toString("hex"),
      size: made.size,
      fileSize: made.fileSize,
      ratio: made.size / made.fileSize,
      chunkSize: made.chunkSize,
      storedChunks: made.storedChunks,
      seconds,
    };
    terminal.result(
      data,
      () =>
        `${given.image}: ${data.kind} image of ${humanSize(made.size)} in ${humanSize(made.fileSize)} (ratio ${data.ratio.toFixed(1)}), ${counted(made.storedChunks, "chunk")} stored, ${seconds.toFixed(1)} s`,
    );
  },
};
