/** Mount options as mount(2) and as fusermount3 want them. No I/O. */
import { usage } from "../../errors.js";
import { settings } from "../../settings.js";
import type { MountOptions } from "../driver.js";
import { isForOthers } from "../options.js";

/** Flags of mount(2), linux/mount.h. */
const flags: Record<string, number> = {
  ro: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  sync: 16,
  dirsync: 128,
  nosymfollow: 256,
  noatime: 1 << 10,
  nodiratime: 1 << 11,
  relatime: 1 << 21,
  strictatime: 1 << 24,
  lazytime: 1 << 25,
};

/** What is so without being asked for, under the names of mount(8). */
const usual = new Set(["exec", "async", "atime", "diratime", "norelatime", "nostrictatime", "nolazytime", "symfollow"]);

/** Options that the kernel's FUSE or its security modules read from mount(2)'s data. */
const data = /^(default_permissions|max_read=[0-9]+|(context|fscontext|defcontext|rootcontext)=[^,]+)$/;

/**
 * Arguments of mount(2) for root.
 * @throws ImageError `usage` naming an option that can't be met
 */
export function systemOptions(
  options: MountOptions,
  fd: number,
  user: number,
  group: number,
  writable = false,
): { flags: number; data: string } {
  let bits = (writable ? 0 : flags.ro) | flags.nosuid | flags.nodev;
  const words = [`fd=${fd}`, "rootmode=40000", `user_id=${user}`, `group_id=${group}`];
  if (options.allowOther) words.push("allow_other", "default_permissions");
  if (writable) words.push(...readLimit(options));
  for (const option of checked(options)) {
    if (Object.hasOwn(flags, option)) bits |= flags[option];
    else if (!words.includes(option)) words.push(option);
  }
  return { flags: bits, data: words.join(",") };
}

/**
 * The list after `-o` of fusermount3, which adds the descriptor and the user by itself.
 * @throws ImageError `usage` naming an option that can't be met
 */
export function helperOptions(options: MountOptions, writable = false): string {
  const words = [
    writable ? "rw" : "ro",
    "nosuid",
    "nodev",
    `fsname=${escapeOption(options.fsname)}`,
    "subtype=spindle",
  ];
  if (options.allowOther) words.push("allow_other", "default_permissions");
  if (writable) words.push(...readLimit(options));
  for (const option of checked(options)) if (!words.includes(option)) words.push(option);
  return words.join(",");
}

/** Requests may be large for the sake of writing, while reads are best in pieces that several workers take (settings.ts). */
const readLimit = ({ others }: MountOptions) =>
  others.some((option) => option.startsWith("max_read=")) ? [] : [`max_read=${settings.largestRequest}`];

/** fusermount3 takes a comma for the end of an option unless a backslash comes before it. */
export function escapeOption(value: string): string {
  return value.replace(/[\\,]/g, "\\$&");
}

/** Whether an option, of this name, is one that a mount takes or passes over: what mount(8)'s -s leaves in the list. */
export const knowsOption = (name: string, option: string): boolean =>
  isForOthers(name) ||
  ["ro", "allow_other", "fsname", "suid", "dev"].includes(name) ||
  Object.hasOwn(flags, option) ||
  usual.has(option) ||
  data.test(option);

function checked({ others }: MountOptions): string[] {
  return others.filter((option) => {
    if (Object.hasOwn(flags, option) || data.test(option)) return true;
    if (usual.has(option)) return false;
    throw usage(
      `-o ${option}: the direct driver knows no such option. It knows allow_other, fsname=NAME, default_permissions, max_read=BYTES, ${Object.keys(flags).join(", ")}.`,
    );
  });
}
