/** The results as a document and as a table. */
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import type { Row, Section } from "./measure.js";
import { run } from "./programs.js";
import type { TestDisk } from "./test-disk.js";

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  /** Bytes. */
  readonly memory: number;
  readonly kernel: string;
  readonly node: string;
  readonly qemu: string;
  readonly fio: string;
}

export interface Report {
  readonly date: string;
  readonly spindle: string;
  readonly machine: Machine;
  readonly disk: TestDisk;
  /** Runs of each measurement; a table shows their median. */
  readonly runs: number;
  readonly sections: readonly (Section & { readonly summary: readonly Summary[] })[];
}

/** A row's medians, and each contender's ratio to the reference. */
export interface Summary {
  readonly row: string;
  readonly medians: Record<string, number>;
  readonly ratios: Record<string, number>;
  /** To the further reference, where there is one. */
  readonly furtherRatios?: Record<string, number>;
}

export async function machineFacts(): Promise<Machine> {
  const firstLine = async (...command: string[]) => (await run(...command)).stdout.split("\n")[0]!;
  const [processor] = cpus();
  return {
    processor: processor?.model ?? "unknown",
    cores: cpus().length,
    memory: totalmem(),
    kernel: release(),
    node: process.version,
    qemu: (await firstLine("qemu-img", "--version")).replace(/^qemu-img version /, ""),
    fio: await firstLine("fio", "--version"),
  };
}

export function spindleVersion(): string {
  const path = new URL("../../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function summarise(section: Section): Summary[] {
  return section.rows.map((row) => {
    const medians = Object.fromEntries(section.contenders.map((name) => [name, median(row.runs[name]!)]));
    const ratiosTo = (reference: string) => {
      const others = medians[reference] ? section.contenders.filter((name) => name !== reference) : [];
      return Object.fromEntries(others.map((name) => [name, medians[name]! / medians[reference]!]));
    };
    const ratios = ratiosTo(section.reference);
    if (section.furtherReference === undefined) return { row: row.name, medians, ratios };
    return { row: row.name, medians, ratios, furtherRatios: ratiosTo(section.furtherReference) };
  });
}

const number = (value: number) => (value >= 100 ? Math.round(value).toString() : value.toFixed(value >= 10 ? 1 : 2));

/** Near 1 a third digit tells which side of it. */
const ratio = (value: number) => value.toFixed(value > 0.95 && value < 1.05 ? 3 : 2);

const aim = ({ better }: Row, target: number | undefined) =>
  target === undefined ? "" : `${better === "higher" ? ">=" : "<="} ${Number(target.toFixed(2))}`;

export function table(report: Report): string {
  const { machine, disk } = report;
  const gigabytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const lines = [
    `Spindle ${report.spindle}, ${report.date}; medians of ${report.runs} interleaved runs`,
    `${machine.processor}, ${machine.cores} cores, ${gigabytes(machine.memory)} memory, Linux ${machine.kernel}, ` +
      `Node ${machine.node}, QEMU ${machine.qemu}, ${machine.fio}`,
    `Disk: ${gigabytes(disk.size)}, GPT with ext4, ${gigabytes(disk.data)} used by ${disk.files} files of /usr and one of ${Math.round(disk.large.size / 1e6)} MB`,
  ];
  for (const section of report.sections) {
    const [{ ratios: first = {}, furtherRatios: second = {} } = {}] = section.summary;
    const others = section.contenders.filter((name) => name in first);
    const further = section.contenders.filter((name) => name in second);
    const head = ["", "unit", ...section.contenders, ...others.map((name) => `ratio ${name}`), "aim"];
    if (further.length > 0) head.push(...further.map((name) => `${name} to ${section.furtherReference}`), "aim");
    const body = section.rows.map((row, index) => {
      const { medians, ratios, furtherRatios } = section.summary[index]!;
      const values = section.contenders.map((name) => number(medians[name]!));
      const cells = [
        row.name,
        row.unit,
        ...values,
        ...others.map((name) => ratio(ratios[name]!)),
        aim(row, row.target),
      ];
      if (further.length > 0)
        cells.push(...further.map((name) => ratio(furtherRatios![name]!)), aim(row, row.furtherTarget));
      return cells;
    });
    const widths = head.map((_, column) => Math.max(...[head, ...body].map((cells) => cells[column]!.length)));
    const print = (cells: string[]) =>
      cells
        .map((cell, column) => (column < 2 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
        .join("  ");
    const ratios = `Ratios are to ${section.reference}.`;
    lines.push("", section.title, `${section.method} ${ratios}`, "", print(head).trimEnd());
    for (const cells of body) lines.push(print(cells).trimEnd());
  }
  return lines.join("\n");
}
