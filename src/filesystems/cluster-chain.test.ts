import test from "ava";
import fc from "fast-check";
import { ClusterChain, END, FREE } from "./cluster-chain.js";

/** The clusters of a chain by its runs, as far as it can be used. */
function clustersOf(chain: ClusterChain): number[] {
  const clusters: number[] = [];
  while (clusters.length < chain.length) {
    const { cluster, count } = chain.locate(clusters.length);
    for (let index = 0; index < count; index++) clusters.push(cluster + index);
  }
  return clusters;
}

test("any list is found again, up to where it ends, breaks or meets itself", (t) => {
  const links = fc.array(fc.oneof({ weight: 6, arbitrary: fc.nat(39) }, fc.constantFrom(END, FREE)), {
    minLength: 40,
    maxLength: 40,
  });
  fc.assert(
    fc.property(links, fc.nat(39), fc.integer({ min: 1, max: 60 }), (table, first, most) => {
      const expected: number[] = [];
      for (let at = first; at >= 0 && expected.length < most && !expected.includes(at); at = table[at]!)
        expected.push(at);
      const chain = new ClusterChain(first, most, (cluster) => table[cluster]!);
      // A walk that is long enough finds a circle; a shorter one needs none of what comes after it.
      const known = clustersOf(chain).slice(0, expected.length);
      t.deepEqual(known, expected);
      if (chain.problem === undefined) t.true(chain.length <= most);
      else t.is(chain.length, expected.length);
    }),
  );
});

test("a circle is found whatever comes before it", (t) => {
  for (const [tail, loop] of [
    [0, 1],
    [1, 1],
    [5, 1],
    [0, 7],
    [100, 3],
    [3, 100],
    [1000, 1000],
  ] as const) {
    const chain = new ClusterChain(2, 1e9, (cluster) => (cluster + 1 === 2 + tail + loop ? 2 + tail : cluster + 1));
    t.is(chain.length, tail + loop);
    t.is(chain.problem, `its cluster chain runs in a circle after ${tail + loop} clusters`);
  }
});

test("a chain in a million pieces takes no more memory than one in 262,144, and reads the same", (t) => {
  const pieces = 1_000_000;
  // Pieces of two clusters, three apart.
  const next = (cluster: number) => (cluster % 3 === 0 ? cluster + 1 : cluster === 3 * pieces + 1 ? END : cluster + 2);
  const chain = new ClusterChain(3, 1e9, next);
  t.is(chain.length, 2 * pieces);
  t.is(chain.weight, 2 ** 18);
  const at = (index: number) => 3 + 3 * Math.floor(index / 2) + (index % 2);
  for (const index of [0, 1, 2, 3, 999_999, 1_000_001, 1_999_998, 1_999_999, 5, 123_456, 123_457, 123_400]) {
    const { cluster, count } = chain.locate(index);
    t.is(cluster, at(index), String(index));
    t.is(count, 2 - (index % 2));
  }
});
