/** Volumes that Windows encrypted, from cryptsetup's tests: plain, they have the SHA-256 that cryptsetup and dislocker give. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { FileSource } from "../../bytes/file.js";
import { ImageError } from "../../errors.js";
import { type SharedRow, sharedRows, unpackShared } from "../../images/shared-test-images.js";
import type { PlainVolume } from "../encryption.js";
import { bitlocker } from "./index.js";

const rows = sharedRows().filter(({ container }) => container === "bitlocker");
if (rows.length === 0)
  test("the shared BitLocker volumes", (t) => t.pass(t.log("skipped: there are no shared images") as undefined));

/** Which of a volume's secrets are used, where it has more: each stretching of a password takes a second. */
const ways: Record<string, readonly string[]> = {
  "bitlk-aes-cbc-128-4k.img": ["recovery"],
  "bitlk-aes-cbc-256.img": ["password"],
  "bitlk-aes-cbc-elephant-128.img": ["recovery"],
  "bitlk-aes-xts-128-4k.img": ["password"],
  "bitlk-aes-xts-128-crc.img": ["recovery"],
  "bitlk-aes-xts-128-first-recovery.img": ["password", "recovery"],
  "bitlk-aes-xts-128-unicode.img": ["password"],
  "bitlk-aes-xts-256.img": ["recovery"],
  "bitlk-togo-aes-cbc-128.img": ["password"],
};

function secretOf(row: SharedRow, folder: string, way: string | undefined): Uint8Array | undefined {
  const file = /BEK file (\S+)/.exec(row.secret!)?.[1];
  if (file) return readFileSync(join(folder, file));
  const words = way && new RegExp(`${way}: (\\S+)`).exec(row.secret!)?.[1];
  return words === undefined ? undefined : Buffer.from(words);
}

function opened(t: ExecutionContext, path: string, password: Uint8Array | undefined): PlainVolume {
  const file = FileSource.open(path);
  t.teardown(() => file.close());
  t.true(bitlocker.recognises(file));
  return bitlocker.open(file, { password, remember: (_, compute) => compute() });
}

function sha256Of(source: ByteSource): string {
  const hash = createHash("sha256");
  const buffer = Buffer.alloc(1 << 20);
  for (let position = 0; position < source.size; ) {
    const got = readFully(source, position, buffer);
    hash.update(buffer.subarray(0, got));
    position += got;
  }
  return hash.digest("hex");
}

for (const row of rows) {
  const name = basename(row.file!, ".zst");
  if (row.raw_sha256 === "") {
    test(`${name}, whose table of what is encrypted was wiped, is refused with the table's place`, (t) => {
      const path = unpackShared(t, row);
      const error = t.throws(() => opened(t, path, undefined), { instanceOf: ImageError });
      t.is(error?.code, "corrupt");
      t.regex(error?.message ?? "", /isn't at byte 35352576.*which parts of the volume are encrypted/);
    });
    continue;
  }
  test(`${name} is the volume that cryptsetup decrypts`, (t) => {
    const file = /BEK file (\S+)/.exec(row.secret!)?.[1];
    const path = unpackShared(t, row, file ? [file] : []);
    const [first, ...more] = ways[name] ?? [undefined];
    const volume = opened(t, path, secretOf(row, dirname(path), first));
    t.is(volume.source.size, Number(row.raw_size));
    t.is(sha256Of(volume.source), row.raw_sha256);
    for (const way of more) {
      const again = opened(t, path, secretOf(row, dirname(path), way));
      t.notDeepEqual(again.facts.openedWith, volume.facts.openedWith);
    }
    if (name.includes("-crc")) t.like(volume.facts, { metadataAt: 57909248, damagedMetadata: { length: 2 } });
  });
}
