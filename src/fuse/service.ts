/**
 * One mount from its start to its end, in the process that serves it: watchdog, mount, registration, signals. The
 * command's own process is that process in the foreground; otherwise background.ts is.
 */
import { ImageError, system } from "../errors.js";
import type { Driver, MountPlan } from "./driver.js";
import { type Figures, type Teller, tellFigures } from "./figures.js";
import { type Mount, mountAt, ourType } from "./mounts.js";
import {
  clean,
  mountNamespace,
  newName,
  register,
  runtimeFolder,
  socketOf,
  startTimeOf,
  unregister,
} from "./registry.js";
import { startWatchdog } from "./watchdog.js";

/** What is told of a mount that answers. */
export interface Mounted {
  readonly mountpoint: string;
  readonly image: string;
  readonly view: string;
  readonly driver: string;
  /** The serving process. */
  readonly pid: number;
  /** The log file; undefined in the foreground. */
  readonly log?: string;
}

export interface Service {
  readonly plan: MountPlan;
  readonly driver: Driver;
  readonly image: string;
  readonly view: string;
  readonly log?: string;
  /** Of a mount that is written to: the overlay's path, or `temporary`. */
  readonly overlay?: string;
  /** Figures beside the driver's. */
  readonly figures?: () => Figures;
  /**
   * Called when nothing is served any more. Whoever waits for this process goes by its registration, which is taken away
   * afterwards, and is left when this throws.
   */
  finish?(): void;
  /** Called once, when the mount answers. */
  ready(mounted: Mounted): void;
  /** Ends the service as a signal does. */
  readonly abort?: AbortSignal;
}

const signals = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
/** Milliseconds between two attempts to unmount after a signal, should the first fail. */
const retryInterval = 1000;

/**
 * Mounts and serves until the mount is gone. SIGTERM, SIGINT, SIGHUP and `abort` unmount lazily: files that are open stay
 * served until they are closed.
 * @throws ImageError when it can't be mounted; nothing is mounted then. What `finish` throws
 */
export async function serve(service: Service): Promise<void> {
  const { plan, driver } = service;
  const folder = runtimeFolder();
  clean(folder);
  const stop = onStop(service.abort);
  const watchdog = startWatchdog(plan.mountpoint, mountAt(plan.mountpoint));
  let registration: string | undefined;
  let teller: Teller | undefined;
  try {
    const server = await mountOr(() => watchdog?.dismiss(), driver, plan);
    const mount = ownMount(plan.mountpoint);
    // It is gone already when somebody unmounted it at once.
    if (mount) {
      watchdog?.guard(mount);
      registration = register(folder, newName(), {
        pid: process.pid,
        startTime: startTimeOf(process.pid),
        mountpoint: plan.mountpoint,
        device: mount.device,
        image: service.image,
        driver: driver.name,
        view: service.view,
        since: new Date().toISOString(),
        namespace: mountNamespace(),
        log: service.log,
        overlay: service.overlay,
      });
      const figures = () => ({ ...server.counters(), ...service.figures?.() });
      teller = await tellFigures(socketOf(registration), figures).catch((error: unknown) => {
        // A mount without figures is better than none.
        plan.log(error instanceof Error ? error.message : String(error));
        return undefined;
      });
    }
    let ended = false;
    const retry = setInterval(() => stop.asked && !ended && server.unmount(), retryInterval);
    stop.act = () => server.unmount();
    if (stop.asked) server.unmount();
    else
      service.ready({
        mountpoint: plan.mountpoint,
        image: service.image,
        view: service.view,
        driver: driver.name,
        pid: process.pid,
        log: service.log,
      });
    await server.finished;
    ended = true;
    clearInterval(retry);
    watchdog?.dismiss();
    service.finish?.();
    if (registration) unregister(registration);
  } finally {
    stop.release();
    teller?.close();
  }
}

async function mountOr(failed: () => void, driver: Driver, plan: MountPlan) {
  try {
    return await driver.mount(plan);
  } catch (error) {
    failed();
    throw error instanceof ImageError ? error : system(`mounting at ${plan.mountpoint}`, error);
  }
}

function ownMount(mountpoint: string): Mount | undefined {
  const mount = mountAt(mountpoint);
  return mount?.type === ourType ? mount : undefined;
}

/** Signals are listened to from before the mount on: one that comes in between must not end the process half-way. */
function onStop(abort: AbortSignal | undefined) {
  const stop = {
    asked: abort?.aborted ?? false,
    act: () => {},
    release() {
      for (const signal of signals) process.off(signal, ask);
      abort?.removeEventListener("abort", ask);
    },
  };
  const ask = () => {
    stop.asked = true;
    stop.act();
  };
  for (const signal of signals) process.on(signal, ask);
  abort?.addEventListener("abort", ask);
  return stop;
}
