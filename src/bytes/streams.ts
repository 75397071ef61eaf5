/**
 * Which packed bytes are being read in order, by whatever threads: a small table of where the latest readers are, in memory
 * that all threads share. It only gives hints, so nothing is locked: threads that change an entry at once lose a hint.
 */

/** Readers that are followed at a time. One more takes the place of the one that was found first. */
const READERS = 16;
/** Words of an entry. */
const ENTRY = 4;
const SOURCE = 0;
/** The chunk that was read last: the low 32 bits of its number. */
const CHUNK = 1;
/** The request that read the reader's first chunk. */
const REQUEST = 2;
/** 1 once a later request went on with the next chunk: chunks in order within one request tell nothing of the next one. */
const IN_ORDER = 3;
/** The word after the entries: how many readers there were. */
const COUNT = READERS * ENTRY;

export function createStreamMemory(): SharedArrayBuffer {
  const memory = new SharedArrayBuffer((COUNT + 1) * 4);
  const words = new Int32Array(memory);
  for (let entry = 0; entry < COUNT; entry += ENTRY) words[entry + SOURCE] = -1;
  return memory;
}

export class Streams {
  private readonly words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory);
  }

  /**
   * Takes note of a chunk that is read.
   * @param source the number of its source, from 0
   * @param low the low 32 bits of its number, as a signed number
   * @param request a number that no other request of the last thousands had
   * @returns whether its reader reads in order, so that the next chunk will be wanted too
   */
  note(source: number, low: number, request: number): boolean {
    const { words } = this;
    for (let entry = 0; entry < COUNT; entry += ENTRY) {
      if (words[entry + SOURCE] !== source) continue;
      const step = (low - words[entry + CHUNK]!) | 0;
      if (step === 1) {
        words[entry + CHUNK] = low;
        if (words[entry + REQUEST] !== request) words[entry + IN_ORDER] = 1;
      }
      if (step === 0 || step === 1) return words[entry + IN_ORDER] === 1;
      // Two requests of one reader that were answered the other way round.
      if (step === -1) return false;
    }
    const entry = ((Atomics.add(words, COUNT, 1) >>> 0) % READERS) * ENTRY;
    words[entry + SOURCE] = source;
    words[entry + CHUNK] = low;
    words[entry + REQUEST] = request;
    words[entry + IN_ORDER] = 0;
    return false;
  }
}
