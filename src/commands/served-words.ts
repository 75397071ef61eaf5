/** How a mount goes, in words and in numbers that need no explanation: what `list` and `status` tell. */
import type { Served } from "../fuse/served.js";

/** A mount as `--json` has it: the figures that everybody asks for, then all of them. */
export function servedTold({ figures, ...facts }: Served) {
  if (!figures) return facts;
  const { reads = 0, bytesRead = 0, errors = 0, overlayBytes, unflushedBytes } = figures;
  const written = overlayBytes === undefined ? {} : { overlayBytes, unflushedBytes };
  const rate = cacheHitRate(figures) ?? null;
  return { ...facts, reads, bytesRead, cacheHitRate: rate, errors, ...written, counters: figures };
}

/** The share, 0 to 1, of looks into the chunk cache that found the chunk, or one that was being unpacked; undefined before the first. */
export function cacheHitRate({
  hits = 0,
  waits = 0,
  unpacked = 0,
}: NonNullable<Served["figures"]>): number | undefined {
  const looks = hits + waits + unpacked;
  return looks > 0 ? (hits + waits) / looks : undefined;
}

/** 0.934 as `93%`: rounded down, so that 100% is said of what has no exception. */
export const percent = (share: number): string => `${Math.floor(share * 100)}%`;

/** A mount's state as a part of a sentence. */
export function stateInWords({ state, problem }: Served): string {
  if (state === "unmounted") return "unmounted, its server still serves open files";
  if (state === "elsewhere") return "mounted where it can't be seen from here, in another namespace";
  return problem ?? state;
}

/** `2026-01-31 10:00` in local time; with `seconds`, those too. */
export function localTime(iso: string | undefined, seconds = false): string {
  const date = new Date(iso ?? "");
  if (Number.isNaN(date.getTime())) return "?";
  const two = (value: number) => String(value).padStart(2, "0");
  const clock = [date.getHours(), date.getMinutes(), ...(seconds ? [date.getSeconds()] : [])].map(two).join(":");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock}`;
}
