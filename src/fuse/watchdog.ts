/**
 * The watchdog: a shell process that waits for the end of a pipe whose other end only the server holds. However the
 * server dies, the kernel closes that end, and the watchdog takes the dead mount away, so that no "Transport endpoint is
 * not connected" stays behind. (fusermount3's own auto_unmount does not do it for normal users.)
 *
 * It is started before the mount is made: what is opened later, above all /dev/fuse, can't be inherited by it.
 */
import { spawn } from "node:child_process";
import { keepDescriptorsFromChildren } from "./descriptors.js";
import { escapeMountpoint, type Mount, ourType } from "./mounts.js";

/**
 * $1 the mount point as mountinfo writes it, $2 the same as a path, $3 our type, $4 the id of the mount that was there
 * before. The first line of the pipe says what to watch: `ID DEVICE`. Without it the server died while mounting: then what
 * came to that place and is of our type is what it left. The line `none` says that there is nothing to watch (any more):
 * an end of the pipe alone would not do, because the numbers of a mount that has ended are given to the next one.
 */
const script = `
trap '' HUP INT TERM QUIT
id= device=
read -r id device
[ "$id" = none ] && exit 0
while read -r line; do [ "$line" = none ] && exit 0; done
is_there() {
  while read -r i p d r m rest; do
    [ "$m" = "$1" ] || continue
    if [ -n "$id" ]; then
      [ "$i" = "$id" ] && [ "$d" = "$device" ] && return 0
    elif [ "$i" != "$3" ]; then
      case "$rest" in *" - $2 "*) return 0 ;; esac
    fi
  done < /proc/self/mountinfo
  return 1
}
tries=0
while is_there "$1" "$3" "$4" && [ $tries -lt 20 ]; do
  if [ "$(id -u)" = 0 ]; then umount -i -c -l -- "$2" || umount -l "$2"
  else false; fi || fusermount3 -u -z -- "$2" || fusermount -u -z -- "$2" || sleep 0.2
  tries=$((tries + 1))
done
`;

export interface Watchdog {
  readonly pid: number;
  /** From now on this mount is taken away when this process ends. */
  guard(mount: Mount): void;
  /** There is no mount any more, or there never was: the watchdog ends. */
  dismiss(): void;
}

/**
 * Starts the watchdog for a mount that is about to be made at `mountpoint`.
 * @param before what is mounted there now
 */
export function startWatchdog(mountpoint: string, before: Mount | undefined): Watchdog | undefined {
  if (process.platform !== "linux") return undefined; // without /proc it could not tell whose mount it takes away
  keepDescriptorsFromChildren();
  const child = spawn(
    "/bin/sh",
    ["-c", script, "spindle-watchdog", escapeMountpoint(mountpoint), mountpoint, ourType, String(before?.id ?? "")],
    {
      // A session of its own: neither a closing terminal nor Ctrl-C reaches it.
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      cwd: "/",
      env: { PATH: `/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${process.env.PATH ?? ""}` },
    },
  );
  // That it can't be started, or is killed, must not end the mount.
  child.on("error", () => {});
  child.stdin.on("error", () => {});
  child.unref();
  (child.stdin as unknown as { unref(): void }).unref();
  return {
    pid: child.pid ?? 0,
    guard: (mount) => void child.stdin.write(`${mount.id} ${mount.device}\n`),
    dismiss: () => void child.stdin.end("none\n"),
  };
}
