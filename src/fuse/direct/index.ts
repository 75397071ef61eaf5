/**
 * The direct driver: worker threads that are blocked in read(2) on /dev/fuse and answer by themselves.
 *
 *   main thread     workers build their trees ─► mounts ─► answers INIT ─► lets the workers go; then waits, logs, and
 *                   replaces a worker that died
 *   each worker     read request ─► handlers.ts ─► tree ─► write reply                          (serve.ts)
 *
 * Trees are built before anything is mounted, so a damaged image mounts nothing, and building can't meet the mount itself.
 * The main thread never touches the mount: that would wait for a worker, which may wait for the main thread.
 *
 * Left out: a descriptor of /dev/fuse per worker (FUSE_DEV_IOC_CLONE), since a dead worker's request can be answered
 * only through the descriptor it came from; splice, which Node hasn't; io_uring, which few kernels have.
 */
import { closeSync, readSync, writeSync } from "node:fs";
import { unsupported } from "../../errors.js";
import { getpagesize } from "../../libc.js";
import { settings } from "../../settings.js";
import type { Driver, MountPlan, Server } from "../driver.js";
import { usualWorkers } from "../usual-workers.js";
import { Crew } from "./crew.js";
import { type Agreement, answerInit } from "./init.js";
import { type KernelMount, makeMount, raiseReadahead, takeAway } from "./kernel-mount.js";
import { opcodes, Reply, Request } from "./protocol.js";

/** More threads than this are a mistake: each has a tree and 1 MiB of buffers. */
const MOST_WORKERS = 256;

export const direct: Driver = {
  name: "direct",
  async mount(plan: MountPlan): Promise<Server> {
    if (process.platform !== "linux" || !["x64", "arm64"].includes(process.arch))
      throw unsupported(
        `the direct driver runs on Linux on x86-64 and arm64, not on ${process.platform} on ${process.arch}. Mount with --driver fuse-native.`,
      );
    const wanted = plan.workers || usualWorkers();
    const crew = new Crew(plan, Math.min(Math.max(1, wanted), MOST_WORKERS));
    let made: KernelMount | undefined;
    let agreement: Agreement;
    try {
      await crew.built;
      made = await makeMount(plan.mountpoint, plan.options, plan.writable === true);
      agreement = initialise(made.fd, plan);
    } catch (error) {
      crew.dismiss();
      await crew.ended;
      if (made) await abandon(made);
      throw error;
    }
    crew.serve(made.fd, agreement);
    return serving(plan, crew, made);
  },
};

/** Nothing answers this mount: without its descriptor the kernel lets go of whoever waits, then it is taken away. */
async function abandon(made: KernelMount): Promise<void> {
  closeSync(made.fd);
  await takeAway(made);
}

/** Answers the kernel's first request, INIT, which waits in the descriptor from the moment of mounting. */
function initialise(fd: number, { options, writable, pageCache }: MountPlan): Agreement {
  const { allowOther, others } = options;
  const enforce = allowOther || others.includes("default_permissions");
  const request = new Request(65536);
  const reply = new Reply(4096);
  for (;;) {
    readSync(fd, request.bytes, 0, request.bytes.length, null);
    if (request.opcode !== opcodes.INIT)
      throw unsupported(`the kernel's first request is ${request.opcode} instead of INIT (${opcodes.INIT}).`);
    const { length, agreement } = answerInit(request, reply, getpagesize(), { enforce, writable, pageCache });
    writeSync(fd, reply.bytes, reply.start, reply.finish(request.uniqueLow, request.uniqueHigh, length));
    if (agreement) return agreement;
  }
}

function serving(plan: MountPlan, crew: Crew, made: KernelMount): Server {
  const readaheadRaised = raiseReadahead(made, settings.readaheadKiB) ? 1 : 0;
  let unmounting: Promise<void> | undefined;
  const unmount = () => {
    unmounting ??= takeAway(made).catch((error: unknown) => {
      plan.log(error instanceof Error ? error.message : String(error));
      unmounting = undefined; // it may be asked again
    });
  };
  crew.hopeless = unmount;
  const finished = crew.ended.then(async () => {
    // When the workers were given up rather than unmounted, closing ends the requests that nobody answers any more.
    closeSync(made.fd);
    await unmounting;
  });
  return { finished, unmount, counters: () => ({ ...crew.counters(), readaheadRaised }) };
}
