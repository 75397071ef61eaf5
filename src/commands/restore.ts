import { availableParallelism } from "node:os";
import { openLayers } from "../chain.js";
import { restoreDisk } from "../imaging/restore.js";
import type { Command } from "./command.js";
import { wholeNumber } from "./numbers.js";
import { type OpeningArguments, opening, openingOptions } from "./opening.js";
import { humanSize } from "./sizes.js";
import type { Terminal } from "./terminal.js";

interface Arguments extends OpeningArguments {
  image: string;
  target: string;
  threads?: string;
  verify?: boolean;
  force?: boolean;
}

export const restore: Command<Arguments> = {
  syntax: "restore <image> <target>",
  summary: "Write an image back to a disk or a file",
  description:
    "Writes the disk that IMAGE and its bases hold to TARGET, a block device or a file. Holes stay holes. A device that is mounted, otherwise in use or too small is refused before a byte is written. A file appears only when it is complete.",
  positionals: {
    image: { type: "string", describe: "the image" },
    target: { type: "string", describe: "block device or file to write" },
  },
  options: {
    ...openingOptions,
    threads: { type: "string", value: "N", describe: "worker threads (default: one a processor)" },
    verify: { type: "boolean", describe: "read everything back and compare" },
    force: { type: "boolean", describe: "replace TARGET if it is a file that exists" },
  },
  examples: [
    ["spindle restore backup.spin /dev/sdb --verify", "restore to a new disk and check it"],
    ["spindle restore tuesday.spin disk.raw", "the raw disk of a differential"],
  ],

  async run(given, terminal) {
    const opened = await opening(given.image, given, (spec) => openLayers(spec));
    try {
      await copyDisk(opened, given.image, given, terminal, "restored");
    } finally {
      opened.close();
    }
  },
};

/** What restore and clone share: the copy, its progress and its result. */
export async function copyDisk(
  opened: ReturnType<typeof openLayers>,
  source: string,
  given: { target: string; threads?: string; verify?: boolean; force?: boolean },
  terminal: Terminal,
  word: string,
): Promise<void> {
  const started = performance.now();
  let phase = "writing";
  let bar = terminal.progress(phase, opened.disk.size);
  try {
    const done = await restoreDisk(opened, {
      target: given.target,
      force: given.force ?? false,
      verify: given.verify ?? false,
      threads: wholeNumber(given.threads, "--threads", 1, 256) ?? availableParallelism(),
      progress(now, bytes, total) {
        if (now !== phase) {
          bar.stop();
          bar = terminal.progress(now, total);
          phase = now;
        }
        bar.update(bytes);
      },
    });
    bar.stop();
    const seconds = (performance.now() - started) / 1000;
    const verified = done.compared !== undefined;
    const data = { source, target: given.target, size: done.size, written: done.written, verified, seconds };
    terminal.result(
      data,
      () =>
        `${given.target}: ${humanSize(done.size)} ${word} (${humanSize(done.written)} written${verified ? ", read back and equal" : ""}), ${seconds.toFixed(1)} s`,
    );
  } finally {
    bar.stop();
  }
}
