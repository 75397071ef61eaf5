import { openLayers } from "../chain.js";
import type { Command } from "./command.js";
import { copyDisk } from "./restore.js";

interface Arguments {
  source: string;
  target: string;
  threads?: string;
  verify?: boolean;
  force?: boolean;
}

export const clone: Command<Arguments> = {
  syntax: "clone <source> <target>",
  summary: "Copy a disk as it is",
  description:
    "Copies the bytes of SOURCE, a file or a block device, to TARGET, a file or a block device, without compressing them. Holes and zeros take no room in a file. Everything is read back and compared, unless --no-verify is given. To unpack an image, use restore.",
  positionals: {
    source: { type: "string", describe: "file or block device to copy" },
    target: { type: "string", describe: "file or block device to write" },
  },
  options: {
    threads: { type: "string", value: "N", describe: "worker threads (default: one a processor)" },
    verify: { type: "boolean", default: true, describe: "read everything back and compare" },
    force: { type: "boolean", describe: "replace TARGET if it is a file that exists" },
  },
  examples: [
    ["spindle clone /dev/sda disk.raw", "a plain image that any tool opens"],
    ["spindle clone disk.raw /dev/sdb", "write a raw image to a disk"],
  ],

  async run(given, terminal) {
    const opened = openLayers({ path: given.source, format: "raw" });
    try {
      await copyDisk(opened, given.source, given, terminal, "copied");
    } finally {
      opened.close();
    }
  },
};
