import { readdirSync, readFileSync } from "node:fs";
import { F_SETFD, FD_CLOEXEC, fcntl } from "../libc.js";

const O_CLOEXEC = 0o2000000;

/**
 * Keeps descriptors that this process was started with, beyond the usual three, from the processes that it starts: a
 * server in the background that held its caller's pipe or lock open would make the caller wait for it.
 */
export function keepDescriptorsFromChildren(): void {
  if (process.platform !== "linux") return;
  for (const name of readdirSync("/proc/self/fdinfo")) {
    const fd = Number(name);
    if (fd <= 2) continue;
    try {
      const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${name}`, "utf8"))?.[1];
      if (flags !== undefined && (Number.parseInt(flags, 8) & O_CLOEXEC) === 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
    } catch {
      // the descriptor of the listing itself, closed by now
    }
  }
}
