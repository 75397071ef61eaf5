/**
 * Further sessions of a medium that was written in several turns. Each has volume descriptors of its own, 16 sectors behind
 * its start, and addresses that count from the medium's first sector; its tree usually holds the earlier ones' files too.
 * Nothing in the image of a medium tells where they begin: it is looked for where writers put them.
 */
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { FIRST_DESCRIPTOR, hasDescriptors } from "./descriptors.js";
import { SECTOR } from "./volume.js";

const MOST_SESSIONS = 99;

/** Sectors of the gap between two sessions: none in a file, and what a CD (first, then further sessions) and a DVD have. */
const gaps = [0, 150, 6900, 6902, 11400, 11402];

/** The sectors at which sessions begin, the first being 0. */
export function findSessions(source: ByteSource): number[] {
  const sessions = [0];
  const size = Buffer.alloc(4);
  while (sessions.length < MOST_SESSIONS) {
    const start = sessions.at(-1)!;
    const position = (start + FIRST_DESCRIPTOR) * SECTOR + 80;
    if (readFully(source, position, size) < 4) break;
    const end = start + size.readUInt32LE(0);
    // Padding to whole writes: 16 sectors on a DVD, 32 on a Blu-ray.
    const rounded = [end, Math.ceil(end / 16) * 16, Math.ceil(end / 32) * 32];
    const candidates = gaps.flatMap((gap) => rounded.map((sector) => sector + gap));
    const next = candidates.find((sector) => sector > start && hasDescriptors(source, sector));
    if (next === undefined) break;
    sessions.push(next);
  }
  return sessions;
}
