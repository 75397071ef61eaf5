import type { Time } from "../filesystem.js";

/** Seconds from 1601-01-01 to 1970-01-01. */
const EPOCH = 11644473600;
/** 2^32 units of 100 ns, in whole seconds and what is left. */
const HIGH_SECONDS = 429;
const HIGH_REST = 4967296;

/** A time of 100 ns units since 1601-01-01 UTC. */
export function readTime(bytes: Buffer, at: number): Time {
  const high = bytes.readInt32LE(at + 4);
  if (high > 2 ** 29 || high < -(2 ** 29)) return readFarTime(bytes, at);
  const rest = high * HIGH_REST + bytes.readUInt32LE(at);
  const seconds = Math.floor(rest / 1e7);
  return { seconds: high * HIGH_SECONDS + seconds - EPOCH, nanoseconds: (rest - seconds * 1e7) * 100 };
}

/** Some ten thousand years away, where doubles aren't exact any more. */
function readFarTime(bytes: Buffer, at: number): Time {
  const units = bytes.readBigInt64LE(at);
  const rest = ((units % 10000000n) + 10000000n) % 10000000n;
  return { seconds: Number((units - rest) / 10000000n) - EPOCH, nanoseconds: Number(rest) * 100 };
}
