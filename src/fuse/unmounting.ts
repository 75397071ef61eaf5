/** Taking a mount away from outside its server: umount2(2) for root, fusermount3 for everybody else. */
import { spawn } from "node:child_process";
import { system } from "../errors.js";
import { errno, failure, umount2 } from "../libc.js";

const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;
const EPERM = 1;
const EBUSY = 16;

/**
 * Unmounts what is mounted at `mountpoint` (as resolveMountpoint gives it).
 * @param lazily takes it out of the tree at once; open files are served until they are closed
 * @returns "busy" when something holds the mount and `lazily` isn't set
 * @throws ImageError `system` when it is not permitted
 */
export async function unmountAt(mountpoint: string, lazily: boolean): Promise<"done" | "busy"> {
  if (process.platform === "linux" && process.getuid?.() === 0) {
    if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazily ? MNT_DETACH : 0)) === 0) return "done";
    if (errno() === EBUSY) return "busy";
    // Root of a container may lack the right, and be the owner of the mount all the same.
    if (errno() !== EPERM) throw system(`unmounting ${mountpoint}`, failure("umount2"));
  }
  const commands =
    process.platform === "darwin"
      ? [lazily ? ["diskutil", "unmount", "force", mountpoint] : ["umount", mountpoint]]
      : ["fusermount3", "fusermount"].map((program) => [program, "-u", ...(lazily ? ["-z"] : []), "--", mountpoint]);
  for (const [program, ...parameters] of commands) {
    const { status, words } = await run(program!, parameters);
    if (status === "absent") continue;
    if (status === 0) return "done";
    if (/busy/i.test(words)) return "busy";
    throw system(`unmounting ${mountpoint}`, new Error(words || `${program} failed with exit code ${status}`));
  }
  throw system(
    `unmounting ${mountpoint}`,
    new Error("a normal user needs the fusermount3 command for it; install it with: apt install fuse3"),
  );
}

function run(program: string, parameters: string[]): Promise<{ status: number | "absent"; words: string }> {
  return new Promise((done) => {
    let words = "";
    const child = spawn(program, parameters, {
      stdio: ["ignore", "ignore", "pipe"],
      cwd: "/",
      env: { ...process.env, LC_ALL: "C" },
    });
    child.stderr.on("data", (data: Buffer) => {
      words += data.toString();
    });
    child.on("error", () => done({ status: "absent", words }));
    child.on("close", (code) => done({ status: code ?? -1, words: words.trim() }));
  });
}
