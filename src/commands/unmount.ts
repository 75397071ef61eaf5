import { end } from "../fuse/ending.js";
import type { Command } from "./command.js";

interface Arguments {
  mountpoint: string;
  lazy?: boolean;
}

export const unmount: Command<Arguments> = {
  syntax: "unmount <mountpoint>",
  summary: "End a mount",
  description:
    "Unmounts what `spindle mount` mounted, and returns when the process that served it is gone. A mount that is in use " +
    "is refused, with the processes and loop devices that hold it. A mount whose server has died is cleaned up.",
  positionals: { mountpoint: { completes: "mount", describe: "Where the image is mounted" } },
  options: {
    lazy: {
      type: "boolean",
      describe: "Take it out of the tree at once, even if it is in use; open files are served until they are closed",
    },
  },
  examples: [["spindle unmount /mnt/disk", "End the mount at /mnt/disk"]],
  async run({ mountpoint, lazy = false }, terminal) {
    const ended = await end(mountpoint, lazy);
    terminal.result(ended, ({ mountpoint: path, state, pid }) => {
      if (state === "cleaned") return `${path}: the server had died; the mount it left is removed`;
      if (state === "serving")
        return `${path} is unmounted; process ${pid ?? "unknown"} serves the files that are still open, and ends when they are closed`;
      return `${path} is unmounted`;
    });
  },
};
