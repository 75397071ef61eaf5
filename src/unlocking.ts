/**
 * Encrypted disks and volumes opened with the user's password: beside chain.ts, whose disk as a whole may be one, and
 * open.ts, which finds them in partitions.
 */
import type { ByteSource } from "./bytes/byte-source.js";
import type { Encryption, PlainVolume, Secrets } from "./encryption/encryption.js";
import { encryptions } from "./encryption/index.js";
import { type ErrorCode, ImageError, mismatch } from "./errors.js";
import { LayeredDisk } from "./layers/disk.js";
import type { Layer, Run } from "./layers/layer.js";

/** What the user gave to open what is encrypted, and what was made of it before: the same in every thread. */
export interface Keys {
  /** As it was given, and in what other ways it may be meant: tried in their order. Empty where nothing was given. */
  readonly passwords: readonly Uint8Array[];
  remember(name: string, compute: () => Uint8Array): Uint8Array;
}

/** The encryption whose signature `source` has; undefined for none, and where that can't be read. */
export function encryptionOf(source: ByteSource): Encryption | undefined {
  try {
    return encryptions.find((encryption) => encryption.recognises(source));
  } catch (error) {
    if (error instanceof ImageError) return undefined; // damaged: whoever reads it is told
    throw error;
  }
}

/**
 * The plain bytes of an encrypted volume. Which password opens it, or why none does, is remembered as its key is, so that
 * no thread tries again what takes seconds.
 * @param depth 0 for the disk as it is stored, 1 for what is found in its plain bytes, which may have the same name
 * @throws ImageError `locked`, `corrupt` or `unsupported`
 */
export function unlock(encryption: Encryption, source: ByteSource, keys: Keys, depth: 0 | 1): PlainVolume {
  const passwords = keys.passwords.length > 0 ? keys.passwords : [undefined];
  let refusal: ImageError | undefined;
  for (const [number, password] of passwords.entries()) {
    const way = `${source.name}, depth ${depth}: ${encryption.name}, password ${number}`;
    const secrets = {
      password,
      remember: (name: string, compute: () => Uint8Array) => keys.remember(`${way}: ${name}`, compute),
    };
    let opened: PlainVolume | ImageError | undefined;
    const told = keys.remember(way, () => {
      opened = attempt(encryption, source, secrets);
      if (!(opened instanceof ImageError)) return new Uint8Array(0);
      return Buffer.from(JSON.stringify({ code: opened.code, message: opened.message }));
    });
    // Another thread tried: it is opened with what that remembered, or refused with its words.
    opened ??= told.length === 0 ? attempt(encryption, source, secrets) : errorOf(told);
    if (!(opened instanceof ImageError)) return opened;
    refusal ??= opened;
    if (opened.code !== "locked") break;
  }
  throw refusal!;
}

function attempt(encryption: Encryption, source: ByteSource, secrets: Secrets): PlainVolume | ImageError {
  try {
    return encryption.open(source, secrets);
  } catch (error) {
    if (error instanceof ImageError) return error;
    throw error;
  }
}

function errorOf(told: Uint8Array): ImageError {
  const { code, message } = JSON.parse(Buffer.from(told).toString()) as { code: ErrorCode; message: string };
  return new ImageError(code, message);
}

/** The plain bytes of a disk that is encrypted as a whole, over the layers that have it as it is stored. */
export class PlainLayer implements Layer {
  readonly parent = undefined;
  readonly size: number;
  readonly facts: Record<string, unknown>;
  private readonly source: ByteSource;

  constructor(
    readonly name: string,
    /** The encryption's name. */
    readonly format: string,
    plain: PlainVolume,
  ) {
    this.source = plain.source;
    this.size = plain.source.size;
    this.facts = plain.facts;
  }

  /** A hole would be decrypted to noise: nothing is known to be zero. */
  locate(position: number): Run {
    return { kind: "stored", length: this.size - position, source: this.source, at: position };
  }
}

/** Of a layer that was written over a disk that was decrypted: how, and the bytes that the disk has as it is stored. */
export interface WrittenOver {
  readonly with: string;
  readonly size: number;
}

export const writtenOver = ({ format, facts }: Layer): WrittenOver | undefined =>
  format === "overlay" ? (facts.base as { encrypted?: WrittenOver }).encrypted : undefined;

/**
 * Where among `layers`, newest first, the plain bytes of the disk come in, and what they are; undefined where the disk is
 * shown as it is stored. That is so without a password, so that an encrypted disk can be copied by whoever can't open it;
 * but what was written over the plain bytes makes no sense without them.
 * @param asStored whether the disk is wanted as it is stored though there is a password, for the image's own encryption
 * @throws ImageError `locked`, `corrupt` or `unsupported`
 */
export function plainWithin(
  layers: readonly Layer[],
  keys: Keys,
  asStored: boolean,
): { readonly place: number; readonly layer: PlainLayer } | undefined {
  const top = layers.findIndex((layer) => writtenOver(layer));
  const written = layers[top];
  if (!written && (asStored || keys.passwords.length === 0)) return undefined;
  const beneath = layers.slice(top + 1);
  const disk = new LayeredDisk(beneath[0]!.name, beneath);
  const encryption = encryptionOf(disk);
  if (!encryption && !written) return undefined;
  const refuse = (what: string) =>
    mismatch(
      `${written!.name}: was written over the plain bytes of ${disk.name}, which was encrypted with ${writtenOver(written!)!.with}; ${what}. Put back what it was.`,
    );
  if (!encryption) throw refuse("it isn't any more");
  const layer = new PlainLayer(disk.name, encryption.name, unlock(encryption, disk, keys, 0));
  if (written && written.size !== layer.size) throw refuse(`they are ${layer.size} now, and were ${written.size}`);
  return { place: top + 1, layer };
}
