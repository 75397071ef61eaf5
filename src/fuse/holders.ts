/**
 * Who keeps a mount busy. Everything is read from /proc and /sys, never from the mount: a path that leads into a stuck
 * mount would stick the one who asks as well.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { liesBeneath, listMounts, type Mount } from "./mounts.js";

/** A process, and what of it lies on the mount. */
export interface ProcessHolder {
  readonly pid: number;
  /** Its command's name, as `ps` shows it. */
  readonly command: string;
  /** `working folder /mnt/d`, `open file /mnt/d/disk.raw`, `mapped file ...`, `program ...`, `root folder ...`. */
  readonly holds: readonly string[];
}

/** A loop device over a file of the mount. */
export interface LoopHolder {
  /** `/dev/loop0`. */
  readonly device: string;
  readonly file: string;
  /** Where the device, or a partition of it, is mounted. */
  readonly mountpoints: readonly string[];
}

export interface Holders {
  readonly processes: readonly ProcessHolder[];
  readonly loops: readonly LoopHolder[];
  /** Mount points of other filesystems on the mount's own folders. */
  readonly mounts: readonly string[];
  /** How many processes of other users could not be looked at. */
  readonly hidden: number;
}

/**
 * What holds `mount` now. The process that asks is named only when nobody else is: what it has open it was started with,
 * and whoever started it has that as well.
 */
export function findHolders(mount: Mount): Holders {
  const processes: ProcessHolder[] = [];
  let asking: ProcessHolder | undefined;
  let hidden = 0;
  for (const name of entries("/proc")) {
    if (!/^[0-9]+$/.test(name)) continue;
    const holds = heldBy(`/proc/${name}`, mount);
    if (holds === "hidden") hidden++;
    else if (holds.length > 0) {
      const holder = { pid: Number(name), command: text(`/proc/${name}/comm`)?.trimEnd() ?? "?", holds };
      if (holder.pid === process.pid) asking = { ...holder, command: "this command itself" };
      else processes.push(holder);
    }
  }
  const mounts = listMounts();
  return {
    processes: processes.length === 0 && asking ? [asking] : processes,
    loops: loopsOn(mount, mounts),
    mounts: mounts.filter(({ parent, id }) => parent === mount.id && id !== mount.id).map((each) => each.mountpoint),
    hidden,
  };
}

function heldBy(folder: string, mount: Mount): string[] | "hidden" {
  const holds = new Set<string>();
  let open: string[];
  try {
    open = readdirSync(`${folder}/fd`);
  } catch (error) {
    // Kernel threads have no descriptors; a process that has ended holds nothing.
    return ["EACCES", "EPERM"].includes((error as NodeJS.ErrnoException).code ?? "") ? "hidden" : [];
  }
  for (const fd of open) {
    const id = /^mnt_id:\s*([0-9]+)$/m.exec(text(`${folder}/fdinfo/${fd}`) ?? "")?.[1];
    if (Number(id) === mount.id) holds.add(`open file ${link(`${folder}/fd/${fd}`) ?? fd}`);
  }
  for (const [name, words] of [
    ["cwd", "working folder"],
    ["root", "root folder"],
    ["exe", "program"],
  ] as const) {
    const path = link(`${folder}/${name}`);
    if (path && liesBeneath(path, mount.mountpoint)) holds.add(`${words} ${path}`);
  }
  for (const line of (text(`${folder}/maps`) ?? "").split("\n")) {
    // 7f2c54000000-7f2c54021000 r--s 00000000 00:34 2      /mnt/d/disk.raw
    const [, , , device, , ...path] = line.trim().split(/ +/);
    if (device && deviceNumber(device) === mount.device) holds.add(`mapped file ${path.join(" ")}`);
  }
  return [...holds];
}

/** `00:34` of maps, which is hexadecimal, as `0:52`. */
function deviceNumber(hexadecimal: string): string {
  const [major, minor] = hexadecimal.split(":");
  return `${Number.parseInt(major!, 16)}:${Number.parseInt(minor ?? "", 16)}`;
}

function loopsOn(mount: Mount, mounts: readonly Mount[]): LoopHolder[] {
  const loops: LoopHolder[] = [];
  for (const name of entries("/sys/block")) {
    if (!name.startsWith("loop")) continue;
    const file = text(`/sys/block/${name}/loop/backing_file`)?.replace(/\n$/, "");
    if (!file || !liesBeneath(file, mount.mountpoint)) continue;
    const device = `/dev/${name}`;
    const partitions = new RegExp(`^${device}(p[0-9]+)?$`);
    loops.push({
      device,
      file,
      mountpoints: mounts.filter(({ source }) => partitions.test(source)).map(({ mountpoint }) => mountpoint),
    });
  }
  return loops;
}

/** Holders as one sentence, with what to do about each; empty when none was found. */
export function describeHolders({ processes, loops, mounts, hidden }: Holders): string {
  const parts: string[] = [];
  const shown = processes.slice(0, 10).map(({ pid, command, holds }) => {
    const more = holds.length > 1 ? ` and ${holds.length - 1} more` : "";
    return `process ${pid} (${command}: ${holds[0]}${more})`;
  });
  if (processes.length > shown.length) shown.push(`${processes.length - shown.length} more processes`);
  if (shown.length > 0) parts.push(`held by ${shown.join(", ")}`);
  for (const { device, file, mountpoints } of loops) {
    const undo = [...mountpoints.map((path) => `umount ${path}`), `losetup -d ${device}`].join("; ");
    parts.push(`loop device ${device} is over ${file} (${undo})`);
  }
  for (const path of mounts) parts.push(`another filesystem is mounted at ${path} (umount ${path})`);
  if (parts.length === 0 && hidden > 0)
    parts.push(`${hidden} processes of other users could not be looked at; as root the command can name them`);
  return parts.join("; ");
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function text(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // ended in between, or not ours to see
  }
}

function link(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
