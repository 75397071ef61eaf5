/**
 * Images of compact discs: a cue sheet with its .bin files, or a .bin of raw sectors alone. The disk is the first data track,
 * in sectors of 2048 bytes, as the drive would give them. Other tracks are told by `info`; sound is no disk.
 */
import type { ByteSource } from "../../bytes/byte-source.js";
import { StridedSource } from "../../bytes/strided.js";
import { corrupt, ImageError, missing, unsupported } from "../../errors.js";
import type { Format, Surroundings } from "../../format.js";
import type { Layer, Run } from "../../layers/layer.js";
import { recordedPaths } from "../recorded-paths.js";
import { storedRun } from "../stored-run.js";
import {
  type Extent,
  edcIntegrity,
  isRawSector,
  layoutAt,
  layouts,
  rawSector,
  type SectorLayout,
  sectorData,
} from "./sectors.js";
import { isSheet, readSheet, type Sheet, type SheetTrack } from "./sheet.js";

export const cue: Format<Layer> = {
  name: "cue",
  recognises: isSheet,
  open(source, around) {
    const sheet = readSheet(source);
    const { extent, track } = dataTrack(source.name, sheet, around);
    const tracks = sheet.tracks.map(({ number, mode, file }) => ({ number, mode, file: sheet.files[file]!.name }));
    return new TrackLayer("cue", source.name, extent, { track: track.number, tracks });
  },
};

export const bin: Format<Layer> = {
  name: "bin",
  recognises: (source) => isRawSector(source, 0) && isRawSector(source, rawSector),
  open(source) {
    const layout = layoutAt(source, 0);
    if (!layout)
      throw unsupported(
        `${source.name}: begins with a sector that is neither of mode 1 nor of mode 2. If there is a .cue beside it, open that.`,
      );
    const all = Math.ceil(source.size / rawSector);
    const count = dataSectors(source, all);
    return new TrackLayer(
      "bin",
      source.name,
      { source, layout, position: 0, count },
      count < all ? { otherSectors: all - count } : {},
    );
  },
};

class TrackLayer implements Layer {
  readonly parent = undefined;
  readonly size: number;
  readonly facts: Record<string, unknown>;
  readonly integrity: Layer["integrity"];
  /** The sectors' data alone, where more is kept of them. */
  private readonly data: ByteSource | undefined;

  constructor(
    readonly format: string,
    readonly name: string,
    private readonly extent: Extent,
    facts: Record<string, unknown>,
  ) {
    const { source, layout, position, count } = extent;
    const { mode, step, data } = layout;
    if (count === 0) throw corrupt(`${name}: its data track has no sectors. The sheet is damaged.`);
    this.size = count * sectorData;
    if (step !== sectorData)
      this.data = new StridedSource(source.name, source, { start: position + data, step, length: sectorData, count });
    this.facts = { mode, sectorSize: step, sectors: count, ...facts };
    this.integrity = edcIntegrity(extent);
  }

  locate(position: number): Run {
    const { data, extent } = this;
    const length = this.size - position;
    if (data) return { kind: "stored", length, source: data, at: position };
    return storedRun(extent.source, extent.position + position, length, position, "the sector");
  }
}

/** The first data track of a sheet, and where its file keeps it. */
function dataTrack(name: string, sheet: Sheet, around: Surroundings): { extent: Extent; track: SheetTrack } {
  const track = sheet.tracks.find(({ mode }) => mode !== "AUDIO" && mode !== "CDG");
  if (!track)
    throw unsupported(`${name}: tells of sound only (${sheet.tracks.length} tracks); there is no disk in it.`);
  const layout = layoutOf(name, track);
  const file = sheet.files[track.file]!;
  if (file.type !== "BINARY")
    throw unsupported(`${name}: keeps its data track ${track.number} in a file of type ${file.type}, not BINARY.`);
  const source = companion(name, file.name, around);
  const { position, end } = placeOf(name, sheet, track, source.size);
  const found = layout.step === rawSector && isRawSector(source, position) ? layoutAt(source, position) : layout;
  if (found?.mode !== layout.mode)
    throw corrupt(
      `${name}: tells that track ${track.number} is ${track.mode}, but its first sector, at byte ${position} of ${source.name}, is of another mode. Correct the sheet with an editor.`,
    );
  return { track, extent: { source, layout, position, count: Math.ceil((end - position) / layout.step) } };
}

function layoutOf(name: string, { number, mode }: SheetTrack): SectorLayout {
  const layout = layouts[mode];
  if (!layout) throw unsupported(`${name}: its data track ${number} is ${mode}, of which no disk can be made.`);
  return layout;
}

/** Where a track begins and ends in its file, in bytes: tracks before it there may have sectors of other sizes. */
function placeOf(
  name: string,
  { tracks }: Sheet,
  track: SheetTrack,
  fileSize: number,
): { position: number; end: number } {
  let start = 0; // of the sectors of `before`, its pregap included
  let before: SheetTrack | undefined;
  let position: number | undefined;
  for (const one of tracks.filter(({ file }) => file === track.file)) {
    const sector = one.pregap ?? one.first;
    start += before ? (sector - (before.pregap ?? before.first)) * stepOf(before) : sector * stepOf(one);
    if (position !== undefined) return { position, end: start };
    if (one === track) position = start + (one.first - sector) * stepOf(one);
    before = one;
  }
  if (position! >= fileSize)
    throw corrupt(
      `${name}: tells that track ${track.number} begins at byte ${position} of its file, which has only ${fileSize} bytes. The file is truncated, or the sheet belongs to another.`,
    );
  return { position: position!, end: fileSize };
}

/** Bytes that a sector of any kind of track takes in its file. */
function stepOf({ mode }: SheetTrack): number {
  return mode === "CDG" ? 2448 : Number(/\/(\d+)$/.exec(mode)?.[1] ?? rawSector);
}

/** A file of the sheet: beside it or in a folder below, as recorded, or else its last name beside the sheet. Never above. */
function companion(name: string, file: string, around: Surroundings): ByteSource {
  let first: unknown;
  for (const path of recordedPaths([file]).filter((one) => !one.startsWith("/") && !one.split("/").includes("..")))
    try {
      return around.companion(path);
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "missing") throw error;
      first ??= error;
    }
  throw first ?? missing(`${name}: names a file without a usable name ("${file}"). Correct it with an editor.`);
}

/** How many of a .bin's sectors, from the first on, are data: sound follows on some discs, and its sectors have no pattern. */
function dataSectors(source: ByteSource, all: number): number {
  let low = 2;
  let high = Math.floor(source.size / rawSector);
  if (isRawSector(source, (high - 1) * rawSector)) return all;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isRawSector(source, middle * rawSector)) low = middle + 1;
    else high = middle;
  }
  return low;
}
