import { listServed, type Served } from "../fuse/served.js";
import type { Command } from "./command.js";
import { printable } from "./info-text.js";
import { cacheHitRate, localTime, percent, servedTold, stateInWords } from "./served-words.js";
import { humanSize } from "./sizes.js";

export const list: Command = {
  syntax: "list",
  summary: "List what is mounted",
  description:
    "Lists what Spindle has mounted: where, which image, what is shown of it, by which driver and process, since when; and what was read so far, in how many reads, how many looks into the cache of unpacked chunks found theirs, how much the overlay of a writable mount has by now, and how many requests failed. Loop devices over a mount, as `spindle attach` makes them, stand beside it. " +
    "Root sees everybody's mounts with their figures, others those of their own. A server that has died or does not answer is listed as such; the list never waits for one longer than two seconds.",
  positionals: {},
  options: {},
  examples: [
    ["spindle list", "All mounts"],
    ["spindle list --json | jq -r '.mounts[] | select(.errors > 0) | .mountpoint'", "Those that met damage"],
  ],

  async run(_, terminal) {
    const mounts = await listServed();
    if (mounts.length === 0 && !terminal.json) terminal.note("Spindle has mounted nothing.");
    terminal.result({ mounts: mounts.map(servedTold) }, () => (mounts.length === 0 ? "" : table(mounts)));
  },
};

interface Column {
  readonly title: string;
  /** A number, at the right. */
  readonly number?: boolean;
  /** Of the figures: told of a mount that answers. */
  readonly figure?: boolean;
  /** Undefined where there is nothing to tell; a column in which that is so of every mount is left out. */
  cell(served: Served): string | undefined;
}

const columns: readonly Column[] = [
  { title: "Mount point", cell: ({ mountpoint }) => printable(mountpoint) },
  { title: "Image", cell: ({ image }) => printable(image) },
  { title: "View", cell: ({ view = "?" }) => printable(view) },
  { title: "Driver", cell: ({ driver = "?" }) => printable(driver) },
  { title: "Device", cell: ({ devices }) => devices?.join(", ") },
  { title: "Process", number: true, cell: ({ pid }) => String(pid ?? "?") },
  { title: "Since", cell: ({ since }) => localTime(since) },
  { title: "Reads", number: true, figure: true, cell: ({ figures }) => String(figures?.reads ?? 0) },
  { title: "Read", number: true, figure: true, cell: ({ figures }) => humanSize(figures?.bytesRead ?? 0) },
  { title: "Cache hits", number: true, figure: true, cell: ({ figures }) => hits(cacheHitRate(figures ?? {})) },
  { title: "Overlay", number: true, figure: true, cell: ({ figures }) => size(figures?.overlayBytes) },
  { title: "Errors", number: true, figure: true, cell: ({ figures }) => String(figures?.errors ?? 0) },
];

const hits = (rate: number | undefined) => (rate === undefined ? "-" : percent(rate));
const size = (bytes: number | undefined) => (bytes === undefined ? undefined : humanSize(bytes));

function table(mounts: readonly Served[]): string {
  const used = columns.filter(({ cell }) => mounts.some((mount) => cell(mount) !== undefined));
  const answers = ({ state, figures }: Served) => figures !== undefined && state === "serving";
  // Instead of figures a mount that doesn't serve has words, which may be longer than their columns.
  const has = (mount: Served, { figure }: Column) => !figure || answers(mount);
  const widths = used.map((column) =>
    Math.max(
      column.title.length,
      ...mounts.map((mount) => (has(mount, column) ? (column.cell(mount) ?? "-").length : 0)),
    ),
  );
  const cells = (text: (column: Column) => string | undefined) =>
    used.map((column, at) => {
      const cell = text(column);
      if (cell === undefined) return "";
      return column.number ? cell.padStart(widths[at]!) : cell.padEnd(widths[at]!);
    });
  const line = (mount: Served) => {
    const all = cells((column) => (has(mount, column) ? (column.cell(mount) ?? "-") : undefined));
    return answers(mount) ? all : [...all.filter((cell) => cell !== ""), stateInWords(mount)];
  };
  return [cells(({ title }) => title), ...mounts.map(line)].map((row) => row.join("  ").trimEnd()).join("\n");
}
