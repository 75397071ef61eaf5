/**
 * Spindle beside QEMU on one disk, in one run: reading through a mount, creating an image, restoring it; and its files
 * view beside fuse2fs and the kernel. Contenders take turns (A B C A B C), so that what else the machine does falls on all
 * of them. Needs no root, but for the kernel's own mount beside the files view.
 */
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { measureBoot } from "./bench/boot.js";
import { measureContainers } from "./bench/containers.js";
import { measureFiles } from "./bench/files.js";
import * as measure from "./bench/measure.js";
import { measurePacked } from "./bench/packed.js";
import { BenchError, endPrograms, requirePrograms, run } from "./bench/programs.js";
import { machineFacts, type Report, spindleVersion, summarise, table } from "./bench/report.js";
import { qemuServer, spindleServer, unmountAll } from "./bench/servers.js";
import { makeTestDisk } from "./bench/test-disk.js";
import { measureWrites } from "./bench/writes.js";

const help = `npm run bench -- [options]
  --runs N       runs of each measurement, at least 1 [5]
  --only LIST    of create, restore, read, write, boot, files, containers, packed [all]
  --servers LIST of direct, fuse-native, qemu, for reading and writing; of the first two for files [direct,fuse-native,qemu]
  --boot-disk FILE  a raw disk to boot, on virtio, in place of a Debian that is made
  --quick        a small disk, one run and short measurements: to see that everything works
  --json         print the result as JSON and nothing else
  --out FILE     write the result as JSON to FILE
The row of boot needs mmdebstrap, grub-common, grub-pc-bin, qemu-system-x86, root and Debian's mirror, or --boot-disk. The rows of containers need the packages ewf-tools and xmount for E01, the packed rows nbdkit, the files rows fuse2fs, and
root for the comparison with the kernel. The disk and the images need some 6 GB in $TMPDIR (${tmpdir()}) and are deleted at the end.`;

const GiB = 1024 ** 3;
const parts = ["create", "restore", "read", "write", "boot", "files", "containers", "packed"];
/** Parts that have images of their own. */
const needsNone = (part: string) => ["boot", "containers", "packed"].includes(part);
const serverNames = ["direct", "fuse-native", "qemu"];

function options() {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const known = {
    runs: text,
    only: text,
    servers: text,
    quick: flag,
    json: flag,
    out: text,
    "boot-disk": text,
    help: flag,
  } as const;
  let values: ReturnType<typeof parseArgs<{ options: typeof known }>>["values"];
  try {
    values = parseArgs({ options: known }).values;
  } catch (error) {
    throw new BenchError(`${(error as Error).message}\n${help}`, 2);
  }
  const quick = values.quick === true;
  const runs = values.runs === undefined ? (quick ? 1 : 5) : Number(values.runs);
  if (!Number.isInteger(runs) || runs < 1) throw new BenchError("--runs: give a whole number from 1 on", 2);
  const list = (name: "only" | "servers", all: string[]) => {
    const chosen = values[name]?.split(",") ?? all;
    const unknown = chosen.filter((word) => !all.includes(word));
    if (unknown.length > 0) throw new BenchError(`--${name} ${unknown.join(",")}: choose of ${all.join(", ")}`, 2);
    return chosen;
  };
  const { json = false, out, "boot-disk": bootDisk, help: wantsHelp = false } = values;
  const chosen = { only: list("only", parts), servers: list("servers", serverNames) };
  return { quick, runs, ...chosen, json, out, bootDisk, wantsHelp };
}

async function bench(given: ReturnType<typeof options>, folder: string): Promise<Report> {
  const note = (line: string) => void process.stderr.write(`${line}\n`);
  const [size, content] = given.quick ? [GiB, 150e6] : [6 * GiB, 1.2e9];
  const free = statfsSync(folder);
  if (free.bavail * free.bsize < content * 5)
    throw new BenchError(`${folder}: needs ${(content * 5) / 1e9} GB free; set TMPDIR to a folder that has them`);
  note(`making a disk of ${size / GiB} GiB with ${content / 1e6} MB of files in ${folder}`);
  const disk = await makeTestDisk(folder, size, content);
  const threads = Math.min(16, Math.max(2, availableParallelism()));
  const plan: measure.Plan = { disk, folder, runs: given.runs, seconds: given.quick ? 1 : 5, threads, note };
  const images = measure.imagesIn(folder);
  const sections: measure.Section[] = [];
  if (given.only.includes("create")) sections.push(await measure.measureCreation(plan));
  else {
    const needing = given.only.filter((part) => !needsNone(part));
    if (needing.some((part) => part !== "files")) await run(...measure.qemuCreate(plan, images.qcow2));
    if (
      needing.some((part) => part !== "read" && part !== "write") ||
      (needing.length > 0 && given.servers.some((name) => name !== "qemu"))
    )
      await run(...measure.spindleCreate(disk.path, images.spin));
  }
  if (given.only.includes("restore")) sections.push(await measure.measureRestore(plan, images));
  if (given.only.includes("read")) {
    const all = {
      direct: spindleServer("direct", images.spin),
      "fuse-native": spindleServer("fuse-native", images.spin),
      qemu: qemuServer(images.qcow2),
    };
    const servers = given.servers.map((name) => all[name as keyof typeof all]);
    sections.push(await measure.measureReads(plan, servers));
  }
  if (given.only.includes("write")) {
    const all = {
      direct: spindleServer("direct", images.spin, true),
      "fuse-native": spindleServer("fuse-native", images.spin, true),
      qemu: qemuServer(images.qcow2, "qcow2", true),
    };
    sections.push(
      await measureWrites(
        plan,
        given.servers.map((name) => all[name as keyof typeof all]),
      ),
    );
  }
  if (given.only.includes("boot")) {
    const { runs, bootDisk } = given;
    sections.push(await measureBoot({ folder, runs, disk: bootDisk && resolve(bootDisk), note }));
  }
  if (given.only.includes("files")) {
    const drivers = (["direct", "fuse-native"] as const).filter((name) => given.servers.includes(name));
    sections.push(...(await measureFiles(plan, images, drivers)));
  }
  if (given.only.includes("containers")) sections.push(...(await measureContainers(plan)));
  if (given.only.includes("packed"))
    sections.push(await measurePacked({ folder, runs: given.runs, quick: given.quick, note }));
  return {
    date: new Date().toISOString().slice(0, 10),
    spindle: spindleVersion(),
    machine: await machineFacts(),
    disk,
    runs: given.runs,
    sections: sections.map((section) => ({ ...section, summary: summarise(section) })),
  };
}

async function main(): Promise<void> {
  const given = options();
  if (given.wantsHelp) {
    console.log(help);
    return;
  }
  requirePrograms(given.only.includes("files"));
  const folder = mkdtempSync(join(tmpdir(), "spindle-bench-"));
  const cleanUp = () => {
    endPrograms();
    unmountAll();
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  };
  for (const [signal, code] of [["SIGINT", 130] as const, ["SIGTERM", 143] as const, ["SIGHUP", 129] as const])
    process.once(signal, () => {
      cleanUp();
      process.exit(code);
    });
  try {
    const report = await bench(given, folder);
    const document = JSON.stringify(report, null, 2);
    if (given.out !== undefined) writeFileSync(given.out, `${document}\n`);
    console.log(given.json ? document : table(report));
  } finally {
    cleanUp();
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof BenchError)) throw error;
  console.error(`bench: ${error.message}`);
  process.exitCode = error.exitCode;
}
