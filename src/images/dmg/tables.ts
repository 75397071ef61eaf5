import { corrupt } from "../../errors.js";
import { BlockTable, lastNotAfter, runPages, type TableRun } from "./block-table.js";
import { packings } from "./packing.js";
import type { Resource } from "./resources.js";

/** The block tables of an image. */
export class Tables {
  /** All of them, as the image lists them. */
  readonly all: readonly BlockTable[];
  /** Those that have sectors, in the order of the disk. */
  readonly list: readonly BlockTable[];
  readonly runs: number;
  /** Where the last one ends, in bytes. */
  readonly end: number;
  private readonly starts: readonly number[];

  constructor(name: string, resources: readonly Resource[]) {
    const pages = runPages();
    let runs = 0;
    this.all = resources.map((resource, number) => {
      const table = new BlockTable(name, resource, number, runs, pages);
      runs += table.runs;
      return table;
    });
    this.runs = runs;
    this.list = this.all.filter(({ size }) => size > 0).sort((a, b) => a.start - b.start);
    for (const [index, table] of this.list.entries()) {
      const before = this.list[index - 1];
      if (before && before.end > table.start)
        throw corrupt(
          `${name}: ${before.words} and ${table.words} overlap at disk byte ${table.start}. The file is damaged.`,
        );
    }
    this.starts = this.list.map(({ start }) => start);
    this.end = this.list.at(-1)?.end ?? 0;
  }

  /** The run with disk byte `position`; where no table has it, the byte at which the next begins. */
  find(position: number): { table: BlockTable; number: number; run: TableRun } | number {
    const index = lastNotAfter(this.starts, this.starts.length, position);
    const table = this.list[index];
    if (!table) return Number.POSITIVE_INFINITY;
    if (position < table.start) return table.start;
    if (position >= table.end) return this.starts[index + 1] ?? Number.POSITIVE_INFINITY;
    const number = table.find(position);
    return { table, number, run: table.run(number) };
  }

  /** The table with run `number` of the image. */
  tableOf(number: number): BlockTable {
    return this.list.find(({ firstRun, runs }) => number >= firstRun && number < firstRun + runs)!;
  }

  get largestPacked(): number {
    return Math.max(0, ...this.list.map((table) => table.largestPacked));
  }

  /** Names of the packings in use. */
  get packings(): string[] {
    return [...packings].flatMap(([kind, { name }]) => (this.list.some(({ kinds }) => kinds.has(kind)) ? [name] : []));
  }
}
