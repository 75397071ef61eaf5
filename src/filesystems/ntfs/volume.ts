import { LRUCache } from "lru-cache";
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { corrupt, ImageError, unsupported } from "../../errors.js";
import type { Surroundings } from "../../format.js";
import {
  type Attribute,
  BITMAP,
  COMPRESSED,
  COMPRESSION_MASK,
  DATA,
  ENCRYPTED,
  INDEX_ALLOCATION,
  INDEX_ROOT,
  REPARSE_POINT,
} from "./attribute.js";
import type { Geometry } from "./boot-sector.js";
import { type FileRecord, RECALL_ON_DATA_ACCESS } from "./file-record.js";
import { IndexTree, type Node, type NodeCache } from "./index-tree.js";
import { Lznt1Stream, unitClusters } from "./lznt1-stream.js";
import { Mft } from "./mft.js";
import { PackedSource } from "./packed-source.js";
import { errorOfTag, parseReparsePoint, type ReparsePoint, WOF } from "./reparse.js";
import { RefusedStream, ResidentStream, RunStream, type Stream } from "./streams.js";
import { Wof, wofStreamName } from "./wof.js";

/** Bytes of index blocks that are kept. */
const keptBlocks = 4 * 1024 * 1024;
/** Bytes of opened streams' runs, and of index roots, that are kept. */
const keptStreams = 8 * 1024 * 1024;
const keptTrees = 2 * 1024 * 1024;
/** Windows limits reparse data to 16 KiB, other small attributes to 64 KiB. */
const largestSmall = 64 * 1024;
/** An index block's key in the cache is `file * this + number`. */
const blocksOfFile = 2 ** 20;

/** From records to bytes: opens the attributes of files as streams and as indexes. */
export class Volume {
  readonly mft: Mft;
  private readonly units: PackedSource | undefined;
  private readonly wof: Wof;
  private readonly contents = new LRUCache<number, Stream>({
    maxSize: keptStreams,
    sizeCalculation: ({ weight }) => weight,
  });
  /** The last one, however large its runs are. */
  private lastContent: { readonly file: number; readonly stream: Stream } | undefined;
  private readonly trees = new LRUCache<number, IndexTree>({
    maxSize: keptTrees,
    sizeCalculation: ({ weight }) => weight,
  });
  private readonly nodes: NodeCache = new LRUCache<number, Node>({
    maxSize: keptBlocks,
    sizeCalculation: ({ bytes }) => bytes.length,
  });

  constructor(
    readonly source: ByteSource,
    readonly geometry: Geometry,
    around: Surroundings,
  ) {
    this.mft = new Mft(source, geometry);
    const { size, clusterSize } = geometry;
    if (unitClusters * clusterSize <= 65536)
      this.units = new PackedSource(
        `${source.name}: LZNT1`,
        unitClusters * clusterSize,
        clusterSize,
        size,
        around.cache,
      );
    this.wof = new Wof(source.name, size, around.cache);
  }

  /** The content of a file: its unnamed stream, unpacked. Empty where it has none. */
  content(file: FileRecord): Stream {
    const { number } = file;
    if (this.lastContent?.file === number) return this.lastContent.stream;
    let stream = this.contents.get(number);
    if (!stream) {
      stream = this.openContent(file);
      // A resident one is made in no time, and would keep its whole record in memory.
      if (!(stream instanceof ResidentStream)) this.contents.set(number, stream);
    }
    this.lastContent = { file: number, stream };
    return stream;
  }

  /** The stream of this name; undefined where there is none. */
  named(file: FileRecord, type: number, name: string): Stream | undefined {
    const attribute = file.find(type, name);
    return attribute && this.open(file, attribute);
  }

  reparsePoint(file: FileRecord): ReparsePoint | undefined {
    if (!file.hasReparsePoint) return undefined;
    const bytes = this.small(file, REPARSE_POINT);
    return bytes && parseReparsePoint(bytes);
  }

  /** The whole value of an attribute that can't be large. */
  small(file: FileRecord, type: number): Buffer | undefined {
    const attribute = file.find(type);
    if (!attribute) return undefined;
    if (attribute.resident) return attribute.value;
    if (attribute.size > largestSmall)
      throw corrupt(
        `${file.label}: its attribute of type 0x${type.toString(16)} has ${attribute.size} bytes, more than ${largestSmall}. The volume is damaged.`,
      );
    const bytes = Buffer.alloc(attribute.size);
    readFully(this.open(file, attribute), 0, bytes);
    return bytes;
  }

  /** @throws ImageError `corrupt` when the file has no such index. */
  index(file: FileRecord, name: string): IndexTree {
    // A record has at most one index that is asked for: $I30 of a directory, $SII of $Secure.
    const kept = this.trees.get(file.number);
    if (kept) return kept;
    const root = file.resident(INDEX_ROOT, name);
    if (!root) throw corrupt(`${file.label} has no index ${name}: it is no directory. The volume is damaged.`);
    const tree = new IndexTree(
      `${file.label}: its index ${name}`,
      root.value,
      this.named(file, INDEX_ALLOCATION, name),
      this.named(file, BITMAP, name),
      this.geometry.clusterSize,
      this.geometry.size,
      file.number * blocksOfFile,
      blocksOfFile,
      this.nodes,
    );
    this.trees.set(file.number, tree);
    return tree;
  }

  private openContent(file: FileRecord): Stream {
    const attribute = file.find(DATA);
    const name = file.label;
    if (!attribute) return new RefusedStream(name, 0, corrupt(`${name} has no data.`));
    const size = attribute.resident ? attribute.value.length : attribute.size;
    const point = this.reparsePoint(file);
    if (point?.tag === WOF) {
      try {
        return this.wof.open(name, point.data, size, this.named(file, DATA, wofStreamName));
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        return new RefusedStream(name, size, error);
      }
    }
    const elsewhere = errorOfTag(name, point?.tag ?? 0, (file.flags & RECALL_ON_DATA_ACCESS) !== 0);
    return elsewhere ? new RefusedStream(name, size, elsewhere) : this.open(file, attribute);
  }

  private open(file: FileRecord, attribute: Attribute): Stream {
    const name = attribute.name === "" ? file.label : `${file.label}: its stream ${attribute.name}`;
    const size = attribute.resident ? attribute.value.length : attribute.size;
    if ((attribute.flags & ENCRYPTED) !== 0)
      return new RefusedStream(
        name,
        size,
        unsupported(
          `${name} is encrypted (EFS); its key is in the Windows account that encrypted it, not on this volume.`,
        ),
      );
    if (attribute.resident) return new ResidentStream(name, attribute);
    const runs = this.mft.newRuns();
    for (const { pairs, firstCluster } of [attribute, ...this.mft.furtherPieces(file, attribute)]) {
      const wrong = runs.append(pairs, firstCluster);
      if (wrong) throw corrupt(`${name}: its runs ${wrong}. The volume is damaged.`);
    }
    const { validSize } = attribute;
    const method = attribute.flags & COMPRESSION_MASK;
    if (method === 0 || attribute.compressionUnit === 0)
      return new RunStream(name, size, validSize, runs, this.mft.clusters);
    if (method === COMPRESSED && 2 ** attribute.compressionUnit === unitClusters && this.units)
      return new Lznt1Stream(name, size, validSize, runs, this.mft.clusters, this.units);
    const what = `method ${method} in units of ${2 ** attribute.compressionUnit} clusters of ${this.geometry.clusterSize} bytes`;
    return new RefusedStream(name, size, unsupported(`${name} is compressed by ${what}, which NTFS doesn't define.`));
  }
}
