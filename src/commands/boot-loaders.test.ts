import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { fileSystemOf, openImage } from "../open.js";
import { efiPartitions, loaderIn } from "./boot-loaders.js";

const MiB = 1024 * 1024;
/** An MBR whose one partition, from 1 MiB on, is an EFI system partition, with these files, all empty, in a FAT. */
function loaderAmong(t: ExecutionContext, ...files: string[]) {
  const folder = mkdtempSync(join(tmpdir(), "spindle-loaders-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "disk");
  const disk = Buffer.alloc(3 * MiB);
  disk[446 + 4] = 0xef;
  disk.writeUInt32LE(2048, 446 + 8);
  disk.writeUInt32LE(4096, 446 + 12);
  disk.writeUInt16LE(0xaa55, 510);
  writeFileSync(path, disk);
  writeFileSync(join(folder, "empty"), "");
  const image = `${path}@@1M`;
  const run = (program: string, ...words: string[]) => {
    const { status, stderr } = spawnSync(program, words, {
      encoding: "utf8",
      env: { ...process.env, MTOOLS_SKIP_CHECK: "1" },
    });
    if (status !== 0) throw new Error(`${program} ${words.join(" ")}: ${stderr}`);
  };
  run("mformat", "-i", image, "-t", "64", "-h", "2", "-s", "32");
  const folders = new Set<string>();
  for (const file of files) {
    const names = file.split("/");
    for (let depth = 1; depth < names.length; depth++) folders.add(names.slice(0, depth).join("/"));
  }
  for (const each of [...folders].sort()) run("mmd", "-i", image, `::${each}`);
  for (const file of files) run("mcopy", "-i", image, join(folder, "empty"), `::${file}`);
  const opened = openImage({ path });
  try {
    const [volume] = efiPartitions(opened.table);
    const found = loaderIn(volume!, fileSystemOf(opened, 1)!);
    return found && [found.path, found.isUsual];
  } finally {
    opened.close();
  }
}

const haveMtools = spawnSync("mformat", ["--version"]).error === undefined;
const withMtools = haveMtools ? test : test.skip;
if (!haveMtools) console.log("Skipped: mtools is not installed (apt install mtools).");

withMtools("what a firmware finds by itself comes first, in whatever capitals", (t) => {
  const usual = ["\\EFI\\BOOT\\BOOTX64.EFI", true];
  t.deepEqual(loaderAmong(t, "efi/boot/bootx64.efi", "efi/debian/shimx64.efi"), usual);
  t.deepEqual(loaderAmong(t, "EFI/BOOT/BOOTX64.EFI"), usual);
});

withMtools("a system's own loader is found in its folder, and shim before the GRUB that it starts", (t) => {
  t.deepEqual(loaderAmong(t, "EFI/debian/grubx64.efi", "EFI/debian/shimx64.efi", "EFI/debian/mmx64.efi"), [
    "\\EFI\\debian\\shimx64.efi",
    false,
  ]);
  t.deepEqual(loaderAmong(t, "EFI/Microsoft/Boot/bootmgfw.efi", "EFI/Microsoft/Boot/memtest.efi"), [
    "\\EFI\\Microsoft\\Boot\\bootmgfw.efi",
    false,
  ]);
});

withMtools("of another processor, or without any loader, there is nothing to boot", (t) => {
  t.is(loaderAmong(t, "EFI/BOOT/BOOTAA64.EFI", "EFI/debian/grubaa64.efi"), undefined);
  t.is(loaderAmong(t, "grubx64.efi"), undefined);
  t.is(loaderAmong(t), undefined);
});
