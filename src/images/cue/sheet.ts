/**
 * A cue sheet (CDRWIN's user guide, "CUE-Sheet Commands"): a text that tells where the tracks of a compact disc are kept.
 *
 *   FILE "disc.bin" BINARY
 *     TRACK 01 MODE1/2352                   kind of data / bytes a sector takes in the file
 *       INDEX 01 00:00:00                   minutes:seconds:frames from the file's start; 75 frames, each a sector, a second
 *     TRACK 02 AUDIO
 *       PREGAP 00:02:00                     silence that isn't in the file
 *       INDEX 00 33:17:10                   the track's pregap, which is in the file
 *       INDEX 01 33:19:10                   its first sector
 */
import type { ByteSource } from "../../bytes/byte-source.js";
import { readExactly, readFully } from "../../bytes/byte-source.js";
import { corrupt } from "../../errors.js";

/** Far above what 99 tracks with all their titles need. */
const longestSheet = 1 << 20;
/** A sheet is told by so many of its first bytes. */
const lookedAt = 4096;

/** Of a line without the spaces around it. None of these takes longer than the line is long. */
const keywords = /^(REM|CATALOG|CDTEXTFILE|FILE|FLAGS|INDEX|ISRC|PERFORMER|POSTGAP|PREGAP|SONGWRITER|TITLE|TRACK)\b/i;
const fileLine = /^FILE\s+(?=\S)(.*\S)\s+([A-Z0-9]+)$/i;
const trackLine = /^TRACK\s+(\d{1,2})\s+([A-Z0-9/]+)$/i;
const indexLine = /^INDEX\s+(\d{1,2})\s+(\d{1,3}):(\d{1,2}):(\d{1,2})$/i;

export interface SheetFile {
  /** As it is recorded. */
  readonly name: string;
  /** `BINARY`, `WAVE` and so on. */
  readonly type: string;
}

export interface SheetTrack {
  readonly number: number;
  /** In capitals: `AUDIO`, `MODE1/2352`. */
  readonly mode: string;
  /** The file with its first sector, by its place in `files`. */
  readonly file: number;
  /** Its first sector (INDEX 01) and that of its pregap, if that is in the same file; in sectors from the file's start. */
  readonly first: number;
  readonly pregap: number | undefined;
}

export interface Sheet {
  readonly files: readonly SheetFile[];
  readonly tracks: readonly SheetTrack[];
}

/** Whether `source` is a text that begins as cue sheets do, and gets to a file and a track in it. */
export function isSheet(source: ByteSource): boolean {
  if (source.size > longestSheet) return false;
  const start = Buffer.alloc(Math.min(lookedAt, source.size));
  if (readFully(source, 0, start) < start.length || start.includes(0)) return false;
  const lines = linesOf(start);
  const first = lines.find((line) => line !== "");
  return (
    first !== undefined &&
    keywords.test(first) &&
    lines.some((line) => fileLine.test(line)) &&
    lines.some((line) => trackLine.test(line))
  );
}

/** @throws ImageError `corrupt`, with the line's number */
export function readSheet(source: ByteSource): Sheet {
  const files: SheetFile[] = [];
  const tracks: SheetTrack[] = [];
  let open: { number: number; mode: string; pregap?: { file: number; sector: number } } | undefined;
  const wrong = (line: number, what: string) =>
    corrupt(`${source.name}: line ${line} of the cue sheet ${what}. Correct it with an editor.`);
  for (const [index, text] of linesOf(readExactly(source, 0, source.size, "the cue sheet")).entries()) {
    const [, keyword] = keywords.exec(text) ?? [];
    const line = index + 1;
    switch (keyword?.toUpperCase()) {
      case "FILE": {
        const [, name, type] = fileLine.exec(text) ?? [];
        if (type === undefined) throw wrong(line, "names no file and its type");
        files.push({ name: name!.replace(/^"(.*)"$/, "$1"), type: type.toUpperCase() });
        break;
      }
      case "TRACK": {
        const [, number, mode] = trackLine.exec(text) ?? [];
        if (mode === undefined) throw wrong(line, "tells no number and kind of a track");
        if (open) throw wrong(line, `begins a track before track ${open.number} has an INDEX 01`);
        if (files.length === 0) throw wrong(line, "tells of a track that is in no file");
        open = { number: Number(number), mode: mode.toUpperCase() };
        break;
      }
      case "INDEX": {
        const [, number, minutes, seconds, frames] = indexLine.exec(text) ?? [];
        if (frames === undefined || Number(seconds) > 59 || Number(frames) > 74)
          throw wrong(line, "tells no time as minutes:seconds:frames");
        const sector = (Number(minutes) * 60 + Number(seconds)) * 75 + Number(frames);
        const file = files.length - 1;
        if (Number(number) === 0 && open) open.pregap = { file, sector };
        if (Number(number) !== 1) break;
        if (!open) throw wrong(line, "tells an INDEX 01 outside of a track");
        const { pregap } = open;
        const first = tracks.at(-1);
        const track = { ...open, file, first: sector, pregap: pregap?.file === file ? pregap.sector : undefined };
        if (first?.file === file && (track.pregap ?? sector) < first.first)
          throw wrong(line, `puts track ${track.number} before track ${first.number}`);
        if (track.pregap !== undefined && track.pregap > sector) throw wrong(line, "is before its INDEX 00");
        tracks.push(track);
        open = undefined;
        break;
      }
    }
  }
  if (open)
    throw corrupt(`${source.name}: track ${open.number} of the cue sheet has no INDEX 01. The file is cut off.`);
  if (tracks.length > 99) throw corrupt(`${source.name}: tells of ${tracks.length} tracks; a disc has 99 at most.`);
  return { files, tracks };
}

/** Lines without the spaces around them, of UTF-8, or what Windows wrote before. */
function linesOf(bytes: Buffer): string[] {
  const text = bytes.toString("utf8").replace(/^\ufeff/, "");
  const lines = (text.includes("\ufffd") ? bytes.toString("latin1") : text).split(/\r\n|\n|\r/);
  return lines.map((line) => line.trim());
}
