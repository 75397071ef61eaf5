/**
 * When requests come. A worker that sleeps until the next one is woken some 50 microseconds late, and on a virtual machine,
 * whose processor is taken away from it when it sleeps, a hundred and more: a program that reads file by file waits longer
 * for that than for the answers. So a worker that was asked in quick succession looks for the next request for a while
 * before it sleeps.
 */
import { performance } from "node:perf_hooks";
import { yieldProcessor } from "../../libc.js";

/** Milliseconds for which is looked. */
const LOOKING = 0.1;
/** Milliseconds between a reply and the next request below which looking would have been of use, or nearly. */
const SOON = 3 * LOOKING;
/** Times in a row that looking was in vain, after which it is left off until a request comes soon again. */
const VAIN = 8;

export class Arrivals {
  /** Whether the request that came was there already when the one before was answered. */
  waited = false;
  private began = 0;
  private vain = VAIN;
  private looked = false;

  /**
   * @param isThere whether a request is there; also when there will be none any more
   * @param now a clock, in milliseconds
   */
  constructor(
    private readonly isThere: () => boolean,
    private readonly now = () => performance.now(),
  ) {}

  /** Called when a request was answered. */
  replied(): void {
    this.waited = this.isThere();
  }

  /** Returns when a request is there, or when waiting for it is better done asleep. */
  await(isAlone: boolean): void {
    this.began = this.now();
    this.looked = isAlone && this.vain < VAIN;
    if (!this.looked) return;
    const until = this.began + LOOKING;
    while (!this.isThere()) {
      if (this.now() >= until) return void this.vain++;
      // Whoever wants the processor gets it: the reader may be among them.
      yieldProcessor();
    }
    this.vain = 0;
  }

  /** Called when the request that was awaited is there. */
  came(): void {
    if (!this.looked && this.now() - this.began < SOON) this.vain = 0;
  }
}
