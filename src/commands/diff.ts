import { availableParallelism } from "node:os";
import { type ByteString, byteStringOfText, told } from "../browsing/names.js";
import { type Change, treeDiff } from "../browsing/tree-diff.js";
import { exitCodes } from "../errors.js";
import type { FileSystem } from "../filesystems/filesystem.js";
import { diffDisks } from "../imaging/diff.js";
import type { Differences } from "../imaging/differences.js";
import { TracedDisk } from "../layers/traced-disk.js";
import { type FoundVolume, openFound } from "../open.js";
import type { Command } from "./command.js";
import { nameWriter, Problems } from "./image-files.js";
import { printable } from "./info-text.js";
import { writeJson, writeParts } from "./long-results.js";
import { counted, wholeNumber } from "./numbers.js";
import { SamePlaces, traceBuffer } from "./same-places.js";
import { humanSize } from "./sizes.js";
import type { Terminal } from "./terminal.js";

interface Arguments {
  a: string;
  b: string;
  ranges?: boolean;
  files?: boolean;
  "parent-a"?: string;
  "parent-b"?: string;
  "snapshot-a"?: string;
  "snapshot-b"?: string;
  threads?: string;
}

/** Exit code when the images differ, as diff(1) and cmp(1) have it. */
const differ = 1;

export const diff: Command<Arguments> = {
  syntax: "diff <a> <b>",
  summary: "Tell what differs between two images",
  description:
    "Tells in which bytes of the disk image B differs from image A, to the sector, and, where both have filesystems that Spindle reads, which files were added, removed and changed from A to B: their content, size, mode, owner, group, time of change, link target, extended attributes, streams. " +
    "The images may be of any formats. What is known to be equal is not read: holes, what both take from the same file of their chains, chunks of .spin images with the same digest, and files whose data lie in the same places where the disks don't differ.\n\n" +
    "The exit code is 0 when the images are equal, 1 when they differ; with --files only the files count, and it is 4 where they can't be compared because a filesystem whose bytes differ isn't read. Partitions are told apart by their numbers, and paths begin with them where there are several.",
  positionals: {
    a: { describe: "The older image: any format that Spindle reads" },
    b: { describe: "The newer image" },
  },
  options: {
    ranges: { type: "boolean", describe: "The disk only, with all its ranges" },
    files: { type: "boolean", describe: "The files only" },
    "parent-a": { completes: "file", describe: "Where A's base is, when it was moved" },
    "parent-b": { completes: "file", describe: "Where B's base is, when it was moved" },
    "snapshot-a": { value: "SNAPSHOT", describe: "A snapshot inside A (qcow2), by name or id" },
    "snapshot-b": { value: "SNAPSHOT", describe: "A snapshot inside B (qcow2), by name or id" },
    threads: { value: "N", describe: "Worker threads [one a processor]" },
  },
  examples: [
    ["spindle diff monday.spin tuesday.spin", "What changed since Monday"],
    ["spindle diff --files old.vmdk new.spin", "Whether a converted disk has the same files"],
    ["spindle diff --ranges vm.qcow2 vm.qcow2 --snapshot-a before-update", "What was written since a snapshot"],
  ],

  async run(given, terminal) {
    const threads = wholeNumber(given.threads, "--threads", 1, 256) ?? availableParallelism();
    const buffer = traceBuffer();
    const a = openSide(given.a, given["parent-a"], given["snapshot-a"], buffer, terminal);
    try {
      const b = openSide(given.b, given["parent-b"], given["snapshot-b"], buffer, terminal);
      try {
        const bar = terminal.progress("comparing", Math.min(a.opened.disk.size, b.opened.disk.size));
        let differences: Differences;
        try {
          differences = await diffDisks(a.opened, b.opened, { threads, progress: (done) => bar.update(done) });
        } finally {
          bar.stop();
        }
        await new Report(given, terminal, a, b, differences, buffer).write();
      } finally {
        b.opened.close();
      }
    } finally {
      a.opened.close();
    }
  },
};

/** One of the two images, with the disk that its filesystems read from. */
interface Side {
  readonly path: string;
  readonly opened: ReturnType<typeof openFound>;
  readonly traced: TracedDisk;
}

function openSide(
  path: string,
  parent: string | undefined,
  snapshot: string | undefined,
  buffer: Uint8Array,
  waiting: Terminal,
): Side {
  let traced: TracedDisk | undefined;
  const opened = openFound({ path, parent, snapshot }, undefined, waiting, (disk) => {
    traced = new TracedDisk(disk, buffer);
    return traced;
  });
  return { path, opened, traced: traced! };
}

/** A place of a filesystem in both images, or in one. */
interface Pair {
  readonly name: string;
  readonly a: FoundVolume | undefined;
  readonly b: FoundVolume | undefined;
}

/** Ranges of the disk that are shown beside the files. */
const fewRanges = 20;

class Report {
  private readonly problems: Problems;
  private readonly pairs: readonly Pair[];
  private readonly several: boolean;
  /** Places whose bytes differ and in which neither image has files that are read, though there may be some. */
  private readonly uncompared: readonly Pair[];
  private filesDiffer = false;

  constructor(
    private readonly given: Arguments,
    private readonly terminal: Terminal,
    private readonly a: Side,
    private readonly b: Side,
    private readonly differences: Differences,
    private readonly buffer: Uint8Array,
  ) {
    this.problems = new Problems(terminal);
    this.pairs = pairsOf(a.opened.found, b.opened.found);
    this.several = [a, b].some(({ opened }) => opened.found.filter(({ tree }) => tree).length > 1);
    const unread = this.pairs.filter((pair) => !pair.a?.tree && !pair.b?.tree);
    const all = unread.length === this.pairs.length;
    this.uncompared = unread.filter(
      (pair) => (all || mayHaveFiles(pair.a) || mayHaveFiles(pair.b)) && !this.isUntouched(pair.a, pair.b),
    );
  }

  async write(): Promise<void> {
    const { given, terminal } = this;
    const withFiles = !given.ranges || given.files === true;
    const withRanges = !given.files || given.ranges === true;
    const changes = withFiles ? this.changes() : [];
    if (terminal.json) await writeJson(terminal, "files", this.inJson(changes), () => this.rest(withFiles, withRanges));
    else await writeParts(terminal, this.inLines(changes, withFiles, withRanges));
    const unequal = withRanges ? this.differences.bytes > 0 : this.filesDiffer;
    if (unequal && terminal.exitCode === 0) terminal.exitCode = differ;
    if (!unequal && !withRanges && this.uncompared.length > 0 && terminal.exitCode === 0)
      terminal.exitCode = exitCodes.unsupported;
  }

  /** Null where that isn't known. */
  private get filesEqual(): boolean | null {
    if (this.filesDiffer) return false;
    return this.uncompared.length > 0 ? null : true;
  }

  private *changes(): Generator<Change> {
    for (const { name, a, b } of this.pairs) {
      if (!a?.tree || !b?.tree) {
        if (a?.tree || b?.tree) this.filesDiffer = true;
        continue;
      }
      if (this.isUntouched(a, b)) continue;
      for (const change of this.changesOf(name, a.tree, b.tree)) {
        this.filesDiffer = true;
        yield change;
      }
    }
  }

  private changesOf(name: string, a: FileSystem, b: FileSystem): Generator<Change> {
    const places = new SamePlaces(
      { tree: a, disk: this.a.traced },
      { tree: b, disk: this.b.traced },
      this.differences,
      this.buffer,
    );
    const path: ByteString = this.several ? byteStringOfText(`/${name}`) : "/";
    return treeDiff(a, b, {
      path,
      problem: this.problems.add,
      knownEqual: (ours, theirs, position, length) => places.knownEqual(ours, theirs, position, length),
    });
  }

  /** Whether two volumes lie in the same place, where the disks are equal. */
  private isUntouched(a: FoundVolume | undefined, b: FoundVolume | undefined): boolean {
    if (!a || !b) return false;
    const [{ volume: one }, { volume: other }] = [a, b];
    const [position, size] = [one?.position ?? 0, one?.size ?? this.a.opened.disk.size];
    if (position !== (other?.position ?? 0) || size !== (other?.size ?? this.b.opened.disk.size)) return false;
    return !this.differences.touches(position, size);
  }

  /** The filesystems that only one image has, or has as another kind, and those that aren't read in either. */
  private volumeLines(): string[] {
    const type = (found: FoundVolume | undefined) =>
      found?.tree
        ? found.tree.type
        : found?.problem
          ? `unreadable (${found.problem.message})`
          : (found?.unread?.what ?? "no filesystem that is read");
    return this.pairs.flatMap((pair) => {
      const { name, a, b } = pair;
      if (a?.tree && b?.tree)
        return a.tree.type === b.tree.type ? [] : [`${name}: ${a.tree.type}, then ${b.tree.type}`];
      if (a?.tree || b?.tree) return [`${name}: ${type(a)}, then ${type(b)}`];
      if (!this.uncompared.includes(pair)) return [];
      const [one, other] = [type(a), type(b)];
      const what = one === other ? one : `${one}, then ${other}`;
      return [`${name}: ${what}; its bytes differ, and its files can't be compared`];
    });
  }

  private *inLines(changes: Iterable<Change>, withFiles: boolean, withRanges: boolean): Generator<ByteString> {
    const { differences, a, b, given } = this;
    const [size, sizeToo] = [a.opened.disk.size, b.opened.disk.size];
    const line = (text: string) => byteStringOfText(`${printable(text)}\n`);
    if (withRanges) {
      if (differences.bytes === 0) yield line(`The disks are equal: ${humanSize(size)}.`);
      else {
        const about = differences.isCut ? "more than " : "";
        yield line(
          `The disks differ in ${humanSize(differences.bytes)} of ${humanSize(Math.max(size, sizeToo))}, in ${about}${counted(differences.found, "range")}.`,
        );
        if (size !== sizeToo) yield line(`Sizes: ${size} bytes, then ${sizeToo}.`);
        let shown = 0;
        for (const { position, length } of differences) {
          if (!given.ranges && shown++ === fewRanges) {
            yield line(`  and more; --ranges shows all`);
            break;
          }
          yield line(
            `  ${String(position).padStart(15)}  ${String(length).padStart(13)}${this.volumeAt(position, "  ")}`,
          );
        }
      }
    }
    if (!withFiles) return;
    for (const text of this.volumeLines()) yield line(text);
    const shown = nameWriter(this.terminal);
    for (const change of changes) {
      const what = change.change === "changed" ? `  (${change.what.join(", ")})` : "";
      const slash = change.kind === "directory" && change.path !== "/" ? "/" : "";
      yield `${change.change.padEnd(8)} ${shown(change.path)}${slash}${what}\n`;
    }
    if (!this.filesDiffer && this.pairs.some(({ a, b }) => a?.tree && b?.tree))
      yield line(this.uncompared.length === 0 ? "The files are equal." : "The other files are equal.");
  }

  private volumeAt(position: number, before = ""): string {
    const found = this.b.opened.table.volumes.find(
      (one) => one.position <= position && position < one.position + one.size,
    );
    return found ? `${before}p${found.number}` : "";
  }

  private *inJson(changes: Iterable<Change>): Generator<unknown> {
    for (const { path, ...change } of changes) yield { ...told("path", path), ...change };
  }

  private rest(withFiles: boolean, withRanges: boolean): Record<string, unknown> {
    const { differences, a, b } = this;
    const side = ({ path, opened }: Side) => ({ path, format: opened.layers[0]!.format, size: opened.disk.size });
    const ranges = withRanges
      ? [...differences].map((range) => {
          const volume = this.volumeAt(range.position);
          return volume ? { ...range, volume } : range;
        })
      : undefined;
    return {
      a: side(a),
      b: side(b),
      equal: withRanges ? differences.bytes === 0 : this.filesEqual,
      ...(withRanges ? { differingBytes: differences.bytes, ranges, rangesCut: differences.isCut } : {}),
      ...(withFiles ? { filesEqual: this.filesEqual, volumes: this.volumesTold() } : {}),
      problems: this.problems.kept,
    };
  }

  private volumesTold(): unknown[] {
    const one = (found: FoundVolume | undefined) =>
      found?.tree
        ? { type: found.tree.type, label: found.tree.label }
        : found?.problem
          ? { problem: found.problem.message }
          : null;
    return this.pairs.map(({ name, a, b }) => ({ name, a: one(a), b: one(b) }));
  }
}

/** Whether a place in which no files are read has a filesystem that can't be, or something that has one within. */
function mayHaveFiles(found: FoundVolume | undefined): boolean {
  if (found?.problem) return true;
  const unread = found?.unread;
  return unread !== undefined && !unread.isTable && unread.type !== "swap" && unread.type !== "swsuspend";
}

function pairsOf(a: readonly FoundVolume[], b: readonly FoundVolume[]): Pair[] {
  const names = [...new Set([...a, ...b].map(({ name }) => name))];
  const named = (found: readonly FoundVolume[], name: string) => found.find((one) => one.name === name);
  return names.map((name) => ({ name, a: named(a, name), b: named(b, name) }));
}
