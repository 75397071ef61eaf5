/** What every command that mounts lets the user say about how it talks to the kernel. */
import { usage } from "../errors.js";
import { type DriverName, defaultDriver } from "../fuse/request.js";
import type { Option } from "./command.js";
import type { Terminal } from "./terminal.js";

export interface DriverArguments {
  driver?: DriverName;
}

export const driverOption = {
  driver: {
    choices: ["direct", "fuse-native"],
    describe:
      "How to talk to the kernel: direct (Linux, the default there) or fuse-native (portable, slower; a disk that is written to can't be mapped shared, nor discarded from)",
  },
} satisfies Record<string, Option>;

/**
 * The driver that was asked for, or the usual one; why that isn't the direct one is noted.
 * @throws ImageError `usage` when the direct one can't run here
 */
export function driverOf({ driver }: DriverArguments, terminal: Terminal): DriverName {
  const usual = defaultDriver();
  if (driver === "direct" && usual.reason) throw usage(`--driver direct: ${usual.reason}. Use --driver fuse-native.`);
  if (driver === undefined && usual.reason) terminal.note(`using the fuse-native driver: ${usual.reason}`);
  return driver ?? usual.driver;
}
