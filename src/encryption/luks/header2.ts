/**
 * The two headers of LUKS version 2 ("LUKS2 On-Disk Format Specification" 1.1, section 2): each is 4096 bytes in binary,
 * big-endian, and behind them an area of JSON, with one checksum over both. The second is there for the case that the first
 * is damaged, or was not written to its end.
 */
import { createHash, getHashes } from "node:crypto";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { corrupt, ImageError, unsupported } from "../../errors.js";

const KiB = 1024;
/** Bytes of the binary part. */
const binaryLength = 4096;
const magics = { first: "LUKS\xba\xbe", second: "SKUL\xba\xbe" } as const;
/** Bytes of a header with its JSON (table 2); the second one follows the first, and so lies at one of these positions. */
const lengths = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096].map((size) => size * KiB);

export interface Header2 {
  /** Bytes of one header. */
  readonly length: number;
  readonly sequence: bigint;
  readonly label: string;
  readonly subsystem: string;
  readonly uuid: string;
  readonly json: unknown;
  /** Why the second was taken, as a sentence's part; undefined for the first. */
  readonly second?: string;
}

/** Whether there is a first header of any version. */
export const hasFirst = (source: ByteSource) => begins(source, 0, magics.first);

/** Where there is a second header; undefined for nowhere. */
export function placeOfSecond(source: ByteSource): number | undefined {
  return lengths.find(
    (at) =>
      begins(source, at, magics.second) &&
      readExactly(source, at + 256, 8, "the LUKS header").readBigUInt64BE() === BigInt(at),
  );
}

function begins(source: ByteSource, position: number, magic: string): boolean {
  if (position + binaryLength > source.size) return false;
  return readExactly(source, position, magic.length, "the signature").toString("latin1") === magic;
}

/**
 * The header that counts: the newer of those that are sound.
 * @throws ImageError `corrupt` where none is
 */
export function readHeader2(source: ByteSource): Header2 {
  const first = attempt(source, 0, "first");
  const place = first instanceof ImageError ? placeOfSecond(source) : first.length;
  const second = place === undefined ? undefined : attempt(source, place, "second");
  if (first instanceof ImageError) {
    if (second && !(second instanceof ImageError))
      return { ...second, second: `the first is damaged: ${first.message}` };
    if (first.code !== "corrupt") throw first;
    throw corrupt(
      `${source.name}: its LUKS header is damaged: ${first.message}; ${second ? `and so is the second: ${second.message}` : "and there is no second one"}. Put back a copy of it that cryptsetup luksHeaderBackup made.`,
    );
  }
  if (second && !(second instanceof ImageError) && second.sequence > first.sequence)
    return { ...second, second: `the first is older: number ${first.sequence}, not ${second.sequence}` };
  return first;
}

/** A header, or what is wrong with it. */
function attempt(source: ByteSource, position: number, which: "first" | "second"): Header2 | ImageError {
  try {
    return readOne(source, position, which);
  } catch (error) {
    if (error instanceof ImageError) return error;
    throw error;
  }
}

function readOne(source: ByteSource, position: number, which: "first" | "second"): Header2 {
  const wrong = (at: number, what: string) => corrupt(`at byte ${position + at} ${what}`);
  const binary = readExactly(source, position, binaryLength, "the LUKS header");
  const text = (at: number, length: number) => binary.toString("utf8", at, at + length).replace(/\0.*$/s, "");
  if (binary.toString("latin1", 0, 6) !== magics[which]) throw wrong(0, "it has no signature");
  const version = binary.readUInt16BE(6);
  if (version !== 2)
    throw unsupported(`${source.name}: is encrypted with LUKS of version ${version}, and Spindle reads 1 and 2.`);
  const length = Number(binary.readBigUInt64BE(8));
  if (!lengths.includes(length)) throw wrong(8, `it tells a length of ${length} bytes`);
  const own = Number(binary.readBigUInt64BE(256));
  if (own !== position) throw wrong(256, `it tells that it lies at byte ${own}`);
  const hash = text(72, 32);
  if (!getHashes().includes(hash)) throw wrong(72, `it tells of a checksum ${JSON.stringify(hash)}`);
  const whole = readExactly(source, position, length, "the LUKS header");
  const recorded = Buffer.from(whole.subarray(448, 512));
  whole.fill(0, 448, 512);
  const computed = createHash(hash).update(whole).digest();
  if (!computed.equals(recorded.subarray(0, computed.length)))
    throw wrong(448, "its checksum is not that of its bytes");
  const end = whole.indexOf(0, binaryLength);
  const json = whole.toString("utf8", binaryLength, end < 0 ? length : end);
  return {
    length,
    sequence: binary.readBigUInt64BE(16),
    label: text(24, 48),
    uuid: text(168, 40),
    subsystem: text(208, 48),
    json: parsed(json, () => wrong(binaryLength, "there is no JSON")),
  };
}

function parsed(json: string, wrong: () => ImageError): unknown {
  try {
    return JSON.parse(json);
  } catch {
    throw wrong();
  }
}
