/** A disk as a loop device with partitions: one command to have it, one name to be rid of it, and nothing left of it. */
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { ExecutionContext } from "ava";
import {
  backingFile,
  comesTrue,
  type DriverName,
  drivers,
  loopMount,
  loopOver,
  people,
  runs,
  serialFor,
  spindleProgram,
  Workspace,
} from "./helpers.js";

const root = people.find(({ uid }) => uid === 0);
const haveLoops = root !== undefined && spawnSync("losetup", ["-f"]).status === 0;
const asRoot = serialFor(root);

interface AttachedJson {
  readonly device: string;
  readonly partitions: readonly string[];
  readonly pid: number;
  readonly mountpoint: string;
  /** Of this use of the device: others may have it next. Empty before Linux 5.15. */
  readonly sequence: string;
}

/** What is left of attaching in the runtime folder. */
const folders = () =>
  existsSync("/run/spindle") ? readdirSync("/run/spindle").filter((name) => name.startsWith("attached-")) : [];
const devicesOver = (folder: string) =>
  spawnSync("losetup", ["-l", "-O", "BACK-FILE"], { encoding: "utf8" }).stdout.includes(folder);

/** Whether the device is still what attach made of it. */
const isThere = ({ device, sequence }: AttachedJson) =>
  backingFile(device) !== undefined && sequence === sequenceOf(device);

function sequenceOf(device: string): string {
  const path = `/sys/block/${basename(device)}/diskseq`;
  return existsSync(path) ? readFileSync(path, "utf8").trim() : "";
}

function place(t: ExecutionContext, driver: DriverName): Workspace | undefined {
  if (haveLoops) return new Workspace(t, root!, driver);
  t.log("skipped: no loop device can be had");
  return undefined;
}

const matches = (mount: object, row: object) => JSON.stringify({ ...mount, ...row }) === JSON.stringify(mount);

async function attached(t: ExecutionContext, here: Workspace, ...more: string[]): Promise<AttachedJson> {
  const { code, stdout, stderr } = await here.spindle([
    "attach",
    here.image,
    "--json",
    "--driver",
    here.driver,
    ...more,
  ]);
  if (code !== 0) throw new Error(stderr);
  const made = JSON.parse(stdout) as AttachedJson;
  const told = { ...made, sequence: sequenceOf(made.device) };
  t.teardown(() => {
    if (isThere(told)) spawnSync("losetup", ["-d", told.device]);
  });
  return told;
}

function isGone(t: ExecutionContext, told: AttachedJson, what: string): void {
  const { pid, mountpoint } = told;
  t.false(runs(pid), `${what}: the server is gone`);
  t.false(folders().includes(mountpoint.split("/").at(-1)!), `${what}: so is its folder`);
  t.false(readFileSync("/proc/self/mountinfo", "utf8").includes(mountpoint), `${what}: and its mount`);
  t.false(isThere(told), `${what}: and the device`);
}

for (const driver of drivers) {
  asRoot(
    `a disk and its partitions are devices, read-only, until it is detached by its name (${driver})`,
    async (t) => {
      const here = place(t, driver);
      if (!here) return;
      const told = await attached(t, here);
      t.deepEqual(told.partitions, [`${told.device}p1`]);
      t.true(readFileSync(told.device).equals(here.disk));
      t.true(readFileSync(told.partitions[0]!).equals(here.partition));
      t.not((await here.run("dd", ["if=/dev/zero", `of=${told.device}`, "bs=512", "count=1"])).code, 0);
      const { mounts } = JSON.parse((await here.spindle(["list", "--json"])).stdout) as { mounts: object[] };
      const row = { state: "serving", mountpoint: told.mountpoint, image: here.image, devices: [told.device] };
      t.true(
        mounts.some((mount) => matches(mount, row)),
        JSON.stringify(mounts),
      );
      t.regex((await here.spindle(["list"])).stdout, new RegExp(`${told.mountpoint} .* ${told.device} `));
      const status = await here.spindle(["status", told.device]);
      t.regex(status.stdout, new RegExp(`^${told.mountpoint}: serving\n[^]*Devices +${told.device}\n`));
      const same = await here.spindle(["status", told.partitions[0]!]);
      t.regex(same.stdout, new RegExp(`^${told.mountpoint}: serving\n`), same.stderr);
      const part = await here.spindle(["detach", told.partitions[0]!]);
      t.is(part.code, 2);
      t.regex(
        part.stderr,
        new RegExp(`${told.partitions[0]}: is a part of ${told.device}, .*: spindle detach ${told.device}\n`),
      );
      const ended = await here.spindle(["detach", told.device.slice(5)]);
      t.is(ended.code, 0, ended.stderr);
      isGone(t, told, "after detach");
    },
  );

  asRoot(
    `a writable device keeps what was written in its overlay, and is refused to detach while it is mounted (${driver})`,
    async (t) => {
      const here = place(t, driver);
      if (!here) return;
      const overlay = join(here.folder, "o");
      const told = await attached(t, here, `--writable=${overlay}`);
      const [partition] = told.partitions;
      t.is((await here.run("mkfs.ext4", ["-q", "-F", partition!])).code, 0);
      const inner = join(here.folder, "inner");
      mkdirSync(inner);
      t.is(loopMount(partition!, inner).status, 0);
      t.teardown(() => void spawnSync("umount", ["-l", inner]));
      writeFileSync(join(inner, "file"), "kept");
      const refused = await here.spindle(["detach", told.device]);
      t.not(refused.code, 0);
      t.regex(refused.stderr, new RegExp(`${partition} is mounted at ${inner}`));
      t.is(readFileSync(join(inner, "file"), "utf8"), "kept", "nothing has changed by that");
      spawnSync("umount", [inner]);
      t.is((await here.spindle(["detach", told.device])).code, 0);
      isGone(t, told, "after detach");
      t.true(readFileSync(here.image).equals(here.disk), "the image never changes");
      const again = await attached(t, here, `--writable=${overlay}`);
      t.is(loopMount(again.partitions[0]!, inner).status, 0);
      t.is(readFileSync(join(inner, "file"), "utf8"), "kept");
      spawnSync("umount", [inner]);
      t.is((await here.spindle(["detach", again.device])).code, 0);
    },
  );

  asRoot(
    `what can't be attached, and what attach didn't make, is refused, and nothing is left (${driver})`,
    async (t) => {
      const here = place(t, driver);
      if (!here) return;
      const before = folders();
      const fails = async (words: RegExp, parameters: string[], env?: NodeJS.ProcessEnv) => {
        const { code, stderr } = await here.spindle(parameters, root, env);
        t.not(code, 0, parameters.join(" "));
        t.regex(stderr, words);
        t.deepEqual(folders(), before);
        t.false(here.isMounted);
      };
      await fails(/no such file/i, ["attach", join(here.folder, "none"), "--driver", driver]);
      await fails(/is there and is no overlay/, ["attach", here.image, "--driver", driver, `--writable=${here.image}`]);
      // A losetup that fails after the mount is there.
      const fake = join(here.folder, "losetup");
      writeFileSync(fake, "#!/bin/sh\necho no such luck >&2\nexit 7\n");
      chmodSync(fake, 0o755);
      await fails(/no such luck/, ["attach", here.image, "--driver", driver], {
        PATH: `${here.folder}:${process.env.PATH}`,
      });
      await fails(/is no loop device in use/, ["detach", "/dev/null"]);
      // There is no such number: one that is free could be another test's by now.
      await fails(/is no loop device in use/, ["detach", "/dev/loop99999"]);
      const own = loopOver(t, here.image)!;
      await fails(/was not made by spindle attach/, ["detach", own]);
      t.is(backingFile(own), here.image, "it is left alone");
    },
  );

  asRoot(
    `what a kill leaves is taken away: of the command at any moment by the next, of the server by detach (${driver})`,
    async (t) => {
      const here = place(t, driver);
      if (!here) return;
      for (const delay of [100, 250, 400, 600]) {
        const child = here.start(process.execPath, [spindleProgram(), "attach", here.image, "--driver", driver]);
        await new Promise((done) => setTimeout(done, delay));
        child.kill("SIGKILL");
      }
      const told = await attached(t, here);
      // A kill after the device was made leaves a whole one, which has a name.
      for (const name of folders().filter((each) => join("/run/spindle", each) !== told.mountpoint))
        if (devicesOver(name)) {
          const device = spawnSync("sh", ["-c", `losetup -l -n -O NAME,BACK-FILE | grep ${name}`], {
            encoding: "utf8",
          });
          t.is((await here.spindle(["detach", device.stdout.split(" ")[0]!])).code, 0);
        }
      process.kill(told.pid, "SIGKILL");
      t.true(await comesTrue(() => !runs(told.pid)));
      const status = await here.spindle(["status", told.device]);
      t.is(status.code, 8);
      t.regex(status.stdout, new RegExp(`its server has died. Clean up with: spindle detach ${told.device}\n`));
      t.regex((await here.spindle(["list"])).stdout, new RegExp(`${told.device} .* its server has died`));
      const ended = await here.spindle(["detach", told.device]);
      t.is(ended.code, 0, ended.stderr);
      isGone(t, told, "after the server was killed");
      t.true(await comesTrue(() => here.processes().length === 0), "no server is left");
      t.deepEqual(folders(), []);
    },
  );
}

serialFor(people.find(({ uid }) => uid !== 0))("only root attaches", async (t) => {
  const here = new Workspace(t, people.find(({ uid }) => uid !== 0)!, "direct");
  const { code, stderr } = await here.spindle(["attach", here.image]);
  t.is(code, 2);
  t.regex(stderr, /only root may make loop devices/);
});
