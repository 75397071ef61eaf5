import type { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, usage } from "../../errors.js";
import { u64be } from "../fields.js";
import type { Qcow2Header } from "./header.js";

/** A state of the disk that is kept inside the image, with tables of its own. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  /** Seconds since 1970. */
  readonly seconds: number;
  readonly l1Position: number;
  readonly l1Entries: number;
  /** Of the disk then, in bytes; images of version 2 may not tell: it is the disk's then. */
  readonly size: number;
  /** Bytes of a saved machine's memory, which aren't part of the disk. */
  readonly machineState: number;
}

/** QEMU's own bounds. */
const most = 65536;
const longestExtra = 1024;

/** Goes through the snapshot table, entry by entry. @throws ImageError `corrupt` naming the entry. */
export function* readSnapshots(pages: MetadataPages, header: Qcow2Header): Iterable<Snapshot> {
  const { name } = pages.source;
  if (header.snapshots > most) throw corrupt(`${name}: tells of ${header.snapshots} snapshots; ${most} are possible.`);
  let at = header.snapshotsPosition;
  for (let number = 0; number < header.snapshots; number++) {
    const what = `snapshot ${number} of ${header.snapshots}`;
    const fixed = pages.bytes(at, 40, what);
    const idLength = fixed.readUInt16BE(12);
    const nameLength = fixed.readUInt16BE(14);
    const extraLength = fixed.readUInt32BE(36);
    if (extraLength > longestExtra) throw corrupt(`${name}: ${what} at byte ${at} has ${extraLength} bytes of extras.`);
    const rest = pages.bytes(at + 40, extraLength + idLength + nameLength, what);
    yield {
      id: rest.toString("utf8", extraLength, extraLength + idLength),
      name: rest.toString("utf8", extraLength + idLength),
      seconds: fixed.readUInt32BE(16),
      l1Position: u64be(fixed, 0),
      l1Entries: fixed.readUInt32BE(8),
      size: extraLength >= 16 ? u64be(rest, 8) : header.size,
      machineState: extraLength >= 8 ? u64be(rest, 0) : fixed.readUInt32BE(32),
    };
    at += Math.ceil((40 + rest.length) / 8) * 8;
  }
}

/** The snapshot with the id or else the name `wanted`. @throws ImageError `usage` listing those that there are. */
export function findSnapshot(pages: MetadataPages, header: Qcow2Header, wanted: string): Snapshot {
  let named: Snapshot | undefined;
  const list: string[] = [];
  for (const snapshot of readSnapshots(pages, header)) {
    if (snapshot.id === wanted) return snapshot;
    if (snapshot.name === wanted) named ??= snapshot;
    if (list.length < 20) list.push(`${snapshot.name} (id ${snapshot.id})`);
  }
  if (named) return named;
  const those = list.length > 0 ? `It has ${list.join(", ")}` : "It has none";
  throw usage(
    `${pages.source.name}: has no snapshot ${wanted}. ${those}${header.snapshots > list.length ? " and more" : ""}.`,
  );
}
