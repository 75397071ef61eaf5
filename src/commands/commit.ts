import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { openLayers } from "../chain.js";
import { usage } from "../errors.js";
import { createImage } from "../imaging/create.js";
import { settings } from "../settings.js";
import { version } from "../version.js";
import type { Command } from "./command.js";
import { counted, wholeNumber } from "./numbers.js";
import { humanSize } from "./sizes.js";
import type { Progress } from "./terminal.js";

interface Arguments {
  overlay: string;
  image: string;
  parent?: string;
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
    parent: { type: "string", describe: "where the image is that was written over, when it was moved" },
    level: { type: "string", describe: `zstd level, 1 to 19 (default ${settings.level})` },
    threads: { type: "string", describe: "worker threads (default: one a processor)" },
    label: { type: "string", describe: "a name for the image, kept in it" },
    comment: { type: "string", describe: "a text kept in the image" },
    force: { type: "boolean", describe: "replace IMAGE if it exists" },
  },
  examples: [["spindle commit work.overlay tuesday.spin", "keep what was written as a differential"]],

  async run(given, terminal) {
    const parent = given.parent === undefined ? undefined : resolve(given.parent);
    const base = baseOf(given.overlay, parent);
    const started = performance.now();
    let bar: Progress | undefined;
    let made: Awaited<ReturnType<typeof createImage>>;
    try {
      made = await createImage({
        source: given.overlay,
        sourceParent: parent,
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
function baseOf(path: string, parent: string | undefined): string | undefined {
  const opened = openLayers({ path, parent });
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
