/** Other programs: whether they are there, running them, and what they cost. */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

/** A failure that is the machine's or the user's: printed as one line, with an exit code. */
export class BenchError extends Error {
  constructor(
    message: string,
    readonly exitCode = 1,
  ) {
    super(message);
  }
}

// mke2fs and sfdisk need no root for a file, but live where only root's PATH leads.
process.env.PATH = [process.env.PATH ?? "", "/usr/sbin", "/sbin"].join(delimiter);

/** Program and the Debian package it comes in. */
const packages: Record<string, string> = {
  "qemu-img": "qemu-utils",
  "qemu-storage-daemon": "qemu-system-common",
  fio: "fio",
  mke2fs: "e2fsprogs",
  sfdisk: "fdisk",
  fusermount3: "fuse3",
  cmp: "diffutils",
  bash: "bash",
  dd: "coreutils",
};

/** Only for the files view. */
const packagesOfFiles: Record<string, string> = { fuse2fs: "fuse2fs", tar: "tar", find: "findutils" };

/** @throws BenchError with exit code 2 that says what to install. */
export function requirePrograms(forFiles: boolean): void {
  const wanted = { ...packages, ...(forFiles ? packagesOfFiles : {}) };
  const folders = process.env.PATH!.split(delimiter);
  const isThere = (program: string) =>
    folders.some((folder) => {
      try {
        accessSync(join(folder, program), constants.X_OK);
        return folder !== "";
      } catch {
        return false;
      }
    });
  const absent = Object.keys(wanted).filter((program) => !isThere(program));
  if (absent.length > 0) {
    const names = [...new Set(absent.map((program) => wanted[program]))].join(" ");
    throw new BenchError(`not found: ${absent.join(", ")}. Install with: apt-get install ${names}`, 2);
  }
  if (!existsSync("/dev/fuse")) throw new BenchError("/dev/fuse is not there: load it with modprobe fuse", 2);
  if (!existsSync(spindle)) throw new BenchError(`${spindle} is not there: run npm run build first`, 2);
}

/** The executable of this build. */
export const spindle = fileURLToPath(new URL("../../../bin/spindle.js", import.meta.url));

const running = new Set<ChildProcess>();
/** Set once the bench is being ended: nothing new is started then. */
let ending = false;

/** Ends what is running, by its process id. */
export function endPrograms(): void {
  ending = true;
  for (const child of running) child.kill("SIGTERM");
}

export function start(command: readonly string[]): ChildProcess {
  if (ending) throw new BenchError("interrupted");
  const [program, ...rest] = command;
  const child = spawn(program!, rest, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, LC_ALL: "C" } });
  running.add(child);
  child.once("close", () => running.delete(child));
  return child;
}

/** Runs a program to its end and returns what it printed. @throws BenchError with what it said if it failed. */
export async function run(...command: string[]): Promise<{ stdout: string; stderr: string }> {
  const child = start(command);
  const texts = { stdout: "", stderr: "" };
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    texts.stdout += text;
  });
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    texts.stderr += text;
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code !== 0) throw new BenchError(`${command.join(" ")}\nfailed: ${texts.stderr.trim() || texts.stdout.trim()}`);
  return texts;
}

/** Whether Spindle has a command. */
export async function has(command: string): Promise<boolean> {
  const { stdout } = await run(process.execPath, spindle, "--help");
  return new RegExp(`^\\s*spindle ${command}\\b`, "m").test(stdout);
}

export interface Cost {
  /** Seconds. */
  readonly wall: number;
  /** Seconds of processor time in user and system mode, of the program and what it started and waited for. */
  readonly cpu: number;
}

/** What a program takes. Node can't tell what a child used; bash's `time` can. */
export async function cost(...command: string[]): Promise<Cost> {
  const { stderr } = await run("bash", "-c", 'TIMEFORMAT="%3R %3U %3S"; time "$@"', "bash", ...command);
  const [wall, user, system] = stderr.trim().split("\n").at(-1)!.split(" ").map(Number);
  return { wall: wall!, cpu: user! + system! };
}
