import { listServed, type Served } from "../fuse/served.js";
import type { Command } from "./command.js";
import { printable } from "./info-text.js";
import { cacheHitRate, localTime, percent, servedTold, stateInWords } from "./served-words.js";
import { humanSize } from "./sizes.js";

export const list: Command = {
  syntax: "list",
  summary: "List what is mounted",
  description:
    "Lists what Spindle has mounted: where, which image, what is shown of it, by which driver and process, since when; and what was read so far, in how many reads, how many looks into the cache of unpacked chunks found theirs, and how many requests failed. " +
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

const head = ["Mount point", "Image", "View", "Driver", "Process", "Since", "Reads", "Read", "Cache hits", "Errors"];
/** The column of `Process`, and those from `Reads` on: numbers, at the right. */
const atTheRight = (column: number) => column === 4 || column >= 6;

function table(mounts: readonly Served[]): string {
  const rows = [head, ...mounts.map(row)];
  // What stands instead of figures may be longer than their columns.
  const isWords = (cells: readonly string[], column: number) =>
    cells.length < head.length && column === cells.length - 1;
  const widths = head.map((_, column) =>
    Math.max(...rows.map((cells) => (isWords(cells, column) ? 0 : (cells[column]?.length ?? 0)))),
  );
  const cell = (text: string, column: number, cells: readonly string[]) => {
    if (isWords(cells, column)) return text;
    return atTheRight(column) ? text.padStart(widths[column]!) : text.padEnd(widths[column]!);
  };
  return rows.map((cells) => cells.map(cell).join("  ").trimEnd()).join("\n");
}

/** A mount's cells; one that doesn't serve has a last cell that says so. */
function row(served: Served): string[] {
  const { mountpoint, image, view = "?", driver = "?", pid, since, state, figures } = served;
  const names = [mountpoint, image, view, driver].map(printable);
  const facts = [...names, String(pid ?? "?"), localTime(since)];
  if (!figures || state !== "serving") return [...facts, stateInWords(served)];
  const { reads = 0, bytesRead = 0, errors = 0 } = figures;
  const rate = cacheHitRate(figures);
  return [...facts, String(reads), humanSize(bytesRead), rate === undefined ? "-" : percent(rate), String(errors)];
}
