/**
 * A server that is killed in the middle of writing: four writers that know what was synchronised, and fio. SPINDLE_ROUNDS
 * sets how often the server is killed.
 */
import { spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ExecutionContext } from "ava";
import { readStamp, sector, stampedWrites } from "./crash-writer.js";
import { comesTrue, type DriverName, drivers, people, runs, serialFor, Workspace } from "./helpers.js";

const rounds = Number(process.env.SPINDLE_ROUNDS ?? 3);
const person = people[0]!;
const MiB = 1024 * 1024;
const partitionAt = MiB;
const compiled = fileURLToPath(new URL(".", import.meta.url));

/** Each writer has a stretch of the disk to itself; the second pair writes through the partition. */
const jobs = [0, 1, 2, 3].map((job) => ({
  job,
  file: job < 2 ? "disk.raw" : "p1.raw",
  base: job < 2 ? 0 : partitionAt,
  stretch: { start: 2 * MiB + job * 3 * MiB, length: 3 * MiB },
}));

async function killedRounds(t: ExecutionContext, driver: DriverName): Promise<void> {
  const place = new Workspace(t, person, driver);
  const overlay = join(place.folder, "o");
  const before = Buffer.from(place.disk);
  const totals = { synchronised: 0, writes: 0, changed: 0 };
  /** Bytes of the disk as they were found last. */
  let found = before;
  for (let round = 1; round <= rounds; round++) {
    const { pid } = await place.mount(`--writable=${overlay}`, "--workers", "4");
    const writers = jobs.map(({ job, file, base, stretch }) => {
      const seed = round * 4 + job;
      const words = [
        join(compiled, "crash-writer.js"),
        join(place.mountpoint, file),
        seed,
        stretch.start,
        stretch.length,
        base,
      ];
      const child = spawn(process.execPath, words.map(String), { stdio: ["ignore", "pipe", "ignore"] });
      let told = "";
      child.stdout.on("data", (data: Buffer) => {
        told += data.toString();
      });
      const ended = new Promise<void>((done) => child.on("close", () => done()));
      /** Only whole lines count. */
      const done = () => Number(told.slice(0, told.lastIndexOf("\n")).split("\n").at(-1) ?? 0);
      return { seed, stretch, ended, done, child };
    });
    await comesTrue(() => writers.every(({ done }) => done() > 0));
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 1000));
    process.kill(pid, "SIGKILL");
    t.true(await comesTrue(() => !runs(pid) && !place.isMounted), "the dead mount is taken away");
    await Promise.all(writers.map(({ ended }) => ended));

    await place.mount(`--writable=${overlay}`, "--workers", "4");
    const now = readFileSync(join(place.mountpoint, "disk.raw"));
    t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
    for (const { seed, stretch, done } of writers) {
      const synchronised = done();
      totals.synchronised += synchronised;
      const wrong = check(now, found, seed, stretch, synchronised, totals);
      if (wrong) return t.fail(`round ${round}, writer ${seed}, ${synchronised} synchronised: ${wrong}`);
    }
    t.true(
      now.subarray(0, 2 * MiB).equals(before.subarray(0, 2 * MiB)) &&
        now.subarray(14 * MiB).equals(before.subarray(14 * MiB)),
      "what nobody wrote is as it was",
    );
    found = now;
  }
  t.true(readFileSync(place.image).equals(before), "the image never changes");
  t.true(totals.synchronised > 4 * rounds && totals.changed > 0);
  t.log(
    `${rounds} rounds through ${driver}: ${totals.synchronised} writes were synchronised, ${totals.changed} sectors had changed, none was lost or torn`,
  );
}

/** What is wrong with a writer's stretch: each sector is as it was, or of a write not older than the last synchronised. */
function check(
  now: Buffer,
  found: Buffer,
  seed: number,
  stretch: { start: number; length: number },
  synchronised: number,
  totals: { changed: number },
): string | undefined {
  const oldest = new Map<number, number>();
  for (const { number, position, length } of stampedWrites(seed, stretch)) {
    if (number > synchronised) break;
    for (let at = position; at < position + length; at += sector) oldest.set(at, number);
  }
  const covering = new Map<number, Set<number>>();
  for (let at = stretch.start; at < stretch.start + stretch.length; at += sector) {
    const is = now.subarray(at, at + sector);
    if (is.equals(found.subarray(at, at + sector)) && !oldest.has(at)) continue;
    const read = readStamp(Uint8Array.from(is));
    if (!read) return `the sector at byte ${at} is torn`;
    if (read.position !== at) return `the sector at byte ${at} is that of byte ${read.position}`;
    if (read.seed !== seed)
      return `the sector at byte ${at} was written in an earlier round, and synchronised by ${oldest.get(at)} in this`;
    if (read.number < (oldest.get(at) ?? 0))
      return `the sector at byte ${at} is of write ${read.number}; ${oldest.get(at)} was synchronised`;
    totals.changed++;
    covering.set(read.number, (covering.get(read.number) ?? new Set()).add(at));
  }
  const last = Math.max(0, ...covering.keys());
  for (const { number, position, length } of stampedWrites(seed, stretch)) {
    if (number > last) break;
    for (const at of covering.get(number) ?? [])
      if (at < position || at >= position + length)
        return `write ${number} is found at byte ${at}, where it didn't write`;
  }
  return undefined;
}

for (const driver of drivers)
  serialFor(person)(
    `killed while four write, it loses nothing that was synchronised and tears no sector, through ${driver}`,
    (t) => killedRounds(t, driver),
  );

const haveFio = spawnSync("fio", ["--version"]).status === 0;

for (const driver of drivers)
  serialFor(person)(`what fio wrote and synchronised it finds again after a kill, through ${driver}`, async (t) => {
    if (!haveFio) return void t.log("skipped: fio is not installed (apt install fio)");
    const place = new Workspace(t, person, driver);
    const overlay = join(place.folder, "o");
    const { pid } = await place.mount(`--writable=${overlay}`, "--workers", "4");
    const fio = async (file: string, direct: number, ...more: string[]) => {
      const words = [
        ...["--name=verified", `--filename=${join(place.mountpoint, file)}`, "--rw=randwrite", "--numjobs=4"],
        ...[
          "--offset_increment=1536K",
          "--size=1536K",
          "--verify=crc32c",
          "--verify_fatal=1",
          "--randseed=7",
          `--direct=${direct}`,
        ],
        ...["--bsrange=512-64k", "--blockalign=512", "--group_reporting", "--output-format=terse", ...more],
      ];
      const { code, stdout, stderr } = await place.run("fio", words);
      t.is(code, 0, `fio ${more.join(" ")}: ${stdout} ${stderr}`);
    };
    for (const [file, offset, direct] of [
      ["p1.raw", "--offset=0", 0],
      ["disk.raw", "--offset=8M", 1],
    ] as const)
      await fio(file, direct, offset, "--fsync=16", "--end_fsync=1");
    process.kill(pid, "SIGKILL");
    t.true(await comesTrue(() => !runs(pid) && !place.isMounted));
    await place.mount(`--writable=${overlay}`, "--workers", "4");
    await fio("p1.raw", 0, "--offset=0", "--verify_only");
    await fio("disk.raw", 0, "--offset=8M", "--verify_only");
    t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
    t.true(readFileSync(place.image).equals(place.disk), "the image never changes");
  });
