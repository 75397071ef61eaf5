/** The `-o` list of mount(8), as far as it makes sense for a tree that this program serves. */
import { usage } from "../errors.js";
import type { MountOptions } from "./driver.js";

/** Meant for mount(8), systemd or /etc/fstab, which pass them to every helper; they say nothing about the mount itself. */
const forOthers = new Set([
  ...["defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev"],
]);

/** Whether an option of this name says nothing about the mount itself. */
export const isForOthers = (name: string): boolean => forOthers.has(name) || /^(x-|X-|comment$)/.test(name);

/** True of every mount here without being asked for. */
const always = new Set(["ro", "auto_unmount", "nonempty"]);

/** What the driver itself tells the kernel; from outside they could only break the mount. */
const own = new Set(["fd", "rootmode", "user_id", "group_id", "subtype", "blkdev", "blksize"]);

/**
 * Parses the lists given with `-o`, in their order; the last word on an option counts.
 * @param writable whether the mount is to be written to
 * @param fsname what /proc/mounts shows as the source unless `fsname=` is among the options
 * @throws ImageError `usage` for an option that can't be met
 */
export function parseMountOptions(lists: readonly string[], fsname: string, writable = false): MountOptions {
  let allowOther = false;
  const others: string[] = [];
  for (const option of lists.flatMap((list) => list.split(","))) {
    const equals = option.indexOf("=");
    const name = equals < 0 ? option : option.slice(0, equals);
    const value = equals < 0 ? undefined : option.slice(equals + 1);
    if (option === "" || isForOthers(name)) continue;
    if (/[\u0000-\u001f\u007f]/.test(option))
      throw usage("-o: an option holds a control character, which no mount option can have.");
    if (option === "ro" && writable) throw usage("-o ro and --writable exclude each other. Leave one of them out.");
    if (always.has(option) || (option === "rw" && writable)) continue;
    if (option === "rw")
      throw usage(
        "-o rw: Spindle never writes to an image. Leave the option out; --as disk --writable lets you write beside it.",
      );
    if (option === "suid" || option === "dev")
      throw usage(`-o ${option}: an image's files are not trusted that far; Spindle mounts with no${option} always.`);
    if (name === "allow_root")
      throw usage("-o allow_root: the kernel knows no such option. Use allow_other, which includes root.");
    if (own.has(name)) throw usage(`-o ${option}: Spindle sets ${name} itself. Leave the option out.`);
    if (option === "allow_other") allowOther = true;
    else if (name === "fsname") {
      if (!value) throw usage("-o fsname= needs a name, for example -o fsname=backup.");
      fsname = value;
    } else if (!others.includes(option)) others.push(option);
  }
  return { allowOther, fsname, others };
}
