import { usage } from "../errors.js";

/**
 * A whole number from the command line; undefined where the option wasn't given.
 * @throws ImageError `usage` when it isn't a number from `least` to `most`.
 */
export function wholeNumber(text: string | undefined, option: string, least: number, most: number): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most))
    throw usage(`${option} ${text}: must be a whole number from ${least} to ${most}.`);
  return value;
}

/** `1 chunk`, `2 chunks`. */
export const counted = (count: number, what: string) => `${count} ${what}${count === 1 ? "" : "s"}`;
