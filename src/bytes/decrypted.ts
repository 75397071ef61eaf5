import { type ByteSource, readFully } from "./byte-source.js";
import { cipherSector, type SectorCipher } from "./sector-cipher.js";

/** Sectors that are decrypted as they are read. A sector that is cut off by the end of `source` isn't there. */
export class DecryptedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  private scratch = Buffer.alloc(0);

  /**
   * @param cipher takes as a sector's number its place in `source`, counted in 512 bytes
   * @param first the number of the first one
   */
  constructor(
    private readonly source: ByteSource,
    private readonly cipher: SectorCipher,
    private readonly first = 0,
  ) {
    this.name = source.name;
    this.size = source.size - (source.size % cipher.sectorSize);
  }

  read(position: number, target: Uint8Array): number {
    const { sectorSize } = this.cipher;
    const most = Math.min(target.length, this.size - position);
    if (most <= 0) return 0;
    const within = position % sectorSize;
    const whole = most - (most % sectorSize);
    if (within === 0 && whole > 0) return this.sectors(position, target.subarray(0, whole));
    // Not whole sectors: some more are read, and what was asked for is taken out of them.
    const length = Math.ceil((within + most) / sectorSize) * sectorSize;
    if (this.scratch.length < length) this.scratch = Buffer.allocUnsafeSlow(length);
    const got = this.sectors(position - within, this.scratch.subarray(0, length)) - within;
    if (got <= 0) return 0;
    target.set(this.scratch.subarray(within, within + Math.min(got, most)));
    return Math.min(got, most);
  }

  willRead(position: number, length: number): void {
    this.source.willRead?.(position, length);
  }

  isFar(position: number): boolean {
    const { sectorSize } = this.cipher;
    return this.source.isFar?.(position - (position % sectorSize) + sectorSize - 1) === true;
  }

  private sectors(position: number, target: Uint8Array): number {
    const got = readFully(this.source, position, target);
    const whole = got - (got % this.cipher.sectorSize);
    if (whole > 0) this.cipher.decrypt(target.subarray(0, whole), this.first + position / cipherSector);
    return whole;
  }
}
