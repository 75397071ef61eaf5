/**
 * The server of a mount that umount(8) has taken away: the kernel doesn't wait for it, and it may still be making durable what
 * was written. Who opens its overlay next waits for that, rather than find it in use.
 */
import { readFileSync } from "node:fs";
import type { Waiting } from "../packed/waiting.js";
import { listMounts, type Mount, ourType, parseMountinfo } from "./mounts.js";
import { allRegistrations, isRunning } from "./registry.js";

/** Milliseconds: a slow device takes a while for what the page cache has; a server with open files goes on for ever. */
const patience = 60_000;
const lookInterval = 50;

/**
 * Returns when no server without a mount has the overlay at `path` open any more, or after a minute.
 * @param path absolute
 */
export async function formerServerEnds(path: string, waiting?: Pick<Waiting, "note">): Promise<void> {
  const former = allRegistrations().find(
    ({ alive, registration }) => alive && registration.overlay === path && !isMounted(registration),
  );
  if (!former) return;
  const { pid, startTime } = former.registration;
  const until = Date.now() + patience;
  for (let told = false; isRunning(pid, startTime) && Date.now() < until; ) {
    // Mostly it takes less than what would be worth a word.
    if (!told && Date.now() > until - patience + 1000) {
      waiting?.note(`${path}: waiting for process ${pid}, which served it until it was unmounted`);
      told = true;
    }
    await new Promise((done) => setTimeout(done, lookInterval));
  }
}

function isMounted({ pid, device }: { readonly pid: number; readonly device: string }): boolean {
  const isThere = (mounts: readonly Mount[]) =>
    mounts.some((mount) => mount.type === ourType && mount.device === device);
  if (isThere(listMounts())) return true;
  try {
    // In another namespace.
    return isThere(parseMountinfo(readFileSync(`/proc/${pid}/mountinfo`, "utf8")));
  } catch {
    return false;
  }
}
