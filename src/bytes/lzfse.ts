import { corrupt } from "../errors.js";
import { copyMatch } from "./lz4.js";
import { unpackLzvn } from "./lzvn.js";

/*
 * LZFSE, as the headers and comments of Apple's lzfse (lzfse_internal.h, lzfse_fse.h) describe it: blocks, each with a mark
 * of four bytes. All numbers are little-endian.
 *
 *     bvx-   length (4), the bytes themselves
 *     bvxn   unpacked length (4), packed length (4), LZVN instructions
 *     bvx2   header with packed frequencies: literals, then triples
 *     bvx1   the same with frequencies of 16 bits
 *     bvx$   the end
 *
 * A block's literals are in one stream of bits, its triples (L literals, then M bytes from D back; D = 0: as far as last
 * time) in another. Both are read backwards, from the last bit, by finite state entropy: a state is an index of a table
 * whose entry tells a symbol, how many bits to read, and what to add to them to get the next state. Four states take turns
 * with the literals; L, M and D have a state each, and their symbols a base and some plain bits.
 */

const L = { symbols: 20, states: 64 } as const;
const M = { symbols: 20, states: 64 } as const;
const D = { symbols: 64, states: 256 } as const;
const literal = { symbols: 256, states: 1024 } as const;
const frequencies = L.symbols + M.symbols + D.symbols + literal.symbols;
const mostTriples = 10_000;
const mostLiterals = 4 * mostTriples;

/** Plain bits of each symbol; a symbol's base is where the one before it ends. */
const extraBits = {
  L: [...Array(16).fill(0), 2, 3, 5, 8] as number[],
  M: [...Array(16).fill(0), 3, 5, 8, 11] as number[],
  D: Array.from({ length: D.symbols }, (_, symbol) => symbol >>> 2),
};

const mark = (name: string) => Buffer.from(name).readUInt32LE(0);
const Mark = { end: mark("bvx$"), raw: mark("bvx-"), lzvn: mark("bvxn"), v1: mark("bvx1"), v2: mark("bvx2") } as const;

/** Bytes of a bvx1 header, two of them for alignment. */
const v1Length = 772;
const v2Length = 32;

/** The tables of the block at hand and its literals. A thread unpacks one at a time. */
const work = {
  frequencies: new Uint16Array(frequencies),
  literals: new Uint8Array(mostLiterals),
  /** Bits to read in the lowest byte, the symbol in the next, what to add in the two highest. */
  literal: new Int32Array(literal.states),
  /** Two numbers a state: bits to read, how many of them are plain bits, what to add; and the base. */
  L: new Int32Array(2 * L.states),
  M: new Int32Array(2 * M.states),
  D: new Int32Array(2 * D.states),
};

interface Header {
  /** Of the header, in bytes. */
  readonly length: number;
  readonly unpacked: number;
  readonly literals: number;
  readonly literalBytes: number;
  /** -7 to 0: how many bits the last byte lacks. */
  readonly literalBits: number;
  readonly literalStates: readonly number[];
  readonly triples: number;
  readonly tripleBytes: number;
  readonly tripleBits: number;
  readonly states: readonly [l: number, m: number, d: number];
}

/**
 * Unpacks `packed`, one LZFSE stream, into the start of `target` and returns how many bytes it gave; what follows the
 * stream's end is ignored.
 * @throws ImageError `corrupt` with the byte in `packed`, without a file's name.
 */
export function unpackLzfse(packed: Uint8Array, target: Uint8Array): number {
  const input = Buffer.from(packed.buffer, packed.byteOffset, packed.length);
  const end = input.length;
  let filled = 0;
  for (let at = 0; ; ) {
    if (at + 4 > end) throw ends(at);
    const kind = input.readUInt32LE(at);
    if (kind === Mark.end) return filled;
    if (at + 12 > end && !(kind === Mark.raw && at + 8 <= end)) throw ends(at);
    if (kind === Mark.raw) {
      const length = input.readUInt32LE(at + 4);
      if (at + 8 + length > end) throw ends(at);
      if (filled + length > target.length) throw tooLong(target, at);
      target.set(input.subarray(at + 8, at + 8 + length), filled);
      filled += length;
      at += 8 + length;
    } else if (kind === Mark.lzvn) {
      const length = input.readUInt32LE(at + 4);
      const block = input.subarray(at + 12, at + 12 + input.readUInt32LE(at + 8));
      if (filled + length > target.length) throw tooLong(target, at);
      const done = unpackLzvn(block, target.subarray(0, filled + length), filled);
      if (done.at !== input.readUInt32LE(at + 8) || done.filled !== filled + length)
        throw corrupt(`the LZVN block at byte ${at} isn't as long as it tells`);
      filled += length;
      at += 12 + block.length;
    } else if (kind === Mark.v1 || kind === Mark.v2) {
      const header = kind === Mark.v1 ? readV1(input, at) : readV2(input, at);
      const literalsEnd = at + header.length + header.literalBytes;
      const blockEnd = literalsEnd + header.tripleBytes;
      if (blockEnd > end) throw ends(at);
      checkHeader(header, at);
      if (filled + header.unpacked > target.length) throw tooLong(target, at);
      buildTables(header, at);
      unpackLiterals(input, literalsEnd, header, at);
      unpackTriples(input, blockEnd, header, target.subarray(0, filled + header.unpacked), filled, at);
      filled += header.unpacked;
      at = blockEnd;
    } else throw corrupt(`the LZFSE data has an unknown block at byte ${at}`);
  }
}

/** `lzfse_compressed_block_header_v1`. */
function readV1(input: Buffer, at: number): Header {
  if (at + v1Length > input.length) throw ends(at);
  const u32 = (offset: number) => input.readUInt32LE(at + offset);
  const u16 = (offset: number) => input.readUInt16LE(at + offset);
  for (let index = 0; index < frequencies; index++) work.frequencies[index] = u16(50 + index * 2);
  return {
    length: v1Length,
    unpacked: u32(4),
    literals: u32(12),
    triples: u32(16),
    literalBytes: u32(20),
    tripleBytes: u32(24),
    literalBits: input.readInt32LE(at + 28),
    literalStates: [u16(32), u16(34), u16(36), u16(38)],
    tripleBits: input.readInt32LE(at + 40),
    states: [u16(44), u16(46), u16(48)],
  };
}

/** `lzfse_compressed_block_header_v2`: three words of 64 bits with fields, then the frequencies. */
function readV2(input: Buffer, at: number): Header {
  if (at + v2Length > input.length) throw ends(at);
  const words = [8, 16, 24].map((offset) => input.readBigUInt64LE(at + offset));
  const field = (word: number, from: number, bits: number) =>
    Number((words[word]! >> BigInt(from)) & ((1n << BigInt(bits)) - 1n));
  const length = field(2, 0, 32);
  if (length < v2Length || at + length > input.length) throw ends(at);
  readFrequencies(input.subarray(at + v2Length, at + length), at);
  return {
    length,
    unpacked: input.readUInt32LE(at + 4),
    literals: field(0, 0, 20),
    literalBytes: field(0, 20, 20),
    triples: field(0, 40, 20),
    literalBits: field(0, 60, 3) - 7,
    literalStates: [field(1, 0, 10), field(1, 10, 10), field(1, 20, 10), field(1, 30, 10)],
    tripleBytes: field(1, 40, 20),
    tripleBits: field(1, 60, 3) - 7,
    states: [field(2, 32, 10), field(2, 42, 10), field(2, 52, 10)],
  };
}

/**
 * Packed frequencies, from the lowest bit on: 00 is 0, 10 is 1, 001 is 2, 101 is 3, dd011 is 4 + d; 0111 and four bits are
 * 8 and more, 1111 and ten bits 24 and more (bits written with the highest first).
 */
function readFrequencies(bytes: Buffer, block: number): void {
  const result = work.frequencies.fill(0);
  if (bytes.length === 0) return;
  let next = 0;
  let bits = 0;
  let count = 0;
  for (let index = 0; index < frequencies; index++) {
    for (; count <= 16 && next < bytes.length; count += 8) bits |= bytes[next++]! << count;
    let used: number;
    if ((bits & 1) === 0) {
      used = 2;
      result[index] = (bits >>> 1) & 1;
    } else if ((bits & 3) === 1) {
      used = 3;
      result[index] = 2 + ((bits >>> 2) & 1);
    } else if ((bits & 7) === 3) {
      used = 5;
      result[index] = 4 + ((bits >>> 3) & 3);
    } else if ((bits & 15) === 7) {
      used = 8;
      result[index] = 8 + ((bits >>> 4) & 15);
    } else {
      used = 14;
      result[index] = 24 + ((bits >>> 4) & 1023);
    }
    if (used > count) throw corrupt(`the LZFSE block at byte ${block} lacks frequencies`);
    bits >>>= used;
    count -= used;
  }
  if (count >= 8 || next !== bytes.length)
    throw corrupt(`the LZFSE block at byte ${block} has a longer header than it needs`);
}

function checkHeader(header: Header, at: number): void {
  const { literals, triples, literalBits, tripleBits, literalStates, states } = header;
  const fits =
    literals <= mostLiterals &&
    literals % 4 === 0 &&
    triples <= mostTriples &&
    literalBits >= -7 &&
    literalBits <= 0 &&
    tripleBits >= -7 &&
    tripleBits <= 0 &&
    literalStates.every((state) => state < literal.states) &&
    states[0] < L.states &&
    states[1] < M.states &&
    states[2] < D.states;
  if (!fits) throw corrupt(`the LZFSE block at byte ${at} has an impossible header`);
}

function buildTables(header: Header, at: number): void {
  const of = (from: number, { symbols }: { symbols: number }) => work.frequencies.subarray(from, from + symbols);
  const complete = [
    buildTable(L.states, of(0, L), extraBits.L, work.L),
    buildTable(M.states, of(20, M), extraBits.M, work.M),
    buildTable(D.states, of(40, D), extraBits.D, work.D),
  ].every((each) => each);
  const filled = buildTable(literal.states, of(104, literal), undefined, work.literal);
  if ((!complete && header.triples > 0) || (!filled && header.literals > 0))
    throw corrupt(`the LZFSE block at byte ${at} has frequencies that don't give all states`);
}

/**
 * Fills a decoding table: a symbol of frequency f has f states that follow each other. Returns whether that gives all states,
 * as it has to if the table is used.
 */
function buildTable(
  states: number,
  frequency: Uint16Array,
  extra: readonly number[] | undefined,
  table: Int32Array,
): boolean {
  let state = 0;
  let base = 0;
  for (let symbol = 0; symbol < frequency.length; symbol++) {
    const count = frequency[symbol]!;
    const plain = extra?.[symbol] ?? 0;
    if (state + count > states) return false;
    // So many bits that count * 2^bits is from states to 2 * states - 1; those behind `fewer` need one less.
    const bits = Math.clz32(count) - Math.clz32(states);
    const fewer = ((2 * states) >>> bits) - count;
    for (let index = 0; index < count; index++, state++) {
      const read = index < fewer ? bits : bits - 1;
      const add = index < fewer ? ((count + index) << bits) - states : (index - fewer) << read;
      if (extra === undefined) table[state] = (add << 16) | (symbol << 8) | read;
      else {
        table[2 * state] = (add << 16) | (plain << 8) | (read + plain);
        table[2 * state + 1] = base;
      }
    }
    base += 2 ** plain;
  }
  return state === states;
}

/** Where the stream of `length` bytes before `end` ends, in bits; the bits it lacks have to be zero. */
function lastBit(input: Buffer, end: number, length: number, bits: number, block: number): number {
  const spare = length > 0 ? input[end - 1]! >>> (8 + bits) : 0;
  if ((bits !== 0 && spare !== 0) || (length === 0 && bits !== 0))
    throw corrupt(`the LZFSE block at byte ${block} has bits where there should be none`);
  return end * 8 + bits;
}

function unpackLiterals(input: Buffer, end: number, header: Header, block: number): void {
  const { literals: count, literalBytes, literalBits } = header;
  const { literal: table, literals } = work;
  const first = (end - literalBytes) * 8;
  let bit = lastBit(input, end, literalBytes, literalBits, block);
  // Written out four times: states in an array halve the speed.
  let [s0, s1, s2, s3] = header.literalStates as [number, number, number, number];
  for (let index = 0; index < count; index += 4) {
    let entry = table[s0]!;
    let bits = entry & 0xff;
    bit -= bits;
    let at = bit >>> 3;
    s0 =
      (entry >> 16) +
      (((input[at]! | (input[at + 1]! << 8) | (input[at + 2]! << 16)) >>> (bit & 7)) & ((1 << bits) - 1));
    literals[index] = entry >>> 8;
    entry = table[s1]!;
    bits = entry & 0xff;
    bit -= bits;
    at = bit >>> 3;
    s1 =
      (entry >> 16) +
      (((input[at]! | (input[at + 1]! << 8) | (input[at + 2]! << 16)) >>> (bit & 7)) & ((1 << bits) - 1));
    literals[index + 1] = entry >>> 8;
    entry = table[s2]!;
    bits = entry & 0xff;
    bit -= bits;
    at = bit >>> 3;
    s2 =
      (entry >> 16) +
      (((input[at]! | (input[at + 1]! << 8) | (input[at + 2]! << 16)) >>> (bit & 7)) & ((1 << bits) - 1));
    literals[index + 2] = entry >>> 8;
    entry = table[s3]!;
    bits = entry & 0xff;
    bit -= bits;
    at = bit >>> 3;
    s3 =
      (entry >> 16) +
      (((input[at]! | (input[at + 1]! << 8) | (input[at + 2]! << 16)) >>> (bit & 7)) & ((1 << bits) - 1));
    literals[index + 3] = entry >>> 8;
    if (bit < first) throw corrupt(`the literals of the LZFSE block at byte ${block} end in the middle`);
  }
}

function unpackTriples(
  input: Buffer,
  end: number,
  header: Header,
  target: Uint8Array,
  start: number,
  block: number,
): void {
  const { L: tableL, M: tableM, D: tableD, literals } = work;
  const first = (end - header.tripleBytes) * 8;
  let bit = lastBit(input, end, header.tripleBytes, header.tripleBits, block);
  let [l, m, d] = header.states;
  let filled = start;
  let used = 0;
  let distance = 0;
  for (let index = 0; index < header.triples; index++) {
    let entry = tableL[2 * l]!;
    bit -= entry & 0xff;
    let at = bit >>> 3;
    let read =
      ((input[at]! | (input[at + 1]! << 8) | (input[at + 2]! << 16)) >>> (bit & 7)) & ((1 << (entry & 0xff)) - 1);
    let plain = (entry >>> 8) & 0xff;
    const literalLength = tableL[2 * l + 1]! + (read & ((1 << plain) - 1));
    l = (entry >> 16) + (read >>> plain);

    entry = tableM[2 * m]!;
    bit -= entry & 0xff;
    at = bit >>> 3;
    read = ((input[at]! | (input[at + 1]! << 8) | (input[at + 2]! << 16)) >>> (bit & 7)) & ((1 << (entry & 0xff)) - 1);
    plain = (entry >>> 8) & 0xff;
    const length = tableM[2 * m + 1]! + (read & ((1 << plain) - 1));
    m = (entry >> 16) + (read >>> plain);

    entry = tableD[2 * d]!;
    bit -= entry & 0xff;
    if (bit < first) throw wrong(index, block, "lies beyond the block's end");
    at = bit >>> 3;
    read =
      ((input[at]! | (input[at + 1]! << 8) | (input[at + 2]! << 16) | (input[at + 3]! << 24)) >>> (bit & 7)) &
      ((1 << (entry & 0xff)) - 1);
    plain = (entry >>> 8) & 0xff;
    distance = tableD[2 * d + 1]! + (read & ((1 << plain) - 1)) || distance;
    d = (entry >> 16) + (read >>> plain);

    if (used + literalLength > header.literals) throw wrong(index, block, "takes more literals than there are");
    if (filled + literalLength + length > target.length)
      throw wrong(index, block, "gives more bytes than the block tells");
    if (literalLength < 24) for (let k = 0; k < literalLength; k++) target[filled + k] = literals[used + k]!;
    else target.set(literals.subarray(used, used + literalLength), filled);
    used += literalLength;
    filled += literalLength;
    if (distance === 0 || distance > filled)
      throw wrong(index, block, `goes ${distance} bytes back where there are ${filled}`);
    copyMatch(target, filled, distance, length);
    filled += length;
  }
  if (filled !== target.length) throw corrupt(`the LZFSE block at byte ${block} gives fewer bytes than it tells`);
}

const wrong = (triple: number, block: number, what: string) =>
  corrupt(`triple ${triple} of the LZFSE block at byte ${block} ${what}`);
const ends = (at: number) => corrupt(`the LZFSE data ends in the middle, at byte ${at}`);
const tooLong = (target: Uint8Array, at: number) =>
  corrupt(`the LZFSE data unpacks to more than ${target.length} bytes, at byte ${at}`);
