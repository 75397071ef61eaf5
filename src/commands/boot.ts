import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { ImageError, usage } from "../errors.js";
import { startInBackground } from "../fuse/background.js";
import { diskIn, makeBootFolder, removeBootFolder } from "../fuse/boot-folder.js";
import { formerServerEnds } from "../fuse/former-server.js";
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
import type { BootLoader } from "../fuse/uefi-variables.js";
import { fileSystemOf, type ImageSpec, openImage, openWritable } from "../open.js";
import type { VolumeTable } from "../volumes/volume.js";
import { efiPartitions, type FoundLoader, loaderIn } from "./boot-loaders.js";
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
    "Mounts an image and boots it with qemu-system-x86_64, by UEFI where the disk has a boot loader in an EFI system partition and the firmware (package ovmf) is installed, otherwise by BIOS. The image stays as it is: what the machine writes goes to an overlay that vanishes, or to that of --writable. With --check it boots without screen and network, waits until the serial console says that somebody may log in, and reports: a restore rehearsed.",
  positionals: {
    image: { describe: "The image: any format that Spindle reads, or a raw disk" },
    arguments: { completes: "nothing", describe: "Behind --: what else QEMU is told, for example -- -smp 2" },
  },
  options: {
    writable: { completes: "file", value: "OVERLAY", describe: "Keep what the machine writes in this overlay" },
    firmware: { choices: ["bios", "uefi"], describe: "How to boot, where that isn't to be found out" },
    accel: {
      choices: ["kvm", "tcg"],
      describe: "Run it by the processor (kvm, usual where it can and this user may) or all in software",
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
    const folder = await makeBootFolder();
    const mountpoint = diskIn(folder);
    const stopping = new AbortController();
    // Ctrl-C at the terminal is the machine's as well; that it ends then is heard from it.
    const held = (signal: NodeJS.Signals) => signal !== "SIGINT" && stopping.abort();
    for (const signal of signals) process.on(signal, held);
    try {
      await opening(image, given, async (spec) => {
        const parent = spec.parent === undefined ? undefined : resolve(spec.parent);
        const overlay = given.writable === undefined ? undefined : resolve(given.writable);
        if (overlay !== undefined) await formerServerEnds(overlay, terminal);
        const { firmware, loader, sectorSize } = bootingOf({ ...spec, parent }, overlay, given.firmware, terminal);
        if (firmware === "uefi" && !hasUefi())
          throw usage("--firmware uefi: there is no firmware for it. Install it with: apt install ovmf");
        if (sectorSize !== 512 && given.bus !== "virtio")
          throw usage(`--bus ${given.bus}: the disk has sectors of ${sectorSize} bytes. Boot it with --bus virtio.`);
        await startInBackground({
          image: { ...spec, parent, view: "disk" },
          writable: overlay === undefined ? "temporary" : { overlay },
          // QEMU reads by what it has open to write, in small pieces.
          pageCache: true,
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
          sectorSize,
          firmware,
          loader,
          memory,
          folder,
          more: given.arguments,
          stop: stopping.signal,
        };
        if (!given.check) return await runMachine(machine);
        const screenshot = given.screenshot === undefined ? undefined : resolve(given.screenshot);
        const checked = await checkMachine(machine, marker, seconds, screenshot);
        if (!checked.reached) throw failed(image, given.marker, seconds, accelerator, checked);
        const data = { image, firmware, accelerator, ...checked, screenshot };
        terminal.result(data, () => `${image}: has booted (${firmware}) in ${checked.seconds.toFixed(1)} s`);
      });
    } finally {
      await removeBootFolder(folder);
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
  accelerator: Accelerator,
  { console, ended }: { console: string; ended?: string },
) {
  const last = console.trim().split(/\r?\n/).slice(-3).join(" | ");
  const what = ended
    ? `the machine ended before its serial console said "${marker}": ${ended}`
    : `its serial console did not say "${marker}" within ${seconds} seconds`;
  const hint = last
    ? `The last that it said: ${last}`
    : "It said nothing: the system has no console there (console=ttyS0 on its kernel's command line), or does not boot; --screenshot shows its screen.";
  const other = accelerator === "kvm" ? `${last ? "." : ""} Try it without KVM: --accel tcg` : "";
  return new ImageError("system", `${image}: ${what}. ${hint}${other}`);
}

/** How the disk wants to be booted: by UEFI where it has a loader for that, and otherwise by BIOS. */
function bootingOf(
  spec: ImageSpec,
  overlay: string | undefined,
  wanted: Firmware | undefined,
  terminal: Terminal,
): { firmware: Firmware; loader?: BootLoader; sectorSize: number } {
  // What was written since counts: perhaps the system was installed there.
  const written = overlay !== undefined && existsSync(overlay);
  const opened = written ? openWritable(spec, overlay, 1) : openImage(spec);
  try {
    const { sectorSize } = opened.table;
    const partitions = efiPartitions(opened.table);
    if (wanted === "bios" || partitions.length === 0) return { firmware: wanted ?? "bios", sectorSize };
    let unread = false;
    const loaders = partitions.flatMap((volume) => {
      try {
        const tree = fileSystemOf(opened, volume.number);
        return (tree && loaderIn(volume, tree)) ?? [];
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        unread = true;
        terminal.note(`no boot loader is found in an EFI system partition: ${error.message}`);
        return [];
      }
    });
    const found = loaders.find(({ isUsual }) => isUsual) ?? loaders[0];
    const loader = found && !found.isUsual ? toldLoader(opened.table, found) : undefined;
    if (wanted !== undefined) return { firmware: wanted, loader, sectorSize };
    const why = !found
      ? `its EFI system partition ${unread ? "can't be read" : "has nothing to boot"}`
      : hasUefi()
        ? undefined
        : "no firmware for its EFI system partition is installed (apt install ovmf)";
    if (why === undefined) return { firmware: "uefi", loader, sectorSize };
    terminal.note(`booting by BIOS: ${why}`);
    return { firmware: "bios", sectorSize };
  } finally {
    opened.close();
  }
}

function toldLoader(table: VolumeTable, { volume, path }: FoundLoader): BootLoader | undefined {
  const { scheme, sectorSize } = table;
  if (scheme !== "gpt" && scheme !== "mbr") return undefined;
  const id = scheme === "gpt" ? volume.id : table.id;
  return { partition: volume, id, scheme, sectorSize, path };
}
