/**
 * The folder that Clonezilla saves disks or partitions to. Of a disk it has the partition table, as sfdisk dumped it and as
 * bytes, and of each partition that it could save the used blocks, packed and in pieces:
 *
 *   disk  parts                       names of the disks and partitions: `sda`, `sda1 sda2`
 *   sda-pt.sf  sda-pt.parted          the table as sfdisk and parted tell it
 *   sda-mbr  sda-hidden-data-after-mbr      sector 0, and those up to the first partition
 *   sda-gpt-1st  sda-gpt-2nd                the disk's first 34 and its last sectors
 *   sda4-ebr  swappt-sda2.info              the first sector of an extended partition; what a swap partition was called
 *   lvm_vg_dev.list  luks-dev.list          partitions that LVM or LUKS made volumes of, which have images of their own
 *   sda1.ext4-ptcl-img.gz.aa …              see pieces.ts
 *
 * They are shown as the disk that restoring would make. What the folder has nothing of, swap space for one, reads as zeros.
 * A partition that is there and can't be read is an error where it lies, and the others are not touched.
 */
import { dirname } from "node:path";
import { type ByteSource, readExactly, readFully, Slice } from "../../bytes/byte-source.js";
import { MemorySource } from "../../bytes/memory.js";
import { corrupt, ImageError, missing, unsupported, usage } from "../../errors.js";
import type { Layer } from "../../layers/layer.js";
import type { ImageFormat, ImageSurroundings, PartOfFolder } from "../image-format.js";
import { bootRecords } from "./boot-records.js";
import { type Dump, isExtended, partedSize, partitionsOfGpt, readDump } from "./dump.js";
import { type Pieces, piecesOf } from "./pieces.js";
import { type Region, RegionsLayer } from "./regions.js";

/** Bytes of a text. */
const longestText = 1 << 20;

interface PartitionFacts {
  readonly image?: string;
  readonly compression?: string;
  readonly problem?: string;
}

export const clonezilla: ImageFormat = {
  name: "clonezilla",
  hasDisks: true,
  // A folder is told by its names; no file is one.
  recognises: () => false,
  fileOf(names) {
    const encrypted = encryptions.find((name) => names.has(name));
    return encrypted ?? (names.has("parts") && marks.some((name) => names.has(name)) ? "parts" : undefined);
  },
  open(source, around) {
    if (encryptions.some((name) => source.name.endsWith(`/${name}`)))
      throw unsupported(
        `${source.name}: Clonezilla encrypted the images of this folder, which Spindle doesn't decrypt. Decrypt it with Clonezilla first (ocs-decrypt-img).`,
      );
    return new Folder(around).open(around.options?.disk);
  },
};

/** What tells of a folder whose files are encrypted, their names too. */
const encryptions = ["ecryptfs.info", "gocryptfs.info"];

/** Files beside `parts` that only Clonezilla's folders have. */
const marks = ["disk", "clonezilla-img", "Info-saved-by-cmd.txt", "Info-packages.txt", "blkdev.list"];

class Folder {
  private readonly path: string;
  private readonly names: readonly string[];

  constructor(private readonly around: ImageSurroundings) {
    this.path = dirname(around.path);
    this.names = around.beside();
  }

  open(wanted: string | undefined): Layer {
    const disks = this.disks();
    if (wanted !== undefined && !disks.includes(wanted)) {
      const pieces = this.pieces(wanted);
      if (!pieces) throw usage(`${this.path}: has no disk or partition ${wanted}. It has ${this.list(disks)}.`);
      return this.image(pieces, undefined, true).layer;
    }
    if (wanted === undefined && disks.length !== 1)
      throw usage(
        disks.length === 0
          ? `${this.path}: has no partition table of a disk; choose one of ${this.list(disks)} with --disk NAME.`
          : `${this.path}: holds ${disks.length} disks (${disks.join(", ")}); choose one, or a partition, with --disk NAME.`,
      );
    return this.disk(wanted ?? disks[0]!);
  }

  /** The disks of which there is a partition table, or which are one filesystem without. */
  private disks(): string[] {
    const told = this.names.includes("disk") ? words(this.text("disk")) : [];
    const tables = this.names.filter((name) => name.endsWith("-pt.sf")).map((name) => name.slice(0, -6));
    return [...new Set([...told, ...tables])].filter((disk) => tables.includes(disk) || this.has(disk));
  }

  /** What can be chosen: logical volumes too, which are no parts to Clonezilla, and no parts of which it saved nothing. */
  private list(disks: readonly string[]): string {
    const parts = words(this.text("parts")).filter((part) => this.has(part));
    return [...new Set([...disks, ...parts, ...this.devices()])].slice(0, 30).join(", ") || "none";
  }

  private has(device: string): boolean {
    return this.names.some((name) => name.startsWith(`${device}.`));
  }

  private disk(disk: string): Layer {
    // A filesystem that takes a whole disk is treated as a partition.
    if (!this.names.includes(`${disk}-pt.sf`)) return this.image(this.pieces(disk)!, undefined, true).layer;
    const dump = this.dump(disk);
    const regions: Region[] = [];
    const told = dump.partitions
      .filter((partition) => !isExtended(partition))
      .map(({ name, position, size }) => {
        const { region, ...facts } = this.partition(name, size);
        if (region) regions.push({ ...region, position, size });
        return { name, ...facts };
      });
    const size = this.sizeOf(disk, dump);
    regions.push(...this.tableOf(disk, dump, size));
    return new RegionsLayer("clonezilla", `${this.path} > ${disk}`, size, regions, {
      disk,
      scheme: dump.scheme,
      ...(dump.sectorSize !== 512 && { logicalSectorSize: dump.sectorSize }),
      partitions: told,
      ...this.others(dump),
    });
  }

  private dump(disk: string): Dump {
    const dump = readDump(`${this.path}/${disk}-pt.sf`, this.text(`${disk}-pt.sf`));
    if (!dump.isProtective) return dump;
    const start = this.bytes(`${disk}-gpt-1st`);
    const partitions = start && partitionsOfGpt(disk, start, dump.sectorSize);
    if (!partitions)
      throw (start ? corrupt : missing)(
        `${this.path}: ${disk} has a GPT, which the sfdisk that made ${disk}-pt.sf didn't know, and ${disk}-gpt-1st ${start ? "holds none" : "is not there"}. Choose one of its partitions with --disk NAME.`,
      );
    return { ...dump, partitions };
  }

  /** Images of what is no partition of the disk: logical volumes, and partitions of other disks. */
  private others({ partitions }: Dump): { otherImages?: string[] } {
    const own = new Set(partitions.map(({ name }) => name));
    const others = this.devices().filter((name) => !own.has(name));
    return others.length > 0 ? { otherImages: others } : {};
  }

  /** What there are images of. */
  private devices(): string[] {
    return [...new Set(this.names.flatMap((name) => /^([^.]+)\.[\w+-]+-img(\.|$)/.exec(name)?.[1] ?? []))];
  }

  /** What is at a partition, and what `info` tells of it. */
  private partition(name: string, size: number): { region?: Omit<Region, "position" | "size"> } & PartitionFacts {
    try {
      const pieces = this.pieces(name);
      if (pieces) {
        const { layer, packed } = this.image(pieces, size);
        const told = { image: pieces.name, ...(packed && { compression: packed.format }) };
        return { region: { layer, packed }, ...told };
      }
      this.refuseVolumes(name);
      return this.names.includes(`swappt-${name}.info`) ? { image: "swap space" } : { image: "nothing" };
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return { region: { problem: error }, problem: error.message };
    }
  }

  /** @throws ImageError where LVM or LUKS had the partition: what Clonezilla saved of it are the volumes that they made */
  private refuseVolumes(name: string): void {
    const choose = (those: readonly string[]) =>
      `Choose one with --disk NAME: ${(those.length > 0 ? those : this.devices()).slice(0, 30).join(", ") || "the folder has none"}.`;
    const line = (list: string, place: number) =>
      this.text(list)
        .split("\n")
        .map(words)
        .find((line) => line[place]?.replace(/^\/dev\//, "").replaceAll("/", "-") === name);
    const [group] = line("lvm_vg_dev.list", 1) ?? [];
    if (group !== undefined)
      throw unsupported(
        `${this.path}: ${name} belongs to the LVM volume group ${group}, whose volumes Clonezilla saved one by one; Spindle doesn't put them together. ${choose(this.devices().filter((one) => one.startsWith(`${group}-`)))}`,
      );
    const [, , mapped] = line("luks-dev.list", 0) ?? [];
    if (mapped !== undefined || this.names.includes(`${name}-luksHeader.bin`))
      throw unsupported(
        `${this.path}: ${name} was encrypted with LUKS, and Clonezilla saved what was in it; Spindle doesn't encrypt it again. ${choose(this.devices().filter((one) => one === mapped?.split("/").at(-1)))}`,
      );
  }

  private pieces(name: string): Pieces | undefined {
    return piecesOf(this.path, name, this.names);
  }

  /**
   * The image of a partition or volume.
   * @param size of the partition in bytes, where it is known
   * @param alone whether nothing else is opened
   */
  private image({ files, byPartclone, packing }: Pieces, size: number | undefined, alone = false): PartOfFolder {
    const format = byPartclone ? "partclone" : "raw";
    return this.around.imageOf(files, { format, packing, alone, ...(!byPartclone && { length: size }) });
  }

  /** Where parted tells it; else what the GPT or the last partition takes. */
  private sizeOf(disk: string, { scheme, sectorSize, partitions }: Dump): number {
    const end = Math.max(sectorSize, ...partitions.map(({ position, size }) => position + size));
    const parted = this.names.includes(`${disk}-pt.parted`)
      ? partedSize(this.text(`${disk}-pt.parted`), sectorSize)
      : undefined;
    const first = scheme === "gpt" ? this.bytes(`${disk}-gpt-1st`) : undefined;
    const header = first?.subarray(sectorSize, sectorSize + 40);
    const last =
      header?.length === 40 && header.toString("latin1", 0, 8) === "EFI PART" ? header.readBigUInt64LE(32) : 0n;
    // Of an older parted the size is that of all sectors but the last.
    const gpt = (Number(last) + 1) * sectorSize;
    const size = last > 0n && Number.isSafeInteger(gpt) ? gpt : (parted ?? end);
    return Math.max(size, end);
  }

  /** What the folder has of the disk itself. */
  private tableOf(disk: string, dump: Dump, size: number): Region[] {
    const { scheme, sectorSize, partitions } = dump;
    const firstPartition = Math.min(size, ...partitions.map(({ position }) => position));
    const lastPartition = Math.max(0, ...partitions.map((partition) => partition.position + partition.size));
    const regions: Region[] = [];
    /** From `position` on, which is at or behind the source's own, what there is up to `end`. */
    const add = (source: ByteSource | undefined, own: number, position: number, end: number) => {
      const length = Math.min(end, own + (source?.size ?? 0)) - position;
      if (source && length > 0)
        regions.push({ position, size: length, bytes: new Slice(source.name, source, position - own, length) });
    };
    const start = `${disk}-${scheme === "gpt" ? "gpt-1st" : "mbr"}`;
    const first = this.file(start);
    if (!first)
      throw missing(
        `${this.path}: has no ${start}, the bytes of the disk's partition table. Choose one of its partitions with --disk NAME.`,
      );
    add(first, 0, 0, firstPartition);
    add(this.file(`${disk}-hidden-data-after-mbr`), 512, Math.max(512, first.size), firstPartition);
    const second = scheme === "gpt" ? this.file(`${disk}-gpt-2nd`) : undefined;
    // Whatever it begins with, it was read to the disk's end; of disks with larger sectors it isn't the end.
    if (second && isBackupHeader(second)) {
      const own = Math.max(0, size - second.size);
      add(second, own, Math.max(own, lastPartition), size);
    }
    const extended = partitions.find(isExtended);
    if (extended)
      for (const { position, bytes } of bootRecords(dump, this.bytes(`${extended.name}-ebr`)))
        add(new MemorySource(`${this.path} > ${disk}`, bytes), position, position, position + sectorSize);
    return regions;
  }

  private text(name: string): string {
    return this.bytes(name)?.toString("utf8") ?? "";
  }

  private bytes(name: string): Buffer | undefined {
    const source = this.file(name);
    if (source && source.size > longestText)
      throw corrupt(`${source.name}: has ${source.size} bytes, far more than Clonezilla writes there.`);
    return source && readExactly(source, 0, source.size, name);
  }

  private file(name: string): ByteSource | undefined {
    return this.names.includes(name) ? this.around.companion(name) : undefined;
  }
}

function isBackupHeader(source: ByteSource): boolean {
  const mark = Buffer.alloc(8);
  return (
    source.size >= 512 && readFully(source, source.size - 512, mark) === 8 && mark.toString("latin1") === "EFI PART"
  );
}

const words = (text: string) => text.split(/\s+/).filter((word) => word !== "");
