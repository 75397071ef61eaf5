import test from "ava";
import type { VolumeTable } from "../volumes/volume.js";
import { type InfoResult, infoText } from "./info-text.js";

const none: VolumeTable = { scheme: "none", sectorSize: 512, id: "", volumes: [], warnings: [] };

const gpt: VolumeTable = {
  scheme: "gpt",
  sectorSize: 512,
  id: "e86e657a-d840-4c09-afe3-a1a5f665cf44",
  warnings: ["The backup GPT differs from the primary one, which is used."],
  volumes: [
    {
      number: 1,
      position: 1048576,
      size: 536870912,
      type: "EFI System",
      typeCode: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
      label: "ESP",
      id: "",
      bootable: true,
    },
    {
      number: 12,
      position: 537919488,
      size: 1610612736,
      type: "Linux filesystem",
      typeCode: "0fc63daf-8483-4772-8e79-3d69d8477de4",
      label: "",
      id: "",
      bootable: false,
    },
  ],
};

const info: InfoResult = {
  path: "monday.spin",
  format: "spin",
  size: 4294967296,
  chain: [
    { file: "/b/monday.spin", format: "spin", facts: { label: "", chunkSize: 65536, comment: "before the move" } },
    { file: "/b/base.spin", format: "spin", facts: { chunkSize: 65536, sectors: [512, 4096], model: undefined } },
  ],
  volumes: gpt,
  filesystems: [],
};

test("an image with a chain and partitions is told in aligned blocks", (t) => {
  t.is(
    infoText(info),
    `Image       monday.spin
Format      spin
Disk size   4 GiB (4,294,967,296 bytes)
Partitions  GPT e86e657a-d840-4c09-afe3-a1a5f665cf44, 2 partitions, sectors of 512 bytes

Layer 1 of 2, newest: /b/monday.spin (spin)
  chunk size  64 KiB (65,536 bytes)
  comment     before the move

Layer 2 of 2: /b/base.spin (spin)
  chunk size  64 KiB (65,536 bytes)
  sectors     512, 4096

Warning: The backup GPT differs from the primary one, which is used.

Number  Start sector  Start byte       Bytes     Size  Type                  Label
     1          2048     1048576   536870912  512 MiB  EFI System, bootable  ESP
    12       1050624   537919488  1610612736  1.5 GiB  Linux filesystem`,
  );
});

test("a single image without partitions", (t) => {
  const text = infoText({ ...info, size: 100, chain: [{ file: "a.raw", format: "raw", facts: {} }], volumes: none });
  t.is(
    text,
    `Image       monday.spin
Format      spin
Disk size   100 bytes
Partitions  no partition table

a.raw (raw)`,
  );
});

test("names from the image can't command the terminal", (t) => {
  const volumes = { ...gpt, volumes: [{ ...gpt.volumes[0]!, label: "\u001b[2Jx\n\u202ey\u0085" }] };
  const facts = { comment: "a\u001b]0;t\u0007\rb", nested: { note: "\u009b1m" } };
  const text = infoText({ ...info, chain: [{ file: "a\u0008", format: "raw", facts }], volumes });
  t.notRegex(text, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e]/);
  t.true(text.includes("\\u001b[2Jx\\u000a\\u202ey\\u0085"));
});

test("filesystems are told with their size and use, and what is wrong with them", (t) => {
  const text = infoText({
    ...info,
    filesystems: [
      { name: "p1", filesystem: undefined, problem: "monday.spin > partition 1: byte 3: no \u001bsense." },
      {
        name: "p12",
        filesystem: {
          type: "ext4",
          label: "root",
          size: 1610612736,
          free: 536870912,
          facts: { uuid: "e86e657a", blockSize: 4096 },
          warnings: ["Its journal was replayed."],
        },
      },
    ],
  });
  t.true(
    text.includes(`Warning: The backup GPT differs from the primary one, which is used.
Warning: p1: monday.spin > partition 1: byte 3: no \\u001bsense.
Warning: p12: Its journal was replayed.
`),
  );
  t.true(
    text.endsWith(`
Filesystem of p12: ext4
  label            root
  filesystem size  1.5 GiB (1,610,612,736 bytes)
  used             1 GiB (1,073,741,824 bytes)
  free             512 MiB (536,870,912 bytes)
  uuid             e86e657a
  block size       4 KiB (4,096 bytes)`),
  );
});

test("what isn't read is named", (t) => {
  const unread = {
    type: "xfs",
    what: "an XFS filesystem",
    label: "a\u001bb",
    uuid: "8c8a0a5a-9f57-492e-9610-45a61f38f58a",
  };
  const filesystems = [{ name: "p12", filesystem: undefined, unread }];
  t.true(
    infoText({ ...info, filesystems }).endsWith(`
Not read on p12: an XFS filesystem
  type   xfs
  label  a\\u001bb
  uuid   8c8a0a5a-9f57-492e-9610-45a61f38f58a`),
  );
});
