/** Disks in the containers of other tools, through a mount: every byte, and the files. */
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { drivers, makeDisk, people, serialFor, Workspace } from "./helpers.js";

const kinds: readonly (readonly [name: string, format: string, ...words: string[]])[] = [
  ["zlib.qcow2", "qcow2", "-c"],
  ["zstd.qcow2", "qcow2", "-c", "-o", "compression_type=zstd"],
  ["sub.qcow2", "qcow2", "-o", "extended_l2=on"],
  [
    "locked.qcow2",
    "qcow2",
    "--object",
    "secret,id=key,data=open sesame",
    "-o",
    "encrypt.format=aes,encrypt.key-secret=key",
  ],
  ["disk.vhd", "vpc", "-o", "force_size=on"],
  ["disk.vhdx", "vhdx", "-o", "block_size=1M"],
  ["disk.vmdk", "vmdk"],
  ["stream.vmdk", "vmdk", "-o", "subformat=streamOptimized"],
  ["split.vmdk", "vmdk", "-o", "subformat=twoGbMaxExtentFlat"],
  ["disk.vdi", "vdi"],
  ["disk.qed", "qed"],
  ["disk.hds", "parallels"],
];

const missing = ["qemu-img", "mke2fs"].filter(
  (name) => spawnSync("sh", ["-c", `PATH=$PATH:/sbin:/usr/sbin command -v ${name}`]).status !== 0,
);

/** A disk with a filesystem, and the same in every container: made once, for both drivers. */
interface Made {
  readonly folder: string;
  readonly raw: string;
  readonly note: Buffer;
}
let made: Made | undefined;

function containers(): Made {
  if (made) return made;
  const folder = mkdtempSync(join(tmpdir(), "spindle-containers-"));
  chmodSync(folder, 0o755);
  made = { folder, raw: join(folder, "disk.img"), note: Buffer.alloc(200_000, "read me ") };
  const run = (command: string, ...words: string[]) =>
    execFileSync(command, words, {
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
      stdio: "pipe",
    });
  writeFileSync(made.raw, makeDisk());
  mkdirSync(join(folder, "files"));
  writeFileSync(join(folder, "files/note"), made.note);
  // Within the partition of the test disk, which begins at 1 MiB.
  run("mke2fs", "-q", "-F", "-t", "ext4", "-d", join(folder, "files"), "-E", "offset=1048576", made.raw, "15m");
  writeFileSync(join(folder, "password"), "open sesame\n");
  for (const [name, format, ...words] of kinds)
    run("qemu-img", "convert", "-q", "-f", "raw", "-O", format, ...words, made.raw, join(folder, name));
  return made;
}

test.after.always(() => {
  if (made) rmSync(made.folder, { recursive: true, force: true });
});

for (const driver of drivers)
  serialFor(people[0])(`disks in containers are mounted, as disks and as files (${driver})`, async (t) => {
    if (missing.length > 0)
      return void t.pass(t.log(`skipped: ${missing.join(" and ")} is not installed`) as undefined);
    const place = new Workspace(t, people[0]!, driver);
    const { mountpoint } = place;
    const { folder, raw, note } = containers();
    const disk = readFileSync(raw);
    const mount = async (...words: string[]) => {
      const { code, stderr } = await place.spindle(["mount", ...words, "--driver", driver, "--workers", "2"]);
      t.is(code, 0, `${words.join(" ")}: ${stderr}`);
    };
    for (const [name] of kinds) {
      const image = join(folder, name);
      const password = name.startsWith("locked") ? ["--password-file", join(folder, "password")] : [];
      await mount(image, mountpoint, "--as", "disk", ...password);
      t.true(readFileSync(join(mountpoint, "disk.raw")).equals(disk), name);
      t.true(readFileSync(join(mountpoint, "p1.raw")).equals(disk.subarray(1 << 20)), name);
      place.unmountPlainly(t);
      await mount(image, mountpoint, ...password);
      t.deepEqual(readdirSync(mountpoint).sort(), ["lost+found", "note"], name);
      t.true(readFileSync(join(mountpoint, "note")).equals(note), name);
      place.unmountPlainly(t);
    }
    t.false(place.isMounted);
  });

// By the direct driver alone, whose workers may unpack ahead.
serialFor(people[0])("who reads in order across chunks that aren't stored costs no worker its life", async (t) => {
  if (missing.length > 0) return void t.pass(t.log(`skipped: ${missing.join(" and ")} is not installed`) as undefined);
  const place = new Workspace(t, people[0]!, "direct");
  const { mountpoint } = place;
  const folder = mkdtempSync(join(tmpdir(), "spindle-holes-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  chmodSync(folder, 0o755);
  const [raw, spin] = [join(folder, "disk.img"), join(folder, "disk.spin")];
  const chunk = 65536;
  const disk = Buffer.alloc(256 * chunk);
  for (let at = 0; at < disk.length; at += 8) if ((at / chunk) % 5 < 3) disk.writeDoubleLE(Math.sqrt(at + 1), at);
  writeFileSync(raw, disk);
  t.is((await place.spindle(["create", raw, spin])).code, 0);
  const images = ["zlib.qcow2", "stream.vmdk"].map((name) => {
    const [, format, ...words] = kinds.find(([kind]) => kind === name)!;
    execFileSync("qemu-img", ["convert", "-q", "-f", "raw", "-O", format, ...words, raw, join(folder, name)]);
    return join(folder, name);
  });
  for (const image of [spin, ...images]) {
    t.is((await place.spindle(["mount", image, mountpoint, "--as", "disk"])).code, 0);
    const dd = ["if=disk.raw", `of=${join(folder, "read")}`, "bs=64K", "iflag=direct", "status=none"];
    execFileSync("dd", dd, { cwd: mountpoint });
    t.true(readFileSync(join(folder, "read")).equals(disk), image);
    const { stdout } = await place.spindle(["status", mountpoint, "--json"]);
    const { counters } = JSON.parse(stdout) as { counters: Record<string, number> };
    t.is(counters.workersReplaced, 0, image);
    t.true(counters.ahead! > 0, `${image}: nothing was unpacked ahead`);
    place.unmountPlainly(t);
  }
});
