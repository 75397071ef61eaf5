import { spawn } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import type { Mount } from "./mounts.js";
import {
  clean,
  findRegistration,
  isRunning,
  type Registration,
  register,
  runtimeFolder,
  startTimeOf,
} from "./registry.js";

const linux = process.platform === "linux" ? test.serial : test.serial.skip;
if (process.platform !== "linux") console.log("Skipped: the registry is tested against /proc.");
const user = process.getuid?.() ?? 0;

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), "spindle-registry-"));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

const mine = (device: string): Registration => ({
  pid: process.pid,
  startTime: startTimeOf(process.pid),
  mountpoint: "/m",
  device,
  image: "/i",
  driver: "direct",
  view: "disk",
});

const mount = (device: string): Mount => ({
  id: 1,
  parent: 0,
  device,
  mountpoint: "/m",
  type: "fuse.spindle",
  source: "/i",
  options: [],
  superOptions: [`user_id=${user}`],
});

linux("this process runs, but not as one that started at another time", (t) => {
  const startTime = startTimeOf(process.pid);
  t.true(startTime > 0);
  t.true(isRunning(process.pid, startTime));
  t.false(isRunning(process.pid, startTime + 1));
  t.is(startTimeOf(2 ** 30), 0);
});

linux("a process whose name looks like fields of /proc/PID/stat is read all the same", async (t) => {
  const place = folder(t);
  const program = join(place, "a) Z 1 2 3");
  symlinkSync("/bin/sleep", program);
  const child = spawn(program, ["100"]);
  t.teardown(() => child.kill());
  await new Promise((done) => child.once("spawn", done));
  t.true(startTimeOf(child.pid!) >= startTimeOf(process.pid));
});

linux("a mount's server is found by its device, the newest of the same number", (t) => {
  const place = runtimeFolder();
  const device = "999:4242";
  const dead = ["test-0-dead", "test-1-dead"].map((name) =>
    register(place, name, { ...mine(device), startTime: 2 ** 50 }),
  );
  const living = register(place, "test-2-alive", mine(device));
  t.teardown(() => {
    for (const path of [...dead, living]) rmSync(path, { force: true });
  });
  t.true(findRegistration(mount(device))?.alive);
  t.is(findRegistration(mount(device))?.registration.pid, process.pid);
  rmSync(living);
  t.false(findRegistration(mount(device))?.alive);
  // One that was mounted elsewhere is no server of this.
  t.is(findRegistration({ ...mount(device), mountpoint: "/other" }), undefined);
  t.is(findRegistration(mount("999:4243")), undefined);
  clean(place);
  t.false(readdirSync(place).includes("test-1-dead.json"));
});

linux("of several registrations for one device the newest counts, a dead one only at the same mount point", (t) => {
  const place = runtimeFolder();
  const device = "999:4245";
  const names = ["test-0", "test-1", "test-2", "test-3", "test-4", "test-5"];
  t.teardown(() => {
    for (const name of names) rmSync(join(place, `${name}.json`), { force: true });
  });
  const dead = { ...mine(device), startTime: 1 };
  register(place, "test-1", dead);
  register(place, "test-2", { ...dead, image: "/newer" });
  register(place, "test-4", { ...dead, mountpoint: "/elsewhere" });
  t.is(findRegistration(mount(device))?.registration.image, "/newer");
  register(place, "test-3", { ...mine(device), image: "/living" });
  t.is(findRegistration(mount(device))?.registration.image, "/living");
  // Of another mount by then, which the server of the first doesn't know while it flushes.
  register(place, "test-5", { ...mine(device), image: "/next" });
  register(place, "test-0", { ...mine(device), image: "/before" });
  t.is(findRegistration(mount(device))?.registration.image, "/next");
});

linux("a server that still flushes after its mount has ended isn't taken for the server of a newer mount", (t) => {
  const place = runtimeFolder();
  const device = "999:4246";
  const flushing = register(place, "test-1", {
    ...mine(device),
    pid: process.ppid,
    startTime: startTimeOf(process.ppid),
  });
  const serving = register(place, "test-2", mine(device));
  t.teardown(() => {
    for (const path of [flushing, serving]) rmSync(path, { force: true });
  });
  t.is(findRegistration(mount(device))?.registration.pid, process.pid);
  writeFileSync(serving, JSON.stringify({ ...mine(device), startTime: 1 }));
  t.false(findRegistration(mount(device))?.alive, "the newer mount's server has died");
});

linux("files of the registry that are links, too large or no registration are passed over", (t) => {
  const place = runtimeFolder();
  const device = "999:4244";
  const good = join(folder(t), "good.json");
  writeFileSync(good, JSON.stringify(mine(device)));
  const names = ["test-link", "test-large", "test-half", "test-words"].map((name) => join(place, `${name}.json`));
  t.teardown(() => {
    for (const path of names) rmSync(path, { force: true });
  });
  symlinkSync(good, names[0]!);
  writeFileSync(names[1]!, JSON.stringify({ ...mine(device), image: "x".repeat(100_000) }));
  writeFileSync(names[2]!, JSON.stringify(mine(device)).slice(0, 40));
  writeFileSync(names[3]!, JSON.stringify({ ...mine(device), pid: "1; rm" }));
  t.is(findRegistration(mount(device)), undefined);
});

linux(
  "sockets and old logs of mounts that have ended go, empty ones sooner; those of living mounts and new ones stay",
  (t) => {
    const place = folder(t);
    register(place, "alive", { ...mine("999:1"), log: join(place, "live.log") });
    for (const name of ["killed", "talkative"])
      register(place, name, { ...mine("999:2"), startTime: 2 ** 50, log: join(place, `${name}.log`) });
    for (const name of ["alive", "killed", "lost"]) writeFileSync(join(place, `${name}.sock`), "");
    const hour = 3600;
    for (const [name, words, age] of [
      ["live.log", "", 30 * 24 * hour],
      ["old.log", "words", 8 * 24 * hour],
      ["empty.log", "", 2 * hour],
      ["yesterday.log", "words", 24 * hour],
      ["starting.log", "", 1],
      ["killed.log", "", 1],
      ["talkative.log", "words", 1],
    ] as const) {
      writeFileSync(join(place, name), words);
      const time = Date.now() / 1000 - age;
      utimesSync(join(place, name), time, time);
    }
    clean(place);
    const left = ["alive.json", "alive.sock", "live.log", "starting.log", "talkative.log", "yesterday.log"];
    t.deepEqual(readdirSync(place).sort(), left);
  },
);

linux("a mount that is made while another's leftovers are removed keeps its registration and its socket", (t) => {
  const place = folder(t);
  const device = "999:3";
  // Whoever looks for mounts first and for registrations then finds a server without a mount.
  clean(place, () => {
    register(place, "living", mine(device));
    writeFileSync(join(place, "living.sock"), "");
    register(place, "died-at-once", { ...mine(device), startTime: 2 ** 50 });
    return [];
  });
  t.deepEqual(readdirSync(place).sort(), ["died-at-once.json", "living.json", "living.sock"]);
  clean(place, () => [mount(device)]);
  t.true(readdirSync(place).includes("died-at-once.json"), "its mount is still there");
  clean(place, () => []);
  t.deepEqual(readdirSync(place).sort(), ["living.json", "living.sock"]);
});

linux("who died in another mount namespace, where the mount may still be, is told of for a week", (t) => {
  const place = folder(t);
  const dead = { ...mine("999:4"), startTime: 2 ** 50 };
  register(place, "here", { ...dead, namespace: readlinkSync("/proc/self/ns/mnt") });
  register(place, "elsewhere", { ...dead, namespace: "mnt:[1]" });
  register(place, "long-ago", { ...dead, namespace: "mnt:[1]" });
  register(place, "older-version", dead);
  const time = Date.now() / 1000 - 8 * 24 * 3600;
  utimesSync(join(place, "long-ago.json"), time, time);
  clean(place);
  t.deepEqual(readdirSync(place), ["elsewhere.json"]);
});

linux("a runtime folder that others may write to is not trusted", (t) => {
  if (user === 0) {
    t.log("skipped: root's folder is /run/spindle, which this test leaves alone");
    return t.pass();
  }
  const session = process.env.XDG_RUNTIME_DIR;
  const place = folder(t);
  mkdirSync(join(place, "spindle"));
  chmodSync(join(place, "spindle"), 0o777);
  process.env.XDG_RUNTIME_DIR = place;
  t.not(runtimeFolder(), join(place, "spindle"));
  process.env.XDG_RUNTIME_DIR = session;
  return undefined;
});
