import { type ByteSource, Slice } from "../../bytes/byte-source.js";
import { corrupt, ImageError, mismatch, missing, unsupported } from "../../errors.js";
import type { Format, Surroundings } from "../../format.js";
import type { Integrity, Layer, ParentReference, Run } from "../../layers/layer.js";
import { BlockMap } from "../block-map.js";
import { joinedIntegrity } from "../map-check.js";
import { recordedPaths } from "../recorded-paths.js";
import { type Descriptor, type ExtentLine, isDescriptor, readDescriptor } from "./descriptor.js";
import { CowdTable, type GrainTable, HostedTable, readHostedHeader, SeSparseTable, signatureOf } from "./sparse.js";
import { checkOfTable } from "./verify.js";

/** VMware's format: a descriptor and its extents, in one file or many. */
export const vmdk: Format<Layer> = {
  name: "vmdk",
  recognises: (source) => ["KDMV", "COWD"].includes(signatureOf(source)) || isDescriptor(source),
  open: (source, around) => new VmdkLayer(source, around),
};

/** A part of the disk. Its positions count from its own start. */
interface Extent {
  readonly start: number;
  readonly size: number;
  readonly table: GrainTable | undefined;
  locate(position: number): Run;
}

class VmdkLayer implements Layer {
  readonly format = "vmdk";
  readonly size: number;
  readonly parent: ParentReference | undefined;
  readonly integrity: Integrity | undefined;
  readonly chunkSize: number;
  readonly descriptor: Descriptor;
  private readonly extents: readonly Extent[];

  constructor(
    private readonly file: ByteSource,
    around: Surroundings,
  ) {
    const { name } = file;
    const extents: Extent[] = [];
    const add = (size: number, made: { table?: GrainTable; locate(position: number): Run }) => {
      const before = extents.at(-1);
      const start = before ? before.start + before.size : 0;
      extents.push({ start, size, table: made.table, locate: made.locate });
    };
    const signature = signatureOf(file);
    if (signature === "COWD")
      throw unsupported(
        `${name}: is one extent of a disk. Open the descriptor beside it, a small .vmdk that names it.`,
      );
    if (signature === "KDMV") {
      const header = readHostedHeader(file);
      if (header.descriptorOffset === 0 || header.descriptorSize === 0)
        throw unsupported(
          `${name}: is one extent of a disk, without descriptor. Open the descriptor beside it, a small .vmdk that names it.`,
        );
      this.descriptor = readDescriptor(file, header.descriptorOffset, header.descriptorSize);
      // The one extent is this file, whatever it was called when it was made.
      add(
        checkedSize(name, header.capacity),
        sparse(new HostedTable(file, header, header.capacity, this.isChild), around),
      );
    } else {
      this.descriptor = readDescriptor(file, 0, file.size);
      for (const line of this.descriptor.extents) add(line.size, openExtent(name, line, this.isChild, around));
    }
    if (extents.length === 0) throw corrupt(`${name}: its descriptor names no extents. The file is damaged.`);
    const last = extents.at(-1)!;
    this.size = checkedSize(name, last.start + last.size);
    this.extents = extents;
    this.chunkSize = Math.max(0, ...extents.map(({ table }) => (table?.unpacked ? table.blockSize : 0)));
    if (this.isChild) this.parent = this.describeParent();
    this.integrity = this.makeIntegrity();
  }

  get name(): string {
    return this.file.name;
  }

  private get isChild(): boolean {
    return this.descriptor.parentCid !== undefined;
  }

  get facts(): Record<string, unknown> {
    const { createType, cid, parentCid, parentHint, dataBase } = this.descriptor;
    const grainSize = this.extents.find(({ table }) => table)?.table?.blockSize;
    return {
      subformat: createType,
      cid: cidText(cid),
      extents: this.extents.length,
      ...(grainSize && { grainSize }),
      ...(this.chunkSize > 0 && { compression: "zlib" }),
      ...(parentCid !== undefined && { parentCid: cidText(parentCid), parentFileNameHint: parentHint }),
      ...(Object.keys(dataBase).length > 0 && { ddb: dataBase }),
    };
  }

  locate(position: number): Run {
    const { extents } = this;
    let low = 0;
    for (let high = extents.length - 1; low < high; ) {
      const middle = (low + high + 1) >> 1;
      if (extents[middle]!.start <= position) low = middle;
      else high = middle - 1;
    }
    const extent = extents[low]!;
    return extent.locate(position - extent.start);
  }

  private describeParent(): ParentReference {
    const { parentHint, parentCid } = this.descriptor;
    return {
      paths: recordedPaths([parentHint]),
      description: `${parentHint || "without a name"} (CID ${cidText(parentCid!)})`,
      check: (candidate) => this.checkParent(parentCid!, candidate),
    };
  }

  private checkParent(cid: number, candidate: Layer): void {
    const remedy = "Put the right file back, or name it with --parent PATH; nothing is served from a wrong parent.";
    if (!(candidate instanceof VmdkLayer))
      throw mismatch(
        `${this.name}: its parent should be the VMDK with CID ${cidText(cid)}, but ${candidate.name} is not a VMDK (${candidate.format}). ${remedy}`,
      );
    if (candidate.descriptor.cid !== cid)
      throw mismatch(
        `${this.name}: ${candidate.name} is not the parent it was made from, or was changed since: its CID is ${cidText(candidate.descriptor.cid)}, recorded is ${cidText(cid)}. ${remedy}`,
      );
  }

  /** For each sparse extent the checks of its own. Flat extents have nothing that could be checked. */
  private makeIntegrity(): Integrity | undefined {
    const parts = this.extents.flatMap(({ start, table, locate }) =>
      table ? [{ start, integrity: checkOfTable(table, locate) }] : [],
    );
    const joined = joinedIntegrity(parts);
    // zlib has a checksum of each packed grain.
    const packed = this.extents.every(({ table }) => table instanceof HostedTable && table.compressed);
    return joined && packed ? { ...joined, proves: "content" } : joined;
  }
}

const cidText = (cid: number) => cid.toString(16).padStart(8, "0");

function checkedSize(name: string, size: number): number {
  if (!Number.isSafeInteger(size) || size === 0)
    throw corrupt(`${name}: tells of an impossible disk size of ${size} bytes. The file is damaged.`);
  return size;
}

function sparse(table: GrainTable, around: Surroundings) {
  if (table instanceof HostedTable && table.compressed) table.unpacked = around.cache.source(table);
  const map = new BlockMap(table);
  return { table, locate: (position: number) => map.locate(position) };
}

function openExtent(name: string, line: ExtentLine, hasParent: boolean, around: Surroundings) {
  const { type, size, offset } = line;
  switch (type) {
    case "ZERO":
      return { locate: (position: number): Run => ({ kind: "zero", length: size - position }) };
    case "FLAT":
    case "VMFS":
      return flat(companion(name, line, around), offset, size);
    case "SPARSE": {
      const source = companion(name, line, around);
      if (signatureOf(source) !== "KDMV")
        throw corrupt(`${source.name}: is named by ${name} as a sparse extent, and is none. The file is damaged.`);
      return sparse(new HostedTable(source, readHostedHeader(source), size, hasParent), around);
    }
    case "VMFSSPARSE": {
      const source = companion(name, line, around);
      if (signatureOf(source) !== "COWD")
        throw corrupt(`${source.name}: is named by ${name} as a vmfsSparse extent, and is none. The file is damaged.`);
      return sparse(new CowdTable(source, size, hasParent), around);
    }
    case "SESPARSE":
      return sparse(new SeSparseTable(companion(name, line, around), size, hasParent), around);
    default:
      throw unsupported(
        `${name}: has an extent of type ${type} ("${line.file}"), which is a device of its host and no file. Clone the disk there.`,
      );
  }
}

/** The file of an extent: as recorded, or beside the descriptor where it was recorded on another machine. */
function companion(name: string, { file }: ExtentLine, around: Surroundings): ByteSource {
  let first: unknown;
  for (const path of recordedPaths([file]))
    try {
      return around.companion(path);
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "missing") throw error;
      first ??= error;
    }
  throw first ?? missing(`${name}: names an extent without a usable file name ("${file}"). The file is damaged.`);
}

function flat(source: ByteSource, offset: number, size: number) {
  if (offset + size > source.size)
    throw corrupt(
      `${source.name}: should hold ${size} bytes of disk from byte ${offset} on, but has only ${source.size}. The file is truncated or damaged.`,
    );
  const part = new Slice(source.name, source, offset, size);
  const locate = (position: number): Run => {
    const rest = size - position;
    const extent = source.extentAt?.(offset + position) ?? { hole: false, length: rest };
    const length = Math.min(extent.length, rest);
    return extent.hole ? { kind: "zero", length } : { kind: "stored", length, source: part, at: position };
  };
  return { locate };
}
