import { availableParallelism } from "node:os";
import { type ImageSpec, openLayers } from "../chain.js";
import { usage } from "../errors.js";
import { formerServerEnds } from "../fuse/former-server.js";
import { createImage } from "../imaging/create.js";
import { settings } from "../settings.js";
import { version } from "../version.js";
import type { Command } from "./command.js";
import { counted, wholeNumber } from "./numbers.js";
import { type OpeningArguments, opening, openingOptions } from "./opening.js";
import { humanSize } from "./sizes.js";
import type { Progress } from "./terminal.js";

interface Arguments extends OpeningArguments {
  overlay: string;
  image: string;
  level?: string;
  threads?: string;
  label?: string;
  comment?: string;
  force?: boolean;
}

export const commit: Command<Arguments> = {
  syntax: "commit <overlay> <image>",
  summary: "Make an image of what was written to a mounted one",
  description:
    "Makes IMAGE, a compressed and checksummed .spin image, of OVERLAY, to which `spindle mount --writable=OVERLAY` wrote. Over a .spin image it is a differential of it: only chunks that were written to are read, so it takes as long as what was written takes. Over an image of another format it is a full image, since only a .spin image can be the base of one. The overlay stays as it is; it may be removed, or written on.",
  positionals: {
    overlay: { type: "string", describe: "what was written; not while it is mounted" },
    image: { type: "string", describe: "the .spin file to write" },
  },
  options: {
    level: { type: "string", value: "N", describe: `zstd level, 1 to 19 (default ${settings.level})` },
    threads: { type: "string", value: "N", describe: "worker threads (default: one a processor)" },
    label: { type: "string", value: "TEXT", describe: "a name for the image, kept in it" },
    comment: { type: "string", value: "TEXT", describe: "a text kept in the image" },
    force: { type: "boolean", describe: "replace IMAGE if it exists" },
    parent: { completes: "file", describe: "where the image is that was written over, when it was moved" },
    "password-file": openingOptions["password-file"],
    "trust-paths": openingOptions["trust-paths"],
  },
  examples: [["spindle commit work.overlay tuesday.spin", "keep what was written as a differential"]],

  async run(given, terminal) {
    const started = performance.now();
    let bar: Progress | undefined;
    let base: string | undefined;
    let made: Awaited<ReturnType<typeof createImage>>;
    await formerServerEnds(given.overlay, terminal);
    try {
      made = await opening(given.overlay, given, (said) => {
        // What was written is kept as it was: over the plain bytes, or over the disk as it is stored.
        const spec = { ...said, asStored: true };
        base = baseOf(spec);
        return createImage({
          source: given.overlay,
          opening: spec,
          parent: spec.parent,
          image: given.image,
          base,
          level: wholeNumber(given.level, "--level", 1, 19) ?? settings.level,
          threads: wholeNumber(given.threads, "--threads", 1, 256) ?? availableParallelism(),
          label: given.label,
          comment: given.comment,
          force: given.force ?? false,
          tool: `spindle ${version}`,
          progress(done, total) {
            bar ??= terminal.progress("committing", total);
            bar.update(done);
          },
        });
      });
    } finally {
      bar?.stop();
    }
    const seconds = (performance.now() - started) / 1000;
    const data = {
      image: given.image,
      kind: base === undefined ? "full" : "differential",
      base,
      id: made.id.toString("hex"),
      contentRoot: made.contentRoot.toString("hex"),
      size: made.size,
      fileSize: made.fileSize,
      chunkSize: made.chunkSize,
      storedChunks: made.storedChunks,
      seconds,
    };
    terminal.result(
      data,
      () =>
        `${given.image}: ${data.kind} image${base === undefined ? "" : ` over ${base}`} in ${humanSize(made.fileSize)}, ${counted(made.storedChunks, "chunk")} stored, ${seconds.toFixed(1)} s`,
    );
  },
};

/** The .spin image that an overlay, or an overlay of an overlay, was written over; undefined where it is of another format. */
function baseOf(spec: ImageSpec): string | undefined {
  const { path } = spec;
  const opened = openLayers(spec);
  try {
    if (opened.layers[0]!.format !== "overlay")
      throw usage(
        `${path}: is no overlay (${opened.layers[0]!.format}). To make an image of a disk use: spindle create`,
      );
    const beneath = opened.layers.find(({ format }) => format !== "overlay")!;
    return beneath.format === "spin" ? beneath.name : undefined;
  } finally {
    opened.close();
  }
}
