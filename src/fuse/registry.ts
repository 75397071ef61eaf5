/**
 * Who serves which mount: a JSON file for each, in a folder that only its owner may write to. It is a hint and never the
 * truth: what is mounted the kernel tells (mounts.ts), and whether the process lives /proc tells.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { ImageError, system } from "../errors.js";
import { listMounts, type Mount, ourType } from "./mounts.js";

export interface Registration {
  readonly pid: number;
  /** Of the process in clock ticks since boot, against a number that is used again; 0 where /proc does not tell. */
  readonly startTime: number;
  readonly mountpoint: string;
  /** `0:52`: while the mount exists, no other has it. */
  readonly device: string;
  readonly image: string;
  readonly driver: string;
  readonly view: string;
  /** Since when it is mounted, ISO 8601; older versions of Spindle don't tell. */
  readonly since?: string;
  /** Where the log goes; undefined for a server in the foreground, whose log is its stderr. */
  readonly log?: string;
  /** Where it is mounted, as /proc/PID/ns/mnt has it: who is elsewhere can't tell whether it still is. Older versions don't tell. */
  readonly namespace?: string;
  /** What is written to: the overlay's path, or `temporary`; undefined where nothing is. */
  readonly overlay?: string;
}

/** Bytes of a registration file at most: another user wrote it, perhaps to fill our memory. */
const largestRegistration = 64 * 1024;
/** Hours that the log of a mount which ended with something to say is kept; and what tells of a dead server elsewhere. */
const hoursOfLog = 7 * 24;
/** Hours that an empty log without a server is kept. */
const hoursOfEmptyLog = 1;

const userId = () => process.getuid?.() ?? 0;

/**
 * The runtime folder of this user, made if need be.
 * @throws ImageError when there is none that only this user may write to
 */
export function runtimeFolder(): string {
  const own = userId();
  const candidates = own === 0 ? ["/run/spindle", "/tmp/spindle-0"] : [`/tmp/spindle-${own}`];
  const session = process.env.XDG_RUNTIME_DIR;
  if (own !== 0 && session?.startsWith("/")) candidates.unshift(join(session, "spindle"));
  let reason: unknown;
  for (const folder of candidates) {
    try {
      makePrivate(folder, own);
      return folder;
    } catch (error) {
      reason = error;
    }
  }
  throw system("making a folder for the state of this mount", reason);
}

function makePrivate(folder: string, owner: number): void {
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  // In /tmp anybody could have made it before us.
  const stat = lstatSync(folder);
  if (!stat.isDirectory() || stat.uid !== owner || (stat.mode & 0o022) !== 0)
    throw new ImageError(
      "system",
      `${folder}: it is not a folder that only user ${owner} may write to, so Spindle does not trust it. Remove it, or set XDG_RUNTIME_DIR to a private folder.`,
    );
}

/** A name for the files of a new mount: no other mount has it, and it comes after those of older mounts. */
export const newName = () => `${Date.now().toString(36)}-${randomBytes(4).toString("hex")}`;

/** Writes the registration; under a temporary name first, so that nobody reads half of it. Returns its path. */
export function register(folder: string, name: string, registration: Registration): string {
  const path = join(folder, `${name}.json`);
  try {
    writeFileSync(`${path}.partial`, `${JSON.stringify(registration, undefined, 2)}\n`, { mode: 0o600, flag: "wx" });
    renameSync(`${path}.partial`, path);
  } catch (error) {
    remove(`${path}.partial`);
    throw system(`writing ${path}`, error);
  }
  return path;
}

/** The socket that belongs to the registration at `path` (figures.ts). */
export const socketOf = (path: string): string => path.replace(/\.json$/, ".sock");

/** Removes the registration at `path`, and its socket. */
export function unregister(path: string): void {
  remove(socketOf(path));
  remove(path);
}

/** Removes a file of the registry; that it is gone already is as good. */
export function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Gone, or another user's: a stale file does no harm.
  }
}

/** A registration and the file it stands in. */
export interface Found {
  readonly path: string;
  readonly registration: Registration;
  /** The number of the user who wrote it. */
  readonly owner: number;
  /** Whether the process that wrote it lives. */
  readonly alive: boolean;
}

/**
 * Who serves `mount`, as this user or, for root, the mount's owner registered it. A mount that has ended left its number to
 * this one, perhaps, though its server still lives (it may have much to flush) or left its registration when it died: so the
 * newest counts, and a dead one only where it was mounted.
 */
export function findRegistration(mount: Mount): Found | undefined {
  const owner = ownerOf(mount);
  return foldersOf(owner)
    .flatMap((folder) => registrations(folder, owner))
    .filter(({ registration }) => registration.device === mount.device)
    .sort((a, b) => (basename(a.path) < basename(b.path) ? 1 : -1)) // names begin with the time
    .find(({ alive, registration }) => alive || registration.mountpoint === mount.mountpoint);
}

/** The number of the user who made `mount`. */
export const ownerOf = ({ superOptions }: Mount): number =>
  Number(superOptions.find((option) => option.startsWith("user_id="))?.slice(8) ?? userId());

/** Every registration of this user; for root everybody's. */
export function allRegistrations(): Found[] {
  const owners = userId() === 0 ? usersWithFolders() : [userId()];
  return owners.flatMap((owner) => foldersOf(owner).flatMap((folder) => registrations(folder, owner)));
}

/** The numbers of all who may have a runtime folder. */
function usersWithFolders(): number[] {
  const numbers = new Set([0]);
  for (const [folder, form] of [
    ["/run/user", /^([0-9]+)$/],
    ["/tmp", /^spindle-([0-9]+)$/],
  ] as const)
    for (const name of namesIn(folder)) {
      const digits = form.exec(name)?.[1];
      if (digits !== undefined) numbers.add(Number(digits));
    }
  return [...numbers];
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // there is none, or it is not ours to see
  }
}

function foldersOf(owner: number): string[] {
  if (owner === 0) return ["/run/spindle", "/tmp/spindle-0"];
  const folders = [`/run/user/${owner}/spindle`, `/tmp/spindle-${owner}`];
  const session = process.env.XDG_RUNTIME_DIR;
  if (owner === userId() && session?.startsWith("/")) folders.unshift(join(session, "spindle"));
  return folders;
}

/** The registrations in `folder` that `owner` wrote. */
function registrations(folder: string, owner: number): Found[] {
  let names: string[];
  try {
    const stat = lstatSync(folder);
    if (!stat.isDirectory() || stat.uid !== owner) return [];
    names = readdirSync(folder);
  } catch {
    return []; // no such folder, or none that we may read
  }
  return names
    .filter((name) => name.endsWith(".json"))
    .map((name) => {
      const path = join(folder, name);
      const registration = readRegistration(path, owner);
      return registration && { path, registration, owner, alive: isAlive(registration, owner) };
    })
    .filter((found) => found !== undefined);
}

function readRegistration(path: string, owner: number): Registration | undefined {
  let fd: number | undefined;
  try {
    // Root reads what another user wrote: no link, no pipe, no endless file.
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.uid !== owner || stat.size > largestRegistration) return undefined;
    const bytes = Buffer.alloc(stat.size);
    const text = bytes.toString("utf8", 0, readSync(fd, bytes, 0, stat.size, 0));
    const told = JSON.parse(text) as Registration;
    const { pid, startTime, mountpoint, device, image, driver, view } = told;
    if (!Number.isSafeInteger(pid) || pid <= 0 || !Number.isSafeInteger(startTime)) return undefined;
    if (![mountpoint, device, image, driver, view].every((value) => typeof value === "string")) return undefined;
    // Of other versions; a time or a path that is none is as good as none.
    const known = (value: unknown) => (typeof value === "string" ? value : undefined);
    const [since, log, namespace, overlay] = [told.since, told.log, told.namespace, told.overlay].map(known);
    return { pid, startTime, mountpoint, device, image, driver, view, since, log, namespace, overlay };
  } catch {
    return undefined; // half a file, or gone in between
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** Whether the process that registered itself lives, and is the owner's. */
function isAlive({ pid, startTime }: Registration, owner: number): boolean {
  if (process.platform === "linux") {
    try {
      if (owner !== 0 && lstatSync(`/proc/${pid}`).uid !== owner) return false;
    } catch {
      return false;
    }
    return isRunning(pid, startTime);
  }
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Whether process `pid` runs and is the one that started at `startTime`. A zombie does not run. */
export function isRunning(pid: number, startTime: number): boolean {
  const stat = processStat(pid);
  return stat !== undefined && stat.state !== "Z" && stat.state !== "X" && stat.startTime === startTime;
}

/** Fields of /proc/PID/stat, proc_pid_stat(5): 3 is the state, 22 the start in clock ticks since boot. */
function processStat(pid: number): { state: string; startTime: number } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The second field is the command's name in parentheses, which may hold anything.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return { state: fields[0]!, startTime: Number(fields[19]) };
  } catch {
    return undefined;
  }
}

/** When process `pid` started, in clock ticks since boot; 0 when there is none. */
export const startTimeOf = (pid: number): number => processStat(pid)?.startTime ?? 0;

/**
 * Removes what dead servers left in this user's folder, unless the mount is still there, dead, or may be, in another namespace,
 * and one may want to know of what: their registrations, sockets and empty logs at once, a log in which something stands
 * after a week. An empty log that no registration names may be of a server that is just starting.
 * @param mountsNow what is mounted when it is asked
 */
export function clean(folder: string, mountsNow: () => readonly Mount[] = listMounts): void {
  const live = new Set<string | undefined>();
  const dead = new Set<string | undefined>();
  // In this order, since others mount meanwhile: whoever has a file registered itself before, after it had mounted.
  const names = readdirSync(folder);
  const registered = registrations(folder, userId());
  const mounts = mountsNow();
  for (const { path, alive, registration } of registered) {
    if (alive || isMounted(registration, mounts) || mayBeElsewhere(path, registration))
      live.add(registration.log).add(socketOf(path));
    else {
      dead.add(registration.log);
      unregister(path);
    }
  }
  for (const name of names) {
    const path = join(folder, name);
    if (live.has(path)) continue;
    // A server registers itself before it makes its socket.
    if (name.endsWith(".sock")) remove(path);
    if (!/\.(log|partial)$/.test(name)) continue;
    try {
      const { size, mtimeMs } = lstatSync(path);
      const hours = size > 0 ? hoursOfLog : dead.has(path) ? 0 : hoursOfEmptyLog;
      if (Date.now() - mtimeMs > hours * 3_600_000) unlinkSync(path);
    } catch {
      // gone in between
    }
  }
}

/** The mount namespace of this process; undefined where /proc doesn't tell. */
export function mountNamespace(): string | undefined {
  try {
    return readlinkSync("/proc/self/ns/mnt");
  } catch {
    return undefined;
  }
}

/** Whether it was mounted in a namespace that this process doesn't see into, within a week. */
function mayBeElsewhere(path: string, { namespace }: Registration): boolean {
  if (namespace === undefined || namespace === mountNamespace()) return false;
  try {
    return Date.now() - lstatSync(path).mtimeMs <= hoursOfLog * 3_600_000;
  } catch {
    return false; // gone in between
  }
}

const isMounted = ({ device, mountpoint }: Registration, mounts: readonly Mount[]): boolean =>
  mounts.some((mount) => mount.type === ourType && mount.device === device && mount.mountpoint === mountpoint);
