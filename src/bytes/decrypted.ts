import { type ByteSource, readFully } from "./byte-source.js";
import { cipherSector, type SectorCipher } from "./sector-cipher.js";

/** Sectors that are decrypted as they are read. A sector that is cut off by the end of `source` isn't there. */
export class DecryptedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  private scratch = Buffer.alloc(0);

  /** @param cipher takes as a sector's number its place in `source`, counted in sectors. */
  constructor(
    private readonly source: ByteSource,
    private readonly cipher: SectorCipher,
  ) {
    this.name = source.name;
    this.size = source.size - (source.size % cipherSector);
  }

  read(position: number, target: Uint8Array): number {
    const most = Math.min(target.length, this.size - position);
    if (most <= 0) return 0;
    const within = position % cipherSector;
    const whole = Math.floor(most / cipherSector) * cipherSector;
    if (within === 0 && whole > 0) return this.sectors(position, target.subarray(0, whole));
    // Not whole sectors: some more are read, and what was asked for is taken out of them.
    const length = Math.ceil((within + most) / cipherSector) * cipherSector;
    if (this.scratch.length < length) this.scratch = Buffer.allocUnsafeSlow(length);
    const got = this.sectors(position - within, this.scratch.subarray(0, length)) - within;
    if (got <= 0) return 0;
    target.set(this.scratch.subarray(within, within + Math.min(got, most)));
    return Math.min(got, most);
  }

  private sectors(position: number, target: Uint8Array): number {
    const got = readFully(this.source, position, target);
    const whole = got - (got % cipherSector);
    if (whole > 0) this.cipher.decrypt(target.subarray(0, whole), position / cipherSector);
    return whole;
  }
}
