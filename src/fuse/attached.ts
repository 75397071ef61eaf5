/**
 * A disk as a block device with partitions: a loop device over disk.raw of a mount that nobody has to know of. The device
 * is the one name of it all; what belongs to it the kernel tells:
 *
 *     /dev/loop3 ── its file ──► /run/spindle/attached-PID-xxxxxx/disk.raw ── its mount ──► the server
 *
 * When the server has died, and its mount is taken away, the kernel no longer tells the whole path of the file. So the device's
 * sequence number, which no other use of it ever has, is written down beside the folder, in attached-PID-xxxxxx.loop. A folder
 * whose attaching process is gone and that no device belongs to is what a killed one left; the next attach or detach takes it
 * away.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { busy, ImageError, missing, system, usage } from "../errors.js";
import type { VolumeTable } from "../volumes/volume.js";
import { startInBackground } from "./background.js";
import { end } from "./ending.js";
import {
  attachedFolder,
  backingFile,
  folderStart,
  loopDevices,
  partitionsOf,
  sequenceOf,
  wholeDevice,
} from "./loop-devices.js";
import { listMounts, mountAt } from "./mounts.js";
import { remove, runtimeFolder } from "./registry.js";
import type { MountRequest } from "./request.js";
import type { Mounted } from "./service.js";

export interface Attached {
  /** `/dev/loop3`. */
  readonly device: string;
  /** `/dev/loop3p1` and so on. */
  readonly partitions: readonly string[];
  readonly mount: Mounted;
}

export interface Detached {
  readonly device: string;
}

/** Bytes in which the kernel is told of partitions, whatever the device's own sectors are. */
const sector = 512;
/** Milliseconds that a device without users gets to let go of its file. */
const patience = 5000;
const lookInterval = 20;

/**
 * Mounts a disk at a folder of its own and puts a loop device over it. Whatever fails, nothing stays.
 * @param request but for where to mount; its view is the disk
 * @param table the disk's partitions: the kernel knows fewer kinds of tables, or none, and is told of those it doesn't find
 * @throws ImageError
 */
export async function attach(
  request: Omit<MountRequest, "log" | "mountpoint">,
  table: VolumeTable,
  log?: string,
): Promise<Attached> {
  refuseOthers("attach");
  await takeLeftovers();
  const folder = mkdtempSync(join(runtimeFolder(), `${folderStart}${process.pid}-`));
  const signals = holdSignals();
  let device: string | undefined;
  try {
    const mount = await startInBackground({ ...request, mountpoint: folder }, log);
    signals.check();
    device = await run(
      "losetup",
      ...["--find", "--show", "--partscan", "--sector-size", String(table.sectorSize)],
      ...(request.writable ? [] : ["--read-only"]),
      join(folder, "disk.raw"),
    );
    writeFileSync(`${folder}.loop`, sequenceOf(device) ?? "", { mode: 0o600, flag: "wx" });
    const found = partitionsOf(device);
    for (const { number, position, size } of table.volumes)
      if (!found.includes(`${device}p${number}`))
        await run("addpart", device, ...[number, position / sector, Math.floor(size / sector)].map(String));
    signals.check();
    return { device, partitions: partitionsOf(device), mount };
  } catch (error) {
    if (device !== undefined) await run("losetup", "--detach", device).catch(() => {});
    await takeAway(folder);
    throw error;
  } finally {
    signals.release();
  }
}

/**
 * Takes away a device that `attach` made, its mount and its server, and waits until they are gone.
 * @param name `/dev/loop3` or `loop3`
 * @throws ImageError `busy` naming what uses it; nothing is changed then. `usage` for another's device
 */
export async function detach(name: string): Promise<Detached> {
  refuseOthers("detach");
  const device = name.startsWith("/") ? name : `/dev/${name}`;
  const whole = wholeDevice(device);
  if (whole !== device && attachedFolder(whole) !== undefined)
    throw usage(`${device}: is a part of ${whole}, which is detached as a whole: spindle detach ${whole}`);
  const file = /^\/dev\/loop[0-9]+$/.test(device) ? backingFile(device) : undefined;
  if (file === undefined) throw missing(`${device}: is no loop device in use. Loop devices are listed by: losetup`);
  const folder = attachedFolder(device);
  if (folder === undefined)
    throw usage(`${device}: was not made by spindle attach but is one over ${file}. Use: losetup -d ${device}`);
  const users = usersOf(device);
  if (users.length > 0) throw busy(`${device}: is in use: ${users.join(", ")}. End that first, then try again.`);
  const sequence = sequenceOf(device);
  await run("losetup", "--detach", device);
  for (const until = Date.now() + patience; backingFile(device) === file && sequenceOf(device) === sequence; ) {
    // The kernel lets go of it when it is closed, and the server ends then.
    if (Date.now() > until)
      throw busy(
        `${device}: is still open in some process, and is gone when that closes it. See who it is with: fuser -v ${device}*`,
      );
    await new Promise((done) => setTimeout(done, lookInterval));
  }
  await end(folder, false).catch((error: unknown) => {
    // Its server may have died, and its watchdog have taken the mount away.
    if (!(error instanceof ImageError && error.code === "missing")) throw error;
  });
  removeFolder(folder);
  await takeLeftovers();
  return { device };
}

function refuseOthers(command: string): void {
  if (process.platform !== "linux") throw usage(`${command}: loop devices are Linux's. Mount the image instead.`);
  if (process.getuid?.() !== 0)
    throw usage(`${command}: only root may make loop devices. Mount the image instead, or use sudo.`);
}

/** What a killed attach left behind. */
async function takeLeftovers(): Promise<void> {
  const used = new Set(loopDevices().map(attachedFolder));
  const own = runtimeFolder();
  for (const name of readdirSync(own)) {
    const pid = new RegExp(`^${folderStart}([0-9]+)-[^.]*$`).exec(name)?.[1];
    const folder = join(own, name);
    if (pid === undefined || Number(pid) === process.pid || used.has(folder) || lives(pid)) continue;
    await takeAway(folder);
  }
}

async function takeAway(folder: string): Promise<void> {
  if (mountAt(folder)) await end(folder, true).catch(() => {});
  removeFolder(folder);
}

function removeFolder(folder: string): void {
  try {
    rmdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") return; // still mounted: the next attach or detach takes it away
  }
  remove(`${folder}.loop`);
}

function lives(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("attach");
  } catch {
    return false;
  }
}

/** Mounts, swap areas and other devices over a device or its partitions, in words. */
function usersOf(device: string): string[] {
  const mounts = listMounts();
  const swaps = readFileSync("/proc/swaps", "utf8");
  return [device, ...partitionsOf(device)].flatMap((each) => {
    const name = basename(each);
    const folder = each === device ? `/sys/block/${name}` : `/sys/block/${basename(device)}/${name}`;
    const number = readFileSync(`${folder}/dev`, "utf8").trim();
    return [
      ...mounts
        .filter((mount) => mount.device === number)
        .map(({ mountpoint }) => `${each} is mounted at ${mountpoint}`),
      ...readdirSync(`${folder}/holders`).map((holder) => `${each} is held by ${holder}`),
      ...(swaps.split("\n").some((line) => line.startsWith(`${each} `)) ? [`${each} is swap space`] : []),
    ];
  });
}

/** Until released, a signal doesn't end the process half-way: `check` throws after one. */
function holdSignals() {
  let asked: NodeJS.Signals | undefined;
  const hold = (signal: NodeJS.Signals) => {
    asked ??= signal;
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, hold);
  return {
    check() {
      if (asked) throw new ImageError("system", `ended by ${asked}; nothing is attached`);
    },
    release() {
      for (const signal of signals) process.off(signal, hold);
    },
  };
}

/** Runs losetup(8) or addpart(8). @returns what it prints. @throws ImageError with its words */
function run(program: string, ...parameters: string[]): Promise<string> {
  return new Promise((done, fail) => {
    const child = spawn(program, parameters, {
      stdio: ["ignore", "pipe", "pipe"],
      cwd: "/",
      // Not reached by Ctrl-C: it would leave us without the device's name.
      detached: true,
      env: { ...process.env, PATH: `${process.env.PATH ?? ""}:/usr/sbin:/sbin`, LC_ALL: "C" },
    });
    let out = "";
    let words = "";
    child.stdout.on("data", (data: Buffer) => {
      out += data.toString();
    });
    child.stderr.on("data", (data: Buffer) => {
      words += data.toString();
    });
    child.on("error", () =>
      fail(missing(`${program}: is not installed. Install it with: apt install util-linux mount`)),
    );
    child.on("close", (code) => {
      if (code === 0) done(out.trim());
      else fail(system("making a loop device", new Error(words.trim() || `${program} ended with code ${code}`)));
    });
  });
}
