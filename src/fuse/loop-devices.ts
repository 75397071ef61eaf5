/**
 * Loop devices, as the kernel tells of them in /sys: reading that never touches the file that a device lies over. And which of
 * them `spindle attach` made (attached.ts).
 */
import { readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { runtimeFolder } from "./registry.js";

/** The loop devices that have a file: `/dev/loop3`, by number. */
export function loopDevices(): string[] {
  let names: string[];
  try {
    names = readdirSync("/sys/block");
  } catch {
    return []; // no Linux
  }
  return byNumber(names.filter((name) => /^loop[0-9]+$/.test(name)).map((name) => `/dev/${name}`)).filter(
    (device) => backingFile(device) !== undefined,
  );
}

/** The file of a loop device; undefined where it has none. Of a mount that is gone only the end of its path. */
export function backingFile(device: string): string | undefined {
  const text = told(device, "loop/backing_file");
  return text?.replace(/ \(deleted\)$/, "");
}

/** The number of this use of a device, which no other use of it ever has; undefined before Linux 5.15. */
export const sequenceOf = (device: string): string | undefined => told(device, "diskseq");

/** `/dev/loop3p1` and so on. */
export function partitionsOf(device: string): string[] {
  const name = basename(device);
  const names = readdirSync(`/sys/block/${name}`).filter((each) => each.startsWith(`${name}p`));
  return byNumber(names.map((each) => `/dev/${each}`));
}

/** The device that `/dev/loop3p1` is a part of; any other path as it is. */
export const wholeDevice = (path: string): string => path.replace(/^(\/dev\/loop[0-9]+)p[0-9]+$/, "$1");

/** How the folders begin in the runtime folder at which `spindle attach` mounts. */
export const folderStart = "attached-";

/** The folder of a device that `spindle attach` made, where its disk is mounted or was; undefined for any other. */
export function attachedFolder(device: string): string | undefined {
  const own = runtimeFolder();
  const file = backingFile(device);
  if (file === undefined) return undefined;
  const folder = dirname(file);
  if (dirname(folder) === own && basename(folder).startsWith(folderStart)) return folder;
  const sequence = sequenceOf(device);
  const record = readdirSync(own).find(
    (name) => name.startsWith(folderStart) && name.endsWith(".loop") && contentOf(join(own, name)) === sequence,
  );
  return sequence === undefined || record === undefined ? undefined : join(own, record.slice(0, -".loop".length));
}

const lastNumber = (name: string) => Number(/[0-9]+$/.exec(name)?.[0]);
const byNumber = (names: string[]) => names.sort((a, b) => lastNumber(a) - lastNumber(b));

const told = (device: string, what: string) => contentOf(`/sys/block/${basename(device)}/${what}`);

function contentOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").replace(/\n$/, "") || undefined;
  } catch {
    return undefined;
  }
}
