import type { ByteSource } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { BAD, END, FREE, OUTSIDE } from "../cluster-chain.js";
import type { Geometry } from "./boot-sector.js";

const WHAT = "the allocation table";
/** 1 MiB of table is kept. */
const PAGE = 16384;
const PAGES = 64;

/** The allocation table: which cluster follows which. */
export class FatTable {
  private readonly pages: MetadataPages;
  private readonly position: number;
  /** One more than the greatest number of a cluster. */
  private readonly end: number;

  constructor(
    source: ByteSource,
    private readonly geometry: Geometry,
  ) {
    this.pages = new MetadataPages(source, PAGE, PAGES);
    this.position = geometry.tablePosition + geometry.activeTable * geometry.tableSize;
    this.end = geometry.clusters + 2;
  }

  isCluster(cluster: number): boolean {
    return cluster >= 2 && cluster < this.end;
  }

  /** The cluster after `cluster` (which is in range), or END, FREE, BAD or OUTSIDE. */
  readonly next = (cluster: number): number => {
    const value = this.value(cluster);
    if (value >= 2 && value < this.end) return value;
    // Made equal for all three kinds: 0x0ffffff7 is a bad cluster, from 0x0ffffff8 on the chain ends.
    const top = this.geometry.bits === 12 ? 0xfff : this.geometry.bits === 16 ? 0xffff : 0x0fffffff;
    if (value >= top - 7) return END;
    if (value === 0) return FREE;
    return value === top - 8 ? BAD : OUTSIDE;
  };

  /** How many clusters are free, counted. */
  countFree(): number {
    let free = 0;
    for (let cluster = 2; cluster < this.end; cluster++) if (this.value(cluster) === 0) free++;
    return free;
  }

  /** The bits that tell whether the volume was left in order: entry 1, inverted; 0 when all is well. */
  get dirtyBits(): number {
    const value = this.value(1);
    if (this.geometry.bits === 12) return 0;
    return this.geometry.bits === 16 ? (~value >>> 14) & 3 : (~value >>> 26) & 3;
  }

  private value(cluster: number): number {
    const { pages, position } = this;
    if (this.geometry.bits === 12) {
      const at = position + cluster + (cluster >>> 1);
      const pair = pages.byte(at, WHAT) | (pages.byte(at + 1, WHAT) << 8);
      return cluster & 1 ? pair >>> 4 : pair & 0xfff;
    }
    const width = this.geometry.bits / 8;
    const at = position + cluster * width;
    const page = pages.page(at);
    const within = at % PAGE;
    // Tables begin at a sector: an entry never lies across a page's end.
    if (within + width > page.length) return pages.byte(at + width - 1, WHAT);
    return width === 2 ? page.readUInt16LE(within) : page.readUInt32LE(within) & 0x0fffffff;
  }
}
