/** LUKS volumes that others made and that aren't opened: with ciphers that aren't known, headers alone, made to deceive. */
import test from "ava";
import { isRefused } from "../../images/qemu-test-tools.js";
import { sharedRows, sharedSecret, unpackShared } from "../../images/shared-test-images.js";

const reasons: Record<string, readonly [code: "corrupt" | "unsupported", word: string]> = {
  "evil_hdr-keyslot_overlap": ["corrupt", "into slot"],
  "evil_hdr-luks_hdr_damage": ["corrupt", "should have its key at byte"],
  "evil_hdr-payload_overwrite": ["corrupt", "should have its key at byte"],
  "evil_hdr-small_luks_device": ["corrupt", "should have its key at byte"],
  "luks1_aes-xts-essiv-wp256-whirlpool": ["unsupported", "hash whirlpool"],
  "luks1_aes-xts-plain64-whirlpool": ["unsupported", "hash whirlpool"],
  "luks1_serpent-xts-plain64-sha1": ["unsupported", "serpent"],
  "luks1_twofish-xts-plain64-sha1": ["unsupported", "twofish"],
  "luks1_twofish-xts-plain64-whirlpool": ["unsupported", "whirlpool"],
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

test("every shared LUKS volume is opened, or refused for a reason that is known", (t) => {
  const opened = rows.filter(
    ({ raw_sha256, file, raw_size }) => raw_sha256 !== "" && !/whirlpool/.test(file!) && raw_size !== "0",
  );
  // Of this one nobody knows the password.
  const locked = rows.filter(({ file }) => /luks2_keyslot_unassigned/.test(file!));
  t.is(opened.length + locked.length + Object.keys(reasons).length, rows.length || Object.keys(reasons).length);
});
