/**
 * What Spindle has mounted, and how it goes. The kernel tells what is mounted, the registry who serves it, the serving
 * process how it goes; nothing here touches a mount, which could wait for a server that is stuck.
 */
import { readFileSync } from "node:fs";
import { askFigures, type Figures } from "./figures.js";
import { attachedFolder, backingFile, loopDevices, wholeDevice } from "./loop-devices.js";
import {
  liesBeneath,
  listMounts,
  type Mount,
  ourMountAt,
  ourType,
  parseMountinfo,
  resolveMountpoint,
} from "./mounts.js";
import { allRegistrations, type Found, findRegistration, ownerOf, socketOf } from "./registry.js";

export interface Served {
  readonly mountpoint: string;
  /**
   * `serving`: it answers. `silent`: its process lives and can't be asked. `dead`: the process is gone, the mount isn't.
   * `unmounted`: nothing is mounted any more, but the process serves files that are still open. `elsewhere`: mounted
   * where this process can't see it, in another namespace. `unknown`: mounted by someone of whom no registration is found.
   */
  readonly state: "serving" | "silent" | "dead" | "unmounted" | "elsewhere" | "unknown";
  /** Why there are no figures, in words. */
  readonly problem?: string;
  readonly image: string;
  readonly view?: string;
  readonly driver?: string;
  readonly pid?: number;
  /** The number of the user who mounted. */
  readonly owner: number;
  /** Since when it is mounted, ISO 8601. */
  readonly since?: string;
  /** The log, where the server is in the background. */
  readonly log?: string;
  /** What is written to: the overlay's path, or `temporary`. */
  readonly overlay?: string;
  /** Loop devices over files of the mount, `spindle attach`'s or others. */
  readonly devices?: readonly string[];
  readonly figures?: Figures;
}

/** All mounts of Spindle that this user may know of: for root everybody's. In the order in which they were made. */
export async function listServed(): Promise<Served[]> {
  const mounts = listMounts().filter(({ type }) => type === ourType);
  const devices = new Set(mounts.map(({ device }) => device));
  const others = allRegistrations().filter(({ alive, registration }) => alive && !devices.has(registration.device));
  const served = await Promise.all([...mounts.map(servedAt), ...others.map(servedUnseen)]);
  return [...served, ...orphans(mounts)];
}

/** Devices of `spindle attach` whose server was killed, and whose mount is gone with it: they give errors until detached. */
function orphans(mounts: readonly Mount[]): Served[] {
  if (process.getuid?.() !== 0) return [];
  return loopDevices().flatMap((device) => {
    const folder = attachedFolder(device);
    if (folder === undefined || mounts.some(({ mountpoint }) => mountpoint === folder)) return [];
    const found = allRegistrations().find(({ registration }) => registration.mountpoint === folder);
    const facts = found ? factsOf(found, 0) : { mountpoint: folder, image: "?", owner: 0 };
    return [{ ...facts, devices: [device], state: "dead" as const, problem: died }];
  });
}

const died = "its server has died";

/**
 * How the mount at `path` goes, or the one whose file the loop device `path`, or that of the partition `path`, lies over.
 * @throws ImageError `missing` when nothing is mounted there, `usage` when it isn't Spindle's
 */
export async function servedBy(path: string): Promise<Served> {
  const loop = wholeDevice(path);
  const file = /^\/dev\/loop[0-9]+$/.test(loop) ? backingFile(loop) : undefined;
  const mounts = listMounts().filter(({ type }) => type === ourType);
  const device = file === undefined ? undefined : mounts.find(({ mountpoint }) => liesBeneath(file, mountpoint));
  if (device) return await servedAt(device);
  const orphan = orphans(mounts).find(({ devices }) => devices?.includes(loop));
  return orphan ?? (await servedAt(ourMountAt(resolveMountpoint(path))));
}

async function servedAt(mount: Mount): Promise<Served> {
  const { mountpoint } = mount;
  const owner = ownerOf(mount);
  const found = findRegistration(mount);
  if (!found) {
    const whose = owner === (process.getuid?.() ?? 0) ? "nothing tells who serves it" : "another user's";
    return { mountpoint, state: "unknown", problem: whose, image: mount.source, owner };
  }
  const devices = loopDevices().filter((device) => liesBeneath(backingFile(device) ?? "", mountpoint));
  const facts = { ...factsOf(found, owner), mountpoint, ...(devices.length > 0 ? { devices } : {}) };
  if (!found.alive) return { ...facts, state: "dead", problem: died };
  return { ...facts, ...(await figuresOf(found, owner, "serving")) };
}

/** Of a server that lives without a mount to be seen here. */
async function servedUnseen(found: Found): Promise<Served> {
  const { pid, device } = found.registration;
  let elsewhere = false;
  try {
    const there = parseMountinfo(readFileSync(`/proc/${pid}/mountinfo`, "utf8"));
    elsewhere = there.some((mount) => mount.type === ourType && mount.device === device);
  } catch {
    // it has ended in between
  }
  return {
    ...factsOf(found, found.owner),
    ...(await figuresOf(found, found.owner, elsewhere ? "elsewhere" : "unmounted")),
  };
}

function factsOf({ registration }: Found, owner: number) {
  const { mountpoint, image, view, driver, pid, since, log, overlay } = registration;
  const known = { since, log, overlay };
  return {
    ...{ mountpoint, image, view, driver, pid, owner },
    ...(Object.fromEntries(Object.entries(known).filter(([, value]) => value)) as Partial<typeof known>),
  };
}

async function figuresOf(found: Found, owner: number, state: Served["state"]) {
  const answer = await askFigures(socketOf(found.path), owner);
  return typeof answer === "string" ? { state: "silent" as const, problem: answer } : { state, figures: answer };
}
