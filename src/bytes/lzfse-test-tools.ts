/**
 * Tests only: a simple writer of LZFSE and LZVN, made from Apple's description alone. What it writes is right where
 * another reader (7zz, of a disk image) reads it.
 */

export type LzfseBlock = "bvx1" | "bvx2" | "bvxn" | "bvx-";

interface Triple {
  literals: Uint8Array;
  length: number;
  distance: number;
}

/** One stream: `input` cut into blocks of at most `blockSize` bytes, of the kinds given in turn. */
export function packLzfse(input: Uint8Array, kinds: readonly LzfseBlock[] = ["bvx2"], blockSize = 30_000): Buffer {
  const parts: Buffer[] = [];
  for (let from = 0, nth = 0; from < input.length; from += blockSize, nth++) {
    const to = Math.min(from + blockSize, input.length);
    const kind = kinds[nth % kinds.length]!;
    if (kind === "bvx-") parts.push(head(kind, to - from), Buffer.from(input.subarray(from, to)));
    else if (kind === "bvxn") {
      const packed = packLzvn(input, from, to);
      parts.push(head(kind, to - from, packed.length), packed);
    } else parts.push(packBlock(input, from, to, kind));
  }
  return Buffer.concat([...parts, Buffer.from("bvx$")]);
}

function head(kind: string, ...numbers: number[]): Buffer {
  const bytes = Buffer.alloc(4 + 4 * numbers.length);
  bytes.write(kind);
  for (const [index, number] of numbers.entries()) bytes.writeUInt32LE(number, 4 + 4 * index);
  return bytes;
}

/** Cuts input[from, to) into literals and matches, which may go back to the start of `input`. */
function* triples(
  input: Uint8Array,
  from: number,
  to: number,
  most: { literals: number; length: number; distance: number },
): Generator<Triple> {
  const seen = new Map<number, number>();
  const key = (at: number) => input[at]! | (input[at + 1]! << 8) | (input[at + 2]! << 16) | (input[at + 3]! << 24);
  for (let at = Math.max(0, from - most.distance); at < from; at++) seen.set(key(at), at);
  let start = from;
  let at = from;
  while (at < to) {
    const before = at + 4 <= to ? seen.get(key(at)) : undefined;
    seen.set(key(at), at);
    if (before !== undefined && at - before <= most.distance) {
      let length = 4;
      while (at + length < to && length < most.length && input[before + length] === input[at + length]) length++;
      yield { literals: input.subarray(start, at), length, distance: at - before };
      at += length;
      start = at;
    } else if (++at - start === most.literals) {
      yield { literals: input.subarray(start, at), length: 0, distance: 0 };
      start = at;
    }
  }
  if (start < to) yield { literals: input.subarray(start, to), length: 0, distance: 0 };
}

function packBlock(input: Uint8Array, from: number, to: number, kind: "bvx1" | "bvx2"): Buffer {
  const list = [...triples(input, from, to, { literals: 315, length: 2359, distance: 262139 })];
  const literals = Buffer.concat(list.map((triple) => triple.literals));
  const padded = Buffer.concat([literals, Buffer.alloc((4 - (literals.length % 4)) % 4)]);
  let last = 0;
  const values = list.map(({ literals, length, distance }) => {
    // A distance of 0 stands for the last one; the first has to be told, even where nothing is copied from it.
    const told = last === 0 ? distance || 1 : distance === last ? 0 : distance;
    last = told || last;
    return [literals.length, length, told] as const;
  });
  const plain = [
    [...Array(16).fill(0), 2, 3, 5, 8],
    [...Array(16).fill(0), 3, 5, 8, 11],
    Array.from({ length: 64 }, (_, symbol) => symbol >>> 2),
  ] as number[][];
  const bases = plain.map((bits) => bits.map((_, symbol) => bits.slice(0, symbol).reduce((sum, n) => sum + 2 ** n, 0)));
  const symbolOf = (which: number, value: number) => bases[which]!.findLastIndex((base) => base <= value);
  const states = [64, 64, 256, 1024];
  const counts = [20, 20, 64, 256].map((length) => new Array<number>(length).fill(0));
  for (const triple of values) for (const which of [0, 1, 2]) counts[which]![symbolOf(which, triple[which]!)]!++;
  for (const byte of padded) counts[3]![byte]!++;
  const frequencies = counts.map((count, which) => normalised(count, states[which]!));
  const coders = frequencies.map((frequency, which) => coder(frequency, states[which]!));

  const literalBits = new Bits();
  const literalStates = [0, 0, 0, 0];
  for (let index = padded.length - 1; index >= 0; index--)
    literalStates[index & 3] = coders[3]!(literalBits, literalStates[index & 3]!, padded[index]!);
  const literalStream = literalBits.end();

  const tripleBits = new Bits();
  tripleBits.push(0, 32); // Apple's reader wants eight bytes before what it reads
  tripleBits.push(0, 32);
  const tripleStates = [0, 0, 0];
  for (const triple of values.toReversed())
    for (const which of [2, 1, 0]) {
      const symbol = symbolOf(which, triple[which]!);
      tripleBits.push(triple[which]! - bases[which]![symbol]!, plain[which]![symbol]!);
      tripleStates[which] = coders[which]!(tripleBits, tripleStates[which]!, symbol);
    }
  const tripleStream = tripleBits.end();

  const all = frequencies.flat();
  let header: Buffer;
  if (kind === "bvx1") {
    header = Buffer.alloc(772);
    for (const [index, value] of [
      to - from,
      literalStream.bytes.length + tripleStream.bytes.length,
      padded.length,
      values.length,
      literalStream.bytes.length,
      tripleStream.bytes.length,
    ].entries())
      header.writeUInt32LE(value, 4 + 4 * index);
    header.writeInt32LE(literalStream.bits, 28);
    for (const [index, state] of literalStates.entries()) header.writeUInt16LE(state, 32 + 2 * index);
    header.writeInt32LE(tripleStream.bits, 40);
    for (const [index, state] of tripleStates.entries()) header.writeUInt16LE(state, 44 + 2 * index);
    for (const [index, frequency] of all.entries()) header.writeUInt16LE(frequency, 50 + 2 * index);
  } else {
    const bits = new Bits();
    for (const frequency of all) pushFrequency(bits, frequency);
    const packed = bits.end().bytes;
    header = Buffer.alloc(32 + packed.length);
    packed.copy(header, 32);
    header.writeUInt32LE(to - from, 4);
    const word = (at: number, ...fields: [value: number, from: number][]) =>
      header.writeBigUInt64LE(
        fields.reduce((sum, [value, shift]) => sum | (BigInt(value) << BigInt(shift)), 0n),
        at,
      );
    word(8, [padded.length, 0], [literalStream.bytes.length, 20], [values.length, 40], [literalStream.bits + 7, 60]);
    const [a, b, c, d] = literalStates as [number, number, number, number];
    word(16, [a, 0], [b, 10], [c, 20], [d, 30], [tripleStream.bytes.length, 40], [tripleStream.bits + 7, 60]);
    word(24, [header.length, 0], [tripleStates[0]!, 32], [tripleStates[1]!, 42], [tripleStates[2]!, 52]);
  }
  header.write(kind);
  return Buffer.concat([header, literalStream.bytes, tripleStream.bytes]);
}

function pushFrequency(bits: Bits, frequency: number): void {
  if (frequency < 2) bits.push(frequency << 1, 2);
  else if (frequency < 4) bits.push(1 | ((frequency - 2) << 2), 3);
  else if (frequency < 8) bits.push(3 | ((frequency - 4) << 3), 5);
  else if (frequency < 24) bits.push(7 | ((frequency - 8) << 4), 8);
  else bits.push(15 | ((frequency - 24) << 4), 14);
}

/** Frequencies that sum to `states`, at least 1 for what occurs. */
function normalised(counts: readonly number[], states: number): number[] {
  const sum = counts.reduce((a, b) => a + b, 0);
  if (sum === 0) return counts.map((_, symbol) => (symbol === 0 ? states : 0));
  const result = counts.map((count) => (count === 0 ? 0 : Math.max(1, Math.round((count * states) / sum))));
  for (let rest = states - result.reduce((a, b) => a + b, 0); rest !== 0; ) {
    const step = Math.sign(rest);
    result[result.indexOf(Math.max(...result))]! += step;
    rest -= step;
  }
  return result;
}

/** Returns the state after a symbol, having written the bits that lead back from it. */
function coder(frequency: readonly number[], states: number) {
  const first = frequency.map((_, symbol) => frequency.slice(0, symbol).reduce((a, b) => a + b, 0));
  return (bits: Bits, state: number, symbol: number): number => {
    const count = frequency[symbol]!;
    let drop = 0;
    while ((state + states) >>> drop >= 2 * count) drop++;
    bits.push(state & ((1 << drop) - 1), drop);
    return first[symbol]! + ((state + states) >>> drop) - count;
  };
}

/** Bits, the lowest of each number first. */
class Bits {
  private readonly bytes: number[] = [];
  private held = 0;
  private count = 0;

  push(value: number, length: number): void {
    for (let bit = 0; bit < length; bit++) {
      this.held |= ((value >>> bit) & 1) << this.count;
      if (++this.count === 8) {
        this.bytes.push(this.held);
        this.held = 0;
        this.count = 0;
      }
    }
  }

  /** The bytes, and how many bits the last lacks, as a number from -7 to 0. */
  end(): { bytes: Buffer; bits: number } {
    const bits = this.count === 0 ? 0 : this.count - 8;
    if (this.count > 0) this.bytes.push(this.held);
    return { bytes: Buffer.from(this.bytes), bits };
  }
}

/** LZVN of input[from, to), with matches that may go back to the start of `input`. */
export function packLzvn(input: Uint8Array, from = 0, to = input.length): Buffer {
  const out: number[] = [];
  let last = 0;
  let nth = 0;
  const most = { literals: 271, length: 2000, distance: 65535 };
  for (let { literals, length, distance } of triples(input, from, to, most)) {
    const few = literals.length & 3;
    const many = literals.length - few;
    if (many >= 16) out.push(0xe0, many - 16, ...literals.subarray(0, many));
    else if (many > 0) out.push(0xe0 | many, ...literals.subarray(0, many));
    const rest = literals.subarray(many);
    if (length === 0) {
      if (few > 0) out.push(0xe0 | few, ...rest);
      continue;
    }
    if (nth++ % 5 === 0) out.push(nth % 2 === 0 ? 14 : 22);
    // With more, the first bits of an instruction for a short match would be those of another one.
    const short = Math.min(length, [10, 8, 6, 4][few]!);
    const code = (few << 6) | ((short - 3) << 3);
    let done = short;
    if (distance === last && few > 0) out.push(code | 6, ...rest);
    else if (distance < 1536) out.push(code | (distance >>> 8), distance & 255, ...rest);
    else if (distance < 16384) {
      done = Math.min(length, 34);
      const pair = (distance << 2) | ((done - 3) & 3);
      out.push(0xa0 | (few << 3) | ((done - 3) >>> 2), pair & 255, pair >>> 8, ...rest);
    } else out.push(code | 7, distance & 255, distance >>> 8, ...rest);
    last = distance;
    for (length -= done; length > 0; ) {
      const part = Math.min(length, 271);
      if (part < 16) out.push(0xf0 | part);
      else out.push(0xf0, part - 16);
      length -= part;
    }
  }
  return Buffer.from([...out, 6, 0, 0, 0, 0, 0, 0, 0]);
}
