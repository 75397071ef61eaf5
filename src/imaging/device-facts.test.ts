import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import test, { type ExecutionContext } from "ava";
import { deviceFacts, deviceFolder } from "./device-facts.js";
import { tool } from "./imaging-test-tools.js";

type Files = Record<string, string | Buffer>;

/**
 * A sysfs of one disk as a machine has it: its folder beneath devices/, the files in and beneath it, where its link
 * `device` leads from there, what that folder and those above hold, and a partition.
 */
interface Layout {
  readonly disk: string;
  readonly files: Files;
  readonly device?: string;
  readonly beneath?: Files;
  readonly partition?: string;
}

/** Makes it, and returns the folders that the numbers 8:0 and 8:1 lead to: the disk's and the partition's. */
function made(t: ExecutionContext, { disk, files, device, beneath = {}, partition }: Layout): [string, string] {
  const sysfs = mkdtempSync(join(tmpdir(), "spindle-sysfs-"));
  t.teardown(() => rmSync(sysfs, { recursive: true }));
  const write = (folder: string, contents: Files) => {
    for (const [name, content] of Object.entries(contents)) {
      const path = join(sysfs, "devices", folder, name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, content);
    }
  };
  write(disk, { dev: "8:0\n", "queue/logical_block_size": "512\n", "queue/physical_block_size": "4096\n", ...files });
  write("", beneath);
  if (device !== undefined) symlinkSync(device, join(sysfs, "devices", disk, "device"));
  if (partition !== undefined) write(join(disk, partition), { dev: "8:1\n", partition: "1\n", start: "2048\n" });
  const numbers = join(sysfs, "dev/block");
  mkdirSync(numbers, { recursive: true });
  const link = (number: string, folder: string) =>
    symlinkSync(relative(numbers, join(sysfs, "devices", folder)), join(numbers, number));
  link("8:0", disk);
  link("8:1", join(disk, partition ?? ""));
  return [deviceFolder(0x800, sysfs), deviceFolder(0x801, sysfs)];
}

const page80 = (serial: string) =>
  Buffer.concat([Buffer.from([0, 0x80, 0, serial.length]), Buffer.from(serial, "latin1")]);
const ata = "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0";
const nvme = "pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0";
const stick = "pci0000:00/0000:00:14.0/usb2/2-1";
const stickDisk = `${stick}/2-1:1.0/host6/target6:0:0/6:0:0:0`;
const rootHub = { [`${dirname(stick)}/idVendor`]: "1d6b\n", [`${dirname(stick)}/serial`]: "0000:00:14.0\n" };
const card = "platform/emmc2bus/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa";

const layouts: Record<string, Layout & { model?: string; serial?: string }> = {
  "a SATA disk": {
    disk: `${ata}/block/sda`,
    files: {},
    device: "../../../0:0:0:0",
    beneath: {
      [`${ata}/vendor`]: "ATA     \n",
      [`${ata}/model`]: "Samsung SSD 860 \n",
      [`${ata}/rev`]: "1B6Q\n",
      [`${ata}/vpd_pg80`]: page80("S3Z1NB0K123456X     "),
      [`${ata}/wwid`]: "naa.5002538e40a1b2c3\n",
    },
    partition: "sda1",
    model: "Samsung SSD 860",
    serial: "S3Z1NB0K123456X",
  },
  "a disk of virtio": {
    disk: "pci0000:00/0000:00:02.0/virtio1/block/vda",
    files: { serial: "overlayblk" },
    device: "../../../virtio1",
    beneath: {
      "pci0000:00/0000:00:02.0/virtio1/vendor": "0x1af4\n",
      "pci0000:00/0000:00:02.0/virtio1/device": "0x0002\n",
    },
    partition: "vda1",
    serial: "overlayblk",
  },
  "a disk of virtio without a serial number": {
    disk: "pci0000:00/0000:00:02.0/virtio1/block/vda",
    files: { serial: "" },
    device: "../../../virtio1",
    beneath: { "pci0000:00/0000:00:02.0/virtio1/vendor": "0x1af4\n" },
    partition: "vda1",
  },
  "an NVMe disk": {
    disk: `${nvme}/nvme0n1`,
    files: { wwid: "eui.0025385b91b0a1b2\n", nsid: "1\n" },
    device: "../../nvme0",
    beneath: {
      [`${nvme}/model`]: `${"Samsung SSD 970 EVO Plus 1TB".padEnd(40)}\n`,
      [`${nvme}/serial`]: `${"S4EWNX0R123456".padEnd(20)}\n`,
      [`${nvme}/firmware_rev`]: "2B2QEXM7\n",
    },
    partition: "nvme0n1p1",
    model: "Samsung SSD 970 EVO Plus 1TB",
    serial: "S4EWNX0R123456",
  },
  "an NVMe disk of several paths": {
    disk: "virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
    files: { wwid: "uuid.2b7e1516-28ae-d2a6-abf7-158809cf4f3c\n" },
    device: "../../nvme-subsys0",
    beneath: {
      "virtual/nvme-subsystem/nvme-subsys0/model": "Dell Express Flash PM1725b 1.6TB\n",
      "virtual/nvme-subsystem/nvme-subsys0/serial": "S5BUNA0R0123\n",
    },
    partition: "nvme0n1p1",
    model: "Dell Express Flash PM1725b 1.6TB",
    serial: "S5BUNA0R0123",
  },
  "a stick on USB, which has its number in the USB device": {
    disk: `${stickDisk}/block/sdb`,
    files: {},
    device: "../../../6:0:0:0",
    beneath: {
      ...rootHub,
      [`${stick}/idVendor`]: "0781\n",
      [`${stick}/serial`]: "4C530001230101117345\n",
      [`${stickDisk}/vendor`]: "SanDisk \n",
      [`${stickDisk}/model`]: "Ultra           \n",
    },
    partition: "sdb1",
    model: "Ultra",
    serial: "4C530001230101117345",
  },
  "a stick on USB without a number, which isn't given the hub's": {
    disk: `${stickDisk}/block/sdb`,
    files: {},
    device: "../../../6:0:0:0",
    beneath: { ...rootHub, [`${stick}/idVendor`]: "abcd\n", [`${stickDisk}/model`]: "UDisk           \n" },
    partition: "sdb1",
    model: "UDisk",
  },
  "an SD card": {
    disk: `${card}/block/mmcblk0`,
    files: {},
    device: "../../../mmc0:aaaa",
    beneath: {
      [`${card}/cid`]: "035344534332344780e7c0e7c0012800\n",
      [`${card}/name`]: "SC32G\n",
      [`${card}/serial`]: "0xe7c0e7c0\n",
      [`${card}/type`]: "SD\n",
    },
    partition: "mmcblk0p1",
    model: "SC32G",
    serial: "0xe7c0e7c0",
  },
  "flash memory, whose name is that of its use": {
    disk: "platform/flash/mtd/mtd0/mtdblock0",
    files: {},
    device: "../../mtd0",
    beneath: { "platform/flash/mtd/mtd0/name": "bootloader\n", "platform/flash/mtd/mtd0/type": "nor\n" },
  },
  "a logical volume": {
    disk: "virtual/block/dm-0",
    files: { "dm/name": "vg-root\n", "dm/uuid": "LVM-abcdef\n" },
  },
  "a loop device": {
    disk: "virtual/block/loop0",
    files: { "loop/backing_file": "/srv/disk.img\n" },
    partition: "loop0p1",
  },
  "a disk with garbage for its names": {
    disk: `${ata}/block/sda`,
    files: {},
    device: "../../../0:0:0:0",
    beneath: { [`${ata}/model`]: "a\u0000b\u001b[31m\n", [`${ata}/vpd_pg80`]: page80("\0\0 \xff\x07x\0\0") },
    model: "a b [31m",
    serial: "ÿ x",
  },
  "a disk whose page of the serial number is cut off": {
    disk: `${ata}/block/sda`,
    files: {},
    device: "../../../0:0:0:0",
    beneath: { [`${ata}/vpd_pg80`]: page80("0123456789").subarray(0, 9) },
    serial: "01234",
  },
  "a disk with another page in that place": {
    disk: `${ata}/block/sda`,
    files: {},
    device: "../../../0:0:0:0",
    beneath: { [`${ata}/vpd_pg80`]: Buffer.from([0, 0x83, 0, 4, 49, 50, 51, 52]) },
  },
};

for (const [title, { model, serial, ...layout }] of Object.entries(layouts))
  test(`${title} is told as sysfs has it, and its partition as its disk`, (t) => {
    const expected = {
      ...(model === undefined ? {} : { model }),
      ...(serial === undefined ? {} : { serial }),
      logicalSectorSize: 512,
      physicalSectorSize: 4096,
    };
    for (const folder of made(t, layout)) t.deepEqual(deviceFacts(folder), expected, folder);
  });

test("a device that sysfs doesn't know has sectors of 512 bytes and no name", (t) => {
  t.deepEqual(deviceFacts(deviceFolder(0xfff00, "/nowhere")), { logicalSectorSize: 512, physicalSectorSize: 512 });
});

test("this machine's disks are told as lsblk has them", (t) => {
  const disks = existsSync("/sys/block")
    ? readdirSync("/sys/block").filter((name) => existsSync(`/sys/block/${name}/device`))
    : [];
  const known = disks.filter((name) => existsSync(`/dev/${name}`));
  if (known.length === 0) {
    t.log("skipped: there is no disk here");
    return t.pass();
  }
  for (const name of known) {
    const { logicalSectorSize, physicalSectorSize, ...named } = deviceFacts(
      deviceFolder(statSync(`/dev/${name}`).rdev),
    );
    const lsblk = tool("lsblk", "-d", "-n", "-o", "LOG-SEC,PHY-SEC", `/dev/${name}`);
    t.deepEqual([logicalSectorSize, physicalSectorSize], lsblk?.split(/ +/).map(Number), name);
    // lsblk asks udev for the names, which a container hasn't: the kernel's own file is what virtio has.
    if (existsSync(`/sys/block/${name}/serial`))
      t.is(named.serial, readFileSync(`/sys/block/${name}/serial`, "latin1").trim() || undefined, name);
    t.log(`${name}: ${JSON.stringify(named)}`);
  }
  return undefined;
});
