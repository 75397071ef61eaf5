import type { Time } from "../filesystem.js";

/** Zones that aren't told, and minutes east of Greenwich otherwise. */
const UNSPECIFIED = -2047;
const LOCAL = 1;

/** A timestamp (ECMA-167, 1/7.3): type and zone, year, month, day, hour, minute, second, then microseconds in three bytes. */
export function timestamp(bytes: Buffer, at: number): Time {
  const month = bytes[at + 4];
  if (month < 1 || month > 12) return { seconds: 0, nanoseconds: 0 };
  const typeAndZone = bytes.readUInt16LE(at);
  const zone = (typeAndZone << 20) >> 20;
  const minutes = typeAndZone >> 12 === LOCAL && zone !== UNSPECIFIED ? zone : 0;
  const date = new Date(0);
  date.setUTCFullYear(bytes.readInt16LE(at + 2), month - 1, bytes[at + 5]);
  date.setUTCHours(bytes[at + 6], bytes[at + 7], bytes[at + 8]);
  const [hundredths, hundreds, ones] = [bytes[at + 9], bytes[at + 10], bytes[at + 11]];
  const isFraction = hundredths < 100 && hundreds < 100 && ones < 100;
  return {
    seconds: Math.floor(date.getTime() / 1000) - minutes * 60,
    nanoseconds: isFraction ? (hundredths * 10_000 + hundreds * 100 + ones) * 1000 : 0,
  };
}

/** For `spindle info`; undefined when it isn't told. */
export function isoTimestamp(bytes: Buffer, at: number): string | undefined {
  const { seconds, nanoseconds } = timestamp(bytes, at);
  return seconds === 0 ? undefined : new Date(seconds * 1000 + nanoseconds / 1e6).toISOString();
}
