/**
 * Spindle as mount(8) calls it for the type fuse.spindle: `mount.fuse.spindle IMAGE MOUNTPOINT [-sfnv] [-o OPTIONS]`; and
 * as mount.fuse3(8) calls it where that helper isn't in /sbin: `spindle IMAGE MOUNTPOINT -o OPTIONS` (bin/spindle.js). It is the mount command
 * with other words, mount(8)'s silence and its exit codes.
 */
import { existsSync } from "node:fs";
import { bugExitCode, main, type Streams } from "./cli.js";
import { commands } from "./commands/index.js";
import { mount } from "./commands/mount.js";
import { mountWords } from "./commands/mount-words.js";
import { exitCodes, ImageError } from "./errors.js";

/** Exit codes of mount(8). */
const mountCodes = { usage: 1, bug: 4, failed: 32 } as const;

/** Mounts what `argv` says and returns an exit code of mount(8). Never throws. */
export async function mountHelper(argv: readonly string[], { stdout, stderr }: Streams = process): Promise<number> {
  let words: ReturnType<typeof mountWords>;
  try {
    words = mountWords(argv, mount.options);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    stderr.write(`mount.fuse.spindle: ${error.message}\n`);
    return mountCodes.usage;
  }
  const { image, command, fake, verbose, mayBeAbsent } = words;
  // nofail of mount(8): no error where the device does not exist.
  if (fake || (mayBeAbsent && !existsSync(image))) return 0;
  const code = await main(command, commands, { stdout: verbose ? stdout : silent, stderr });
  if (code === 0) return 0;
  if (code === bugExitCode) return mountCodes.bug;
  return code === exitCodes.usage ? mountCodes.usage : mountCodes.failed;
}

const silent = { write: () => true };
