/**
 * The server of a mount that umount(8) has taken away: the kernel doesn't wait for it, and it may still be making durable what
 * was written. Who opens its overlay next waits for that, rather than find it in use.
 */
import { readFileSync, realpathSync } from "node:fs";
import type { Waiting } from "../packed/waiting.js";
import { settings } from "../settings.js";
import { askFigures } from "./figures.js";
import { listMounts, type Mount, ourType, parseMountinfo } from "./mounts.js";
import { allRegistrations, type Found, findRegistration, isRunning, socketOf } from "./registry.js";

/** Milliseconds after which it is worth a word that something is waited for. */
const silence = 1000;
const lookInterval = 50;

/**
 * Returns when no server without a mount has the overlay at `path` open any more. After `settings.flushPatience` it returns
 * whatever goes on, and after `settings.endPatience` where the server has time to tell how it goes: files are open still.
 * @param path of the overlay, which needn't be there
 */
export async function formerServerEnds(path: string, waiting?: Pick<Waiting, "note">): Promise<void> {
  const overlay = realPath(path);
  const former = allRegistrations().find(
    (found) => found.alive && overlay !== undefined && found.registration.overlay === overlay && !isMounted(found),
  );
  if (!former) return;
  const { pid, startTime } = former.registration;
  const start = Date.now();
  for (let told = false; isRunning(pid, startTime); ) {
    const waited = Date.now() - start;
    if (waited > settings.flushPatience) return;
    if (waited > settings.endPatience && (await answers(former))) return;
    // Mostly it takes less than what would be worth a word.
    if (!told && waited > silence) {
      waiting?.note(`${path}: waiting for process ${pid}, which served it until it was unmounted`);
      told = true;
    }
    await new Promise((done) => setTimeout(done, lookInterval));
  }
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined; // nobody has it open, or who opens it is told why that can't be done
  }
}

/** Whether the server tells its figures: one that is flushing doesn't come to it. */
const answers = async ({ path, owner }: Found) => typeof (await askFigures(socketOf(path), owner)) !== "string";

function isMounted(found: Found): boolean {
  const { pid, device } = found.registration;
  // The number of a mount that has ended is given to the next one.
  const isThere = (mounts: readonly Mount[]) =>
    mounts.some(
      (mount) => mount.type === ourType && mount.device === device && findRegistration(mount)?.path === found.path,
    );
  if (isThere(listMounts())) return true;
  try {
    // In another namespace.
    return isThere(parseMountinfo(readFileSync(`/proc/${pid}/mountinfo`, "utf8")));
  } catch {
    return false;
  }
}
