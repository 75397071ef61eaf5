import type { ByteSource } from "../../bytes/byte-source.js";
import { corrupt } from "../../errors.js";
import type { Format, Surroundings } from "../../format.js";
import type { Integrity, Layer, Run } from "../../layers/layer.js";
import { largestDisk } from "../fields.js";
import { LastRun } from "../last-run.js";
import { type DataFork, openDataFork } from "./data-fork.js";
import { checkRun, PackedRuns } from "./packed-runs.js";
import { holdsNothing, RunKind } from "./packing.js";
import { type Resource, resourcesOfFork, resourcesOfXml } from "./resources.js";
import { Tables } from "./tables.js";
import { findTrailer, readTrailer, type Trailer } from "./trailer.js";
import { makeIntegrity } from "./verify.js";

/*
 * Apple's disk images (UDIF, .dmg) as hdiutil makes them:
 *
 *   the data fork: packed runs of the disk, one behind another
 *   a resource fork, in old images
 *   a property list: block tables in base64, each of a stretch of the disk
 *   the trailer, 512 bytes: "koly"
 *
 * Runs are of any length and begin at any sector, so no grid of chunks of one size fits them: a chunk that lay across two
 * runs would mean unpacking both for it, and each of them again for its neighbours. Therefore the chunk cache is
 * given the runs themselves. The chunk with a run's number is that run, followed by zeros up to the length of the largest,
 * and `locate` leads into its beginning; nobody is led into the zeros, and nothing is unpacked twice.
 *
 * A .dmg without trailer is a plain copy of the disk (UDRW), which raw.ts reads. Encrypted images are refused by unread.ts.
 */
export const dmg: Format<Layer> = {
  name: "dmg",
  recognises: (source) => findTrailer(source) !== undefined,
  open: (source, around) => new DmgLayer(source, around),
};

class DmgLayer implements Layer {
  readonly format = "dmg";
  readonly parent = undefined;
  readonly size: number;
  readonly chunkSize: number;
  readonly integrity: Integrity;
  readonly facts: Record<string, unknown>;
  private readonly fork: DataFork;
  private readonly tables: Tables;
  private readonly isPlain: boolean;
  private readonly unpacked: ByteSource | undefined;
  private readonly last = new LastRun();

  constructor(
    private readonly file: ByteSource,
    around: Surroundings,
  ) {
    const { name } = file;
    const trailer = readTrailer(file);
    this.fork = openDataFork(file, trailer, around);
    const resources = readResources(file, trailer);
    this.tables = new Tables(name, resources);
    this.size = Math.max(trailer.sectors * 512, this.tables.end);
    if (this.size > largestDisk)
      throw corrupt(
        `${name}: its trailer tells of ${trailer.sectors} sectors, more than any disk has. The file is damaged.`,
      );
    // Without tables the data fork is the disk (UDRW and UDTO that got a trailer).
    this.isPlain = resources.length === 0;
    if (this.isPlain && this.size > this.fork.length)
      throw corrupt(
        `${name}: has no block tables, and its data fork of ${this.fork.length} bytes is shorter than the disk of ${this.size}. The file is damaged.`,
      );
    const chunks = new PackedRuns(name, this.tables, this.fork);
    this.chunkSize = chunks.chunkSize;
    this.unpacked = this.chunkSize > 0 ? around.cache.source(chunks) : undefined;
    this.integrity = makeIntegrity(file, trailer, this.size, this.tables, chunks);
    this.facts = {
      variant: trailer.variant === 2 ? "one partition" : "a whole disk",
      tables: this.tables.list.length,
      runs: this.tables.runs,
      ...(this.chunkSize > 0 && { compression: this.tables.packings.join(", "), largestRunSize: this.chunkSize }),
      ...(trailer.segments > 1 && { parts: trailer.segments }),
    };
  }

  get name(): string {
    return this.file.name;
  }

  locate(position: number): Run {
    return this.last.from(position) ?? this.find(position);
  }

  private find(position: number): Run {
    const { tables, size, fork } = this;
    if (this.isPlain) return { kind: "stored", length: size - position, source: fork.source, at: fork.base + position };
    const found = tables.find(position);
    if (typeof found === "number") return { kind: "zero", length: Math.min(found, size) - position };
    const { table, number, run } = found;
    const keep = (kept: Run) => {
      this.last.keep(run.start, kept);
      return this.last.from(position)!;
    };
    if (holdsNothing(run.kind)) return keep({ kind: "zero", length: run.length });
    checkRun(table, number, run, fork);
    const { length } = run;
    if (run.kind === RunKind.raw) return keep({ kind: "stored", length, source: fork.source, at: fork.base + run.at });
    return keep({ kind: "stored", length, source: this.unpacked!, at: (table.firstRun + number) * this.chunkSize });
  }
}

function readResources(file: ByteSource, trailer: Trailer): Resource[] {
  if (trailer.xml.length > 0) return resourcesOfXml(file, trailer.xml);
  if (trailer.resourceFork.length > 0) return resourcesOfFork(file, trailer.resourceFork);
  return [];
}
