/** Writing through a mount, beside the image: Spindle's overlay and QEMU's, a qcow2 over the image. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { add, mountedFresh, mountedTwice, type Plan, type Row, row, type Section, warm } from "./measure.js";
import { BenchError, run } from "./programs.js";
import type { Server } from "./servers.js";

interface FioJob {
  readonly error: number;
  readonly write: { readonly iops: number; readonly bw_bytes: number };
}

/** @param servers that can be written to */
export async function measureWrites(plan: Plan, servers: readonly Server[]): Promise<Section> {
  const target = 1.5;
  const random = (file: string, ...more: string[]) => fio(plan, file, "randwrite", "4k", ...more);
  const sequential = (file: string, ...more: string[]) => fio(plan, file, "write", "1M", ...more);
  const perSecond = async (job: Promise<FioJob["write"]>) => (await job).iops;
  const megabytes = async (job: Promise<FioJob["write"]>) => (await job).bw_bytes / 1e6;
  const tasks: readonly [Row, (file: string) => Promise<number>, typeof mountedFresh?][] = [
    [row("4 KiB random, 1 writer", "writes/s", "higher", target), (file) => perSecond(random(file))],
    [row("4 KiB random, 4 writers", "writes/s", "higher", target), (file) => perSecond(random(file, "--numjobs=4"))],
    [row("4 KiB random, O_DIRECT", "writes/s", "higher", target), (file) => perSecond(random(file, "--direct=1"))],
    [row("sequential, 1 MiB", "MB/s", "higher", target), (file) => megabytes(sequential(file)), mountedTwice],
    [
      row("sequential, 1 MiB O_DIRECT", "MB/s", "higher", target),
      (file) => megabytes(sequential(file, "--direct=1")),
      mountedTwice,
    ],
  ];
  // A quick server of lost writes would win everything.
  for (const server of servers) await isKept(plan, server);
  for (let round = 0; round < plan.runs; round++)
    for (const server of servers) {
      const got: number[] = [];
      for (const [to, task, measured = mountedFresh] of tasks) {
        const value = await measured(plan, server, task);
        add(to, server.name, value);
        got.push(Math.round(value));
        // What is still to be written back must not slow the next one.
        await run("sync");
      }
      plan.note(`write, run ${round + 1} of ${plan.runs}, ${server.name}: ${got.join(", ")}`);
    }
  return {
    title: "Writing through a mount, beside the image",
    method:
      `A fresh mount and a new overlay (a qcow2 over the image for QEMU) for each measurement, which is not flushed in it; of those in ` +
      `order once before, which doesn't count, so that the host of a virtual machine has given the memory. ` +
      `fio, psync, ${plan.seconds} s, over the ${Math.round(plan.disk.used.length / 1e6)} MB of the disk in which its files lie.`,
    contenders: servers.map(({ name }) => name),
    reference: "qemu-storage-daemon",
    rows: tasks.map(([each]) => each),
  };
}

/** Writes a stretch at an odd position, and reads it back past the page cache of who wrote it. */
async function isKept(plan: Plan, server: Server): Promise<void> {
  await warm(server.image);
  const sample = join(plan.folder, "sample");
  await run("dd", "if=/dev/urandom", `of=${sample}`, "bs=1M", "count=16", "status=none");
  await mountedFresh(plan, server, async (file) => {
    const at = plan.disk.used.position + 12_345;
    const words = [`if=${sample}`, `of=${file}`, "bs=64K", "oflag=seek_bytes", `seek=${at}`];
    await run("dd", ...words, "conv=notrunc,fsync", "status=none");
    await run("cmp", "-n", `${16 << 20}`, "-i", `0:${at}`, sample, file);
  });
  rmSync(sample);
}

async function fio(
  plan: Plan,
  file: string,
  pattern: string,
  size: string,
  ...more: string[]
): Promise<FioJob["write"]> {
  const { used } = plan.disk;
  // Whole MiB, which O_DIRECT and a block of 1 MiB want.
  const position = Math.ceil(used.position / 2 ** 20) * 2 ** 20;
  const length = Math.floor((used.position + used.length - position) / 2 ** 20) * 2 ** 20;
  const { stdout } = await run(
    ...["fio", "--name=writes", `--filename=${file}`, `--rw=${pattern}`, `--bs=${size}`, "--ioengine=psync"],
    ...["--thread", "--group_reporting", "--time_based", `--runtime=${plan.seconds}`, "--randseed=20240229"],
    ...[`--offset=${position}`, `--size=${length}`, "--allow_file_create=0", "--fallocate=none", ...more],
    "--output-format=json",
  );
  const [job] = (JSON.parse(stdout.slice(stdout.indexOf("{"))) as { jobs: FioJob[] }).jobs;
  if (job?.error !== 0) throw new BenchError(`fio: error ${job?.error} writing ${file}`);
  return job.write;
}
