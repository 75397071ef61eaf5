import { resolve } from "node:path";
import { usage } from "../errors.js";
import { startInBackground } from "../fuse/background.js";
import { endIfStale } from "../fuse/ending.js";
import { resolveMountpoint } from "../fuse/mounts.js";
import { parseMountOptions } from "../fuse/options.js";
import { checkImagePath, checkMountpoint, serveRequest } from "../fuse/request.js";
import type { Mounted } from "../fuse/service.js";
import { type FaceName, faceNames } from "../open.js";
import { settings } from "../settings.js";
import type { Command } from "./command.js";
import { type DriverArguments, driverOf, driverOption } from "./driver-option.js";
import { wholeNumber } from "./numbers.js";
import { type OpeningArguments, opening, openingOptions } from "./opening.js";
import { humanSize, parseSize } from "./sizes.js";
import { usualCacheBytes } from "./usual-cache.js";
import { type ViewingArguments, viewingOf, viewingOptions } from "./viewing.js";

interface Arguments extends OpeningArguments, ViewingArguments, DriverArguments {
  image: string;
  mountpoint: string;
  as: "files" | "disk";
  volume?: string;
  writable?: string;
  "page-cache"?: boolean;
  face?: string;
  workers?: string;
  cache?: string;
  foreground?: boolean;
  log?: string;
  o?: string[];
}

const { share, least, most } = settings.mountCache;

export const mount: Command<Arguments> = {
  syntax: "mount <image> <mountpoint>",
  summary: "Show an image as a drive",
  description:
    "Mounts an image, read-only unless --writable is given. The folder shows the files in it: those of its filesystem, or a folder p1, p2 and so on for " +
    "each when there are several. With --as disk it shows the whole disk as disk.raw and its partitions as p1.raw, p2.raw. " +
    "Returns when the mount answers; a background process serves it until `spindle unmount`, which umount(8) and " +
    "fusermount3 -u do as well. Needs no root; fusermount3 (package fuse3) does it for normal users.",
  positionals: {
    image: { describe: "The image: any format that Spindle reads, or a raw disk" },
    mountpoint: { completes: "folder", describe: "An existing folder" },
  },
  options: {
    as: {
      choices: ["files", "disk"],
      default: "files",
      describe: "What to show: the files in the image, or the disk and its partitions",
    },
    volume: { describe: "Of several filesystems only this one: a partition's number, or a label" },
    writable: {
      requiresArg: false,
      completes: "file",
      value: "OVERLAY",
      describe:
        "Let the disk be written to: the image stays as it is, and what is written goes to this overlay file, which is " +
        "made or found again; without a name to one that vanishes with the mount",
    },
    "page-cache": {
      type: "boolean",
      describe:
        "With --writable: keep in memory what a program reads that opened the disk to write. It reads in small pieces faster then, and writes slower; it is always so before Linux 6.12",
    },
    face: {
      value: "LIST",
      describe:
        "Show the disk as disk.vmdk, disk.vdi or disk.vhd as well, for programs that want such files; for example vmdk,vdi",
    },
    ...openingOptions,
    ...viewingOptions,
    ...driverOption,
    workers: {
      value: "N",
      describe: `Threads that answer requests, of some 18 MB each [one a processor, ${settings.leastUsualWorkers} to ${settings.mostUsualWorkers}]`,
    },
    cache: {
      value: "SIZE",
      describe: `Memory for unpacked chunks, for example 256M [a ${1 / share}th of the machine's, from ${humanSize(least)} to ${humanSize(most)}]`,
      defaultDescription: `here ${humanSize(usualCacheBytes())}`,
    },
    foreground: { type: "boolean", describe: "Stay in the foreground; Ctrl-C unmounts" },
    log: { completes: "file", describe: "Where the background process writes what went wrong" },
    o: {
      type: "string",
      array: true,
      value: "OPTIONS",
      describe: "Mount options, for example -o allow_other,noexec; may be repeated",
    },
  },
  sections: [
    [
      "MOUNT(8) AND /ETC/FSTAB",
      `With a link to the helper in /sbin, which is made once,

    sudo ln -s "$(command -v mount.fuse.spindle)" /sbin/

mount(8) knows images as the type fuse.spindle, on the command line and in /etc/fstab:

    mount -t fuse.spindle /srv/disk.spin /mnt/disk -o as=disk

    /srv/disk.spin  /mnt/disk  fuse.spindle  noauto,user,as=disk  0  0

In the list of options, those of this command stand without dashes: as, volume, page-cache, snapshot, parent, driver, workers, cache, log. The system's are taken as everywhere: noauto, nofail, user, users, _netdev, x-systemd.automount, allow_other, noexec and others. Mounts are always nosuid and nodev, whatever the list says, and ro unless it has writable or writable=OVERLAY (and as=disk). A value with a comma stands in double quotes; a space is written \\040 in /etc/fstab. Write the paths in full. With x-systemd.automount the driver must be direct.

Without the helper, mount.fuse3(8) calls spindle itself where it finds it; it gives its programs no PATH, so that node must be in /usr/bin then. umount(8) ends any mount. The exit codes are those of mount(8): 1 for wrong options, 32 when the mount failed.`,
    ],
  ],
  examples: [
    ["spindle mount disk.spin /mnt/files", "Show the files in the image"],
    ["spindle mount disk.spin /mnt/root --volume 2", "Show those of the second partition"],
    ["spindle mount disk.spin /mnt/disk --as disk", "Show the disk and its partitions"],
    ["spindle mount disk.spin /mnt/disk --as disk --writable=work.overlay", "Write to the disk, beside the image"],
    ["spindle mount disk.spin ~/files --foreground", "Serve until Ctrl-C"],
  ],
  async run(given, terminal) {
    const mountpoint = resolveMountpoint(given.mountpoint);
    const image = resolve(given.image);
    const workers = wholeNumber(given.workers, "--workers", 1, 256);
    if (given.foreground && given.log !== undefined)
      throw usage("--log: in the foreground the log is stderr. Leave out --log, or --foreground.");
    if (given.volume !== undefined && given.as === "disk")
      throw usage("--volume: the disk view shows all partitions. Leave out --volume, or --as disk.");
    if (given.writable !== undefined && given.as !== "disk")
      throw usage("--writable: only the disk can be written to, not the files in it. Add --as disk.");
    if (given["page-cache"] && given.writable === undefined)
      throw usage(
        "--page-cache: what is only read is kept in memory anyway. Add --writable, or leave out --page-cache.",
      );
    const faces = facesOf(given.face);
    if (faces.length > 0 && given.as !== "disk")
      throw usage("--face: only the disk can be shown in other formats, not the files in it. Add --as disk.");
    const writable =
      given.writable === undefined
        ? undefined
        : given.writable === ""
          ? ("temporary" as const)
          : { overlay: resolve(given.writable) };
    const options = parseMountOptions(given.o ?? [], image, writable !== undefined);
    const cacheBytes = given.cache === undefined ? usualCacheBytes() : parseSize(given.cache, "--cache");
    if (await endIfStale(mountpoint))
      terminal.note(`${mountpoint}: the server of the mount that was there had died; it is taken away`);
    checkMountpoint(mountpoint);
    checkImagePath(image, mountpoint);
    const driver = driverOf(given, terminal);
    if (given["page-cache"] && driver === "fuse-native")
      throw usage("--page-cache: the fuse-native driver can't. Leave out --page-cache, or mount with --driver direct.");

    const { as: view, volume } = given;
    const viewing = viewingOf(given);
    const log = given.log === undefined ? undefined : resolve(given.log);
    const tell = (mounted: Mounted) =>
      terminal.result(mounted, ({ pid, log }) => {
        const where = log === undefined ? "" : `, log ${log}`;
        return `${image} is mounted at ${mountpoint} (process ${pid}, driver ${driver}${where})`;
      });
    await opening(image, given, async (spec) => {
      // The server has a folder of its own.
      const parent = spec.parent === undefined ? undefined : resolve(spec.parent);
      const opened = { ...spec, ...viewing, parent, view, volume, faces };
      const pageCache = given["page-cache"];
      const request = { image: opened, writable, pageCache, mountpoint, driver, options, workers, cacheBytes };
      if (given.foreground) await serveRequest(request, (line) => terminal.note(line), tell, undefined, terminal);
      else tell(await startInBackground(request, log, terminal));
    });
  },
};

/** @throws ImageError `usage` */
function facesOf(list: string | undefined): FaceName[] {
  return (list?.split(",") ?? []).map((name) => {
    const face = faceNames.find((each) => each === name);
    if (face) return face;
    throw usage(`--face ${name}: there is no such face of a disk; there are ${faceNames.join(", ")}.`);
  });
}
