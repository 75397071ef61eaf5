import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { corrupt } from "../../errors.js";
import { u64be } from "../fields.js";

/*
 * The 512 bytes that make a file a UDIF image: "koly". They are the file's last; some old images have them first. Apple has
 * not published them; the fields are as libmodi's documentation ("Mac OS disk image types") and 7-Zip's reader have them.
 */

export const trailerLength = 512;
const signature = Buffer.from("koly\0\0\0\x04\0\0\x02\0", "latin1");

/** A stretch of the file, in bytes. */
export interface Stretch {
  readonly position: number;
  readonly length: number;
}

/** A checksum. */
export interface Checksum {
  /** Empty for none. */
  readonly value: Buffer;
  /** The value of a CRC-32, the one kind that is in use. */
  readonly crc32: number | undefined;
}

export interface Trailer {
  /** Where in the file it is. */
  readonly position: number;
  readonly dataFork: Stretch;
  readonly resourceFork: Stretch;
  readonly xml: Stretch;
  /** Bytes of data in the segments before this one. */
  readonly runningDataFork: number;
  /** From 1; 0 where there is only one. */
  readonly segment: number;
  readonly segments: number;
  readonly segmentId: string;
  readonly dataChecksum: Checksum;
  readonly masterChecksum: Checksum;
  /** 1: of a whole disk, 2: of one partition. */
  readonly variant: number;
  /** Of the disk, 512 bytes each. */
  readonly sectors: number;
}

/** Where `source` has a trailer; undefined where it has none. */
export function findTrailer(source: ByteSource): number | undefined {
  const has = (position: number) =>
    position >= 0 &&
    position + trailerLength <= source.size &&
    readExactly(source, position, signature.length, "the trailer").equals(signature);
  const last = source.size - trailerLength;
  return has(last) ? last : has(0) ? 0 : undefined;
}

/** @throws ImageError `corrupt` where it tells of what can't be in the file. */
export function readTrailer(source: ByteSource): Trailer {
  const position = findTrailer(source);
  if (position === undefined)
    throw corrupt(`${source.name}: has no UDIF trailer at its end. The file is truncated or damaged.`);
  const bytes = readExactly(source, position, trailerLength, "the trailer");
  const stretch = (at: number, what: string): Stretch => {
    const found = { position: u64be(bytes, at), length: u64be(bytes, at + 8) };
    if (found.length > 0 && found.position + found.length > source.size)
      throw corrupt(
        `${source.name}: ${what} should take ${found.length} bytes at byte ${found.position}, but the file has ${source.size} bytes. It is truncated or damaged.`,
      );
    return found;
  };
  return {
    position,
    runningDataFork: u64be(bytes, 16),
    dataFork: stretch(24, "its data fork"),
    resourceFork: stretch(40, "its resource fork"),
    segment: bytes.readUInt32BE(56),
    segments: bytes.readUInt32BE(60),
    segmentId: bytes.toString("hex", 64, 80),
    dataChecksum: readChecksum(bytes, 80),
    xml: stretch(216, "its property list"),
    masterChecksum: readChecksum(bytes, 352),
    variant: bytes.readUInt32BE(488),
    sectors: u64be(bytes, 492),
  };
}

/** Type, bits and value: 136 bytes at `at`, of a trailer or of a block table. */
export function readChecksum(bytes: Buffer, at: number): Checksum {
  const type = bytes.readUInt32BE(at);
  const bits = bytes.readUInt32BE(at + 4);
  const value = Buffer.from(bytes.subarray(at + 8, at + 8 + Math.min(bits >>> 3, 128)));
  return { value, crc32: type === 2 && bits === 32 ? value.readUInt32BE(0) : undefined };
}
