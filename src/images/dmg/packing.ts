import { unpackAdc } from "../../bytes/adc.js";
import { unpackBzip2 } from "../../bytes/bzip2.js";
import { unpackLzfse } from "../../bytes/lzfse.js";
import { unpackXz } from "../../bytes/xz.js";
import { unpackZlib } from "../../bytes/zlib.js";

/** What a run's bytes are: numbers of a block table. */
export const RunKind = {
  zero: 0,
  raw: 1,
  /** Zeros too: space that no file was in when the image was made. */
  unused: 2,
  adc: 0x80000004,
  zlib: 0x80000005,
  bzip2: 0x80000006,
  lzfse: 0x80000007,
  xz: 0x80000008,
  comment: 0x7ffffffe,
  end: 0xffffffff,
} as const;

export const holdsNothing = (kind: number) => kind === RunKind.zero || kind === RunKind.unused;

/** How each kind of packed run is called and unpacked. */
export const packings: ReadonlyMap<
  number,
  { readonly name: string; unpack(packed: Uint8Array, target: Uint8Array): number }
> = new Map([
  [RunKind.adc, { name: "ADC", unpack: unpackAdc }],
  [RunKind.zlib, { name: "zlib", unpack: unpackZlib }],
  [RunKind.bzip2, { name: "bzip2", unpack: unpackBzip2 }],
  [RunKind.lzfse, { name: "LZFSE", unpack: unpackLzfse }],
  [RunKind.xz, { name: "xz", unpack: unpackXz }],
]);

/**
 * Bytes of disk in the largest packed run that is taken. Usual are 256 KiB and 1 MiB; a mount's cache has room for two of
 * the largest for each of its threads, so this bounds what an image can make it take.
 */
export const mostUnpacked = 16 << 20;
