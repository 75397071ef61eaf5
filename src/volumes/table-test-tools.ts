import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { FileSource } from "../bytes/file.js";
import { MemorySource } from "../bytes/memory.js";
import { readVolumes } from "./index.js";
import type { VolumeTable } from "./volume.js";

/** Tests only: disks made and read by sfdisk, fdisk and sgdisk, whose word is the expectation. */

const environment = { ...process.env, LC_ALL: "C", PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

/** What `tool` prints; its failure is the test's failure, with what it said. */
export function run(tool: string, given: readonly string[], input = ""): string {
  return execFileSync(tool, given, { input, encoding: "utf8", env: environment, stdio: "pipe" });
}

/** Whether `tool` is installed; if not, the test says so and is to return. */
export function has(t: ExecutionContext, tool: string): boolean {
  try {
    run("sh", ["-c", `command -v ${tool}`]);
    return true;
  } catch {
    t.log(
      `skipped: ${tool} is not installed (Debian packages: fdisk, gdisk, parted, sleuthkit, xorriso, genisoimage, dosfstools, ntfs-3g, exfatprogs)`,
    );
    t.pass();
    return false;
  }
}

/** A sparse file of `size` bytes in a folder that goes away with the test. */
export function emptyDisk(t: ExecutionContext, size: number): string {
  const folder = mkdtempSync(join(tmpdir(), "spindle-volumes-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "disk");
  closeSync(openSync(path, "w"));
  truncateSync(path, size);
  return path;
}

/** Partitions a disk with an sfdisk script; 4096-byte sectors go through fdisk, which had them before sfdisk did. */
export function partition(path: string, script: string, sectorSize = 512): void {
  if (sectorSize === 512) run("sfdisk", ["--quiet", "--force", path], script);
  else {
    writeAt(`${path}.script`, 0, Buffer.from(script), "w");
    run("fdisk", ["-b", String(sectorSize), path], `I\n${path}.script\nw\n`);
  }
}

export function writeAt(path: string, position: number, bytes: Uint8Array, flags = "r+"): void {
  const fd = openSync(path, flags);
  writeSync(fd, bytes, 0, bytes.length, position);
  closeSync(fd);
}

export function volumesOf(path: string, sectorSizeHint?: number): VolumeTable {
  const source = FileSource.open(path);
  try {
    return readVolumes(source, sectorSizeHint);
  } finally {
    source.close();
  }
}

export const volumesIn = (bytes: Uint8Array, hint?: number) => readVolumes(new MemorySource("disk", bytes, 700), hint);

/** A partition in sfdisk's words. */
export interface Row {
  readonly number: number;
  readonly start: number;
  readonly size: number;
  readonly type: string;
  readonly uuid: string;
  readonly name: string;
  readonly bootable: boolean;
}

interface SfdiskPartition {
  node: string;
  start: number;
  size: number;
  type: string;
  uuid?: string;
  name?: string;
  bootable?: boolean;
  attrs?: string;
}

/** The table as `sfdisk --json` reads it, in bytes. */
export function sfdiskRows(path: string): { id: string; rows: Row[] } {
  const table = JSON.parse(run("sfdisk", ["--json", path])).partitiontable as {
    id: string;
    partitions?: SfdiskPartition[];
  };
  const rows = (table.partitions ?? []).map((row) => ({
    number: Number(row.node.slice(path.length).replace(/^p/, "")),
    start: row.start * 512,
    size: row.size * 512,
    type: row.type.length > 2 ? row.type.toLowerCase() : `0x${row.type.padStart(2, "0")}`,
    uuid: row.uuid?.toLowerCase() ?? "",
    name: row.name ?? "",
    bootable: row.bootable ?? row.attrs?.includes("LegacyBIOSBootable") ?? false,
  }));
  return { id: table.id.toLowerCase(), rows: rows.sort((a, b) => a.number - b.number) };
}

/** Ours in the same words. The MBR has no ids in sfdisk's output. */
export const ourRows = ({ volumes, scheme }: VolumeTable): Row[] =>
  volumes.map((volume) => ({
    number: volume.number,
    start: volume.position,
    size: volume.size,
    type: volume.typeCode,
    uuid: scheme === "gpt" ? volume.id : "",
    name: volume.label,
    bootable: volume.bootable,
  }));

/** The first `size` bytes of a disk that is made by `partition`. */
export function partitioned(t: ExecutionContext, size: number, script: string): Buffer {
  const path = emptyDisk(t, size);
  partition(path, script);
  return readFileSync(path);
}
