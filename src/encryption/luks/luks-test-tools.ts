/** Tests only: volumes that cryptsetup encrypts, which it does in a file without the kernel's help. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ExecutionContext } from "ava";

export const passphrase = "Grüße, 7×7";
export const password = new TextEncoder().encode(passphrase);

/** Cheap keys, since the tests are no attackers. */
export const quickPbkdf2 = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

const MiB = 1 << 20;

/** What `cryptsetup` says; its failure is the test's failure. `secret` is on its standard input, and is what `--key-file -` reads. */
export function cryptsetup(words: readonly string[], secret: Uint8Array = password): string {
  const done = spawnSync("cryptsetup", [...words, "--batch-mode", "--disable-locks"], { input: secret });
  if (done.status !== 0) throw new Error(`cryptsetup ${words.join(" ")}: ${done.error ?? done.stderr}`);
  return done.stdout.toString();
}

/** Whether cryptsetup is here; if not, the test says so and is to return. */
export function hasCryptsetup(t: ExecutionContext): boolean {
  const has = spawnSync("cryptsetup", ["--version"]).status === 0;
  if (!has) t.pass(t.log("skipped: cryptsetup is not installed (Debian: cryptsetup-bin)") as undefined);
  return has;
}

/** Encrypts a disk as LUKS 2, in `folder`; its size is `plain`'s and 1 MiB. */
export function encrypt2(
  folder: string,
  name: string,
  plain: Uint8Array,
  options: readonly string[] = quickPbkdf2,
  secret: Uint8Array = password,
): string {
  const path = join(folder, name);
  writeFileSync(path, plain);
  // The data move to behind the headers, and by half of what is added at the end.
  truncateSync(path, plain.length + 2 * MiB);
  const sizes = ["--luks2-metadata-size", "16k", "--luks2-keyslots-size", "512k", "--reduce-device-size", "2M"];
  cryptsetup(["reencrypt", "--encrypt", "--type", "luks2", ...sizes, ...options, "--key-file", "-", path], secret);
  return path;
}

/** Puts `json` in both headers of a volume of LUKS 2, or in `header` alone, with their checksums. */
export function withJson(
  volume: Uint8Array,
  json: string,
  headers: readonly number[] = [0, 16384],
  sequence?: bigint,
): Buffer {
  const bytes = Buffer.from(volume);
  for (const at of headers) {
    const header = bytes.subarray(at, at + 16384);
    if (sequence !== undefined) header.writeBigUInt64BE(sequence, 16);
    header.fill(0, 448, 512).fill(0, 4096);
    header.write(json, 4096);
    createHash("sha256").update(header).digest().copy(header, 448);
  }
  return bytes;
}

export const jsonOf = (volume: Buffer): string => volume.toString("utf8", 4096, volume.indexOf(0, 4096));
