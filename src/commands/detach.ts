import { detach as detachDevice } from "../fuse/attached.js";
import type { Command } from "./command.js";

interface Arguments {
  device: string;
}

export const detach: Command<Arguments> = {
  syntax: "detach <device>",
  summary: "Take away a block device that attach made",
  description:
    "Takes away the loop device of `spindle attach` and all that belongs to it, and returns when what was written is durable. A device that is in use is refused, with what uses it.",
  positionals: { device: { completes: "file", describe: "What attach printed, for example /dev/loop0" } },
  options: {},
  examples: [["spindle detach /dev/loop0", "Take it away"]],
  async run({ device }, terminal) {
    const detached = await detachDevice(device);
    terminal.result(detached, () => `${detached.device} is detached`);
  },
};
