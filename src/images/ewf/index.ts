import type { ByteSource } from "../../bytes/byte-source.js";
import { readExactly } from "../../bytes/byte-source.js";
import type { Format, Surroundings } from "../../format.js";
import type { Integrity, Layer, Run } from "../../layers/layer.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "../block-map.js";
import { EwfChunks, integrityOf } from "./chunks.js";
import type { Evidence } from "./evidence.js";
import { readEwf1, signature1 } from "./ewf1.js";
import { readEwf2, signature2 } from "./ewf2.js";
import { Kept } from "./tables.js";

/** The Expert Witness Compression Format of EnCase, FTK Imager and SMART: E01, S01 and Ex01, in any number of files. */
export const ewf: Format<Layer> = {
  name: "ewf",
  recognises: (source) => [signature1, signature2].some((signature) => beginsWith(source, signature)),
  open: (source, around) => new EwfLayer(source, around),
};

const beginsWith = (source: ByteSource, bytes: Buffer) =>
  source.size >= bytes.length && readExactly(source, 0, bytes.length, "the signature").equals(bytes);

class EwfLayer implements Layer, BlockTable {
  readonly format = "ewf";
  readonly parent = undefined;
  readonly hasParent = false;
  readonly noun = "chunk";
  readonly name: string;
  readonly size: number;
  readonly chunkSize: number;
  readonly facts: Record<string, unknown>;
  readonly integrity: Integrity;
  readonly unpacked: ByteSource;
  private readonly evidence: Evidence;
  private readonly chunks: EwfChunks;
  private readonly map: BlockMap;

  constructor(
    readonly source: ByteSource,
    around: Surroundings,
  ) {
    const second = beginsWith(source, signature2);
    this.evidence = second ? readEwf2(source, around) : readEwf1(source, around);
    this.name = source.name;
    this.chunks = new EwfChunks(source.name, this.evidence, source);
    this.size = this.chunks.size;
    this.chunkSize = this.chunks.chunkSize;
    this.facts = this.evidence.facts;
    this.unpacked = around.cache.source(this.chunks);
    this.integrity = integrityOf(this.chunks, this.evidence);
    this.map = new BlockMap(this);
  }

  get blockSize(): number {
    return this.chunkSize;
  }

  locate(position: number): Run {
    return this.map.locate(position);
  }

  entry(block: number, target: BlockEntry): void {
    const { kept, pattern } = this.chunks.place(block);
    // Tables of the second version tell which chunks are zeros; of the first the packed bytes do.
    const zero = kept === Kept.pattern ? pattern!.every((byte) => byte === 0) : this.chunks.isZeros(block);
    target.kind = zero ? BlockKind.zero : BlockKind.packed;
  }
}
