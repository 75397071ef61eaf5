import type { ByteSource } from "../../bytes/byte-source.js";
import { corrupt, type ImageError } from "../../errors.js";
import type { Damage, Integrity, Layer, PieceReport, Run } from "../../layers/layer.js";
import type { Wrapping } from "../image-format.js";

/** A stretch of a disk, and what is there: bytes, an image, or the reason why it can't be read. */
export interface Region {
  readonly position: number;
  readonly size: number;
  readonly bytes?: ByteSource;
  readonly layer?: Layer;
  /** What the image is packed in. */
  readonly packed?: Wrapping | undefined;
  readonly problem?: ImageError;
}

/** A disk of regions that were kept apart; between them it is zero. */
export class RegionsLayer implements Layer {
  readonly parent = undefined;
  readonly chunkSize: number;
  private readonly regions: readonly Region[];

  /** @throws ImageError `corrupt` where regions overlap */
  constructor(
    readonly format: string,
    readonly name: string,
    readonly size: number,
    regions: readonly Region[],
    readonly facts: Record<string, unknown>,
  ) {
    this.regions = [...regions].sort((a, b) => a.position - b.position);
    for (const [index, region] of this.regions.entries()) {
      const before = this.regions[index - 1];
      if (before && before.position + before.size > region.position)
        throw corrupt(
          `${name}: two parts of the disk overlap, from byte ${region.position} on. The partition table is damaged.`,
        );
    }
    this.chunkSize = Math.max(0, ...this.regions.map(({ layer, packed }) => (packed ?? layer)?.chunkSize ?? 0));
  }

  locate(position: number): Run {
    const index = this.indexAt(position);
    const region = this.regions[index];
    if (!region || position >= region.position + region.size) {
      const next = this.regions[index + 1]?.position ?? this.size;
      return { kind: "zero", length: next - position };
    }
    const within = position - region.position;
    const rest = region.size - within;
    const { bytes, layer, problem } = region;
    if (problem) return { kind: "stored", length: rest, source: failing(this.name, this.size, problem), at: position };
    if (bytes) return { kind: "stored", length: rest, source: bytes, at: within };
    // A partition may be larger than what it was formatted to.
    if (!layer || within >= layer.size) return { kind: "zero", length: rest };
    const run = layer.locate(within);
    const length = Math.min(run.length, layer.size - within, rest);
    return run.kind === "absent" ? { kind: "zero", length } : { ...run, length };
  }

  /** The checksums of all images and of what they are packed in, one after another. */
  get integrity(): Integrity | undefined {
    const parts: { first: number; region: Region; integrity: Integrity; ofPacked: boolean }[] = [];
    let pieces = 0;
    const add = (region: Region, integrity: Integrity | undefined, ofPacked: boolean) => {
      if (!integrity) return;
      parts.push({ first: pieces, region, integrity, ofPacked });
      pieces += integrity.pieces;
    };
    for (const region of this.regions) {
      if (region.problem) add(region, lost(this.name, region.problem, region.size), false);
      add(region, region.packed?.integrity, true);
      add(region, region.layer?.integrity, false);
    }
    if (parts.length === 0) return undefined;
    const unchecked = this.regions.flatMap(({ layer, packed, problem }) => {
      if (problem?.code === "unsupported") return [problem.message];
      const isChecked = layer?.integrity ?? packed?.integrity;
      return layer && !isChecked ? [`${layer.name}: has no checksums, so it could not be checked.`] : [];
    });
    const tables = parts.some(({ integrity }) => integrity.proves === "tables");
    const check = (piece: number): PieceReport => {
      const { first, region, integrity, ofPacked } = parts.findLast((part) => part.first <= piece)!;
      const report = integrity.check(piece - first);
      // Where what is unpacked lies on the disk isn't known of images that keep only what is used.
      const isElsewhere = ofPacked && region.layer?.format !== "raw";
      const moved = (damage: Damage): Damage =>
        isElsewhere
          ? { ...damage, position: region.position, length: region.size }
          : { ...damage, position: damage.position + region.position };
      return { ...report, damages: report.damages.map(moved) };
    };
    const notes = [...parts.flatMap(({ integrity }) => integrity.notes ?? []), ...unchecked];
    return { pieces, check, notes, proves: tables ? "tables" : "content" };
  }

  /** The last region that begins at or before `position`; -1 where none does. */
  private indexAt(position: number): number {
    let low = -1;
    for (let high = this.regions.length - 1; low < high; ) {
      const middle = (low + high + 1) >> 1;
      if (this.regions[middle]!.position <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** What is damaged or incomplete is all damage; what only can't be read isn't. */
function lost(file: string, { code, message }: ImageError, length: number): Integrity | undefined {
  if (code === "unsupported") return undefined;
  return { pieces: 1, check: () => ({ chunks: 0, bytes: 0, damages: [{ file, position: 0, length, message }] }) };
}

/** Bytes that can't be had, for a reason. */
function failing(name: string, size: number, problem: ImageError): ByteSource {
  return {
    name,
    size,
    read() {
      throw problem;
    },
  };
}
