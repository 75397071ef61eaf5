/** Disks in the containers of other tools, through a mount: every byte, and the files. */
import { spawnSync } from "node:child_process";
import { chownSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { drivers, people, serialFor, Workspace } from "./helpers.js";

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

for (const driver of drivers)
  serialFor(people[0])(`disks in containers are mounted, as disks and as files (${driver})`, async (t) => {
    if (missing.length > 0)
      return void t.pass(t.log(`skipped: ${missing.join(" and ")} is not installed`) as undefined);
    const place = new Workspace(t, people[0]!, driver);
    const { folder, mountpoint, image: raw } = place;
    const run = async (command: string, ...words: string[]) => {
      const { code, stdout, stderr } = await place.run(command, words);
      t.is(code, 0, `${command} ${words.join(" ")}: ${stderr}`);
      return stdout;
    };
    const spindle = async (...words: string[]) => {
      const { code, stderr } = await place.spindle(words);
      t.is(code, 0, `${words.join(" ")}: ${stderr}`);
    };
    const note = Buffer.alloc(200_000, "read me ");
    await run("mkdir", join(folder, "files"));
    writeFileSync(join(folder, "files/note"), note);
    chownSync(join(folder, "files/note"), place.person.uid, place.person.gid);
    // Within the partition of the test disk, which begins at 1 MiB.
    await run("mke2fs", "-q", "-F", "-t", "ext4", "-d", join(folder, "files"), "-E", "offset=1048576", raw, "15m");
    const disk = readFileSync(raw);
    writeFileSync(join(folder, "password"), "open sesame\n");
    for (const [name, format, ...words] of kinds) {
      const image = join(folder, name);
      await run("qemu-img", "convert", "-q", "-f", "raw", "-O", format, ...words, raw, image);
      const password = name.startsWith("locked") ? ["--password-file", join(folder, "password")] : [];
      await spindle("mount", image, mountpoint, "--as", "disk", "--driver", driver, ...password);
      t.true(readFileSync(join(mountpoint, "disk.raw")).equals(disk), name);
      t.true(readFileSync(join(mountpoint, "p1.raw")).equals(disk.subarray(1 << 20)), name);
      await spindle("unmount", mountpoint);
      await spindle("mount", image, mountpoint, "--driver", driver, ...password);
      t.deepEqual(readdirSync(mountpoint).sort(), ["lost+found", "note"], name);
      t.true(readFileSync(join(mountpoint, "note")).equals(note), name);
      await spindle("unmount", mountpoint);
    }
    t.false(place.isMounted);
  });
