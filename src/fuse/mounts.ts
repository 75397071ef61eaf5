/**
 * What is mounted where, as the kernel tells it in /proc/self/mountinfo: reading that file never touches a mount, so it
 * also answers for one whose server is dead or stuck.
 */
import { spawnSync } from "node:child_process";
import { lstatSync, readFileSync, readlinkSync, realpathSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { missing, system, usage } from "../errors.js";

export interface Mount {
  /** Of this mount; may be used again after it is gone. */
  readonly id: number;
  /** The id of the mount that this one lies on. */
  readonly parent: number;
  /** st_dev of the files in it: `0:52`. */
  readonly device: string;
  readonly mountpoint: string;
  /** `fuse.spindle`, `ext4`. */
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
  /** Options of the filesystem rather than of this mount of it: `user_id=1000`. */
  readonly superOptions: readonly string[];
}

/** The type of all our mounts. */
export const ourType = "fuse.spindle";

/** The lines of mountinfo, proc_pid_mountinfo(5). A line that is not understood is left out. */
export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const fields = line.split(" ");
    // The number of optional fields before the hyphen varies.
    const hyphen = fields.indexOf("-", 6);
    if (hyphen < 0 || fields.length < hyphen + 4) continue;
    mounts.push({
      id: Number(fields[0]),
      parent: Number(fields[1]),
      device: fields[2]!,
      mountpoint: unescapeField(fields[4]!),
      options: fields[5]!.split(","),
      type: unescapeField(fields[hyphen + 1]!),
      source: unescapeField(fields[hyphen + 2]!),
      superOptions: fields[hyphen + 3]!.split(","),
    });
  }
  return mounts;
}

/** Space, tab, newline, backslash and `#` are written as three octal digits. */
function unescapeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** A mount point as mountinfo writes it (where a source has `#` escaped, a path has not). */
export function escapeMountpoint(path: string): string {
  return path.replace(/[ \t\n\\]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, "0")}`);
}

/** The lines of macOS's mount(8): `spindle@macfuse0 on /Users/a/m (macfuse, nodev, nosuid, read-only)`. */
export function parseMountCommand(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const match = /^(.*?) on (.*) \(([^()]*)\)$/.exec(line);
    if (!match) continue;
    const [type, ...options] = match[3]!.split(", ");
    // There is no number; a new mount has a new device name.
    const source = match[1]!;
    const ours = /fuse/.test(type!) && /^spindle@/.test(source);
    mounts.push({
      id: 0,
      parent: 0,
      device: source,
      mountpoint: match[2]!,
      type: ours ? ourType : type!,
      source,
      options,
      superOptions: [],
    });
  }
  return mounts;
}

/** All mounts that this process sees. */
export function listMounts(): Mount[] {
  if (process.platform === "darwin")
    return parseMountCommand(spawnSync("/sbin/mount", { encoding: "utf8" }).stdout ?? "");
  try {
    return parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8"));
  } catch (error) {
    throw system("reading /proc/self/mountinfo", error);
  }
}

/**
 * The mount that one reaches at `path` (as resolveMountpoint gives it): the topmost of those stacked there, unless a
 * later mount on a folder above hides them all.
 */
export function mountAt(path: string, mounts: readonly Mount[] = listMounts()): Mount | undefined {
  const ids = new Set(mounts.map(({ id }) => id));
  let current = mounts.find(({ mountpoint, id, parent }) => mountpoint === "/" && (parent === id || !ids.has(parent)));
  // In a chroot the root may be no mount, and macOS has no numbers: then the last of the list is the latest.
  if (!current || mounts.some(({ id }) => id === 0))
    return mounts.filter(({ mountpoint }) => mountpoint === path).at(-1);
  for (const prefix of prefixes(path)) {
    const seen = new Set<number>();
    for (;;) {
      const id: number = current.id;
      const next: Mount | undefined = mounts.find(
        (mount) => mount.parent === id && mount.id !== id && mount.mountpoint === prefix && !seen.has(mount.id),
      );
      if (!next) break;
      seen.add(next.id);
      current = next;
    }
  }
  return current.mountpoint === path ? current : undefined;
}

/**
 * Our mount at `mountpoint`, as resolveMountpoint gives it.
 * @throws ImageError `missing` when nothing is mounted there, `usage` when it is no mount of ours
 */
export function ourMountAt(mountpoint: string): Mount {
  const mount = mountAt(mountpoint);
  if (!mount) throw missing(`${mountpoint}: nothing is mounted there.`);
  if (mount.type !== ourType)
    throw usage(
      `${mountpoint}: what is mounted there is ${mount.type} of ${mount.source}, not Spindle's. Use umount ${mountpoint}`,
    );
  return mount;
}

/** `/`, `/a`, `/a/b` of `/a/b`. */
function prefixes(path: string): string[] {
  const names = path.split("/").filter((name) => name !== "");
  return ["/", ...names.map((_, index) => `/${names.slice(0, index + 1).join("/")}`)];
}

/** Whether `path` is `folder` or lies beneath it; both absolute. */
export function liesBeneath(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith("/") ? folder : `${folder}/`);
}

/**
 * The absolute path of a mount point without symbolic links, found without touching what is mounted there: a stat of a
 * stale mount fails, and one of a stuck mount never returns.
 * @throws ImageError `missing` when the folder it lies in does not exist
 */
export function resolveMountpoint(path: string, mounts: readonly Mount[] = listMounts()): string {
  let wanted = resolve(path);
  for (let links = 0; links < 40; links++) {
    const name = basename(wanted);
    if (name === "") return "/";
    let parent: string;
    try {
      parent = realpathSync(dirname(wanted));
    } catch (error) {
      throw system(`looking for ${path}`, error);
    }
    const candidate = join(parent, name);
    if (mountAt(candidate, mounts)) return candidate;
    const link = linkAt(candidate);
    if (link === undefined) return candidate;
    wanted = isAbsolute(link) ? link : resolve(parent, link);
  }
  throw system(`looking for ${path}`, new Error("too many symbolic links lead from one to the next"));
}

function linkAt(path: string): string | undefined {
  try {
    return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : undefined;
  } catch {
    return undefined; // what is wrong with it shows when it is used
  }
}
