import { type ByteSource, Slice } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { mismatch } from "../../errors.js";
import type { Format } from "../../format.js";
import type { Layer, ParentFile, ParentReference, Run } from "../../layers/layer.js";
import { blockSize } from "../../layers/overlay-memory.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "../block-map.js";
import { tablePage } from "../fields.js";
import { type BaseRecord, isOverlay, readOverlayHeader } from "./header.js";

/** What was written to a mounted image, at rest: the image is its parent. Specified in header.ts. */
export const overlay: Format<Layer> = {
  name: "overlay",
  changes: true,
  recognises: isOverlay,
  open: (source) => new OverlayLayer(source),
};

class OverlayLayer implements Layer, BlockTable {
  readonly format = "overlay";
  readonly noun = "block";
  readonly hasParent = true;
  readonly blockSize = blockSize;
  readonly size: number;
  readonly parent: ParentReference;
  readonly facts: Record<string, unknown>;
  readonly source: ByteSource;
  private readonly bitmap: MetadataPages;
  private readonly bitmapPosition: number;
  private readonly map: BlockMap;

  constructor(private readonly file: ByteSource) {
    const { size, bitmapPosition, dataPosition, text } = readOverlayHeader(file);
    this.size = size;
    this.bitmapPosition = bitmapPosition;
    this.source = new Slice(file.name, file, dataPosition, size);
    this.bitmap = new MetadataPages(file, tablePage.size, tablePage.kept);
    this.parent = baseReference(file.name, size, text.base);
    this.facts = { created: text.created, tool: text.tool, base: text.base };
    this.map = new BlockMap(this);
  }

  get name(): string {
    return this.source.name;
  }

  /** A hole of the bitmap tells of nothing written. */
  missingFrom(block: number): number {
    const extent = this.file.extentAt?.(this.bitmapPosition + Math.floor(block / 8));
    return extent?.hole ? extent.length * 8 - (block % 8) : 0;
  }

  locate(position: number): Run {
    return this.map.locate(position);
  }

  entry(block: number, target: BlockEntry): void {
    const byte = this.bitmap.bytes(this.bitmapPosition + Math.floor(block / 8), 1, "the bitmap")[0]!;
    if ((byte & (1 << (block % 8))) === 0) return;
    target.kind = BlockKind.stored;
    target.position = block * blockSize;
  }
}

function baseReference(name: string, size: number, base: BaseRecord): ParentReference {
  const file = base.path.slice(base.path.lastIndexOf("/") + 1);
  const { id, contentRoot, format } = base;
  return {
    paths: [...new Set([base.relative, base.path, file])].filter((path) => path !== ""),
    description: `${base.path} (${format}${id ? `, id ${id}` : ""})`,
    check: (candidate, its) => checkBase(name, size, base, candidate, its),
  };

  function checkBase(own: string, disk: number, recorded: BaseRecord, candidate: Layer, its: ParentFile): void {
    const refuse = (what: string, remedy = "Put the right file back, or name it with --parent PATH.") =>
      mismatch(`${own}: ${candidate.name} is not the image that it was written over: ${what}. ${remedy}`);
    if (candidate.format !== format) throw refuse(`it is ${candidate.format}, recorded is ${format}`);
    const stored = recorded.encrypted?.size ?? disk;
    if (candidate.size !== stored) throw refuse(`its disk has ${candidate.size} bytes, recorded are ${stored}`);
    const within = withinFile(candidate.name);
    if (within !== (recorded.within ?? ""))
      throw refuse(
        `it is ${within || "the file itself"}, and what was written over is ${recorded.within ?? "the file itself"}`,
      );
    const shown = candidate.facts.snapshot;
    if (shown !== recorded.snapshot)
      throw refuse(
        `it shows its ${shown === undefined ? "present state" : `snapshot ${shown}`}, and what was written over is its ${recorded.snapshot === undefined ? "present state" : `snapshot ${recorded.snapshot}`}`,
        recorded.snapshot === undefined ? "Leave --snapshot out." : `Mount it with --snapshot ${recorded.snapshot}.`,
      );
    if (contentRoot !== undefined) {
      const { facts } = candidate;
      if (facts.contentRoot === contentRoot) return;
      throw refuse(
        facts.id === id
          ? `it has the recorded id but other content (content root ${facts.contentRoot}, recorded ${contentRoot})`
          : `its id is ${facts.id}, recorded is ${id}`,
      );
    }
    if (its.size !== recorded.fileSize)
      throw refuse(`its file has ${its.size} bytes, recorded are ${recorded.fileSize}`);
    if (its.modified !== recorded.modified)
      throw refuse(
        `it was changed at ${moment(its.modified)}, and as recorded last at ${moment(recorded.modified)}`,
        `If it was only copied, give the copy its time: touch -d @${seconds(recorded.modified)} ${candidate.name}`,
      );
  }
}

/** What of a layer's name says where within its file it is; empty for most. */
export const withinFile = (name: string): string => (name.includes(" > ") ? name.slice(name.indexOf(" > ")) : "");

/** Nanoseconds as seconds with all digits, as touch(1) takes them. */
const seconds = (nanoseconds = "0") => nanoseconds.padStart(10, "0").replace(/(\d{9})$/, ".$1");

function moment(nanoseconds: string | undefined): string {
  const date = new Date(Number(nanoseconds) / 1e6);
  return Number.isNaN(date.valueOf()) ? `${nanoseconds}` : date.toISOString();
}
