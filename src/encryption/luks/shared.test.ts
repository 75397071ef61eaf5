/** LUKS volumes that others made and that aren't opened: with a cipher that isn't known, headers alone, made to deceive. */
import test from "ava";
import { readExactly } from "../../bytes/byte-source.js";
import { openLayers } from "../../chain.js";
import { isRefused } from "../../images/qemu-test-tools.js";
import { sharedRows, sharedSecret, unpackShared } from "../../images/shared-test-images.js";

const reasons: Record<string, readonly [code: "corrupt" | "unsupported", word: string]> = {
  "evil_hdr-keyslot_overlap": ["corrupt", "into slot"],
  "evil_hdr-luks_hdr_damage": ["corrupt", "should have its key at byte"],
  "evil_hdr-payload_overwrite": ["corrupt", "should have its key at byte"],
  "evil_hdr-small_luks_device": ["corrupt", "should have its key at byte"],
  luks2_invalid_cipher: ["unsupported", "capi:xts"],
  luks2_valid_hdr: ["unsupported", "makes its keys with argon2,"],
  "luks2.raw": ["unsupported", "detached header"],
};

const rows = sharedRows().filter(({ container }) => /^luks/.test(container!));
if (rows.length === 0)
  test("the shared LUKS volumes", (t) => t.pass(t.log("skipped: there are no shared images") as undefined));
for (const row of rows) {
  const name = /([^/]+?)(\.img)?\.zst$/.exec(row.file!)![1]!;
  const reason = reasons[name];
  if (!reason) continue;
  test(`${row.file} is refused in words: ${reason[1]}`, (t) => {
    const path = unpackShared(t, row);
    isRefused(t, reason[0], { path, password: sharedSecret(row) ?? Buffer.from("x") }, path, reason[1]);
  });
}

// Nobody published what these decrypt to; their makers' own test asks for the serial number of the FAT volume within.
const serial = "DEAD-BABE";
const judgedBySerial = rows.filter(
  ({ file, raw_sha256 }) => /luks1_.*(serpent|twofish|wp256)/.test(file!) && !raw_sha256,
);
for (const row of judgedBySerial)
  test(`${row.file} holds the FAT volume ${serial}`, (t) => {
    const opened = openLayers({ path: unpackShared(t, row), password: sharedSecret(row) });
    t.teardown(() => opened.close());
    const start = readExactly(opened.disk, 0, 512, "the boot sector");
    t.is(start.toString("latin1", 54, 59), "FAT12");
    t.is(start.readUInt32LE(39).toString(16).toUpperCase(), serial.replace("-", ""));
  });

test("every shared LUKS volume is opened, or refused for a reason that is known", (t) => {
  const opened = rows.filter(({ raw_sha256, raw_size }) => raw_sha256 !== "" && raw_size !== "0");
  // Of this one nobody knows the password.
  const locked = rows.filter(({ file }) => /luks2_keyslot_unassigned/.test(file!));
  t.is(
    opened.length + judgedBySerial.length + locked.length + Object.keys(reasons).length,
    rows.length || Object.keys(reasons).length,
  );
});
