import { exitCodes } from "../errors.js";
import { attachedFolder } from "../fuse/loop-devices.js";
import { type Served, servedBy } from "../fuse/served.js";
import type { Command } from "./command.js";
import { aligned, printable } from "./info-text.js";
import { counted } from "./numbers.js";
import { cacheHitRate, localTime, percent, servedTold, stateInWords } from "./served-words.js";
import { humanSize } from "./sizes.js";

interface Arguments {
  mountpoint: string;
}

export const status: Command<Arguments> = {
  syntax: "status <mountpoint>",
  summary: "Tell how a mount goes",
  description:
    "Tells of one mount what `spindle list` tells of all, and more. The serving process is asked, never the mount, so that it also answers for one that is stuck. The exit code is 0 when it serves, and 8 when its server has died or does not answer.",
  positionals: {
    mountpoint: { completes: "mount", describe: "Where the image is mounted; or a device that attach made" },
  },
  options: {},
  examples: [
    ["spindle status /mnt/disk", "How it goes"],
    ["spindle status --json /mnt/disk | jq .counters", "All figures, for a script"],
  ],

  async run({ mountpoint }, terminal) {
    const served = await servedBy(mountpoint);
    if (served.state !== "serving") terminal.exitCode = exitCodes.system;
    terminal.result(servedTold(served), () => words(served));
  },
};

function words(served: Served): string {
  const { mountpoint, image, state, view, driver, pid, owner, since, log, overlay, devices, figures } = served;
  const rows: [string, string][] = [["  Image", printable(image)]];
  const add = (name: string, value: string | undefined) => value !== undefined && rows.push([`  ${name}`, value]);
  add("View", view && printable(view));
  add("Driver", driver && printable(driver));
  add("Process", pid === undefined ? undefined : String(pid));
  add("User", String(owner));
  add("Since", since && localTime(since, true));
  add("Log", log && printable(log));
  add("Devices", devices?.join(", "));
  add("Overlay", overlay && (overlay === "temporary" ? "a temporary one, gone with the mount" : printable(overlay)));
  if (figures) for (const [name, value] of figureRows(figures)) add(name, value);
  const path = printable(mountpoint);
  const clean = devices?.some((device) => attachedFolder(device) === mountpoint)
    ? `detach ${devices[0]}`
    : `unmount ${path}`;
  const help = state === "dead" ? `. Clean up with: spindle ${clean}` : "";
  return `${path}: ${stateInWords(served)}${help}\n${aligned(rows)}`;
}

function figureRows(figures: NonNullable<Served["figures"]>): [string, string][] {
  const {
    requests = 0,
    reads = 0,
    bytesRead = 0,
    errors = 0,
    hits = 0,
    waits = 0,
    unpacked = 0,
    workersReplaced = 0,
    writes = 0,
    bytesWritten = 0,
    overlayBytes,
    unflushedBytes = 0,
  } = figures;
  const rate = cacheHitRate(figures);
  const rows: [string, string][] = [
    ["Requests", `${requests}, of which ${errors} failed with an input/output error`],
    ["Read", `${humanSize(bytesRead)} in ${counted(reads, "read")}`],
    [
      "Cache",
      rate === undefined
        ? "not used so far"
        : `${percent(rate)} of ${counted(hits + waits + unpacked, "look")} found the chunk; ${counted(unpacked, "chunk")} unpacked`,
    ],
  ];
  if (overlayBytes !== undefined)
    rows.push([
      "Written",
      `${humanSize(bytesWritten)} in ${counted(writes, "write")}, of which ${humanSize(unflushedBytes)} aren't flushed yet; the overlay has ${humanSize(overlayBytes)}`,
    ]);
  if (workersReplaced > 0) rows.push(["Workers", `${workersReplaced} died and were replaced; see the log`]);
  return rows;
}
