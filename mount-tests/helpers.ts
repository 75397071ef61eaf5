/**
 * What the mount tests share: an installation of Spindle that every user can read, the people who run it, and a
 * workspace with an image and a mount point that leaves nothing behind.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createCipheriv } from "node:crypto";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import test, { type ExecutionContext } from "ava";
import { parseMountinfo } from "../src/fuse/mounts.js";

export const drivers = ["direct", "fuse-native"] as const;
export type DriverName = (typeof drivers)[number];

/** Who runs Spindle. */
export interface Person {
  readonly title: "root" | "a normal user";
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

const isRoot = process.getuid?.() === 0;
const testUser = "spindle-test";

/** Root, and a user made for it, where the tests run as root; otherwise who runs the tests. */
export const people: readonly Person[] = isRoot
  ? [{ title: "root", uid: 0, gid: 0, home: "/root" }, normalUser()]
  : [{ title: "a normal user", uid: process.getuid!(), gid: process.getgid!(), home: process.env.HOME ?? "/tmp" }];

/** Why a person can't mount here; undefined where he can. */
export function obstacle(person: Person | undefined): string | undefined {
  if (!person) return "these tests don't run as root";
  if (!existsSync("/dev/fuse")) return "there is no /dev/fuse";
  if (spawnSync("fusermount3", ["--version"]).error) return "fusermount3 is not installed (apt install fuse3)";
  const may = spawnSync("sh", ["-c", "test -r /dev/fuse && test -w /dev/fuse"], isRoot ? identity(person) : {});
  return may.status === 0 ? undefined : `${person.title} may not open /dev/fuse (as root: chmod 666 /dev/fuse)`;
}

/** `test.serial` for what these people do; where one of them can't, the test is skipped and says why. */
export function serialFor(...persons: (Person | undefined)[]): typeof test.serial | typeof test.serial.skip {
  const reason = persons.map(obstacle).find((each) => each !== undefined);
  if (reason === undefined) return test.serial;
  if (!told.has(reason)) console.log(`Skipped: ${reason}.`);
  told.add(reason);
  return test.serial.skip;
}
const told = new Set<string>();

const identity = ({ uid, gid }: Person) => ({ uid, gid });

function normalUser(): Person {
  const entry = () => spawnSync("getent", ["passwd", testUser], { encoding: "utf8" }).stdout.trim();
  // Two files of tests may begin at once: useradd refuses the second while the first has its lock.
  for (let tries = 0; tries < 50 && !entry(); tries++)
    if (spawnSync("useradd", ["-m", testUser]).status !== 0) spawnSync("sleep", ["0.1"]);
  const [, , uid, gid, , home] = entry().split(":");
  if (!uid) throw new Error(`the user ${testUser} can't be made with useradd`);
  return { title: "a normal user", uid: Number(uid), gid: Number(gid), home: home! };
}

/** The compiled code that these tests are a part of: `dist`. */
const compiled = fileURLToPath(new URL("..", import.meta.url));
const repository = join(compiled, "..");

/**
 * A copy of the program where everybody can read it, as `npm install --omit=dev` would make it; that of the files of tests
 * before this one (ava.config.js), which is there whole or not at all.
 */
function installation(): string {
  const shared = process.env.SPINDLE_TEST_INSTALLATION!;
  if (existsSync(shared)) return shared;
  const folder = mkdtempSync(`${shared}.`);
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  chmodSync(folder, 0o755);
  cpSync(join(compiled, "program"), join(folder, "dist/program"), { recursive: true });
  for (const name of ["bin", "package.json"]) cpSync(join(repository, name), join(folder, name), { recursive: true });
  const lock = JSON.parse(readFileSync(join(repository, "package-lock.json"), "utf8")) as {
    packages: Record<string, { dev?: boolean }>;
  };
  for (const [path, { dev }] of Object.entries(lock.packages)) {
    if (path === "" || dev || /\/node_modules\//.test(path) || !existsSync(join(repository, path))) continue;
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    cpSync(join(repository, path), join(folder, path), { recursive: true, dereference: true });
  }
  spawnSync("chmod", ["-R", "a+rX", folder]);
  try {
    renameSync(folder, shared);
  } catch (error) {
    // Another file of tests came first.
    if (!existsSync(shared)) throw error;
  }
  return shared;
}

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What `spindle mount --json` tells. */
export interface MountedJson {
  readonly pid: number;
  readonly mountpoint: string;
  readonly driver: string;
  readonly log: string;
}

/** Sizes of the test disk: 16 MiB with one partition from 1 MiB on. */
const diskSize = 16 * 1024 * 1024;
const partitionAt = 1024 * 1024;

/** A disk with an MBR and one Linux partition; pseudo-random everywhere else. */
export function makeDisk(): Buffer {
  const disk = createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(diskSize));
  disk.fill(0, 440, 512);
  disk[446 + 4] = 0x83;
  disk.writeUInt32LE(partitionAt / 512, 446 + 8);
  disk.writeUInt32LE((diskSize - partitionAt) / 512, 446 + 12);
  disk.writeUInt16LE(0xaa55, 510);
  return disk;
}

/** A folder of one person with `disk.img` and the mount point `mnt`; what is left of a test goes when it ends. */
export class Workspace {
  readonly folder: string;
  readonly image: string;
  readonly mountpoint: string;
  readonly disk = makeDisk();
  private readonly started: ChildProcess[] = [];

  constructor(
    t: ExecutionContext<unknown>,
    readonly person: Person,
    readonly driver: DriverName,
    names: { image?: string; mountpoint?: string } = {},
  ) {
    this.folder = mkdtempSync(join(tmpdir(), "spindle-mount-test-"));
    this.image = join(this.folder, names.image ?? "disk.img");
    this.mountpoint = join(this.folder, names.mountpoint ?? "mnt");
    writeFileSync(this.image, this.disk);
    mkdirSync(this.mountpoint);
    for (const path of [this.folder, this.image, this.mountpoint]) chownSync(path, person.uid, person.gid);
    t.teardown(() => this.remove());
  }

  get partition(): Buffer {
    return this.disk.subarray(partitionAt);
  }

  /** Runs a program as the workspace's person and waits for its end. */
  run(command: string, parameters: string[], as: Person = this.person, env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
    return finished(this.start(command, parameters, { as, env }));
  }

  /** Starts a program as the workspace's person; it is killed when the test ends. */
  start(
    command: string,
    parameters: string[],
    { as = this.person, env = {}, cwd = this.folder }: { as?: Person; env?: NodeJS.ProcessEnv; cwd?: string } = {},
  ): ChildProcess {
    const child = spawn(command, parameters, {
      cwd,
      env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin`, HOME: as.home, LC_ALL: "C", ...env },
      stdio: ["ignore", "pipe", "pipe"],
      // A group of its own, as a shell gives to a job: Ctrl-C is a signal to the group.
      detached: true,
      ...(isRoot ? identity(as) : {}),
    });
    this.started.push(child);
    return child;
  }

  spindle(parameters: string[], as?: Person, env?: NodeJS.ProcessEnv): Promise<Outcome> {
    return this.run(process.execPath, [spindleProgram(), ...parameters], as, env);
  }

  /**
   * The arguments of a mount of the test disk by the workspace's driver; with few workers, which take most of a start's
   * time, unless `more` says how many.
   */
  mountArguments(...more: string[]): string[] {
    const workers = more.includes("--workers") ? [] : ["--workers", "2"];
    return ["mount", this.image, this.mountpoint, "--as", "disk", "--driver", this.driver, ...workers, ...more];
  }

  /** Mounts in the background; the test fails with what Spindle said if it can't. */
  async mount(...more: string[]): Promise<MountedJson> {
    const { code, stdout, stderr } = await this.spindle(this.mountArguments("--json", ...more));
    if (code !== 0) throw new Error(`mount failed with ${code}: ${stderr}`);
    return JSON.parse(stdout) as MountedJson;
  }

  /** Unmounts as people do without Spindle, which is quicker; the server ends meanwhile. */
  unmountPlainly(t: ExecutionContext<unknown>): void {
    const words = isRoot ? ["umount", this.mountpoint] : ["fusermount3", "-u", this.mountpoint];
    const { status, stderr } = spawnSync(words[0]!, words.slice(1), { encoding: "utf8" });
    t.is(status, 0, stderr);
  }

  /** Mounts in the foreground and returns when it says that the mount answers. */
  async mountInForeground(...more: string[]): Promise<{ child: ChildProcess; outcome: Promise<Outcome> }> {
    const child = this.start(process.execPath, [spindleProgram(), ...this.mountArguments("--foreground", ...more)]);
    const outcome = finished(child);
    await new Promise<void>((done, fail) => {
      child.stdout!.once("data", () => done());
      outcome.then(({ code, stderr }) => fail(new Error(`ended with ${code}: ${stderr}`)), fail);
    });
    return { child, outcome };
  }

  /** Whether a mount is at the mount point or anywhere beneath the workspace. */
  get isMounted(): boolean {
    return this.mountsHere().length > 0;
  }

  /** How many mounts there are, those that lie on others included. */
  get mounts(): number {
    return this.mountsHere().length;
  }

  private mountsHere(): string[] {
    return parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8"))
      .map(({ mountpoint }) => mountpoint)
      .filter((path) => path.startsWith(`${this.folder}/`));
  }

  /** Names in the mount point as its person sees them; throws `Transport endpoint is not connected` and the like. */
  async list(): Promise<string[]> {
    const { code, stdout, stderr } = await this.run("ls", ["-A", "--", this.mountpoint]);
    if (code !== 0) throw new Error(stderr);
    return stdout.split("\n").filter((name) => name !== "");
  }

  /** Whether a file of the mount has these bytes, read by the workspace's person. */
  async holds(name: string, bytes: Buffer): Promise<boolean> {
    const copy = join(this.folder, `expected-${name}`);
    writeFileSync(copy, bytes);
    // cmp alone asks for 4 KiB at a time, each of them a request where the page cache is gone past.
    const { code } = await this.run("sh", [
      "-c",
      'dd if="$1" bs=1M status=none | cmp -s - "$2"',
      "sh",
      join(this.mountpoint, name),
      copy,
    ]);
    rmSync(copy);
    return code === 0;
  }

  /** Processes whose command line names the workspace: servers and watchdogs. */
  processes(): number[] {
    return readdirSync("/proc")
      .filter((name) => /^[0-9]+$/.test(name) && commandLine(Number(name)).includes(this.folder))
      .map(Number);
  }

  private remove(): void {
    for (const child of this.started) if (child.exitCode === null) child.kill("SIGKILL");
    for (const path of this.mountsHere().reverse()) {
      if (isRoot) spawnSync("umount", ["-l", path]);
      else spawnSync("fusermount3", ["-u", "-z", path]);
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The file that a loop device is over, as the kernel names it; undefined where it is over none. */
export function backingFile(device: string): string | undefined {
  try {
    return readFileSync(`/sys/block/${basename(device)}/loop/backing_file`, "utf8").trimEnd();
  } catch {
    return undefined;
  }
}

/** Makes a loop device over a file, with options of losetup(8); undefined where none can be had. It goes with the test. */
export function loopOver(t: ExecutionContext<unknown>, path: string, ...options: string[]): string | undefined {
  const made = spawnSync("losetup", ["--find", "--show", ...options, path], { encoding: "utf8" });
  const device = made.stdout.trim();
  if (device === "") return undefined;
  t.teardown(() => releaseLoop(device, path));
  return device;
}

/**
 * Detaches a loop device while it is over `path`: by then another file of tests may have it. What a program wrote to it that has
 * not ended yet, as a FUSE driver after umount(8), is in the file afterwards.
 */
export function releaseLoop(device: string, path: string): void {
  if (backingFile(device) !== path) return;
  spawnSync("sync", [device]);
  spawnSync("losetup", ["-d", device]);
}

/** What mount(8) says when it and somebody else were at the same loop device. */
const loopTrouble = /already mounted or mount point busy|can't read superblock|failed to setup loop device/;

/**
 * mount(8) with options that make a loop device, or of one, whatever others do with such devices meanwhile: one who looked for
 * a free one at the same time, and found ours, claims it for a moment, and one that holds it open keeps it over its file for
 * a moment after an unmount.
 */
export function loopMount(...words: string[]): { status: number | null; stderr: string } {
  for (const until = Date.now() + 5000; ; ) {
    const run = spawnSync("mount", words, { encoding: "utf8", env: { ...process.env, LC_ALL: "C" } });
    if (run.status === 0 || Date.now() > until || !loopTrouble.test(run.stderr)) return run;
    spawnSync("sleep", ["0.05"]);
  }
}

/** `bin/spindle.js` of an installation that everybody can read. */
export const spindleProgram = (): string => join(installation(), "bin/spindle.js");

export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "";
  }
}

/** Whether a process runs; a zombie does not. */
export function runs(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

/** Waits until `condition` holds; false if it doesn't within `patience` milliseconds. */
export async function comesTrue(condition: () => boolean, patience = 10_000): Promise<boolean> {
  for (const until = Date.now() + patience; !condition(); ) {
    if (Date.now() > until) return false;
    await new Promise((done) => setTimeout(done, 10));
  }
  return true;
}

/** Waits until `act` fails with `message`; false if it doesn't within `patience` milliseconds. */
export async function comesToFail(act: () => Promise<unknown>, message: RegExp, patience = 10_000): Promise<boolean> {
  for (const until = Date.now() + patience; Date.now() < until; ) {
    try {
      await act();
    } catch (error) {
      if (message.test((error as Error).message)) return true;
    }
    await new Promise((done) => setTimeout(done, 10));
  }
  return false;
}

/** What a process says until it ends. */
export function finished(child: ChildProcess): Promise<Outcome> {
  let stdout = "";
  let stderr = "";
  child.stdout?.on("data", (data: Buffer) => {
    stdout += data.toString();
  });
  child.stderr?.on("data", (data: Buffer) => {
    stderr += data.toString();
  });
  return new Promise((done, fail) => {
    child.on("error", fail);
    child.on("close", (code) => done({ code, stdout, stderr }));
  });
}
