import type { ByteSource } from "../bytes/byte-source.js";

/** A stretch of a disk that its table names: a partition. */
export interface Volume {
  /** As Linux numbers it: sda1 is 1; the MBR's logical partitions count from 5. Unique in its table, not dense. */
  readonly number: number;
  /** First byte on the disk. */
  readonly position: number;
  /** In bytes, at least 1; always within the disk. */
  readonly size: number;
  /** The table's type in words, for example `EFI System`; a type that has no name is its `typeCode`. */
  readonly type: string;
  /** The type as the table has it: `0x83`, a GUID in lower case, or a name such as `Apple_HFS`. */
  readonly typeCode: string;
  /** The name that the table gives it; empty where the table has no names. Any text: escape before showing it. */
  readonly label: string;
  /** PARTUUID as udev has it; empty where the table has no id. */
  readonly id: string;
  readonly bootable: boolean;
}

export type Scheme = "mbr" | "gpt" | "apm" | "none";

/** What a disk's table says. */
export interface VolumeTable {
  readonly scheme: Scheme;
  /** Bytes a sector in which the table counts. */
  readonly sectorSize: number;
  /** PTUUID as blkid has it; empty where there is none. */
  readonly id: string;
  /** By number. They may overlap: then there is a warning. */
  readonly volumes: readonly Volume[];
  /** Sentences on what is damaged or odd in the table, and what was done about it. */
  readonly warnings: readonly string[];
}

/** A kind of table: one row of index.ts. */
export interface VolumeScheme {
  readonly name: Scheme;
  /**
   * The table, or undefined when the disk has none of this kind. A damaged table is still a table: its warnings say
   * what is wrong. Throws nothing but bugs: what can't be read is a warning too.
   * @param sectorSize the disk's sectors in bytes (a power of two from 512) where they are known.
   */
  read(disk: ByteSource, sectorSize: number | undefined): VolumeTable | undefined;
}
