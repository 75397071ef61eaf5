/**
 * Where the clusters of a non-resident attribute lie: runs, each a number of clusters that follow each other in the
 * volume, or a hole. They are stored as pairs of lengths and distances from the run before, each in as few bytes as it
 * takes: a byte tells how many (low half: of the length, high half: of the distance, none for a hole); 0 ends them.
 */

/** `lcn` of a hole. */
export const HOLE = -1;

export class Runs {
  /** The first cluster of each run within the attribute (VCN), and after the last run the cluster that follows. */
  private readonly starts: number[] = [0];
  /** Its first cluster in the volume (LCN), or HOLE. */
  private readonly lcns: number[] = [];
  private last = 0;

  /**
   * @param clusters of the volume: a run that goes beyond is refused.
   * @param longest clusters that an attribute may have.
   */
  constructor(
    private readonly clusters: number,
    private readonly longest: number,
  ) {}

  /** Clusters that all runs have together. */
  get end(): number {
    return this.starts[this.lcns.length]!;
  }

  get count(): number {
    return this.lcns.length;
  }

  /**
   * Adds the runs of a further piece, which begins at cluster `first` of the attribute.
   * @returns what is wrong, to follow `its runs`; undefined when they are sound.
   */
  append(pairs: Buffer, first: number): string | undefined {
    if (first !== this.end) return `go on at cluster ${first} instead of ${this.end}`;
    const { starts, lcns } = this;
    let lcn = 0;
    let vcn = first;
    let at = 0;
    for (;;) {
      if (at >= pairs.length) return "have no end";
      const header = pairs[at++]!;
      if (header === 0) return undefined;
      const lengthBytes = header & 15;
      const distanceBytes = header >> 4;
      if (lengthBytes === 0 || lengthBytes > 8 || distanceBytes > 8 || at + lengthBytes + distanceBytes > pairs.length)
        return `have a damaged header ${header} after cluster ${vcn}`;
      const length = signed(pairs, at, lengthBytes);
      at += lengthBytes;
      if (!(length > 0) || vcn + length > this.longest) return `have one of ${length} clusters at cluster ${vcn}`;
      let place = HOLE;
      if (distanceBytes > 0) {
        lcn += signed(pairs, at, distanceBytes);
        at += distanceBytes;
        if (!(lcn >= 0) || lcn + length > this.clusters)
          return `place cluster ${vcn} at cluster ${lcn} of a volume of ${this.clusters}`;
        place = lcn;
      }
      const before = lcns.length - 1;
      const placeBefore = lcns[before];
      const follows =
        place === HOLE
          ? placeBefore === HOLE
          : placeBefore !== undefined && placeBefore !== HOLE && placeBefore + vcn - starts[before]! === place;
      vcn += length;
      if (follows) starts[before + 1] = vcn;
      else {
        lcns.push(place);
        starts.push(vcn);
      }
    }
  }

  /** The run with cluster `vcn` of the attribute; -1 when the runs end before. */
  find(vcn: number): number {
    const { starts } = this;
    const last = this.last;
    if (last < this.lcns.length && starts[last]! <= vcn) {
      if (vcn < starts[last + 1]!) return last;
      // Whoever reads on needs the next one.
      if (last + 1 < this.lcns.length && vcn < starts[last + 2]!) return ++this.last;
    }
    if (vcn >= this.end || vcn < 0) return -1;
    let low = 0;
    let high = this.lcns.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle]! <= vcn) low = middle;
      else high = middle - 1;
    }
    this.last = low;
    return low;
  }

  startOf(run: number): number {
    return this.starts[run]!;
  }

  endOf(run: number): number {
    return this.starts[run + 1]!;
  }

  lcnOf(run: number): number {
    return this.lcns[run]!;
  }
}

/** A signed number of 1 to 8 bytes; what exceeds 2^53 isn't exact and is refused as out of range. */
function signed(bytes: Buffer, at: number, length: number): number {
  if (length <= 6) return bytes.readIntLE(at, length);
  return bytes.readIntLE(at + 6, length - 6) * 2 ** 48 + bytes.readUIntLE(at, 6);
}
