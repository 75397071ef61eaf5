/** The servers that are compared: each shows the disk of an image as a file, and is gone afterwards, whatever happens. */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BenchError, run, spindle, start } from "./programs.js";

export interface Server {
  readonly name: string;
  /** The image that it serves. */
  readonly image: string;
  /** Mounts it at a place within `folder`. */
  mount(folder: string, size: number): Promise<Mounted>;
}

export interface Mounted {
  /** The file with the disk's bytes. */
  readonly file: string;
  unmount(): Promise<void>;
}

/** Mount points in use, with the program that serves each where it is a child of ours. */
export const inUse = new Set<string>();

const isMounted = (path: string) =>
  readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .some((line) => line.split(" ")[4] === path);

/** Takes away what is still mounted, at once: files that are open are served no more. For the end after a failure. */
export function unmountAll(): void {
  for (const path of inUse) {
    if (!isMounted(path)) continue;
    const lazily = process.getuid?.() === 0 ? ["umount", "-l", path] : ["fusermount3", "-u", "-z", path];
    spawnSync(lazily[0]!, lazily.slice(1), { stdio: "ignore" });
  }
  inUse.clear();
}

/**
 * @param driver of `spindle mount`.
 * @param writable whether the disk can be written to, beside the image.
 */
export function spindleServer(driver: "direct" | "fuse-native", image: string, writable = false): Server {
  return {
    name: `spindle ${driver}`,
    image,
    async mount(folder, size) {
      const point = join(folder, `mount-${driver}`);
      mkdirSync(point, { recursive: true });
      inUse.add(point);
      const overlay = join(folder, "written.overlay");
      const more = writable ? [`--writable=${overlay}`] : [];
      await run(process.execPath, spindle, "mount", image, point, "--as", "disk", "--driver", driver, ...more);
      const file = join(point, "disk.raw");
      expectSize(file, size);
      return {
        file,
        async unmount() {
          await run(process.execPath, spindle, "unmount", point);
          if (isMounted(point)) throw new BenchError(`${point} is still mounted after spindle unmount`);
          inUse.delete(point);
          rmSync(overlay, { force: true });
        },
      };
    },
  };
}

/**
 * qemu-storage-daemon with a FUSE export, which is put over an existing regular file.
 * @param driver QEMU's for the image.
 * @param writable whether the disk can be written to: to a qcow2 over the image.
 */
export function qemuServer(image: string, driver = "qcow2", writable = false): Server {
  return {
    name: "qemu-storage-daemon",
    image,
    async mount(folder, size) {
      const file = join(folder, "mount-qemu");
      writeFileSync(file, "");
      inUse.add(file);
      const overlay = join(folder, "written.qcow2");
      if (writable) await run("qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay);
      const mode = writable ? "" : ",read-only=on";
      const child = start([
        "qemu-storage-daemon",
        "--blockdev",
        `driver=file,node-name=file,filename=${writable ? overlay : image}${mode}`,
        "--blockdev",
        `driver=${driver},node-name=disk,file=file${mode}`,
        "--export",
        `type=fuse,id=export,node-name=disk,mountpoint=${file}${writable ? ",writable=on" : ""}`,
      ]);
      let said = "";
      child.stderr!.on("data", (text: Buffer) => {
        said += text.toString();
      });
      const closed = new Promise((resolve) => child.once("close", resolve));
      for (let tries = 0; !isMounted(file); tries++) {
        if (child.exitCode !== null || tries > 500) throw new BenchError(`qemu-storage-daemon did not mount: ${said}`);
        await sleep(20);
      }
      expectSize(file, size);
      return {
        file,
        async unmount() {
          child.kill("SIGTERM");
          await closed;
          if (isMounted(file)) throw new BenchError(`${file} is still mounted after qemu-storage-daemon ended`);
          inUse.delete(file);
          rmSync(overlay, { force: true });
        },
      };
    },
  };
}

function expectSize(file: string, size: number): void {
  const found = statSync(file).size;
  if (found !== size) throw new BenchError(`${file} has ${found} bytes, the disk ${size}`);
}
