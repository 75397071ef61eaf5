import type { ByteSource } from "../bytes/byte-source.js";

/** A way in which whole volumes are encrypted: how to recognise one, and how its plain bytes are read. */
export interface Encryption {
  /** As people call it, for messages: `LUKS`, `BitLocker`. */
  readonly name: string;
  /**
   * Whether `source`, a disk or a volume, carries its signature. Reads a few KiB at most.
   * @throws ImageError where those can't be read
   */
  recognises(source: ByteSource): boolean;
  /**
   * @throws ImageError `locked` when no secret was given or none opens it, saying which kinds it takes; `corrupt` with the
   * position in `source`; `unsupported` for a cipher or a kind of key that isn't there, by its name.
   */
  open(source: ByteSource, secrets: Secrets): PlainVolume;
}

/** What the user gave, and what was made of it before. */
export interface Secrets {
  /** A password, a recovery password or the content of a key file, as it was given. */
  readonly password?: Uint8Array;
  /**
   * What takes long to compute and is the same for every thread that opens this volume (a key made of a password): it is
   * computed when it is first asked for by `name`, and remembered.
   */
  remember(name: string, compute: () => Uint8Array): Uint8Array;
}

export interface PlainVolume {
  /** The plain bytes; synchronous, like every source. */
  readonly source: ByteSource;
  /** What `spindle info` tells of the encryption: plain JSON data (version, cipher, key size in bits, label, UUID). */
  readonly facts: Record<string, unknown>;
}
