/** The end of a mount, asked for from outside: by `spindle unmount`, or by a mount that finds a dead one in its place. */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { busy, ImageError } from "../errors.js";
import { settings } from "../settings.js";
import { describeHolders, findHolders } from "./holders.js";
import { listMounts, type Mount, mountAt, ourMountAt, ourType, resolveMountpoint } from "./mounts.js";
import { type Found, findRegistration, isRunning, startTimeOf, unregister } from "./registry.js";
import { unmountAt } from "./unmounting.js";

export interface Ended {
  readonly mountpoint: string;
  /**
   * `unmounted`: the server is gone. `cleaned`: it was dead before. `serving`: unmounted lazily, and the server still
   * has open files to serve.
   */
  readonly state: "unmounted" | "cleaned" | "serving";
  /** The serving process, where it is known. */
  readonly pid?: number;
}

/** Milliseconds that a server gets after a lazy unmount before open files are taken for the reason that it lives. */
const lazyPatience = 1000;
/** Milliseconds between two looks at a process. */
const lookInterval = 20;
/** Milliseconds in which a living server answers a stat, unless it is busy beyond measure. */
const statPatience = 3000;

/**
 * Unmounts the mount at `path` and waits until its server is gone.
 * @throws ImageError `busy` naming who holds it, `usage` when it is no mount of ours, `missing` when there is none, `system`
 *   when what was written to it may not all be durable
 */
export async function end(path: string, lazily: boolean): Promise<Ended> {
  const mountpoint = resolveMountpoint(path);
  const mount = ourMountAt(mountpoint);
  const server = findServer(mount);
  if (server === "dead" || (server === undefined && (await isStale(mountpoint)))) {
    await takeAwayDead(mount);
    return { mountpoint, state: "cleaned" };
  }
  const { pid } = server ?? {};
  if ((await unmountAt(mountpoint, lazily)) === "busy") {
    const holders = describeHolders(findHolders(mount));
    throw busy(
      `${mountpoint}: is in use${holders ? `: ${holders}` : ""}. End what uses it and try again, or take it away at once with: spindle unmount --lazy ${mountpoint}`,
    );
  }
  const isWritable = mount.options.includes("rw");
  const patience = lazily ? lazyPatience : isWritable ? settings.flushPatience : settings.endPatience;
  if (await goneWithin(patience, mount, server)) {
    if (isWritable && server?.registered) checkEnd(mountpoint, server.registered);
    return { mountpoint, state: "unmounted", pid };
  }
  if (lazily) return { mountpoint, state: "serving", pid };
  throw new ImageError(
    "system",
    `${mountpoint}: is unmounted, but ${pid ? `process ${pid}` : "the process"} that served it did not end within ${patience / 1000} seconds. Its log may tell why.`,
  );
}

/**
 * Takes away mounts of ours at `mountpoint` (as resolveMountpoint gives it) whose server has died: the kernel says so itself,
 * and nothing will ever be served there again. A server that only doesn't answer is left alone.
 * @returns whether there was one
 * @throws ImageError when this user may not take it away
 */
export async function endIfStale(mountpoint: string): Promise<boolean> {
  let found = false;
  for (;;) {
    const mount = mountAt(mountpoint);
    if (mount?.type !== ourType || !(await isStale(mountpoint))) return found;
    await takeAwayDead(mount);
    found = true;
  }
}

/** A server that has flushed what was written takes its registration away. */
function checkEnd(mountpoint: string, { path, registration: { pid, log } }: Found): void {
  if (!existsSync(path)) return;
  unregister(path);
  throw new ImageError(
    "system",
    `${mountpoint}: is unmounted, but process ${pid} that served it ended before all that was written was durable: what was written last may be lost.${log === undefined ? "" : ` Its log may tell why: ${log}`}`,
  );
}

async function takeAwayDead(mount: Mount): Promise<void> {
  const { mountpoint } = mount;
  try {
    await unmountAt(mountpoint, true);
  } catch (error) {
    // Its watchdog may have come first.
    if (mountAt(mountpoint)?.device === mount.device) throw error;
  }
  const found = findRegistration(mount);
  if (found && !found.alive) unregister(found.path);
}

interface ServerProcess {
  readonly pid: number;
  readonly startTime: number;
  readonly registered?: Found;
}

/** The process that serves `mount`; undefined where nothing tells. */
function findServer(mount: Mount): ServerProcess | "dead" | undefined {
  const found = findRegistration(mount);
  if (found) return found.alive ? { ...found.registration, registered: found } : "dead";
  return connectionHolder(mount);
}

/** The process with the other end of the mount's connection, as the fdinfo of newer kernels tells it. */
function connectionHolder({ device }: Mount): ServerProcess | undefined {
  const connection = device.split(":")[1];
  for (const name of entries("/proc")) {
    if (!/^[0-9]+$/.test(name)) continue;
    for (const fd of entries(`/proc/${name}/fd`)) {
      try {
        if (readlinkSync(`/proc/${name}/fd/${fd}`) !== "/dev/fuse") continue;
        const info = readFileSync(`/proc/${name}/fdinfo/${fd}`, "utf8");
        if (/^fuse_connection:\s*([0-9]+)$/m.exec(info)?.[1] !== connection) continue;
        return { pid: Number(name), startTime: startTimeOf(Number(name)) };
      } catch {
        // closed in between, or not ours to see
      }
    }
  }
  return undefined;
}

/** Whether the mount's server is dead, found by a stat in a process that may be left stuck without harm. */
function isStale(mountpoint: string): Promise<boolean> {
  return new Promise((done) => {
    let words = "";
    const child = spawn("stat", ["-c", "%i", "--", mountpoint], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, LC_ALL: "C" },
      cwd: "/",
    });
    const finish = (stale: boolean) => {
      clearTimeout(timer);
      child.stderr.destroy();
      child.unref();
      done(stale);
    };
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      finish(false);
    }, statPatience);
    child.stderr.on("data", (data: Buffer) => {
      words += data.toString();
    });
    child.on("error", () => finish(false));
    child.on("close", () => finish(/not connected|Socket is not connected|Device not configured/.test(words)));
  });
}

async function goneWithin(patience: number, mount: Mount, server: ServerProcess | undefined): Promise<boolean> {
  const isGone = () =>
    server ? !isRunning(server.pid, server.startTime) : !listMounts().some(({ device }) => device === mount.device);
  for (const until = Date.now() + patience; !isGone(); ) {
    if (Date.now() > until) return false;
    await new Promise((done) => setTimeout(done, lookInterval));
  }
  return true;
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
