import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { ImageError, usage } from "../errors.js";
import { startInBackground } from "../fuse/background.js";
import { end } from "../fuse/ending.js";
import {
  type Accelerator,
  checkMachine,
  type Firmware,
  hasUefi,
  type Machine,
  runMachine,
  usualAccelerator,
} from "../fuse/machine.js";
import { parseMountOptions } from "../fuse/options.js";
import { runtimeFolder } from "../fuse/registry.js";
import { openImage } from "../open.js";
import type { VolumeTable } from "../volumes/volume.js";
import type { Command } from "./command.js";
import { type DriverArguments, driverOf, driverOption } from "./driver-option.js";
import { wholeNumber } from "./numbers.js";
import { type OpeningArguments, opening, openingOptions } from "./opening.js";
import { parseSize } from "./sizes.js";
import type { Terminal } from "./terminal.js";
import { usualCacheBytes } from "./usual-cache.js";

interface Arguments extends OpeningArguments, DriverArguments {
  image: string;
  arguments: string[];
  writable?: string;
  firmware?: Firmware;
  accel?: Accelerator;
  bus: Machine["bus"];
  memory: string;
  check?: boolean;
  marker: string;
  timeout: string;
  screenshot?: string;
}

export const boot: Command<Arguments> = {
  syntax: "boot <image> [arguments..]",
  usage: "boot IMAGE [-- QEMU-ARGUMENTS]",
  summary: "Boot an image in a virtual machine",
  description:
    "Mounts an image and boots it with qemu-system-x86_64, by UEFI where the disk has an EFI system partition and the firmware (package ovmf) is installed, otherwise by BIOS. The image stays as it is: what the machine writes goes to an overlay that vanishes, or to that of --writable. With --check it boots without screen and network, waits until the serial console says that somebody may log in, and reports: a restore rehearsed.",
  positionals: {
    image: { describe: "The image: any format that Spindle reads, or a raw disk" },
    arguments: { completes: "nothing", describe: "Behind --: what else QEMU is told, for example -- -smp 2" },
  },
  options: {
    writable: { completes: "file", value: "OVERLAY", describe: "Keep what the machine writes in this overlay" },
    firmware: { choices: ["bios", "uefi"], describe: "How to boot, where that isn't to be found out" },
    accel: {
      choices: ["kvm", "tcg"],
      describe: "Run it by the processor (kvm, usual where this user may) or all in software",
    },
    bus: { choices: ["sata", "virtio", "ide"], default: "sata", describe: "How the disk is connected" },
    memory: { value: "SIZE", default: "1G", describe: "Memory of the machine" },
    check: { type: "boolean", describe: "Only see whether it boots" },
    marker: {
      value: "REGEXP",
      default: "login: ",
      describe: "With --check: what the serial console says when it has booted",
    },
    timeout: { value: "SECONDS", default: "300", describe: "With --check: how long to wait for that" },
    screenshot: { completes: "file", describe: "With --check: where to put a picture (PNG) of the screen at the end" },
    ...openingOptions,
    ...driverOption,
  },
  examples: [
    ["spindle boot disk.spin", "Boot it, and throw away what it writes"],
    [
      "spindle boot disk.spin --writable=trial.overlay -- -smp 2 -nic none",
      "Keep what it writes; two processors, no network",
    ],
    ["spindle boot disk.spin --check --screenshot screen.png", "See whether it boots"],
  ],
  async run(given, terminal) {
    const image = resolve(given.image);
    const memory = Math.ceil(parseSize(given.memory, "--memory") / 2 ** 20);
    const marker = markerOf(given.marker);
    const seconds = wholeNumber(given.timeout, "--timeout", 1, 86_400)!;
    if (given.screenshot !== undefined && !given.check)
      throw usage("--screenshot: is taken by --check. Add --check, or take it in QEMU's own window.");
    const driver = driverOf(given, terminal);
    const folder = mkdtempSync(join(runtimeFolder(), "boot-"));
    const mountpoint = join(folder, "disk");
    mkdirSync(mountpoint);
    const stopping = new AbortController();
    // Ctrl-C at the terminal is the machine's as well; that it ends then is heard from it.
    const held = (signal: NodeJS.Signals) => signal !== "SIGINT" && stopping.abort();
    for (const signal of signals) process.on(signal, held);
    try {
      await opening(image, given, async (spec) => {
        const parent = spec.parent === undefined ? undefined : resolve(spec.parent);
        const opened = openImage({ ...spec, parent });
        const { table } = opened;
        opened.close();
        const firmware = given.firmware ?? firmwareFor(table, terminal);
        if (firmware === "uefi" && !hasUefi())
          throw usage("--firmware uefi: there is no firmware for it. Install it with: apt install ovmf");
        await startInBackground({
          image: { ...spec, parent, view: "disk" },
          writable: given.writable === undefined ? "temporary" : { overlay: resolve(given.writable) },
          mountpoint,
          driver,
          options: parseMountOptions([], image, true),
          cacheBytes: usualCacheBytes(),
        });
        const disk = join(mountpoint, "disk.raw");
        const accelerator = given.accel ?? usualAccelerator();
        const machine = {
          disk,
          accelerator,
          bus: given.bus,
          firmware,
          memory,
          folder,
          more: given.arguments,
          stop: stopping.signal,
        };
        if (!given.check) return await runMachine(machine);
        const screenshot = given.screenshot === undefined ? undefined : resolve(given.screenshot);
        const checked = await checkMachine(machine, marker, seconds, screenshot);
        if (!checked.reached) throw failed(image, given.marker, seconds, checked);
        const data = { image, firmware, accelerator, ...checked, screenshot };
        terminal.result(data, () => `${image}: has booted (${firmware}) in ${checked.seconds.toFixed(1)} s`);
      });
    } finally {
      await end(mountpoint, false).catch((error: unknown) => {
        if (!(error instanceof ImageError && error.code === "missing")) throw error;
      });
      rmSync(folder, { recursive: true, force: true });
      for (const signal of signals) process.off(signal, held);
    }
  },
};

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

function markerOf(text: string): RegExp {
  try {
    return new RegExp(text, "m");
  } catch (error) {
    throw usage(`--marker: ${error instanceof Error ? error.message : error}`);
  }
}

function failed(
  image: string,
  marker: string,
  seconds: number,
  { console, ended }: { console: string; ended?: string },
) {
  const last = console.trim().split(/\r?\n/).slice(-3).join(" | ");
  const what = ended
    ? `the machine ended before its serial console said "${marker}": ${ended}`
    : `its serial console did not say "${marker}" within ${seconds} seconds`;
  const hint = last
    ? `The last that it said: ${last}`
    : "It said nothing: the system has no console there (console=ttyS0 on its kernel's command line), or does not boot; --screenshot shows its screen.";
  return new ImageError("system", `${image}: ${what}. ${hint}`);
}

function firmwareFor({ volumes }: VolumeTable, terminal: Terminal): Firmware {
  const hasPartition = volumes.some(({ typeCode }) => /^(c12a7328-f81f-11d2-ba4b-00a0c93ec93b|0xef)$/i.test(typeCode));
  if (!hasPartition || hasUefi()) return hasPartition ? "uefi" : "bios";
  terminal.note(
    "the disk has an EFI system partition, but no firmware for it is installed (apt install ovmf): booting by BIOS",
  );
  return "bios";
}
