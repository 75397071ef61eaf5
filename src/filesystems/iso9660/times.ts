/** The two ways in which ISO 9660 writes a time: 7 bytes in directory records, 17 in volume descriptors (9.1.5, 8.4.26.1). */
import type { Time } from "../filesystem.js";

export const epoch: Time = { seconds: 0, nanoseconds: 0 };

/** The last byte of both: quarters of an hour east of Greenwich. Values beyond a day are taken for 0, as Linux does. */
function zoneSeconds(byte: number): number {
  const quarters = (byte << 24) >> 24;
  return quarters >= -52 && quarters <= 52 ? quarters * 900 : 0;
}

/** Years since 1900, month, day, hour, minute, second, zone. All zero means "not recorded" and gives the epoch. */
export function shortTime(bytes: Buffer, at: number): Time {
  const month = bytes[at + 1];
  if (month === 0) return epoch;
  const local = Date.UTC(1900 + bytes[at], month - 1, bytes[at + 2], bytes[at + 3], bytes[at + 4], bytes[at + 5]);
  return { seconds: local / 1000 - zoneSeconds(bytes[at + 6]), nanoseconds: 0 };
}

/** YYYYMMDDhhmmsscc in digits, then the zone; undefined when it is not recorded or no time. */
export function longTime(bytes: Buffer, at: number): Time | undefined {
  const digits = bytes.toString("latin1", at, at + 16);
  if (!/^\d{16}$/.test(digits)) return undefined;
  const number = (from: number, to: number) => Number(digits.slice(from, to));
  if (number(4, 6) === 0) return undefined;
  const local = new Date(0);
  local.setUTCFullYear(number(0, 4), number(4, 6) - 1, number(6, 8));
  local.setUTCHours(number(8, 10), number(10, 12), number(12, 14));
  return {
    seconds: local.getTime() / 1000 - zoneSeconds(bytes[at + 16]),
    nanoseconds: number(14, 16) * 10_000_000,
  };
}

export const isoText = ({ seconds, nanoseconds }: Time) => new Date(seconds * 1000 + nanoseconds / 1e6).toISOString();
