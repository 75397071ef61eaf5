/** Where `spindle boot` has its disk mounted, and what else its machine needs: /run/spindle/boot-PID-xxxxxx/disk. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ImageError } from "../errors.js";
import { end } from "./ending.js";
import { runtimeFolder } from "./registry.js";

const ofBoot = /^boot-([0-9]+)-/;

export const diskIn = (folder: string): string => join(folder, "disk");

/** Makes one for this process. Those that killed ones left are taken away, but while a machine has the disk in use. */
export async function makeBootFolder(): Promise<string> {
  const own = runtimeFolder();
  for (const name of readdirSync(own)) {
    const pid = ofBoot.exec(name)?.[1];
    if (pid === undefined || lives(Number(pid))) continue;
    await removeBootFolder(join(own, name)).catch((error: unknown) => {
      if (!(error instanceof ImageError)) throw error;
    });
  }
  const folder = mkdtempSync(join(own, `boot-${process.pid}-`));
  mkdirSync(diskIn(folder));
  return folder;
}

/** Unmounts the disk and removes the folder. @throws ImageError `busy` and others of unmounting; nothing is removed then */
export async function removeBootFolder(folder: string): Promise<void> {
  try {
    await end(diskIn(folder), false);
  } catch (error) {
    if (!(error instanceof ImageError && error.code === "missing")) throw error;
  }
  rmSync(folder, { recursive: true, force: true });
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}
