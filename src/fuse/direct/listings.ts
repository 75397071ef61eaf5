/**
 * Listings that are under way. The kernel reads a directory in pieces, each from the index at which the last one ended,
 * and any worker may get any piece. An iterator that is left standing makes all pieces together cost one pass; the last
 * entries are kept, because the kernel asks again for what did not fit into its reader's buffer. Memory is bounded however
 * long a directory is.
 */
import type { Entry, FileId, FileSystem } from "../../filesystems/filesystem.js";

/** Listings kept by a worker: readers that list at the same time. */
const MOST_LISTINGS = 4;
/** Entries kept of each: more than one reply of 1 MiB holds. */
const WINDOW = 32768;

class Listing {
  private readonly iterator: Iterator<Entry>;
  private window: Entry[] = [];
  /** Index of the window's first entry. */
  private first = 0;
  private ended = false;

  constructor(
    readonly directory: FileId,
    entries: Iterable<Entry>,
  ) {
    this.iterator = entries[Symbol.iterator]();
  }

  reaches(directory: FileId, index: number): boolean {
    return this.directory === directory && index >= this.first;
  }

  /** Index of the next entry to be read from the directory. */
  get next(): number {
    return this.first + this.window.length;
  }

  entry(index: number): Entry | undefined {
    while (!this.ended && index >= this.next) {
      const step = this.iterator.next();
      if (step.done) this.ended = true;
      else this.keep(step.value);
    }
    return this.window[index - this.first];
  }

  private keep(entry: Entry): void {
    if (this.window.length === 2 * WINDOW) {
      this.window = this.window.slice(WINDOW);
      this.first += WINDOW;
    }
    this.window.push(entry);
  }

  close(): void {
    this.iterator.return?.();
  }
}

export class Listings {
  /** The one used last comes first. */
  private readonly listings: Listing[] = [];

  constructor(private readonly tree: FileSystem) {}

  /** A listing of `directory` that stands before or shortly behind `index`: `entry(index)` costs no second pass. */
  at(directory: FileId, index: number): { entry(index: number): Entry | undefined } {
    let best = -1;
    for (let i = 0; i < this.listings.length; i++)
      if (
        this.listings[i].reaches(directory, index) &&
        (best < 0 || Math.abs(this.listings[i].next - index) < Math.abs(this.listings[best].next - index))
      )
        best = i;
    const found = best < 0 ? new Listing(directory, this.tree.list(directory)) : this.listings.splice(best, 1)[0];
    this.listings.unshift(found);
    if (this.listings.length > MOST_LISTINGS) this.listings.pop()?.close();
    return found;
  }

  /** Forgets the listings of `directory`: an iterator that has thrown would pretend that its directory ends there. */
  drop(directory: FileId): void {
    for (let i = this.listings.length - 1; i >= 0; i--)
      if (this.listings[i].directory === directory) this.listings.splice(i, 1);
  }
}
