/**
 * Why a mount through libfuse 2 failed. The library tells no more than that it did, and has fusermount, which knows the
 * reason, write to nowhere: the usual reasons are looked for here.
 */
import { accessSync, constants, lstatSync, readFileSync } from "node:fs";
import { ImageError, missing, system } from "../errors.js";
import type { MountPlan } from "./driver.js";

/** What is thrown when the package's mount() fails with `error`. */
export function failureInWords(plan: MountPlan, error: unknown): ImageError {
  if (error instanceof ImageError) return error;
  const { mountpoint } = plan;
  const message = error instanceof Error ? error.message : String(error);
  if (message === "Mountpoint in use")
    return system(
      `mounting at ${mountpoint} with fuse-native`,
      new Error("something is mounted there already, on which this driver can't mount; use another folder"),
    );
  const reason =
    message === "fuse failed" && process.platform === "linux" ? (deviceMissing(plan) ?? userRefused(plan)) : undefined;
  // libfuse prints its own words to stderr, which is the log.
  return (
    reason ??
    system(
      `mounting at ${mountpoint} with fuse-native`,
      new Error(message === "fuse failed" ? "libfuse refused" : message),
    )
  );
}

function deviceMissing({ mountpoint }: MountPlan): ImageError | undefined {
  if (!exists("/dev/fuse"))
    return missing(
      `mounting at ${mountpoint}: there is no /dev/fuse. Load the fuse module (modprobe fuse); a container needs --device /dev/fuse.`,
    );
  return permitted("/dev/fuse", constants.R_OK | constants.W_OK)
    ? undefined
    : system(`mounting at ${mountpoint}`, new Error("this user may not open /dev/fuse; as root: chmod 666 /dev/fuse"));
}

/** What fusermount refuses to a normal user. */
function userRefused({ mountpoint, options }: MountPlan): ImageError | undefined {
  if (process.getuid?.() === 0) return undefined;
  if (!(process.env.PATH ?? "").split(":").some((folder) => exists(`${folder}/fusermount`)))
    return missing(
      `mounting at ${mountpoint}: libfuse 2 needs the fusermount command for normal users. Install it with: apt install fuse3`,
    );
  if (options.allowOther && mayAllowOther() === false)
    return new ImageError(
      "system",
      `mounting at ${mountpoint}: normal users may pass -o allow_other only if /etc/fuse.conf says so. Add the line user_allow_other to it as root, or leave out -o allow_other.`,
    );
  if (!permitted(mountpoint, constants.W_OK | constants.X_OK))
    return system(
      `mounting at ${mountpoint}`,
      new Error("normal users may mount only at a folder that they may write to; make one of your own"),
    );
  return undefined;
}

/** Undefined where the file can't be read. */
function mayAllowOther(): boolean | undefined {
  try {
    return /^\s*user_allow_other\s*$/m.test(readFileSync("/etc/fuse.conf", "utf8"));
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? false : undefined;
  }
}

function permitted(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

function exists(path: string): boolean {
  try {
    lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
