/** What lies between a disk and its filesystems: parts of RAIDs, pools and volume groups, encryption, caches, swap. */
import { bitLockerLabel, bitLockerMetadata, bitLockerUuid } from "./deeper.js";
import { hyphened, type Reading, type Signature, text, uuid } from "./signature.js";

const KiB = 1024;

const lvmUuid =
  (offset: number): Reading<string> =>
  (volume, start) =>
    text(offset, 32)(volume, start).replace(/^(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-$5-$6-");

const md = "\xfc\x4e\x2b\xa9";

/** Linux's software RAID, whose structure says where it is. */
const isMd1: Reading<boolean> = (volume, start) =>
  volume.u32(start + 4) === 1 && volume.u64(start + 144) * 512n === BigInt(start);

const pages = [4, 8, 16, 32, 64].map((page) => page * KiB);

const sumOfWords = (bytes: Buffer) => new Uint16Array(bytes.buffer).reduce((sum, word) => (sum + word) & 0xffff, 0);

const swapText =
  (reading: Reading<string>): Reading<string> =>
  (volume, start) =>
    // The first version has neither label nor UUID, and boot code where they would be.
    pages.some((page) => volume.has(page - 10, "SWAP-SPACE")) ? "" : reading(volume, start);

export const memberSignatures: readonly Signature[] = [
  {
    type: "crypto_LUKS",
    what: "encrypted with LUKS",
    at: [
      [0, 0, "LUKS\xba\xbe"],
      // The second header of LUKS 2, where the first is damaged.
      ...[16, 32, 64, 128, 256, 512, 1024, 2048, 4096].map((at) => [at * KiB, 0, "SKUL\xba\xbe"] as const),
    ],
    fits: (volume, start) => start === 0 || volume.u64be(start + 256) === BigInt(start),
    label: (volume, start) => (volume.u16be(start + 6) === 2 ? text(24, 48)(volume, start) : ""),
    uuid: text(168, 40),
  },
  {
    type: "BitLocker",
    what: "encrypted with BitLocker",
    at: ["\xeb\x58\x90-FVE-FS-", "\xeb\x58\x90MSWIN4.1", "\xeb\x52\x90-FVE-FS-"].map((head) => [0, 0, head] as const),
    // Windows Vista noted its place in another way.
    fits: (volume) => volume.has(0, "\xeb\x52\x90-FVE-FS-") || bitLockerMetadata(volume) !== undefined,
    label: bitLockerLabel,
    uuid: bitLockerUuid,
  },
  {
    type: "cs_fvault2",
    what: "an Apple CoreStorage volume (FileVault 2)",
    at: [[0, 88, "CS"]],
    fits: (volume, start) =>
      volume.u16(start + 8) === 1 && volume.u16(start + 10) === 16 && volume.u32(start + 90) === 1,
    uuid: uuid(304),
  },
  {
    type: "LVM2_member",
    what: "a physical volume of LVM",
    at: [512, 0, KiB, KiB + 512].map((sector) => [sector, 24, "LVM2 001"] as const),
    fits: (volume, start) => volume.has(start, "LABELONE"),
    uuid: lvmUuid(32),
  },
  {
    type: "LVM1_member",
    what: "a physical volume of LVM 1",
    at: [
      [0, 0, "HM\x01\0"],
      [0, 0, "HM\x02\0"],
    ],
    uuid: lvmUuid(44),
  },
  {
    type: "linux_raid_member",
    what: "part of a Linux RAID (md)",
    at: [
      [0, 0, md],
      [4 * KiB, 0, md],
    ],
    fits: isMd1,
    label: text(32, 32),
    uuid: uuid(16),
  },
  {
    type: "stratis",
    what: "part of a Stratis pool",
    at: [
      [512, 4, "!Stra0tis\x86\xff\x02^\x41rh"],
      [4608, 4, "!Stra0tis\x86\xff\x02^\x41rh"],
    ],
    uuid: (volume, start) => text(64, 32)(volume, start).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-"),
  },
  {
    type: "bcache",
    what: "a device of bcache",
    at: [[4 * KiB, 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"]],
    fits: (volume, start) => volume.u64(start + 8) === 8n,
    label: text(72, 32),
    uuid: uuid(40),
  },
  { type: "ceph_bluestore", what: "a device of Ceph (BlueStore)", at: [[0, 0, "bluestore block device"]] },
  { type: "vdo", what: "a device of VDO", at: [[0, 0, "dmvdo001"]], uuid: uuid(40) },
  { type: "DM_snapshot_cow", what: "the changes of a device-mapper snapshot", at: [[0, 0, "SnAp"]] },
  { type: "DM_verity_hash", what: "the hashes of a dm-verity device", at: [[0, 0, "verity\0\0"]], uuid: uuid(16) },
  { type: "DM_integrity", what: "a device of dm-integrity", at: [[0, 0, "integrt\0"]] },
  {
    type: "drbdmanage_control_volume",
    what: "the control volume of drbdmanage",
    at: [[0, 0, "$DRBDmgr=q"]],
    uuid: text(11, 32),
  },
  {
    type: "VMFS_volume_member",
    what: "part of a VMFS volume",
    at: [[1 << 20, 0, "\x0d\xd0\x01\xc0"]],
    uuid: text(532, 35),
  },
  {
    type: "ubi",
    what: "a UBI volume of flash memory",
    at: [[0, 0, "UBI#"]],
    uuid: (volume, start) => String(volume.u32be(start + 24)),
  },
  {
    type: "swsuspend",
    what: "the memory of a machine in hibernation, on swap space",
    at: [
      [0, 0, "\xed\xc3\x02\xe9\x98\x56\xe5\x0c"],
      ...pages.flatMap((page) =>
        ["S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"].map((magic) => [0, page - 10, magic] as const),
      ),
    ],
    label: text(1052, 16),
    uuid: uuid(1036),
  },
  {
    type: "swap",
    what: "Linux swap space",
    at: pages.flatMap((page) => ["SWAPSPACE2", "SWAP-SPACE"].map((magic) => [0, page - 10, magic] as const)),
    label: swapText(text(1052, 16)),
    uuid: swapText(uuid(1036)),
  },
];

/** Those told by the end of the volume (of `size` bytes), which is looked at last: in a compressed file it is far to there. */
export function endSignatures(size: number): readonly Signature[] {
  /** Of so many sectors before the end of the last whole one. */
  const sector = (count: number) => Math.floor(size / 512) * 512 - count * 512;
  return [
    {
      type: "linux_raid_member",
      what: "part of a Linux RAID (md)",
      at: [[size - (size % 4096) - 8192, 0, md]],
      fits: isMd1,
      label: text(32, 32),
      uuid: uuid(16),
    },
    {
      type: "linux_raid_member",
      what: "part of a Linux RAID (md 0.90)",
      at: [[size - (size % 65536) - 65536, 0, md]],
      fits: (volume, start) => volume.u32(start + 4) === 0,
      uuid: (volume, start) => {
        const numbers = [20, 52, 56, 60].map((at) => volume.bytes(start + at, 4).swap32());
        return hyphened(Buffer.concat(numbers));
      },
    },
    {
      type: "drbd",
      what: "a device of DRBD",
      at: ["\x83\x74\x02\x6b", "\x83\x74\x02\x6c", "\x83\x74\x02\x6d"].map(
        (magic) => [size - 4096, 60, magic] as const,
      ),
      uuid: (volume, start) => volume.u64be(start + 40).toString(16),
    },
    {
      type: "nrg",
      what: "a disc image of Nero (NRG)",
      at: [
        [size - 12, 0, "NER5"],
        [size - 8, 0, "NERO"],
      ],
    },
    { type: "ddf_raid_member", what: "part of a RAID with DDF metadata", at: [[sector(1), 0, "\xde\x11\xde\x11"]] },
    { type: "isw_raid_member", what: "part of an Intel RAID", at: [[sector(2), 0, "Intel Raid ISM Cfg Sig. "]] },
    { type: "lsi_mega_raid_member", what: "part of an LSI MegaRAID", at: [[sector(1), 0, "$XIDE$"]] },
    { type: "nvidia_raid_member", what: "part of an NVIDIA RAID", at: [[sector(2), 0, "NVIDIA  "]] },
    {
      type: "adaptec_raid_member",
      what: "part of an Adaptec RAID",
      at: [[sector(1), 0, "\x37\xfc\x4d\x1e"]],
      fits: (volume, start) => volume.bytes(start, 512).includes("DPTM"),
    },
    {
      type: "hpt37x_raid_member",
      what: "part of a HighPoint RAID",
      at: ["\xf0\x16\x78\x5a", "\xfd\x16\x78\x5a"].map((magic) => [4608, 32, magic] as const),
    },
    {
      type: "hpt45x_raid_member",
      what: "part of a HighPoint RAID",
      at: ["\xf3\x16\x78\x5a", "\xfd\x16\x78\x5a"].map((magic) => [sector(11), 0, magic] as const),
    },
    {
      type: "jmicron_raid_member",
      what: "part of a JMicron RAID",
      at: [[sector(1), 0, "JM"]],
      fits: (volume, start) => [0, 1].includes(sumOfWords(volume.bytes(start, 128))),
    },
    {
      type: "silicon_medley_raid_member",
      what: "part of a Silicon Image RAID",
      at: [[sector(1), 96, "\0\0\0\x2f"]],
      fits: (volume, start) => sumOfWords(volume.bytes(start, 320)) === 0,
    },
    {
      type: "via_raid_member",
      what: "part of a VIA RAID",
      at: [0, 1, 2].map((version) => [sector(1), 0, `\x55\xaa${String.fromCharCode(version)}`] as const),
      fits: (volume, start) => {
        const bytes = volume.bytes(start, 51);
        return (bytes.subarray(0, 50).reduce((sum, byte) => sum + byte, 0) & 0xff) === bytes[50];
      },
    },
    {
      type: "promise_fasttrack_raid_member",
      what: "part of a Promise FastTrak RAID",
      at: [63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087].map(
        (count) => [sector(count), 0, "Promise Technology, Inc."] as const,
      ),
    },
  ];
}
