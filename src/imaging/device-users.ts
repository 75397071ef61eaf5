/** Who uses a block device: asked before anything is written to one. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { deviceFolder } from "./device-facts.js";

/** What holds the device, one of its partitions or its whole disk, in words; empty when nobody does. */
export function deviceUsers(rdev: number): string[] {
  const folder = deviceFolder(rdev);
  const folders = [folder, ...partitionsOf(folder)];
  const users: string[] = [];
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const swaps = readFileSync("/proc/swaps", "utf8").split("\n").slice(1);
  for (const one of folders) {
    const name = basename(one);
    const number = read(`${one}/dev`);
    for (const line of mounts) {
      const fields = line.split(" ");
      if (number !== undefined && fields[2] === number) users.push(`${name} is mounted on ${unescaped(fields[4]!)}`);
    }
    if (swaps.some((line) => line.split(/\s/)[0] === `/dev/${name}`)) users.push(`${name} is swap space`);
    for (const holder of list(`${one}/holders`)) users.push(`${name} belongs to ${holder}`);
  }
  return users;
}

/** Whether one of two block devices is a partition of the other. */
export function isPartOf(rdev: number, other: number): boolean {
  const [a, b] = [deviceFolder(rdev), deviceFolder(other)];
  return a.startsWith(`${b}/`) || b.startsWith(`${a}/`);
}

function partitionsOf(folder: string): string[] {
  return list(folder)
    .map((name) => `${folder}/${name}`)
    .filter((path) => existsSync(`${path}/partition`));
}

/** The kernel writes blanks of a path as `\\040`. */
const unescaped = (path: string) =>
  path.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}
