/** What is measured: rows of numbers, one list of runs for each contender. */
import { rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { BenchError, cost, run, spindle } from "./programs.js";
import type { Server } from "./servers.js";
import type { TestDisk } from "./test-disk.js";

export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly better: "higher" | "lower";
  /** Ratio to the reference that is the project's aim. */
  readonly target?: number;
  /** The same to the further reference. */
  readonly furtherTarget?: number;
  /** By contender, in the order of the runs. */
  readonly runs: Record<string, number[]>;
}

export interface Section {
  readonly title: string;
  /** How it was measured, in words. */
  readonly method: string;
  readonly contenders: readonly string[];
  /** The contender that ratios refer to. */
  readonly reference: string;
  /** Another one. */
  readonly furtherReference?: string;
  readonly rows: readonly Row[];
}

export interface Plan {
  readonly disk: TestDisk;
  readonly folder: string;
  readonly runs: number;
  /** Seconds of a random-read measurement. */
  readonly seconds: number;
  /** Threads that qemu-img is given; Spindle takes one a processor. */
  readonly threads: number;
  note(line: string): void;
}

export const row = (
  name: string,
  unit: string,
  better: Row["better"],
  target?: number,
  furtherTarget?: number,
): Row => ({
  name,
  unit,
  better,
  target,
  furtherTarget,
  runs: {},
});

export function add(to: Row, contender: string, value: number): void {
  to.runs[contender] ??= [];
  to.runs[contender].push(value);
}

/** Mounts, measures, unmounts. */
export async function mountedFresh<T>(plan: Plan, server: Server, act: (file: string) => Promise<T>): Promise<T> {
  await warm(server.image);
  const mounted = await server.mount(plan.folder, plan.disk.size);
  try {
    return await act(mounted.file);
  } finally {
    await mounted.unmount();
  }
}

/**
 * As mountedFresh, for what fills gigabytes of memory: once before, which doesn't count. The host of a virtual machine takes back
 * what lies free for some seconds and gives it anew piece by piece: after a pause of eight seconds the same read took twice as long.
 */
export async function mountedTwice<T>(plan: Plan, server: Server, act: (file: string) => Promise<T>): Promise<T> {
  await mountedFresh(plan, server, act);
  return await mountedFresh(plan, server, act);
}

/** A file is read once, so that whoever works from it finds it in the page cache. */
export const warm = (file: string) => run("dd", `if=${file}`, "of=/dev/null", "bs=1M", "status=none");

export async function measureReads(plan: Plan, servers: readonly Server[]): Promise<Section> {
  const { disk, note } = plan;
  const sequential = row("sequential, buffered", "MB/s", "higher", 2);
  const direct = row("sequential, 1 MiB O_DIRECT", "MB/s", "higher", 2);
  const single = row("4 KiB random, 1 reader", "reads/s", "higher", 2);
  const four = row("4 KiB random, 4 readers", "reads/s", "higher", 2);
  const latency = row("  median latency, 1 reader", "us", "lower");
  const rate = async (file: string, ...flags: string[]) => {
    const { wall } = await cost("dd", `if=${file}`, "of=/dev/null", "bs=1M", "status=none", ...flags);
    return disk.size / 1e6 / wall;
  };
  const random = async (file: string, readers: number) => (await randomReads(plan, file, readers)).perSecond;
  const tasks: readonly [Row, (file: string, server: Server) => Promise<number>][] = [
    [sequential, (file) => rate(file)],
    [direct, (file) => rate(file, "iflag=direct")],
    [
      single,
      async (file, { name }) => {
        const { perSecond, median } = await randomReads(plan, file, 1);
        add(latency, name, median);
        return perSecond;
      },
    ],
    [four, (file) => random(file, 4)],
  ];
  for (const server of servers) {
    // A quick server of wrong bytes would win everything. Besides, memory that this machine, perhaps a virtual one, uses
    // for the first time must not count against who comes first.
    await mountedFresh(plan, server, (file) => run("cmp", disk.path, file));
  }
  for (let round = 0; round < plan.runs; round++) {
    for (const server of servers) {
      const got: number[] = [];
      for (const [to, task] of tasks) {
        const value = await (to === sequential ? mountedTwice : mountedFresh)(plan, server, (file) =>
          task(file, server),
        );
        add(to, server.name, value);
        got.push(Math.round(value));
      }
      note(`read, run ${round + 1} of ${plan.runs}, ${server.name}: ${got.join(", ")}`);
    }
  }
  return {
    title: "Reading through a mount",
    method:
      `A fresh mount for each measurement, so that neither the page cache nor a server's own begins with any of it; the ` +
      `image itself in the page cache. ` +
      `Sequential: dd over the whole disk, bs=1M; buffered once before, which doesn't count, so that the host of a virtual ` +
      `machine has given the memory. Random: fio, psync, ${plan.seconds} s, over the ` +
      `${Math.round(disk.used.length / 1e6)} MB of the disk in which its files lie.`,
    contenders: servers.map(({ name }) => name),
    reference: "qemu-storage-daemon",
    rows: [sequential, direct, single, latency, four],
  };
}

interface FioJob {
  readonly error: number;
  readonly read: { readonly iops: number; readonly clat_ns: { readonly percentile: Record<string, number> } };
}

async function randomReads(plan: Plan, file: string, readers: number): Promise<{ perSecond: number; median: number }> {
  const { used } = plan.disk;
  const { stdout } = await run(
    "fio",
    "--name=random",
    `--filename=${file}`,
    "--readonly",
    "--rw=randread",
    "--bs=4k",
    "--ioengine=psync",
    `--numjobs=${readers}`,
    "--thread",
    "--group_reporting",
    "--time_based",
    `--runtime=${plan.seconds}`,
    "--randseed=20240229",
    `--offset=${used.position}`,
    `--size=${used.length}`,
    "--output-format=json",
  );
  const [job] = (JSON.parse(stdout.slice(stdout.indexOf("{"))) as { jobs: FioJob[] }).jobs;
  if (job?.error !== 0) throw new BenchError(`fio: error ${job?.error} reading ${file}`);
  return { perSecond: job.read.iops, median: job.read.clat_ns.percentile["50.000000"]! / 1000 };
}

interface Maker {
  readonly name: string;
  readonly target: string;
  readonly command: readonly string[];
}

/** Runs each maker in turn, `plan.runs` times, into a target that isn't there yet. */
async function measureMakers(plan: Plan, makers: readonly Maker[], what: string, input: readonly string[]) {
  const wall = row("time", "s", "lower", 1);
  const cpu = row("processor time", "s", "lower");
  const size = row("size", "MB", "lower", 1);
  for (const file of input) await warm(file);
  for (let round = 0; round < plan.runs; round++) {
    for (const { name, target, command } of makers) {
      rmSync(target, { force: true });
      // What the last one left to be written would be waited for by the next one's flush.
      await run("sync");
      const taken = await cost(...command);
      add(wall, name, taken.wall);
      add(cpu, name, taken.cpu);
      add(size, name, (what === "restore" ? statSync(target).blocks * 512 : statSync(target).size) / 1e6);
      if (what === "restore" && round === 0) await run("cmp", plan.disk.path, target);
      plan.note(`${what}, run ${round + 1} of ${plan.runs}, ${name}: ${taken.wall} s, ${taken.cpu.toFixed(2)} s CPU`);
    }
  }
  const rows = [wall, cpu, size];
  return { contenders: makers.map(({ name }) => name), reference: "qemu-img", rows };
}

export interface Images {
  readonly spin: string;
  readonly qcow2: string;
}

const flushing =
  "qemu-img leaves its output unwritten in the page cache unless told `-t writeback` (the column `flushed`); " +
  "Spindle always flushes.";

/** Creates both images, which are left for the others to use. */
export async function measureCreation(plan: Plan): Promise<Section> {
  const { disk, folder } = plan;
  const makers = [
    { name: "spindle", target: imagesIn(folder).spin, command: spindleCreate(disk.path, imagesIn(folder).spin) },
    { name: "qemu-img, flushed", command: qemuCreate(plan, join(folder, "flushed.qcow2"), "-t", "writeback") },
    { name: "qemu-img", command: qemuCreate(plan, imagesIn(folder).qcow2) },
  ].map((maker) => ({ ...maker, target: maker.command.at(-1)! }));
  const section = await measureMakers(plan, makers, "create", [disk.path]);
  rmSync(join(folder, "flushed.qcow2"));
  const method = `spindle create against qemu-img convert -c -O qcow2 -o compression_type=zstd -m ${plan.threads} -W. ${flushing}`;
  return { title: "Creating an image", method, ...section };
}

export function imagesIn(folder: string): Images {
  return { spin: join(folder, "disk.spin"), qcow2: join(folder, "disk.qcow2") };
}

export const spindleCreate = (from: string, to: string) => [process.execPath, spindle, "create", from, to];

export const qemuCreate = ({ disk, threads }: Plan, to: string, ...flags: string[]) => [
  ...["qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", "-m", `${threads}`, "-W"],
  ...flags,
  ...["-f", "raw", disk.path, to],
];

export async function measureRestore(plan: Plan, images: Images): Promise<Section> {
  const target = join(plan.folder, "restored.raw");
  const qemu = ["qemu-img", "convert", "-m", `${plan.threads}`, "-W", "-O", "raw"];
  const makers = [
    { name: "spindle", target, command: [process.execPath, spindle, "restore", images.spin, target] },
    { name: "qemu-img, flushed", target, command: [...qemu, "-t", "writeback", images.qcow2, target] },
    { name: "qemu-img", target, command: [...qemu, images.qcow2, target] },
  ];
  const section = await measureMakers(plan, makers, "restore", [images.spin, images.qcow2]);
  rmSync(target);
  const method = `spindle restore against qemu-img convert -m ${plan.threads} -W -O raw; size is what is allocated. ${flushing}`;
  return { title: "Restoring to a raw file", method, ...section };
}
