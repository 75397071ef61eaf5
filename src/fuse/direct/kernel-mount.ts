/**
 * Making the mount and taking it away. Root calls mount(2); everybody else has fusermount3 (which is setuid root) do it
 * and is passed the descriptor of /dev/fuse through a socket.
 */
import { spawnSync } from "node:child_process";
import { closeSync, constants, existsSync, openSync, writeFileSync } from "node:fs";
import { ImageError, missing, system } from "../../errors.js";
import { failure, mount, receiveDescriptor, socketPair } from "../../libc.js";
import type { MountOptions } from "../driver.js";
import { type Mount, mountAt, ourType } from "../mounts.js";
import { unmountAt } from "../unmounting.js";
import { helperOptions, systemOptions } from "./mount-options.js";

export interface KernelMount {
  /** Of /dev/fuse; not inherited by child processes. The first request waits in it. */
  readonly fd: number;
  /** As mountinfo tells it; undefined when it was unmounted at once. */
  readonly mount: Mount | undefined;
}

/**
 * Mounts at an existing folder. The mount does not answer yet: whoever touches it waits for the first request's reply.
 * @throws ImageError telling why and what to do; nothing is mounted then
 */
export async function makeMount(mountpoint: string, options: MountOptions, writable: boolean): Promise<KernelMount> {
  if (!existsSync("/dev/fuse"))
    throw missing(
      "There is no /dev/fuse. Load the kernel module with `modprobe fuse` as root; in a container, start it with --device /dev/fuse.",
    );
  const fd =
    process.geteuid!() === 0
      ? mountAsRoot(mountpoint, options, writable)
      : await mountWithHelper(mountpoint, options, writable);
  const found = mountAt(mountpoint);
  return { fd, mount: found?.type === ourType ? found : undefined };
}

function mountAsRoot(mountpoint: string, options: MountOptions, writable: boolean): number {
  let fd: number;
  try {
    fd = openSync("/dev/fuse", constants.O_RDWR); // Node adds O_CLOEXEC
  } catch (error) {
    throw system("opening /dev/fuse", error);
  }
  try {
    const { flags, data } = systemOptions(options, fd, process.getuid!(), process.getgid!(), writable);
    if (mount(options.fsname || "spindle", mountpoint, ourType, flags, data) === 0) return fd;
    const error = failure("mount");
    if (error.code === "EPERM")
      throw new ImageError(
        "system",
        `mounting at ${mountpoint}: the system does not permit it (EPERM). In a container it takes --cap-add SYS_ADMIN and --device /dev/fuse.`,
        { cause: error },
      );
    throw system(`mounting at ${mountpoint} with the options ${data}`, error);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

async function mountWithHelper(mountpoint: string, options: MountOptions, writable: boolean): Promise<number> {
  const list = helperOptions(options, writable);
  const [ours, theirs] = socketPair();
  try {
    runHelper(mountpoint, list, theirs);
    const fd = receiveDescriptor(ours);
    if (fd !== undefined) return fd;
    await unmountAt(mountpoint, true);
    throw new ImageError("system", "fusermount3 mounted, but passed no descriptor of /dev/fuse.");
  } finally {
    closeSync(ours);
  }
}

/** Runs fusermount3 with `socket`, which is closed here: when the helper has ended, no other end is left to wait for. */
function runHelper(mountpoint: string, options: string, socket: number): void {
  try {
    const helper = spawnSync("fusermount3", ["-o", options, "--", mountpoint], {
      // The helper's descriptor 3, whose number it is told.
      stdio: ["ignore", "ignore", "pipe", socket],
      cwd: "/",
      env: { ...process.env, LC_ALL: "C", _FUSE_COMMFD: "3" },
      encoding: "utf8",
    });
    if ((helper.error as NodeJS.ErrnoException | undefined)?.code === "ENOENT")
      throw missing(
        "A normal user needs the fusermount3 command to mount, which is not installed. Install it with: apt install fuse3",
      );
    if (helper.error) throw system("starting fusermount3", helper.error);
    if (helper.status !== 0) throw refusal(mountpoint, helper.stderr.trim(), helper.status ?? helper.signal);
  } finally {
    closeSync(socket);
  }
}

function refusal(mountpoint: string, words: string, status: number | string | null): ImageError {
  if (/user_allow_other/.test(words))
    return new ImageError(
      "system",
      `mounting at ${mountpoint}: ${words}. Add the line user_allow_other to /etc/fuse.conf as root, or leave out -o allow_other.`,
    );
  if (/\/dev\/fuse.*Permission denied/.test(words))
    return new ImageError(
      "system",
      `mounting at ${mountpoint}: ${words}. Let everybody open it, as most systems do, with this command as root: chmod 666 /dev/fuse`,
    );
  const text = words || `fusermount3 failed (${status})`;
  return new ImageError("system", `mounting at ${mountpoint}: ${text}`);
}

/**
 * Takes the mount away lazily if it is still there and on top at its place; another's mount is left alone.
 * @throws ImageError `system` when it is not permitted
 */
export async function takeAway({ mount }: KernelMount): Promise<void> {
  if (!mount) return;
  const now = mountAt(mount.mountpoint);
  if (now?.id === mount.id && now.device === mount.device) await unmountAt(mount.mountpoint, true);
}

/** Sets the mount's readahead in KiB. @returns whether the system let it: only root may. */
export function raiseReadahead({ mount }: KernelMount, kibibytes: number): boolean {
  if (!mount) return false;
  try {
    writeFileSync(`/sys/class/bdi/${mount.device}/read_ahead_kb`, String(kibibytes));
    return true;
  } catch {
    return false; // it is a matter of speed only; counters() tells it
  }
}
