import { closeSync, existsSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import {
  comesToFail,
  comesTrue,
  drivers,
  type Person,
  people,
  runs,
  serialFor,
  spindleProgram,
  Workspace,
} from "./helpers.js";

/** A row of `spindle list --json`, and what `spindle status --json` tells. */
interface Row {
  readonly mountpoint: string;
  readonly state: string;
  readonly problem?: string;
  readonly image: string;
  readonly pid?: number;
  readonly owner: number;
  readonly view: string;
  readonly driver: string;
  readonly since: string;
  readonly log: string;
  readonly reads?: number;
  readonly bytesRead?: number;
  readonly cacheHitRate?: number | null;
  readonly errors?: number;
  readonly overlay?: string;
  readonly overlayBytes?: number;
  readonly unflushedBytes?: number;
  readonly counters?: Record<string, number>;
}

/** The rows of a workspace: other tests, and people, may have mounts of their own. */
async function rowsOf(place: Workspace, as?: Person): Promise<Row[]> {
  const { code, stdout, stderr } = await place.spindle(["list", "--json"], as);
  if (code !== 0) throw new Error(stderr);
  const { mounts } = JSON.parse(stdout) as { mounts: Row[] };
  return mounts.filter(({ mountpoint }) => mountpoint.startsWith(place.folder));
}

async function statusOf(place: Workspace): Promise<{ code: number | null; row: Row }> {
  const { code, stdout } = await place.spindle(["status", "--json", place.mountpoint]);
  return { code, row: JSON.parse(stdout) as Row };
}

const root = people.find(({ uid }) => uid === 0);
const user = people.find(({ uid }) => uid !== 0);

for (const driver of drivers)
  for (const person of people) {
    const serial = serialFor(person);
    const by = `(${driver}, ${person.title})`;
    const workspace = (t: ExecutionContext, names = {}) => new Workspace(t, person, driver, names);

    serial(`list and status tell what is mounted, and what was read so far ${by}`, async (t) => {
      const place = workspace(t, { mountpoint: "a b,\\é", image: "my disk.img" });
      const before = Date.now();
      const { pid, log } = await place.mount();
      const [row, ...others] = await rowsOf(place);
      t.deepEqual(others, []);
      t.like(row, { mountpoint: place.mountpoint, state: "serving", image: place.image, pid, log });
      t.like(row, { owner: person.uid, view: "disk", driver, errors: 0 });
      t.true(Date.parse(row!.since) >= before - 1000 && Date.parse(row!.since) <= Date.now());
      await place.run("dd", [`if=${join(place.mountpoint, "disk.raw")}`, "of=/dev/null", "bs=1M", "count=4"]);
      const { code, row: later } = await statusOf(place);
      t.is(code, 0);
      t.true(later.reads! > row!.reads!);
      t.true(later.bytesRead! - row!.bytesRead! >= 4 * 1024 * 1024);
      const table = (await place.spindle(["list"])).stdout;
      // How wide a column is depends on what others have mounted.
      const cells = table.split("\n").find((line) => line.startsWith(`${place.mountpoint} `));
      t.deepEqual(cells?.split(/ {2,}/).slice(0, 4), [place.mountpoint, place.image, "disk", driver], table);
      const words = (await place.spindle(["status", place.mountpoint])).stdout;
      t.regex(words, /: serving\n.*Image .*my disk\.img\n/);
      await place.spindle(["unmount", place.mountpoint]);
      t.deepEqual(await rowsOf(place), []);
    });

    serial(`looks into the cache of unpacked chunks, and reads that failed, are counted ${by}`, async (t) => {
      const place = workspace(t);
      const image = join(place.folder, "disk.spin");
      t.is((await place.spindle(["create", place.image, image])).code, 0);
      const fd = openSync(image, "r+");
      writeSync(fd, Buffer.alloc(16, 0xff), 0, 16, 8 * 1024 * 1024);
      closeSync(fd);
      const mounted = await place.spindle(["mount", image, place.mountpoint, "--as", "disk", "--driver", driver]);
      t.is(mounted.code, 0, mounted.stderr);
      t.is((await statusOf(place)).row.errors, 0);
      const raw = join(place.mountpoint, "disk.raw");
      for (let round = 0; round < 2; round++)
        t.is((await place.run("dd", [`if=${raw}`, "of=/dev/null", "bs=4k", "count=64", "iflag=direct"])).code, 0);
      // Four chunks of 64 KiB were unpacked for 128 reads.
      const { cacheHitRate } = (await statusOf(place)).row;
      t.true(cacheHitRate! > 0.9 && cacheHitRate! < 1, String(cacheHitRate));
      t.not((await place.run("dd", [`if=${raw}`, "of=/dev/null", "bs=64k"])).code, 0);
      t.true((await statusOf(place)).row.errors! > 0);
      t.regex((await place.spindle(["status", place.mountpoint])).stdout, /Requests +\d+, of which [1-9]\d* failed/);
    });

    serial(`a server that is stopped is told as such, and list doesn't wait for it ${by}`, async (t) => {
      const place = workspace(t);
      const { pid } = await place.mount();
      process.kill(pid, "SIGSTOP");
      t.teardown(() => runs(pid) && process.kill(pid, "SIGCONT"));
      const [row] = await rowsOf(place);
      t.like(row, { state: "silent", problem: "its server did not answer within 2 seconds", pid, image: place.image });
      t.is(row!.reads, undefined);
      t.is((await statusOf(place)).code, 8);
      process.kill(pid, "SIGCONT");
      t.is((await rowsOf(place))[0]?.state, "serving");
    });

    serial(`a server that has died is told as such, and unmount leaves nothing of it ${by}`, async (t) => {
      const place = workspace(t);
      const { pid, log } = await place.mount();
      const registration = (
        await place.run("sh", ["-c", `grep -l '"pid": ${pid},' "$(dirname ${log})"/*.json`])
      ).stdout.trim();
      t.true(existsSync(registration.replace(/json$/, "sock")));
      for (const watchdog of place.processes().filter((each) => each !== pid)) process.kill(watchdog, "SIGKILL");
      process.kill(pid, "SIGKILL");
      t.true(await comesTrue(() => !runs(pid)));
      t.true(await comesToFail(() => place.list(), /Transport endpoint is not connected/));
      t.like((await rowsOf(place))[0], { state: "dead", problem: "its server has died", pid });
      const { code, stdout } = await place.spindle(["status", place.mountpoint]);
      t.is(code, 8);
      t.regex(stdout, /its server has died\. Clean up with: spindle unmount/);
      t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
      t.deepEqual(await rowsOf(place), []);
      t.false(existsSync(registration));
      t.false(existsSync(registration.replace(/json$/, "sock")));
    });

    serial(`a mount taken away lazily is listed while its files are open ${by}`, async (t) => {
      const place = workspace(t);
      const { pid } = await place.mount();
      const reader = place.start("sh", [
        "-c",
        'exec < "$1"; echo open; exec sleep 60',
        "sh",
        join(place.mountpoint, "disk.raw"),
      ]);
      await new Promise((done) => reader.stdout!.once("data", done));
      t.is((await place.spindle(["unmount", "--lazy", place.mountpoint])).code, 0);
      t.like((await rowsOf(place))[0], { state: "unmounted", pid });
      reader.kill("SIGKILL");
      t.true(await comesTrue(() => !runs(pid)));
      t.deepEqual(await rowsOf(place), []);
    });

    serial(`status of what is no mount of Spindle's is refused in words ${by}`, async (t) => {
      const place = workspace(t);
      const none = await place.spindle(["status", place.mountpoint]);
      t.is(none.code, 3);
      t.regex(none.stderr, /nothing is mounted there/);
      const other = await place.spindle(["status", "/proc"]);
      t.is(other.code, 2);
      t.regex(other.stderr, /not Spindle's/);
    });
  }

for (const driver of drivers)
  serialFor(people[0])(`what a mount is written to, and how much that has, is told (${driver})`, async (t) => {
    const place = new Workspace(t, people[0]!, driver);
    const overlay = join(place.folder, "work.overlay");
    await place.mount(`--writable=${overlay}`);
    // Two blocks of 4 KiB, and three bytes on an edge between two others; the first ones twice.
    const dd = 'dd status=none if=/dev/zero of="$1" count=1 conv=notrunc,fsync';
    const script = `${dd} bs=8192; ${dd} bs=8192; ${dd} bs=3 oflag=seek_bytes seek=65535`;
    t.is((await place.run("sh", ["-c", script, "sh", join(place.mountpoint, "disk.raw")])).code, 0);
    const [row] = await rowsOf(place);
    t.like(row, { state: "serving", overlay, overlayBytes: 16_384, unflushedBytes: 0, errors: 0 });
    t.is(row!.counters!.bytesWritten, 2 * 8192 + 3);
    const table = (await place.spindle(["list"])).stdout.split("\n");
    t.regex(table[0]!, / Overlay +Errors$/);
    t.regex(table.find((line) => line.startsWith(place.mountpoint))!, / 16 KiB +0$/);
    const words = (await place.spindle(["status", place.mountpoint])).stdout;
    t.true(words.includes(`Overlay   ${overlay}\n`), words);
    t.regex(words, /Written +16 KiB in [34] writes, of which 0 B aren't flushed yet; the overlay has 16 KiB\n/);
  });

const both = serialFor(root, user);

for (const driver of drivers)
  both(`root sees a normal user's mount with its figures; the user sees root's without (${driver})`, async (t) => {
    const theirs = new Workspace(t, user!, driver);
    const roots = new Workspace(t, root!, driver);
    const { pid } = await theirs.mount();
    const { log } = await roots.mount();
    const [seen] = await rowsOf(theirs, root);
    t.like(seen, { state: "serving", pid, owner: user!.uid, errors: 0 });
    const [unseen] = await rowsOf(roots, user);
    t.like(unseen, { state: "unknown", problem: "another user's", owner: 0, image: roots.image });
    t.is(unseen!.pid, undefined);
    // Nor is there a way around the folder.
    const { stdout } = await roots.run("sh", ["-c", `ls "$(dirname ${log})"/*.sock`], root);
    for (const socket of stdout.trim().split("\n")) {
      const script = `require("net").connect(${JSON.stringify(socket)}).on("error", (e) => console.log(e.code)).on("data", String)`;
      t.is((await roots.run(process.execPath, ["-e", script], user)).stdout, "EACCES\n");
    }
  });

for (const driver of drivers)
  serialFor(root)(`a mount in another namespace is listed as such (${driver})`, async (t) => {
    const place = new Workspace(t, root!, driver);
    const inside = place.start("unshare", [
      "--mount",
      "sh",
      "-c",
      '"$@" && exec sleep 60',
      "sh",
      process.execPath,
      spindleProgram(),
      ...place.mountArguments("--json"),
    ]);
    await new Promise((done) => inside.stdout!.once("data", done));
    t.false(place.isMounted);
    const [row] = await rowsOf(place);
    t.like(row, { state: "elsewhere", image: place.image });
    process.kill(row!.pid!, "SIGTERM");
    t.true(await comesTrue(() => !runs(row!.pid!)));
  });

serialFor(people[0])("bash completes the mount points of unmount and status", async (t) => {
  const place = new Workspace(t, people[0]!, "direct", { mountpoint: "a place" });
  await place.mount();
  const script = `compopt() { :; }; source <("${process.execPath}" "${spindleProgram()}" completion bash)
    for command in unmount status; do
      COMP_WORDS=(spindle $command "${place.folder}/") COMP_CWORD=2; _spindle; printf '%s\\n' "\${COMPREPLY[@]}"
    done`;
  const { stdout, stderr } = await place.run("bash", ["-c", script]);
  t.is(stdout, `${place.mountpoint}\n${place.mountpoint}\n`, stderr);
  t.true(readFileSync("/proc/self/mountinfo", "utf8").includes("a\\040place"));
});
