import { resolve } from "node:path";
import { attach as attachDisk } from "../fuse/attached.js";
import { parseMountOptions } from "../fuse/options.js";
import { openImage } from "../open.js";
import type { Command } from "./command.js";
import { type DriverArguments, driverOf, driverOption } from "./driver-option.js";
import { type OpeningArguments, opening, openingOptions } from "./opening.js";
import { usualCacheBytes } from "./usual-cache.js";

interface Arguments extends OpeningArguments, DriverArguments {
  image: string;
  writable?: string;
}

export const attach: Command<Arguments> = {
  syntax: "attach <image>",
  summary: "Show an image as a block device with partitions",
  description:
    "Makes a loop device of an image, and of each of its partitions, as root: /dev/loop0, /dev/loop0p1 and so on, for mount(8), fsck, LVM and whatever else wants a device. Read-only unless --writable is given. Prints the device, which is what `spindle detach` wants.",
  positionals: {
    image: { describe: "The image: any format that Spindle reads, or a raw disk" },
  },
  options: {
    writable: {
      requiresArg: false,
      completes: "file",
      value: "OVERLAY",
      describe:
        "Let the device be written to: the image stays as it is, and what is written goes to this overlay file, which is made or found again; without a name to one that vanishes with the device",
    },
    ...openingOptions,
    ...driverOption,
  },
  examples: [
    ["spindle attach disk.spin", "Make /dev/loop0 of it, or the next one that is free"],
    ["spindle attach disk.spin --writable=work.overlay", "Let it be written to, beside the image"],
  ],
  async run(given, terminal) {
    const image = resolve(given.image);
    const writable =
      given.writable === undefined
        ? undefined
        : given.writable === ""
          ? ("temporary" as const)
          : { overlay: resolve(given.writable) };
    const driver = driverOf(given, terminal);
    await opening(image, given, async (spec) => {
      const parent = spec.parent === undefined ? undefined : resolve(spec.parent);
      const opened = openImage({ ...spec, parent });
      const { table } = opened;
      opened.close();
      const { device, partitions, mount } = await attachDisk(
        {
          image: { ...spec, parent, view: "disk" },
          writable,
          driver,
          options: parseMountOptions([], image, writable !== undefined),
          cacheBytes: usualCacheBytes(),
        },
        table,
      );
      terminal.result({ device, partitions, image, mountpoint: mount.mountpoint, pid: mount.pid, log: mount.log }, () =>
        [device, ...partitions].join("\n"),
      );
    });
  },
};
