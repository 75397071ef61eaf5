/** What `spindle mount` asks for, as plain data: the same for a server in the foreground and one in the background. */

import { existsSync, realpathSync, statSync } from "node:fs";
import { busy, missing, system, usage } from "../errors.js";
import { OverlayDisk } from "../layers/overlay.js";
import { type ImageSpec, type OpenedImage, openFiles, openImage, openWritable } from "../open.js";
import type { Waiting } from "../packed/waiting.js";
import type { OpenedOverlay } from "../writable.js";
import type { Driver, MountOptions } from "./driver.js";
import { FailureLog } from "./errno.js";
import { formerServerEnds } from "./former-server.js";
import { liesBeneath, mountAt, ourType } from "./mounts.js";
import { logPasses } from "./pass-log.js";
import { findRegistration, runtimeFolder } from "./registry.js";
import { type Mounted, serve } from "./service.js";
import { usualWorkers } from "./usual-workers.js";

export type DriverName = Driver["name"];

export interface MountRequest {
  /** Its paths are absolute. */
  readonly image: ImageSpec & { readonly view: "files" | "disk" };
  /** Writes go to an overlay: in the file of this path, made where there is none; `temporary` vanishes with the mount. */
  readonly writable?: { readonly overlay: string } | "temporary";
  /** MountPlan.pageCache */
  readonly pageCache?: boolean;
  /** As resolveMountpoint gives it. */
  readonly mountpoint: string;
  readonly driver: DriverName;
  readonly options: MountOptions;
  /** Threads; undefined for the usual number. */
  readonly workers?: number;
  /** Bytes. */
  readonly cacheBytes: number;
  /** Where a server in the background writes its log. */
  readonly log?: string;
}

/** The driver to use when none is asked for, and why it isn't the direct one. */
export function defaultDriver(): { driver: DriverName; reason?: string } {
  if (process.platform === "linux" && ["x64", "arm64"].includes(process.arch)) return { driver: "direct" };
  const reason = `the direct driver runs on Linux on x86-64 and arm64, this is ${process.platform} on ${process.arch}`;
  return { driver: "fuse-native", reason };
}

/**
 * Refuses a mount point that can't be used, without touching what is mounted there.
 * @throws ImageError
 */
export function checkMountpoint(mountpoint: string): void {
  const there = mountAt(mountpoint);
  if (there?.type === ourType) {
    const found = findRegistration(there);
    const by = found?.alive ? ` (${found.registration.image}, served by process ${found.registration.pid})` : "";
    throw busy(
      `${mountpoint}: Spindle has mounted an image there already${by}. End that first: spindle unmount ${mountpoint}`,
    );
  }
  try {
    if (!statSync(mountpoint).isDirectory())
      throw usage(`${mountpoint}: is not a folder, so nothing can be mounted there. Name an empty folder.`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT")
      throw missing(`${mountpoint}: no such folder to mount at. Make it first: mkdir ${mountpoint}`);
    if ((error as NodeJS.ErrnoException).code === "ENOTCONN")
      throw busy(
        `${mountpoint}: what served the mount there (${there?.type ?? "unknown type"}) has died. Take that away first: ${process.getuid?.() === 0 ? "umount" : "fusermount3 -u"} ${mountpoint}`,
      );
    throw system(`looking at ${mountpoint}`, error);
  }
  if (liesBeneath(runtimeFolder(), mountpoint))
    throw usage(
      `${mountpoint}: a mount there would hide Spindle's own folder ${runtimeFolder()}. Name another folder.`,
    );
}

/** Refuses an image that the mount would hide: reading it could wait for itself. */
export function checkImagePath(path: string, mountpoint: string): void {
  const real = existsSync(path) ? realpathSync(path) : path;
  if (liesBeneath(real, mountpoint))
    throw usage(
      `${path}: lies beneath the mount point ${mountpoint}, which would hide it. Mount at a folder that does not hold the image.`,
    );
}

/**
 * Opens the image and serves it until the mount is gone.
 * @param log takes the lines of the log
 * @param ready is called when the mount answers
 * @param waiting is told when the image has to be gone through first
 */
export async function serveRequest(
  request: MountRequest,
  log: (line: string) => void,
  ready: (mounted: Mounted) => void,
  abort?: AbortSignal,
  waiting?: Waiting,
): Promise<void> {
  const { writable } = request;
  if (writable && writable !== "temporary") {
    checkImagePath(writable.overlay, request.mountpoint);
    await formerServerEnds(writable.overlay, waiting);
  }
  const workers = request.workers ?? usualWorkers();
  const opened = openFor(request, workers, waiting);
  const endLog = logPasses(() => opened.passes(), log);
  const { overlay } = opened;
  const flushing = overlay && flushNowAndThen(overlay.disk, log);
  let isOpen = true;
  const close = () => {
    if (!isOpen) return;
    isOpen = false;
    endLog();
    clearInterval(flushing);
    opened.close();
  };
  try {
    for (const file of opened.data.files) checkImagePath(file.path, request.mountpoint);
    await serve({
      plan: {
        mountpoint: request.mountpoint,
        options: request.options,
        tree: { module: new URL("../open.js", import.meta.url).href, exported: "buildTree", data: opened.treeData },
        workers,
        writable: overlay !== undefined,
        pageCache: request.pageCache,
        workerDied: overlay && ((worker) => OverlayDisk.releaseDead(overlay.data.memory, worker)),
        cacheBytes: request.cacheBytes,
        chunkSize: opened.chunkSize,
        log,
      },
      driver: await loadDriver(request.driver),
      image: request.image.path,
      view: request.image.view,
      log: request.log,
      // Its real path, by which formerServerEnds finds it.
      overlay: writable && (writable === "temporary" ? writable : realpathSync(writable.overlay)),
      figures: overlay && (() => figuresOf(overlay.disk)),
      finish() {
        // Whoever unmounts is told that it is done when it is durable.
        overlay?.disk.flush();
        close();
      },
      ready,
      abort,
    });
  } finally {
    close();
  }
}

function openFor(
  { image, writable }: MountRequest,
  workers: number,
  waiting: Waiting | undefined,
): OpenedImage & { readonly overlay?: OpenedOverlay } {
  // One more than those: it answers what had to wait (fuse/direct/crew.ts).
  const writers = workers + 1;
  if (writable) return openWritable(image, writable === "temporary" ? undefined : writable.overlay, writers, waiting);
  if (image.view !== "files") return openImage(image, undefined, waiting);
  const opened = openFiles(image, undefined, waiting);
  // Beside what is shown they would go unnoticed.
  for (const { problem } of image.volume === undefined ? opened.found : [])
    if (problem?.code === "locked") waiting?.note(problem.message);
  return opened;
}

/** Milliseconds between two flushes that nobody asked for: so much of what was not flushed a crash may cost. */
const flushInterval = 5000;

/** What the server writes when nobody asks, for the case that it is killed; failures are told to the log. */
function flushNowAndThen(disk: OverlayDisk, log: (line: string) => void): NodeJS.Timeout {
  const failures = new FailureLog(log);
  let flushed = 0;
  const timer = setInterval(() => {
    const { writes } = disk;
    if (writes === flushed) return;
    try {
      // To wait for a worker that flushes is not for this thread, which has to replace the worker should it die.
      if (disk.tryFlush()) flushed = writes;
    } catch (error) {
      failures.add(error);
    }
  }, flushInterval);
  return timer.unref();
}

const figuresOf = ({ written, writes, bytesWritten, unflushed }: OverlayDisk) => ({
  ...{ overlayBytes: written, unflushedBytes: unflushed },
  ...{ writes, bytesWritten },
});

async function loadDriver(name: DriverName): Promise<Driver> {
  if (name === "fuse-native") return (await import("./native.js")).native;
  return (await import("./direct/index.js")).direct;
}
