/** A gzip-compressed disk: how long until a byte near its end is there, beside unpacking it and nbdkit's gzip filter. */
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { add, row, type Section, warm } from "./measure.js";
import { BenchError, cost, run, spindle } from "./programs.js";
import { inUse } from "./servers.js";
import { makeTestDisk } from "./test-disk.js";

const GiB = 1024 ** 3;
const MiB = 1024 ** 2;

export interface PackedPlan {
  readonly folder: string;
  readonly runs: number;
  readonly quick: boolean;
  note(line: string): void;
}

const isRoot = process.getuid?.() === 0;

/** Makes a disk of its own, of 4 GiB, most of it files: the other measurements' disk is mostly holes. */
export async function measurePacked({ folder, runs, quick, note }: PackedPlan): Promise<Section> {
  for (const program of ["nbdkit", "gzip"])
    await run(program, "--version").catch(() => {
      throw new BenchError(`not found: ${program}. Install with: apt-get install ${program}`, 2);
    });
  const place = join(folder, "packed");
  const point = join(place, "mount");
  const cache = join(place, "cache");
  for (const each of [place, point]) mkdirSync(each, { recursive: true });
  note("making a disk to be packed with gzip");
  const disk = await makeTestDisk(place, quick ? GiB / 2 : 4 * GiB, quick ? 150e6 : 3e9);
  const packed = `${disk.path}.gz`;
  await run("bash", "-c", 'gzip -c "$1" > "$2"', "bash", disk.path, packed);
  const position = disk.size - MiB;
  const expected = (await run("bash", "-c", digest, "bash", disk.path)).stdout;

  const time = row("first byte of the last MiB", "s", "lower");
  const [fresh, kept, zcat, nbdkit] = ["spindle", "spindle, again", "zcat | tail", "nbdkit gzip"] as const;
  let memory = 0;
  const spindleRun = async (name: string) => {
    await cold(packed);
    inUse.add(point);
    const command = `"$1" "$2" mount --json --as disk "$3" "$4" > "$5" && dd if="$4/disk.raw" of=/dev/null bs=1 count=1 skip=${position} status=none`;
    const said = join(place, "mounted.json");
    const { wall } = await cost(
      "env",
      `XDG_CACHE_HOME=${cache}`,
      "bash",
      "-c",
      command,
      "bash",
      process.execPath,
      spindle,
      packed,
      point,
      said,
    );
    add(time, name, wall);
    const { pid } = JSON.parse(readFileSync(said, "utf8")) as { pid: number };
    // A quick server of wrong bytes would win everything.
    const found = (await run("bash", "-c", digest, "bash", join(point, "disk.raw"))).stdout;
    if (found !== expected) throw new BenchError(`${name}: the last MiB is another than the disk's`);
    const peak = /^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    memory = Math.max(memory, Number(peak?.[1] ?? 0) / 1024);
    await run(process.execPath, spindle, "unmount", point);
    inUse.delete(point);
  };
  for (let round = 0; round < runs; round++) {
    rmSync(cache, { recursive: true, force: true });
    mkdirSync(cache);
    await spindleRun(fresh);
    await spindleRun(kept);
    await cold(packed);
    add(
      time,
      zcat,
      (await cost("bash", "-c", `zcat "$1" | tail -c ${MiB} | head -c 1 > /dev/null`, "bash", packed)).wall,
    );
    await cold(packed);
    const read = `qemu-io -r -f raw -c "read ${position} 512" "$uri"`;
    add(time, nbdkit, (await cost("nbdkit", "-U", "-", "--filter=gzip", "file", packed, "--run", read)).wall);
    const last = [fresh, kept, zcat, nbdkit].map((name) => `${name} ${time.runs[name]!.at(-1)} s`);
    note(`packed, run ${round + 1} of ${runs}: ${last.join(", ")}`);
  }
  const sizes = `${(disk.size / GiB).toFixed(1)} GiB with ${(disk.data / 1e9).toFixed(1)} GB of data, packed ${(statSync(packed).size / 1e9).toFixed(2)} GB`;
  rmSync(place, { recursive: true });
  return {
    title: "A disk packed with gzip",
    method: `${sizes}. From the command to mount to the byte, nothing in the page cache${isRoot ? "" : " but the packed file (no root)"}; the second row of Spindle's with what the first has found out. Peak memory of Spindle's server: ${Math.round(memory)} MiB.`,
    contenders: [fresh, kept, zcat, nbdkit],
    reference: zcat,
    rows: [time],
  };
}

const digest = `tail -c ${MiB} "$1" | sha256sum`;

async function cold(file: string): Promise<void> {
  if (!isRoot) return void (await warm(file));
  await run("sync");
  writeFileSync("/proc/sys/vm/drop_caches", "3");
}
