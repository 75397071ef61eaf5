import { corrupt } from "../../errors.js";
import type { FileKind, Time } from "../filesystem.js";
import { type Attribute, FILE_NAME, REPARSE_POINT, type Resident, STANDARD_INFORMATION } from "./attribute.js";
import { referenceRecord } from "./numbers.js";
import { readTime } from "./times.js";

/** Flags of a file ($STANDARD_INFORMATION and directory entries): what DOS and Windows show. */
export const READ_ONLY = 0x1;
export const HIDDEN = 0x2;
export const SYSTEM = 0x4;
export const DIRECTORY = 0x10;
export const NORMAL = 0x80;
export const REPARSE = 0x400;
export const RECALL_ON_DATA_ACCESS = 0x400000;

/** Namespaces of names. */
export const DOS_NAME = 2;

/** The first record of a user's files; those before are the system's. */
export const firstUserRecord = 16;

export interface FileName {
  readonly parent: number;
  readonly namespace: number;
  readonly name: string;
}

/** A file's record with its attributes, those in extension records included. */
export class FileRecord {
  readonly isDirectory: boolean;
  /** DOS attributes as stored. */
  readonly flags: number;
  readonly born: Time;
  readonly modified: Time;
  readonly changed: Time;
  readonly accessed: Time;
  readonly securityId: number;
  /** Bytes of memory, roughly. */
  readonly weight: number;
  /** What the file is to the outside; filled in by kinds.ts, once. */
  kind: FileKind | undefined;

  /** @throws ImageError `corrupt` when there is no $STANDARD_INFORMATION. */
  constructor(
    readonly number: number,
    readonly sequence: number,
    recordFlags: number,
    readonly attributes: readonly Attribute[],
    recordSize: number,
    private readonly mft: { nameOf(number: number): string },
  ) {
    this.isDirectory = (recordFlags & 2) !== 0;
    this.weight =
      recordSize +
      attributes.length * 200 +
      attributes.reduce((sum, attribute) => sum + (attribute.resident ? 0 : (attribute.further?.length ?? 0) * 80), 0);
    const standard = this.resident(STANDARD_INFORMATION)?.value;
    if (!standard || standard.length < 48)
      throw corrupt(`${this.label} has no $STANDARD_INFORMATION. The volume is damaged.`);
    this.born = readTime(standard, 0);
    this.modified = readTime(standard, 8);
    this.changed = readTime(standard, 16);
    this.accessed = readTime(standard, 24);
    this.flags = standard.readUInt32LE(32);
    this.securityId = standard.length >= 56 ? standard.readUInt32LE(52) : 0;
  }

  /** How messages name it. */
  get label(): string {
    return this.mft.nameOf(this.number);
  }

  find(type: number, name = ""): Attribute | undefined {
    for (const attribute of this.attributes) if (attribute.type === type && attribute.name === name) return attribute;
    return undefined;
  }

  /** The attribute of this type if it is resident, as some have to be. */
  resident(type: number, name = ""): Resident | undefined {
    const found = this.find(type, name);
    return found?.resident ? found : undefined;
  }

  get hasReparsePoint(): boolean {
    return (this.flags & REPARSE) !== 0 && this.find(REPARSE_POINT) !== undefined;
  }

  *names(): Iterable<FileName> {
    for (const attribute of this.attributes) {
      if (attribute.type !== FILE_NAME || !attribute.resident) continue;
      const { value } = attribute;
      const length = value[64] ?? 0;
      if (value.length < 66 + length * 2) continue;
      yield {
        parent: referenceRecord(value, 0),
        namespace: value[65]!,
        name: value.toString("utf16le", 66, 66 + length * 2),
      };
    }
  }
}
