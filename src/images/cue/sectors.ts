/**
 * The sectors of a CD-ROM (ECMA-130, section 14; modes and forms of mode 2: the CD-ROM XA specification), as images keep
 * them raw. All have 2352 bytes:
 *
 *   mode 1           sync 12   address 3, mode 1   data 2048                  EDC 4   zeros 8   ECC 276
 *   mode 2, form 1   sync 12   address 3, mode 1   subheader 8   data 2048    EDC 4             ECC 276
 *   mode 2, form 2   sync 12   address 3, mode 1   subheader 8   data 2324    EDC 4 or zeros
 *
 * An EDC is a checksum of all that precedes it, in mode 2 from the subheader on. Mode 2 may also be kept without its first
 * 16 bytes, and either without all but the data. Only data of 2048 bytes a sector makes a disk: of a sector of form 2, which
 * holds film or sound and no files, the disk has the first 2048 bytes, as bchunk and others give them.
 */

import type { ByteSource } from "../../bytes/byte-source.js";
import { readFully } from "../../bytes/byte-source.js";
import type { Layer, PieceReport } from "../../layers/layer.js";

/** Bytes a sector of the disk. */
export const sectorData = 2048;
export const rawSector = 2352;

const sync = Buffer.from("00ffffffffffffffffffff00", "hex");

/** How a track's sectors are kept. */
export interface SectorLayout {
  /** `mode 1` or `mode 2`. */
  readonly mode: string;
  /** Bytes a sector takes in the file. */
  readonly step: number;
  /** Where its data begins, in bytes from its start. */
  readonly data: number;
}

const mode1 = { mode: "mode 1", step: rawSector, data: 16 } as const;
const mode2 = { mode: "mode 2", step: rawSector, data: 24 } as const;

/** Cue sheets' names of data tracks that a disk can be made of. */
export const layouts: Readonly<Record<string, SectorLayout>> = {
  "MODE1/2048": { mode: "mode 1", step: 2048, data: 0 },
  "MODE1/2352": mode1,
  "MODE2/2048": { mode: "mode 2", step: 2048, data: 0 },
  "MODE2/2336": { mode: "mode 2", step: 2336, data: 8 },
  "MODE2/2352": mode2,
  "CDI/2336": { mode: "mode 2", step: 2336, data: 8 },
  "CDI/2352": mode2,
};

/** Whether a raw sector of data begins at `position`. */
export function isRawSector(source: ByteSource, position: number): boolean {
  const start = Buffer.alloc(sync.length);
  return readFully(source, position, start) === start.length && start.equals(sync);
}

/** What the header of the raw sector at `position` tells of its layout; undefined where it has none, or holds no data. */
export function layoutAt(source: ByteSource, position: number): SectorLayout | undefined {
  const mode = Buffer.alloc(1);
  if (!isRawSector(source, position) || readFully(source, position + 15, mode) < 1) return undefined;
  return { 1: mode1, 2: mode2 }[mode[0]! & 3];
}

/** Where a track is. */
export interface Extent {
  readonly source: ByteSource;
  readonly layout: SectorLayout;
  /** Of its first sector, in bytes. */
  readonly position: number;
  /** Its sectors. */
  readonly count: number;
}

const sectorsPerPiece = 1024;

/** The EDCs of a track; undefined for one that is kept without. */
export function edcIntegrity({ source, layout, position, count }: Extent): Layer["integrity"] {
  const { step } = layout;
  if (step === sectorData) return undefined;
  const buffer = Buffer.allocUnsafe(sectorsPerPiece * step);
  const check = (piece: number): PieceReport => {
    const first = piece * sectorsPerPiece;
    const sectors = Math.min(sectorsPerPiece, count - first);
    const bytes = buffer.subarray(0, sectors * step);
    const filled = readFully(source, position + first * step, bytes);
    const damages = [];
    for (let nth = 0; nth < sectors; nth++) {
      const sector = bytes.subarray(nth * step, (nth + 1) * step);
      const problem = filled < (nth + 1) * step ? "is cut off" : damageOf(sector, layout);
      if (problem === undefined) continue;
      const number = first + nth;
      damages.push({
        file: source.name,
        position: number * sectorData,
        length: sectorData,
        message: `${source.name}: sector ${number}, at byte ${position + number * step}, ${problem}.`,
      });
    }
    return { chunks: sectors, bytes: sectors * sectorData, damages };
  };
  return { pieces: Math.ceil(count / sectorsPerPiece), check };
}

function damageOf(sector: Buffer, { mode, step }: SectorLayout): string | undefined {
  if (step === rawSector) {
    if (!sector.subarray(0, sync.length).equals(sync)) return "doesn't begin with the pattern that sectors of data do";
    const told = `mode ${sector[15]! & 3}`;
    if (told !== mode) return `is of ${told} in a track of ${mode}`;
    if (mode === "mode 1") return edc(sector.subarray(0, 2064), sector.readUInt32LE(2064));
  }
  const content = sector.subarray(step === rawSector ? 16 : 0);
  const formTwo = (content[2]! & 0x20) !== 0;
  const end = formTwo ? 2332 : 2056;
  const told = content.readUInt32LE(end);
  // In form 2 an EDC of zero means that none was computed.
  return formTwo && told === 0 ? undefined : edc(content.subarray(0, end), told);
}

function edc(bytes: Uint8Array, told: number): string | undefined {
  return edcOf(bytes) === told ? undefined : "doesn't have its recorded checksum (EDC): it is damaged";
}

/** For each byte what it adds: of the polynomial (x^16+x^15+x^2+1)(x^16+x^2+x+1), the lowest bit first. */
const edcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xd8018001 : value >>> 1;
  return value;
});

function edcOf(bytes: Uint8Array): number {
  let value = 0;
  for (let at = 0; at < bytes.length; at++) value = edcTable[(value ^ bytes[at]!) & 0xff]! ^ (value >>> 8);
  return value >>> 0;
}
