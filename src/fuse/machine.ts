/**
 * A virtual machine (QEMU) that boots from a mounted disk: what it is started with, and, for a boot that is only checked, what
 * its serial console says and a picture of its screen over QMP (QEMU's docs/interop/qmp-intro.txt).
 */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, existsSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { missing, system } from "../errors.js";
import { type BootLoader, withBootEntry } from "./uefi-variables.js";

/** Of the processor, if it has one for this user, or all in software: slower by far. */
export type Accelerator = "kvm" | "tcg";
export type Firmware = "bios" | "uefi";

export interface Machine {
  /** Path of the disk, raw. */
  readonly disk: string;
  /** How the disk is connected; only virtio can have other sectors than of 512 bytes. */
  readonly bus: "sata" | "virtio" | "ide";
  /** Bytes of the disk's sectors. */
  readonly sectorSize: number;
  readonly firmware: Firmware;
  /** With UEFI: what to boot, where the firmware doesn't find it by itself. */
  readonly loader?: BootLoader;
  readonly accelerator: Accelerator;
  /** MiB. */
  readonly memory: number;
  /** A folder for the machine's variables and sockets. */
  readonly folder: string;
  /** Further words of QEMU's command line. */
  readonly more: readonly string[];
  /** Ends the machine. */
  readonly stop?: AbortSignal;
}

export interface Checked {
  /** Whether the serial console said what was waited for. */
  readonly reached: boolean;
  readonly seconds: number;
  /** The last of what the console said. */
  readonly console: string;
  /** Why the machine ended before; undefined where it didn't. */
  readonly ended?: string;
}

const program = "qemu-system-x86_64";
/** Of util-linux. */
const setpriv = "/usr/bin/setpriv";
/** UEFI's code and its variables, as Debian's ovmf has them, newest first. */
const firmwares = [
  ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"],
  ["/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"],
  ["/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"],
  ["/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"],
] as const;
/** Characters of the console that are kept. */
const keptConsole = 64 * 1024;
const toldConsole = 2000;
/** Milliseconds that QEMU gets to answer over QMP, and to end. */
const patience = 10_000;

export const hasUefi = (): boolean => firmwares.some((files) => files.every((file) => existsSync(file)));

/**
 * Whether the processor runs machines itself, as /proc/cpuinfo tells. Within a virtual machine there may be a KVM without
 * (pvm): it takes a boot loader's instructions one by one, far slower than tcg. ARM's KVM runs no x86.
 */
export const virtualises = (cpuinfo: string): boolean => /^flags\s*:.*\s(vmx|svm)(\s|$)/m.test(cpuinfo);

/** `kvm` where the processor has it and this user may use it. */
export function usualAccelerator(): Accelerator {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return virtualises(readFileSync("/proc/cpuinfo", "utf8")) ? "kvm" : "tcg";
  } catch {
    return "tcg";
  }
}

/** Starts the machine with the terminal's input and output, and returns when it has ended. */
export async function runMachine(machine: Machine): Promise<void> {
  const hasScreen = process.env.DISPLAY !== undefined || process.env.WAYLAND_DISPLAY !== undefined;
  const child = start(machine, hasScreen ? [] : ["-nographic"], "inherit");
  const { code, signal } = await ended(child);
  if (code !== 0)
    throw system("running the virtual machine", new Error(`${program} ended with ${signal ?? `code ${code}`}`));
}

/**
 * Boots without screen and network until the serial console says `marker`, or `seconds` are over; then takes a picture of
 * the screen to `screenshot` (PNG) and ends the machine.
 */
export async function checkMachine(
  machine: Machine,
  marker: RegExp,
  seconds: number,
  screenshot: string | undefined,
): Promise<Checked> {
  const socket = join(machine.folder, "qmp");
  const options = ["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot"];
  const started = Date.now();
  const child = start(machine, [...options, "-qmp", `unix:${socket},server=on,wait=off`], "pipe");
  let words = "";
  let said = "";
  child.stderr!.on("data", (data: Buffer) => {
    words = (words + data.toString()).slice(-toldConsole);
  });
  const end = ended(child);
  const reached = await new Promise<boolean>((done, fail) => {
    const timer = setTimeout(() => done(false), seconds * 1000);
    const finish = (is: boolean) => {
      clearTimeout(timer);
      done(is);
    };
    child.stdout!.on("data", (data: Buffer) => {
      said = (said + data.toString("latin1")).slice(-keptConsole);
      if (marker.test(said)) finish(true);
    });
    end.then(() => finish(marker.test(said)), fail);
  });
  const took = (Date.now() - started) / 1000;
  const over = child.exitCode !== null || child.signalCode !== null;
  try {
    if (!over && screenshot !== undefined)
      await command(socket, { execute: "screendump", arguments: { filename: screenshot, format: "png" } });
    if (!over) await command(socket, { execute: "quit" }).catch(() => {});
  } finally {
    const timer = setTimeout(() => child.kill("SIGKILL"), over ? 0 : patience);
    await end.catch(() => {});
    clearTimeout(timer);
  }
  return {
    reached,
    seconds: took,
    console: said.slice(-toldConsole),
    ...(over && !reached ? { ended: words.trim() || `${program} ended with code ${child.exitCode}` } : {}),
  };
}

function start(machine: Machine, options: readonly string[], output: "inherit" | "pipe"): ChildProcess {
  const { disk, bus, sectorSize, firmware, accelerator, memory, folder, more } = machine;
  const sectors = `logical_block_size=${sectorSize},physical_block_size=${sectorSize}`;
  const devices = {
    sata: ["-machine", "q35", "-device", "ide-hd,drive=disk"],
    virtio: ["-machine", "q35", "-device", `virtio-blk-pci,drive=disk,${sectors}`],
    ide: ["-machine", "pc", "-device", "ide-hd,drive=disk"],
  }[bus];
  const drive = `if=none,id=disk,format=raw,discard=unmap,file=${disk.replaceAll(",", ",,")}`;
  const words = ["-accel", accelerator, "-m", String(memory), ...devices, "-drive", drive];
  if (firmware === "uefi") {
    const [code, variables] = firmwares.find((files) => files.every((file) => existsSync(file)))!;
    const own = join(folder, "variables");
    const template = readFileSync(variables);
    writeFileSync(own, machine.loader ? withBootEntry(template, variables, machine.loader) : template);
    const flash = (file: string) => ["-drive", `if=pflash,format=raw,file=${file}`];
    words.push(...flash(`${code},readonly=on`), ...flash(own.replaceAll(",", ",,")));
  }
  if (!isInstalled(program)) throw notInstalled();
  // When this process is killed the kernel ends the machine: nobody else would.
  const bound = existsSync(setpriv) ? [setpriv, "--pdeathsig", "KILL", program] : [program];
  return spawn(bound[0]!, [...bound.slice(1), ...words, ...options, ...more], {
    stdio: output === "inherit" ? "inherit" : ["ignore", "pipe", "pipe"],
    signal: machine.stop,
  });
}

const isInstalled = (name: string): boolean =>
  (process.env.PATH ?? "").split(":").some((folder) => existsSync(join(folder, name)));

const notInstalled = () => missing(`${program} is not installed. Install it with: apt install qemu-system-x86`);

function ended(child: ChildProcess): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
  return new Promise((done, fail) => {
    child.on("error", (error) => {
      if (error.name === "AbortError") return; // it ends, and that is heard
      fail((error as NodeJS.ErrnoException).code === "ENOENT" ? notInstalled() : system(`starting ${program}`, error));
    });
    child.on("close", (code, signal) => done({ code, signal }));
  });
}

/** Has QEMU do one thing over its socket, and waits for its answer. */
function command(socket: string, what: object): Promise<void> {
  return new Promise((done, fail) => {
    const connection = connect(socket);
    let text = "";
    const finish = (error?: Error) => {
      clearTimeout(timer);
      connection.destroy();
      if (error) fail(system("talking to the virtual machine", error));
      else done();
    };
    const timer = setTimeout(() => finish(new Error("it does not answer")), patience);
    connection.on("error", finish);
    connection.on("close", () => finish(new Error("it has ended")));
    connection.on("connect", () =>
      connection.write(
        `${JSON.stringify({ execute: "qmp_capabilities" })}\n${JSON.stringify({ ...what, id: "it" })}\n`,
      ),
    );
    connection.on("data", (data: Buffer) => {
      text += data.toString();
      const lines = text.split("\n");
      text = lines.pop()!;
      for (const line of lines) {
        const answer = JSON.parse(line) as { id?: string; error?: { desc: string } };
        if (answer.id === "it") finish(answer.error && new Error(answer.error.desc));
      }
    });
  });
}
