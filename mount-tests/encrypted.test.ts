/** An encrypted disk through a mount: its files with the password, and without it what is not encrypted. */
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import ava from "ava";
import { drivers, people, serialFor, Workspace } from "./helpers.js";

const MiB = 1 << 20;
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const missing = ["cryptsetup", "mke2fs"].filter((tool) => spawnSync(tool, ["--version"], { env }).error !== undefined);

/** A filesystem that cryptsetup encrypted; made once. */
interface Made {
  readonly folder: string;
  readonly volume: string;
  /** A disk with the filesystem as it was, and beside it encrypted. */
  readonly partitioned: string;
  readonly note: Buffer;
}
let made: Made | undefined;
function encrypted(): Made {
  if (made) return made;
  const folder = mkdtempSync(join(tmpdir(), "spindle-encrypted-"));
  chmodSync(folder, 0o755);
  const [volume, partitioned] = [join(folder, "volume"), join(folder, "disk")];
  made = { folder, volume, partitioned, note: Buffer.alloc(500_000, "for some to read ") };
  mkdirSync(join(folder, "files"));
  writeFileSync(join(folder, "files/note"), made.note);
  writeFileSync(join(folder, "password"), "open sesame");
  execFileSync("mke2fs", ["-q", "-t", "ext4", "-d", join(folder, "files"), made.volume, "4m"], { env, stdio: "pipe" });
  const plain = readFileSync(volume);
  truncateSync(volume, 6 * MiB);
  const sizes = ["--luks2-metadata-size", "16k", "--luks2-keyslots-size", "512k", "--reduce-device-size", "2M"];
  const key = ["--pbkdf", "argon2id", "--pbkdf-memory", "32", "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "1"];
  const words = ["reencrypt", "--encrypt", "--type", "luks2", ...sizes, ...key, "--key-file", join(folder, "password")];
  execFileSync("cryptsetup", [...words, "--batch-mode", "--disable-locks", made.volume], { env, stdio: "pipe" });
  const table = Buffer.alloc(MiB);
  table.writeUInt16BE(0x55aa, 510);
  for (const [nth, start, length] of [
    [0, 1, 4],
    [1, 5, 6],
  ] as const) {
    const entry = 446 + nth * 16;
    table[entry + 4] = 0x83;
    table.writeUInt32LE((start * MiB) / 512, entry + 8);
    table.writeUInt32LE((length * MiB) / 512, entry + 12);
  }
  writeFileSync(partitioned, Buffer.concat([table, plain, readFileSync(volume)]));
  return made;
}

ava.after.always(() => {
  if (made) rmSync(made.folder, { recursive: true, force: true });
});

for (const driver of drivers)
  serialFor(people[0])(
    `an encrypted disk is mounted with its password, and an encrypted partition is told of (${driver})`,
    async (t) => {
      if (missing.length > 0) {
        t.log(`skipped: ${missing.join(" and ")} (Debian: cryptsetup-bin, e2fsprogs) aren't installed`);
        t.pass();
        return;
      }
      const { folder, volume, partitioned, note } = encrypted();
      const place = new Workspace(t, people[0]!, driver);
      const mount = ["mount", volume, place.mountpoint, "--driver", driver, "--workers", "2"];
      const refused = await place.spindle(mount);
      t.is(refused.code, 9);
      t.regex(refused.stderr, /is encrypted \(LUKS 2, aes-xts-plain64\).*--password-file/);
      const { code, stderr } = await place.spindle([...mount, "--password-file", join(folder, "password")]);
      t.is(code, 0, stderr);
      t.true(await place.holds("note", note));
      place.unmountPlainly(t);
      // Beside a partition that is open, an encrypted one is told of.
      mount[1] = partitioned;
      const open = await place.spindle(mount);
      t.is(open.code, 0, open.stderr);
      t.regex(open.stderr, /partition 2: is encrypted/);
      t.true(await place.holds("note", note));
      place.unmountPlainly(t);
    },
  );
