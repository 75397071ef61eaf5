import { corrupt } from "../errors.js";
import { type ByteSource, readFully } from "./byte-source.js";

/** Characters of a block; 48 KiB decoded. */
const blockCharacters = 65536;
const blockBytes = (blockCharacters / 4) * 3;
/** Most bytes that a block's text may take, white space included. */
const longestBlock = 8 * blockCharacters;

/** What a byte of the text is: a digit, white space, `=`, or nothing of it. */
const Kind = { wrong: 0, digit: 1, space: 2, end: 3 } as const;
const kinds = new Uint8Array(256);
for (const character of "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
  kinds[character.charCodeAt(0)] = Kind.digit;
for (const character of " \t\r\n") kinds[character.charCodeAt(0)] = Kind.space;
kinds["=".charCodeAt(0)] = Kind.end;

/**
 * The bytes that a stretch of base64 text (RFC 4648) in a file stands for, readable at any position: the text is looked
 * through once, and of each block only its place is kept. White space may be anywhere in it.
 */
export class Base64Source implements ByteSource {
  readonly size: number;
  /** Where each block's text begins. */
  private readonly blocks: number[] = [];
  private readonly end: number;
  private decoded = -1;
  private bytes: Buffer = Buffer.alloc(0);

  /**
   * @param position where in `source` the text begins, in bytes; @param length of the text.
   * @throws ImageError `corrupt` where the text isn't base64.
   */
  constructor(
    readonly name: string,
    private readonly source: ByteSource,
    position: number,
    length: number,
  ) {
    this.end = position + length;
    const buffer = Buffer.allocUnsafe(Math.min(length, 1 << 20));
    let digits = 0;
    let ends = 0;
    for (let at = position; at < this.end; ) {
      const part = buffer.subarray(0, Math.min(buffer.length, this.end - at));
      if (readFully(source, at, part) !== part.length) throw corrupt(`${name}: ends at byte ${at}, in base64 text.`);
      for (let index = 0; index < part.length; index++) {
        const kind = kinds[part[index]!];
        if (kind === Kind.digit && ends === 0) {
          if (digits % blockCharacters === 0) this.begin(at + index);
          digits++;
        } else if (kind === Kind.end) ends++;
        else if (kind !== Kind.space)
          throw corrupt(`${name}: the base64 text at byte ${position} has something else at byte ${at + index}.`);
      }
      at += part.length;
    }
    if ((digits + ends) % 4 !== 0 || ends > 2)
      throw corrupt(
        `${name}: the base64 text at byte ${position} has ${digits} digits, which stand for no whole bytes.`,
      );
    this.begin(this.end);
    this.size = Math.floor((digits * 3) / 4);
  }

  private begin(at: number): void {
    const last = this.blocks.at(-1);
    if (last !== undefined && at - last > longestBlock)
      throw corrupt(`${this.name}: the base64 text at byte ${last} is nearly all white space.`);
    this.blocks.push(at);
  }

  read(position: number, target: Uint8Array): number {
    if (position >= this.size) return 0;
    const block = Math.floor(position / blockBytes);
    const from = position - block * blockBytes;
    const part = this.block(block).subarray(from, from + target.length);
    target.set(part);
    return part.length;
  }

  private block(number: number): Buffer {
    if (this.decoded !== number) {
      const start = this.blocks[number]!;
      const text = Buffer.allocUnsafe(this.blocks[number + 1]! - start);
      readFully(this.source, start, text);
      this.bytes = Buffer.from(text.toString("latin1"), "base64");
      const expected = Math.min(blockBytes, this.size - number * blockBytes);
      if (this.bytes.length !== expected)
        throw corrupt(`${this.name}: the base64 text at byte ${start} changed while it was read.`);
      this.decoded = number;
    }
    return this.bytes;
  }
}
