import { type ErrorCode, ImageError } from "../errors.js";

/**
 * How far a pass is, in memory that all threads of a process share: the thread of the pass writes, the others read, and
 * wait for more.
 */
export class Progress {
  /** For a thread that is given `memory`. */
  static create(): Progress {
    return new Progress(new SharedArrayBuffer(wordBytes + numberBytes + textBytes));
  }

  private readonly words: Int32Array;
  private readonly numbers: BigInt64Array;
  private readonly text: Uint8Array;

  constructor(readonly memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory, 0, wordBytes / 4);
    this.numbers = new BigInt64Array(memory, wordBytes, numberBytes / 8);
    this.text = new Uint8Array(memory, wordBytes + numberBytes, textBytes);
  }

  /** Pieces that are written. Read after `covered`, it is of them at least. */
  get count(): number {
    return this.number(COUNT);
  }

  /** Bytes of content of those pieces: of all the content, once the pass has ended well. */
  get covered(): number {
    return this.number(COVERED);
  }

  /** Bytes of the packed file that the pass has gone through. */
  get packed(): number {
    return this.number(PACKED);
  }

  get state(): "under way" | "whole" | "failed" {
    return (["under way", "whole", "failed"] as const)[Atomics.load(this.words, STATE)]!;
  }

  /** What is not wrong with the packed file and should be told; empty for nothing. Known when the pass has ended. */
  get remark(): string {
    return this.state === "whole" ? this.ending.text : "";
  }

  /** Why the pass failed. */
  failure(): ImageError {
    const { code, text } = this.ending;
    return new ImageError(code ?? "system", text);
  }

  publish(count: number, covered: number, packed: number): void {
    Atomics.store(this.numbers, COUNT, BigInt(count));
    Atomics.store(this.numbers, COVERED, BigInt(covered));
    Atomics.store(this.numbers, PACKED, BigInt(packed));
    this.wake();
  }

  /** The pass has ended: well, or with what is wrong with the file. */
  endAs({ code, text }: { readonly code: ErrorCode | undefined; readonly text: string }): void {
    // Cut where it may be long: a hostile file may have put its own words into it.
    this.setText(JSON.stringify({ code, text: text.slice(0, longestText) }));
    Atomics.store(this.words, STATE, code === undefined ? 1 : 2);
    this.wake();
  }

  fail(error: unknown): void {
    const code = error instanceof ImageError ? error.code : "system";
    this.endAs({ code, text: error instanceof Error ? error.message : String(error) });
  }

  /** Asks the thread of the pass to end; it is to say when it has. */
  stop(): void {
    Atomics.store(this.words, STOP, 1);
    this.wake();
  }

  get stopping(): boolean {
    return Atomics.load(this.words, STOP) === 1;
  }

  /** Whether a thread works on the pass. Set before it is started, and taken off by it as the last thing it does. */
  get manned(): boolean {
    return Atomics.load(this.words, MANNED) === 1;
  }

  set manned(value: boolean) {
    Atomics.store(this.words, MANNED, value ? 1 : 0);
    this.wake();
  }

  /** Whether somebody has waited for it: it comes before those that nobody has. */
  get isAwaited(): boolean {
    return Atomics.load(this.words, AWAITED) === 1;
  }

  set isAwaited(value: boolean) {
    Atomics.store(this.words, AWAITED, value ? 1 : 0);
  }

  /** A number that changes whenever something happens: to be read before one looks, and given to `wait`. */
  get moment(): number {
    return Atomics.load(this.words, MOMENT);
  }

  /** Sleeps until something happens after `moment`, at most so many milliseconds. */
  wait(moment: number, milliseconds: number): void {
    Atomics.wait(this.words, MOMENT, moment, milliseconds);
  }

  private wake(): void {
    Atomics.add(this.words, MOMENT, 1);
    Atomics.notify(this.words, MOMENT);
  }

  private number(which: number): number {
    return Number(Atomics.load(this.numbers, which));
  }

  private setText(text: string): void {
    const bytes = Buffer.from(text);
    this.text.set(bytes, 4);
    new DataView(this.memory, wordBytes + numberBytes).setUint32(0, bytes.length);
  }

  private get ending(): { code?: ErrorCode; text: string } {
    const length = new DataView(this.memory, wordBytes + numberBytes).getUint32(0);
    return JSON.parse(Buffer.from(this.text.slice(4, 4 + length)).toString()) as { code?: ErrorCode; text: string };
  }
}

const wordBytes = 64;
const numberBytes = 64;
/** Characters of a message; JSON may write six bytes for one of them. */
const longestText = 1300;
const textBytes = 4 + 64 + longestText * 6;

const MOMENT = 0;
const STATE = 1;
const STOP = 2;
const MANNED = 3;
const AWAITED = 4;

const COUNT = 0;
const COVERED = 1;
const PACKED = 2;
