import { crc32 } from "node:zlib";

/**
 * How long a disk has to be by what is in its first bytes: by its partition table, or by the filesystem that takes all of
 * it. Nothing is believed of it but that; volumes and filesystems are read elsewhere, when the disk is open.
 */
export interface Claims {
  /** Bytes that the partitions or the filesystem reach to. */
  readonly least: number;
  /** Bytes of the whole disk, where a GPT tells it. */
  readonly whole: number | undefined;
}

/** Bytes that are looked into. */
export const claimsHead = 128 * 1024;

const sector = 512;

/** @param head the first bytes of the disk, `claimsHead` or all; @returns undefined when nothing known is there */
export function diskClaims(head: Buffer): Claims | undefined {
  const gpt = gptEnd(head, 512) ?? gptEnd(head, 4096);
  if (gpt !== undefined) return { least: gpt, whole: gpt };
  const least = Math.max(filesystemEnd(head), hasBootRecord(head) ? partitionsEnd(head) : 0);
  return least > 0 && Number.isSafeInteger(least) ? { least, whole: undefined } : undefined;
}

/** UEFI specification, 5.3.2: the last sector of the disk has the other header. */
function gptEnd(head: Buffer, size: number): number | undefined {
  const header = head.subarray(size, size * 2);
  if (header.length < 512 || header.toString("latin1", 0, 8) !== "EFI PART") return undefined;
  const length = header.readUInt32LE(12);
  if (length < 92 || length > 512) return undefined;
  const summed = Buffer.from(header.subarray(0, length));
  summed.writeUInt32LE(0, 16);
  if (crc32(summed) !== header.readUInt32LE(16)) return undefined;
  return (number64(header, 32) + 1) * size;
}

/** A master boot record, not the boot sector of a filesystem, which ends with the same mark. */
const hasBootRecord = (head: Buffer) =>
  head.length >= sector &&
  head.readUInt16LE(510) === 0xaa55 &&
  !/^(NTFS|EXFAT|MSDOS|MSWIN|mkfs\.fat)/.test(latin(head, 3, 8));

function partitionsEnd(head: Buffer): number {
  let end = 0;
  for (let at = 446; at < 510; at += 16) {
    const [status, type] = [head[at]!, head[at + 4]!];
    if ((status & 0x7f) !== 0) return 0; // code where the table would be
    if (type === 0 || type === 0xee) continue;
    end = Math.max(end, (head.readUInt32LE(at + 8) + head.readUInt32LE(at + 12)) * sector);
  }
  return end;
}

interface Mark {
  readonly at: number;
  readonly mark: string;
  end(head: Buffer): number;
}

/** Filesystems that may take a whole disk: where their mark is, and what they tell of their size. */
const marks: readonly Mark[] = [
  {
    at: 1080,
    mark: "\x53\xef", // ext: s_magic; s_blocks_count, its high half with INCOMPAT_64BIT, s_log_block_size
    end: (head) => {
      const wide = (head.readUInt32LE(1120) & 0x80) !== 0;
      const blocks = head.readUInt32LE(1028) + (wide ? head.readUInt32LE(1360) * 2 ** 32 : 0);
      return blocks * 1024 * 2 ** Math.min(head.readUInt32LE(1048), 16);
    },
  },
  { at: 3, mark: "NTFS    ", end: (head) => (number64(head, 40) + 1) * head.readUInt16LE(11) },
  { at: 3, mark: "EXFAT   ", end: (head) => number64(head, 72) * 2 ** Math.min(head[108]!, 12) },
  { at: 54, mark: "FAT", end: fatEnd },
  { at: 82, mark: "FAT32", end: fatEnd },
  { at: 32769, mark: "CD001", end: (head) => head.readUInt32LE(32848) * head.readUInt16LE(32896) },
  { at: 0, mark: "hsqs", end: (head) => number64(head, 40) },
  {
    at: 0,
    mark: "XFSB",
    end: (head) => (head.readUInt32BE(8) * 2 ** 32 + head.readUInt32BE(12)) * head.readUInt32BE(4),
  },
  { at: 65600, mark: "_BHRfS_M", end: (head) => number64(head, 65648) },
];

function fatEnd(head: Buffer): number {
  return (head.readUInt16LE(19) || head.readUInt32LE(32)) * head.readUInt16LE(11);
}

function filesystemEnd(head: Buffer): number {
  const found = marks.filter(({ at, mark }) => latin(head, at, mark.length) === mark);
  // The fields of a mark lie within a page behind it.
  return Math.max(0, ...found.filter(({ at }) => at + 4096 <= head.length).map(({ end }) => end(head)));
}

const latin = (head: Buffer, at: number, length: number) => head.toString("latin1", at, at + length);

const number64 = (bytes: Buffer, at: number) => bytes.readUInt32LE(at + 4) * 2 ** 32 + bytes.readUInt32LE(at);
