/** Tests only: folders as Clonezilla saves them, of a disk that sfdisk partitioned and the programs packed that Clonezilla runs. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import type { ExecutionContext } from "ava";
import { partcloneImage } from "../partclone/writer-test-tools.js";
import { numbers } from "../qemu-test-tools.js";

export const sector = 512;
export const MiB = 1 << 20;
const hasSfdisk = spawnSync("sfdisk", ["--version"]).status === 0;

export function needsSfdisk(t: ExecutionContext): boolean {
  if (!hasSfdisk) t.pass(t.log("skipped: sfdisk (package fdisk) is not installed") as undefined);
  return hasSfdisk;
}

export interface Saved {
  readonly folder: string;
  /** What restoring would give. */
  readonly disk: Buffer;
  /** In bytes, by name. */
  readonly places: ReadonlyMap<string, { position: number; size: number; type: string }>;
}

export interface How {
  /** What sfdisk is told. */
  readonly script: string;
  /** Which partitions are saved, and how; others leave nothing. */
  readonly saved: Readonly<Record<string, "partclone" | "old partclone" | "dd" | "old dd" | "swap">>;
  /** How the name of what is compressed ends, `gz` for example; by default nothing is. */
  readonly packed?: keyof typeof packers;
  /** Bytes a piece; undefined for one file without letters. */
  readonly piece?: number;
  /** Letters that tell pieces; default 2. */
  readonly letters?: number;
  readonly size?: number;
}

/** Programs that Clonezilla packs with. */
export const packers = {
  gz: ["pigz", "-1"],
  bz2: ["lbzip2", "-1"],
  xz: ["xz", "-0", "-T2", "--block-size=1000000"],
  zst: ["zstd", "-q", "-1", "-T2"],
  lz4: ["lz4", "-q", "-1"],
  lzip: ["plzip", "-0"],
  lzma: ["xz", "--format=lzma", "-0"],
} as const;

export function pack(bytes: Buffer, [program, ...options]: readonly [string, ...string[]]): Buffer {
  return execFileSync(program, [...options, "-c"], { input: bytes, maxBuffer: 1 << 28, stdio: "pipe" });
}

export function needsPackers(t: ExecutionContext): boolean {
  const lacking = Object.values(packers).find(([program]) => spawnSync(program, ["--version"]).error);
  if (lacking) t.pass(t.log(`skipped: ${lacking[0]} is not installed`) as undefined);
  return lacking === undefined;
}

/** Makes a disk and saves it as Clonezilla does, to a folder of `path`. */
export function save(path: (name: string) => string, how: How, name = "sda"): Saved {
  const size = how.size ?? 16 * MiB;
  const next = numbers(size + name.charCodeAt(2));
  const image = path(`${name}.img`);
  // Noise, so that nothing that is left out passes for zeros: the bootloader, the gap behind it, the partitions.
  const noise = Buffer.from(Array.from({ length: 8192 }, () => next(256)));
  const disk = Buffer.alloc(size);
  for (let at = 0; at < size; at += noise.length) noise.copy(disk, at, at === 0 ? 0 : next(256));
  disk.fill(0, 446, 512);
  // Where a GPT may be sfdisk must see none.
  disk.fill(0, 512, 34 * sector);
  disk.fill(0, size - 34 * sector);
  writeFileSync(image, disk);
  execFileSync("sfdisk", ["-q", "--no-reread", image], { input: how.script, stdio: ["pipe", "pipe", "pipe"] });
  const partitioned = readFileSync(image);
  const dump = sfdisk(image).replaceAll(image, `/dev/${name}`);

  const folder = path("img");
  mkdirSync(folder, { recursive: true });
  const write = (file: string, bytes: string | Buffer) => writeFileSync(`${folder}/${file}`, bytes);
  write(`${name}-pt.sf`, dump);
  write(
    `${name}-pt.parted`,
    `Model: ATA (scsi)\nDisk /dev/${name}: ${size / sector}s\nSector size (logical/physical): 512B/512B\n`,
  );
  write(`${name}-mbr`, partitioned.subarray(0, sector));
  const places = new Map(
    [...dump.matchAll(/^\/dev\/(\S+) : start= *(\d+), size= *(\d+), type=([\w-]+)/gm)].map(
      ([, device, start, length, type]) => [
        device!,
        { position: Number(start) * sector, size: Number(length) * sector, type: type! },
      ],
    ),
  );
  const gpt = dump.includes("label: gpt");
  const firstPartition = Math.min(...[...places.values()].map(({ position }) => position));
  const expected = Buffer.alloc(size);
  if (gpt) {
    write(`${name}-gpt-1st`, partitioned.subarray(0, 34 * sector));
    // Clonezilla counts from behind by one too many: it gets the last 32 sectors.
    write(`${name}-gpt-2nd`, partitioned.subarray(size - 32 * sector));
    partitioned.copy(expected, 0, 0, 34 * sector);
    partitioned.copy(expected, size - 32 * sector, size - 32 * sector);
  } else {
    write(`${name}-hidden-data-after-mbr`, partitioned.subarray(sector, firstPartition));
    partitioned.copy(expected, 0, 0, firstPartition);
  }
  const saved: string[] = [];
  for (const [device, { position, size: length, type }] of places) {
    if (["5", "f"].includes(type)) {
      write(`${device}-ebr`, partitioned.subarray(position, position + sector));
      continue;
    }
    saved.push(device);
    const content = partitioned.subarray(position, position + length);
    const kind = how.saved[device];
    if (kind === "swap") write(`swappt-${device}.info`, 'UUID="1"\nLABEL=""\n');
    const { packed, piece, letters } = how;
    const save = (old: string, recent: string, bytes: Buffer) => {
      const isOld = kind?.startsWith("old") === true;
      const file = isOld ? `${device}.${old}` : `${device}.${recent}.${packed ?? "uncomp"}`;
      pieces(write, file, packed ? pack(bytes, packers[packed]) : bytes, piece, letters);
    };
    if (kind === "dd" || kind === "old dd") {
      save("dd-img", "dd-ptcl-img", content);
      content.copy(expected, position);
    }
    if (kind !== "partclone" && kind !== "old partclone") continue;
    const used = Array.from({ length: length / 4096 }, () => next(3) > 0);
    const image = partcloneImage({ version: 2, blockSize: 4096, used, disk: content, perChecksum: 16 });
    save("ext4-img", "ext4-ptcl-img", image);
    for (const [block, is] of used.entries())
      if (is) content.copy(expected, position + block * 4096, block * 4096, (block + 1) * 4096);
  }
  write("parts", `${saved.join(" ")}\n`);
  write("disk", `${name}\n`);
  write("Info-saved-by-cmd.txt", "/usr/sbin/ocs-sr savedisk\n");
  return { folder, disk: expected, places };
}

export const sfdisk = (image: string) => execFileSync("sfdisk", ["-d", image], { encoding: "utf8", stdio: "pipe" });

export function pieces(
  write: (name: string, bytes: Buffer) => void,
  name: string,
  bytes: Buffer,
  size?: number,
  width = 2,
): void {
  if (size === undefined) {
    write(name, bytes);
    return;
  }
  for (let nth = 0; nth * size < bytes.length; nth++) {
    const letters = String.fromCharCode(97 + Math.floor(nth / 26), 97 + (nth % 26));
    write(`${name}.${letters.padStart(width, "a")}`, bytes.subarray(nth * size, (nth + 1) * size));
  }
}

/** What sfdisk is told: a disk with an MBR, and one with a GPT. */
export const mbr = `label: dos
label-id: 0x12345678
start=2048, size=8192, type=83, bootable
start=10240, size=4096, type=82
start=14336, size=8192, type=7
`;

export const gpt = `label: gpt
label-id: 0FC63DAF-8483-4772-8E79-3D69D8477DE4
start=2048, size=8192, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI"
start=10240, size=16384, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
`;
