/** Images that other tools made, of every kind that is read: the disk has the SHA-256 that yet others computed. */
import { basename } from "node:path";
import test from "ava";
import { openLayers } from "../chain.js";
import { ImageError } from "../errors.js";
import { sha256OfDisk, sharedRows, sharedSecret, unpackShared } from "./shared-test-images.js";

/** Files that an image needs, where the index doesn't name them as its own. */
const belongings: Record<string, readonly string[]> = {
  "backing-chain-1.qcow2.zst": ["backing-chain-2.qcow2", "backing-chain-3.qcow2"],
  "backing-chain-2.qcow2.zst": ["backing-chain-3.qcow2"],
  "data-file.qcow2.zst": ["data-file.bin"],
};

/** What isn't opened: of an encrypted volume the index tells what it decrypts to. */
const encrypted = /^(bitlocker|corestorage)/;
/** Of those that are raw the hash proves little and hashing takes long: small ones do. */
const largestRaw = 4 << 20;
/** A disk larger than this is compared in its format's own test, passing what is a hole to all. */
const largest = 2 ** 31;

const rows = sharedRows().filter(({ container, raw_sha256, raw_size, class: kind }) => {
  if (raw_sha256 === "" || encrypted.test(container!) || Number(raw_size) > largest) return false;
  if (container === "raw?" || kind === "corrupt" || Number(raw_size) === 0) return false;
  return container !== "raw" || Number(raw_size) <= largestRaw;
});
if (rows.length === 0)
  test("the shared images", (t) => t.pass(t.log("skipped: there are no shared images") as undefined));

for (const row of rows)
  test(`${row.file} (${row.container}) is the disk that ${row.raw_reference_tool} reads`, (t) => {
    const path = unpackShared(t, row, belongings[basename(row.file!)]);
    const password = sharedSecret(row);
    let opened: ReturnType<typeof openLayers>;
    try {
      opened = openLayers({ path, password });
    } catch (error) {
      if (!(error instanceof ImageError) || !/which this Spindle does not read/.test(error.message)) throw error;
      t.pass(t.log(`skipped: ${row.container} is not read yet`) as undefined);
      return;
    }
    t.teardown(() => opened.close());
    t.is(opened.disk.size, Number(row.raw_size));
    t.is(sha256OfDisk(opened.disk), row.raw_sha256);
  });
