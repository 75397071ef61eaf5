import type { MetadataPages } from "../../bytes/metadata-pages.js";
import { u64be } from "../fields.js";
import type { FirstLevel } from "../first-level.js";
import type { ReservedPlace } from "../map-check.js";
import { coveredByTable, type Qcow2Header } from "./header.js";

/**
 * The places of a qcow2 image that no data may be in: header, tables, reference counts. Of the counts, which reading has no
 * use for, only those are told that lie within the file.
 *
 * @param shown whose first-level table `first` is: the disk's or a snapshot's.
 */
export function* reservedPlaces(
  pages: MetadataPages,
  header: Qcow2Header,
  shown: { readonly size: number; readonly l1Position: number; readonly l1Entries: number },
  first: FirstLevel,
): Iterable<ReservedPlace> {
  const { clusterSize, luks } = header;
  const { size: fileSize } = pages.source;
  yield { position: 0, length: clusterSize, what: "the header" };
  if (shown.l1Entries > 0)
    yield { position: shown.l1Position, length: shown.l1Entries * 8, what: "the first-level table" };
  if (luks) yield { ...luks, what: "the LUKS header" };
  yield* first.tables(clusterSize, coveredByTable(header), shown.size);
  const counts = header.refcountPosition;
  const length = header.refcountClusters * clusterSize;
  if (counts === 0 || counts + length > fileSize) return;
  yield { position: counts, length, what: "the table of reference counts" };
  for (let at = counts; at < counts + length; at += 8) {
    const block = u64be(pages.bytes(at, 8, "the table of reference counts"), 0);
    if (block > 0 && block + clusterSize <= fileSize)
      yield { position: block, length: clusterSize, what: "reference counts" };
  }
}
