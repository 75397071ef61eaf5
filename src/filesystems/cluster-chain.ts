/**
 * Where the clusters of a FAT or exFAT file are. The allocation table is a linked list: it is walked once, from end to
 * end, and kept as runs of neighbouring clusters, so that a read at any position is a binary search. Memory is bounded
 * for any file: a chain in more pieces than MOST_RUNS keeps every second, fourth ... of them, and is walked on from there.
 */

/** What an allocation table says instead of a next cluster. */
export const END = -1;
export const FREE = -2;
export const BAD = -3;
export const OUTSIDE = -4;

/** 2 MiB of run table for one file. */
const MOST_RUNS = 1 << 18;

/** Clusters side by side: the first one's number, and how many there are. */
export interface ClusterRun {
  readonly cluster: number;
  readonly count: number;
}

/** The clusters of a file in order. */
export interface Clusters {
  /** How many can be used: those before the chain ends or is broken. */
  readonly length: number;
  /** What is wrong after them; undefined when nothing is. */
  readonly problem: string | undefined;
  /** Memory that this takes, in runs. */
  readonly weight: number;
  /** The run from cluster `index` of the file on, `index` < `length`. */
  locate(index: number): ClusterRun;
}

/** Clusters side by side, which need no table. */
export class ContiguousClusters implements Clusters {
  readonly weight = 1;
  constructor(
    private readonly first: number,
    readonly length: number,
    readonly problem: string | undefined = undefined,
  ) {}

  locate(index: number): ClusterRun {
    return { cluster: this.first + index, count: this.length - index };
  }
}

export class ClusterChain implements Clusters {
  readonly length: number;
  readonly problem: string | undefined;
  /** Index in the file and number of each run's first cluster. */
  private starts = new Uint32Array(4);
  private clusters = new Uint32Array(4);
  private runs = 0;
  /** Of the runs that were found, every how many-th is kept. */
  private stride = 1;
  /** Where the last walk in a thinned table ended. */
  private lastIndex = 0;
  private lastCluster: number;

  /**
   * @param first number of the first cluster, which is in range.
   * @param most clusters to walk at most: as many as the file's size needs, or as the volume has.
   * @param next the cluster after a cluster, or END, FREE, BAD or OUTSIDE.
   */
  constructor(
    first: number,
    most: number,
    private readonly next: (cluster: number) => number,
  ) {
    this.lastCluster = first;
    let index = 0;
    let cluster = first;
    let previous = -2;
    let found = 0;
    // Brent's way to find a loop: a cluster is remembered, each time twice as long, and met again when there is one.
    let remembered = -1;
    let patience = 1;
    let steps = 0;
    while (index < most) {
      if (cluster === remembered) break;
      if (cluster !== previous + 1) {
        if (found++ % this.stride === 0) this.keep(index, cluster);
      }
      if (steps === patience) {
        remembered = cluster;
        patience *= 2;
        steps = 0;
      }
      steps++;
      index++;
      previous = cluster;
      cluster = next(cluster);
      if (cluster < 0) break;
    }
    if (cluster < 0 || index === most) {
      this.length = index;
      this.problem = cluster >= 0 || cluster === END ? undefined : this.broken(previous, cluster);
    } else {
      this.length = this.beforeLoop(first, steps);
      this.problem = `its cluster chain runs in a circle after ${this.length} clusters`;
      while (this.runs > 1 && this.starts[this.runs - 1]! >= this.length) this.runs--;
    }
  }

  get weight(): number {
    return this.starts.length;
  }

  locate(index: number): ClusterRun {
    const at = this.search(index);
    if (this.stride === 1) {
      const end = at + 1 < this.runs ? this.starts[at + 1]! : this.length;
      return { cluster: this.clusters[at]! + index - this.starts[at]!, count: end - index };
    }
    let walked = this.starts[at]!;
    let cluster = this.clusters[at]!;
    if (this.lastIndex > walked && this.lastIndex <= index) {
      walked = this.lastIndex;
      cluster = this.lastCluster;
    }
    for (; walked < index; walked++) cluster = this.next(cluster);
    this.lastIndex = index;
    this.lastCluster = cluster;
    let count = 1;
    while (count < 256 && index + count < this.length && this.next(cluster + count - 1) === cluster + count) count++;
    return { cluster, count };
  }

  /** The last kept run that starts at or before `index`. */
  private search(index: number): number {
    let low = 0;
    let high = this.runs - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.starts[middle]! <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  private keep(index: number, cluster: number): void {
    if (this.runs === this.starts.length) {
      if (this.runs === MOST_RUNS) {
        for (let at = 0; at < MOST_RUNS / 2; at++) {
          this.starts[at] = this.starts[2 * at]!;
          this.clusters[at] = this.clusters[2 * at]!;
        }
        this.runs = MOST_RUNS / 2;
        this.stride *= 2;
      } else {
        const [starts, clusters] = [this.starts, this.clusters];
        this.starts = new Uint32Array(this.runs * 2);
        this.clusters = new Uint32Array(this.runs * 2);
        this.starts.set(starts);
        this.clusters.set(clusters);
      }
    }
    this.starts[this.runs] = index;
    this.clusters[this.runs] = cluster;
    this.runs++;
  }

  /** How many clusters come before the first one that comes twice, in a chain with a loop of `loop` clusters. */
  private beforeLoop(first: number, loop: number): number {
    let ahead = first;
    for (let step = 0; step < loop; step++) ahead = this.next(ahead);
    let behind = first;
    let before = 0;
    for (; ahead !== behind; before++) {
      ahead = this.next(ahead);
      behind = this.next(behind);
    }
    return before + loop;
  }

  private broken(cluster: number, code: number): string {
    const what =
      { [FREE]: "which is marked free", [BAD]: "which is marked bad" }[code] ?? "whose next is none of the volume's";
    return `its cluster chain breaks off at cluster ${cluster}, ${what}`;
  }
}
