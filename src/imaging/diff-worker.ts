/** Compares one stretch of two disks: see diff.ts. */
import { readFully } from "../bytes/byte-source.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { type LayersData, type OpenedLayers, reopenLayers } from "../chain.js";
import { system } from "../errors.js";
import { ChainDigests } from "../images/spin/chain-digests.js";
import { digestLength, fanOut } from "../images/spin/pages.js";
import { SpinLayer } from "../images/spin/reader.js";
import type { Disk } from "../layers/disk.js";
import { KnownEqual } from "./known-equal.js";
import { serveJobs } from "./pool.js";

export interface DiffInit {
  readonly a: LayersData;
  readonly b: LayersData;
  /** Longest job in bytes: a multiple of every chunk size. */
  readonly jobSize: number;
}

export interface DiffJob {
  readonly position: number;
  readonly length: number;
}

/** Positions and lengths of what differs, one after the other. */
export type DiffResult = Float64Array;

/** Bytes of the smallest stretch that is told apart: a sector. */
const sector = 512;

serveJobs<DiffInit, DiffJob, DiffResult>((init) => {
  const open = (data: LayersData) => reopenLayers(data, new LocalChunkCache(0));
  const [a, b] = [open(init.a), open(init.b)];
  const known = new KnownEqual(a, b);
  const digests = digestsOfBoth(a, b);
  const ours = Buffer.allocUnsafe(init.jobSize);
  const theirs = Buffer.allocUnsafe(init.jobSize);

  return ({ position, length }) => {
    const found: number[] = [];
    for (let at = position, end = position + length; at < end; ) {
      const stretch = stretchAt(known, at, end);
      if (!stretch.equal)
        for (const [from, to] of digests
          ? digests.unequal(at, at + stretch.length)
          : [[at, at + stretch.length] as const]) {
          const count = to - from;
          read(a.disk, from, ours.subarray(0, count));
          read(b.disk, from, theirs.subarray(0, count));
          unequalSectors(ours.subarray(0, count), theirs.subarray(0, count), from, found);
        }
      at += stretch.length;
    }
    return Float64Array.from(found);
  };
});

/** What is known at `at`, with all neighbours of which the same is known, up to `end`. */
function stretchAt(known: KnownEqual, at: number, end: number): { equal: boolean; length: number } {
  const { equal, length } = known.at(at);
  let reach = at + length;
  while (reach < end) {
    const next = known.at(reach);
    if (next.equal !== equal) break;
    reach += next.length;
  }
  return { equal, length: Math.min(reach, end) - at };
}

function read(disk: Disk, position: number, target: Uint8Array): void {
  const got = readFully(disk, position, target);
  if (got < target.length)
    throw system(
      `${disk.name}: reading at byte ${position + got}`,
      new Error("it ended early: it shrank while it was read"),
    );
}

/** Adds the stretches in which two equally long buffers differ, whole sectors but for the end, to `found`. */
function unequalSectors(ours: Buffer, theirs: Buffer, position: number, found: number[]): void {
  if (ours.equals(theirs)) return;
  if (ours.length > sector) {
    // In halves, since what differs is often little.
    const half = Math.ceil(ours.length / sector / 2) * sector;
    unequalSectors(ours.subarray(0, half), theirs.subarray(0, half), position, found);
    unequalSectors(ours.subarray(half), theirs.subarray(half), position + half, found);
    return;
  }
  const last = found.length - 2;
  if (last >= 0 && found[last]! + found[last + 1]! === position) found[last + 1]! += ours.length;
  else found.push(position, ours.length);
}

/** Compares chunks by their digests, where both chains have them for chunks of one size. */
function digestsOfBoth(a: OpenedLayers, b: OpenedLayers) {
  const [ours, theirs] = [a, b].map(({ layers }) => {
    const spins = layers.filter((layer) => layer instanceof SpinLayer);
    return spins.length === layers.length ? new ChainDigests(spins) : undefined;
  });
  if (!ours || !theirs || ours.chunkSize !== theirs.chunkSize) return undefined;
  const { chunkSize } = ours;
  const isEqual = (chunk: number) => {
    // The last chunk of a shorter disk is a part of the other's.
    if (Math.min(chunkSize, a.disk.size - chunk * chunkSize) !== Math.min(chunkSize, b.disk.size - chunk * chunkSize))
      return false;
    const [one, other] = [ours, theirs].map((chain) => chain.leaf(Math.floor(chunk / fanOut)).digests);
    const at = (chunk % fanOut) * digestLength;
    return one!.compare(other!, at, at + digestLength, at, at + digestLength) === 0;
  };
  return {
    /** The parts of the stretch whose chunks have other digests. */
    *unequal(from: number, to: number): Generator<readonly [number, number]> {
      for (let at = from; at < to; ) {
        const chunk = Math.floor(at / chunkSize);
        const end = Math.min(to, (chunk + 1) * chunkSize);
        if (!isEqual(chunk)) yield [at, end];
        at = end;
      }
    },
  };
}
