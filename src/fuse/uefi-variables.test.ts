/** That a firmware boots by these variables mount-tests/boot.test.ts shows; here, that only what they fit in is written to. */
import { existsSync, readFileSync } from "node:fs";
import test from "ava";
import { ImageError } from "../errors.js";
import { withBootEntry } from "./uefi-variables.js";

const loader = {
  partition: { number: 3, position: 2048 * 512, size: 4096 * 512 },
  id: "01234567-89ab-cdef-0123-456789abcdef",
  scheme: "gpt" as const,
  sectorSize: 512,
  path: "\\EFI\\debian\\shimx64.efi",
};

/** A flash with room for `room` bytes of variables. */
function flash(room: number): Buffer {
  const bytes = Buffer.alloc(72 + 28 + room, 0xff);
  bytes.write("_FVH", 40, "latin1");
  bytes.writeUInt16LE(72, 48);
  Buffer.from("782cf3aa7b949a43a1802e144ec37792", "hex").copy(bytes, 72);
  bytes.writeUInt32LE(28 + room, 72 + 16);
  bytes.set([0x5a, 0xfe], 72 + 20);
  return bytes;
}

test("the entry stands behind the variables that are there, in the room that the flash has", (t) => {
  const one = withBootEntry(flash(1000), "x", loader);
  t.is(one.length, flash(1000).length);
  t.is(one.readUInt16LE(100), 0x55aa);
  t.true(one.includes(Buffer.from("Boot0000\0", "utf16le")));
  t.true(one.includes(Buffer.from("\\EFI\\debian\\shimx64.efi\0", "utf16le")));
  t.true(one.includes(Buffer.from("67452301ab89efcd0123456789abcdef0202", "hex")), "the GUID as it is on the disk");
  const two = withBootEntry(one, "x", loader);
  const names = two.toString("latin1").split("B\0o\0o\0t\0").length - 1;
  t.is(names, 4);
});

test("an MBR's partition goes by the disk's signature", (t) => {
  const bytes = withBootEntry(flash(1000), "x", { ...loader, scheme: "mbr", id: "12345678" });
  t.true(bytes.includes(Buffer.from(`78563412${"00".repeat(12)}0101`, "hex")));
});

test("what is no empty flash of variables is refused, and never written to outside", (t) => {
  const refused = (bytes: Buffer) =>
    t.throws(() => withBootEntry(bytes, "VARS.fd", loader), {
      instanceOf: ImageError,
      message: /^VARS\.fd: is no empty/,
    });
  refused(Buffer.alloc(0));
  refused(Buffer.alloc(1000));
  refused(flash(150));
  for (const at of [40, 48, 72, 92, 93]) {
    const bytes = flash(1000);
    bytes[at]! ^= 0x55;
    refused(bytes);
  }
  const used = flash(1000);
  used[200] = 0;
  refused(used);
  const endless = flash(1000);
  endless.writeUInt16LE(0x55aa, 100);
  endless.fill(0xff, 136, 144);
  refused(endless);
});

const debian = "/usr/share/OVMF/OVMF_VARS_4M.fd";
(existsSync(debian) ? test : test.skip)("the variables of Debian's firmware (ovmf) take it", (t) => {
  const template = readFileSync(debian);
  t.true(withBootEntry(template, debian, loader).includes(Buffer.from("Boot0000\0", "utf16le")));
});
if (!existsSync(debian)) console.log(`Skipped: ${debian} is not installed (apt install ovmf).`);
