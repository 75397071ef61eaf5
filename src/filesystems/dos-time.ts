import type { Time } from "./filesystem.js";

const DAY = 86400;
/** Days before each month of a year without leap day; Linux counts months beyond December as having none before. */
const daysBefore = [0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 0, 0, 0];

/**
 * Seconds since 1970 of a date and a time as DOS keeps them: 7 bits of years since 1980, 4 of month, 5 of day; 5 of hour, 6
 * of minute, 5 of two seconds. Fields out of range are taken as Linux takes them: a month or day of 0 is the first (so that
 * an empty date is 1 January 1980), others run over into the next larger unit.
 */
export function dosSeconds(date: number, time: number): number {
  const year = date >>> 9;
  const month = Math.max(1, (date >>> 5) & 15);
  const day = Math.max(1, date & 31) - 1;
  // 2100 is no leap year, and the only such that fits.
  let leapDays = (year + 3) >> 2;
  if (year > 120) leapDays--;
  const isLeap = year % 4 === 0 && year !== 120;
  if (isLeap && month > 2) leapDays++;
  const days = 3652 + year * 365 + leapDays + daysBefore[month]! + day;
  return days * DAY + (time >>> 11) * 3600 + ((time >>> 5) & 63) * 60 + (time & 31) * 2;
}

/** With the field of hundredths of a second (0 to 199) that some times have; more than that is none. */
export function dosTime(date: number, time: number, hundredths = 0): Time {
  const beyond = hundredths < 200 ? hundredths : 0;
  const seconds = dosSeconds(date, time) + (beyond >= 100 ? 1 : 0);
  return { seconds, nanoseconds: (beyond % 100) * 10_000_000 };
}
