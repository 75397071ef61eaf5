/**
 * Booting in a virtual machine: of a disk whose boot sector is all there is on it, which writes a sector, and greets on COM1;
 * and of one with an EFI system partition, whose program greets likewise.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { comesTrue, type DriverName, drivers, people, runs, serialFor, spindleProgram, Workspace } from "./helpers.js";

const person = people[0]!;
const asFirst = serialFor(person);
const haveMachine = spawnSync("qemu-system-x86_64", ["--version"]).status === 0;

const code = [
  ...[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0], // xor ax,ax; mov ds,ax; mov es,ax
  ...[0xb8, 0x01, 0x03, 0xbb, 0x00, 0x7c], // mov ax,0301; mov bx,7c00: write one sector, these very bytes
  ...[0xb9, 0x03, 0x00, 0xba, 0x80, 0x00, 0xcd, 0x13], // mov cx,3; mov dx,80; int 13: to the third sector of the first disk
  ...[0xbe, 0x40, 0x7c, 0xba, 0xf8, 0x03], // mov si,7c40; mov dx,3f8: what is said, and COM1
  ...[0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8], // lodsb; test al,al; jz on; out dx,al; jmp lodsb
  ...[0xf4, 0xeb, 0xfd], // hlt, for ever
];

/** Of boots that others do meanwhile. */
const folders = () =>
  person.uid === 0 && existsSync("/run/spindle")
    ? readdirSync("/run/spindle").filter((name) => name.startsWith("boot-"))
    : [];
let before: string[] = [];
test.beforeEach(() => {
  before = folders();
});

function bootable(t: ExecutionContext, driver: DriverName, says: string): Workspace | undefined {
  if (!haveMachine) {
    t.log("skipped: qemu-system-x86_64 is not installed (apt install qemu-system-x86)");
    return undefined;
  }
  const place = new Workspace(t, person, driver);
  place.disk.fill(0, 0, 440);
  Buffer.from(code).copy(place.disk);
  place.disk.write(`${says}\0`, 0x40, "latin1");
  writeFileSync(place.image, place.disk);
  return place;
}

/** Nothing is left of a boot: no mount, no server, no folder. */
async function nothingIsLeft(t: ExecutionContext, place: Workspace): Promise<void> {
  t.true(await comesTrue(() => place.processes().length === 0));
  t.false(readFileSync("/proc/self/mountinfo", "utf8").includes(place.image));
  t.deepEqual(folders(), before);
  t.true(readFileSync(place.image).equals(place.disk), "the image never changes");
}

for (const driver of drivers) {
  asFirst(
    `a disk that boots is told so, with a picture of its screen, and what it wrote is in the overlay (${driver})`,
    async (t) => {
      const place = bootable(t, driver, "\r\nspindle login: ");
      if (!place) return;
      const [overlay, picture] = [join(place.folder, "o"), join(place.folder, "screen.png")];
      const words = [
        "boot",
        place.image,
        "--driver",
        driver,
        "--check",
        "--json",
        `--writable=${overlay}`,
        "--screenshot",
        picture,
      ];
      const {
        code: status,
        stdout,
        stderr,
      } = await place.spindle([...words, "--bus", "ide", "--accel", "tcg", "--", "-smp", "2"]);
      t.is(status, 0, stderr);
      t.like(JSON.parse(stdout), { firmware: "bios", reached: true, screenshot: picture });
      t.is(readFileSync(picture).toString("latin1", 1, 4), "PNG");
      await nothingIsLeft(t, place);
      await place.mount(`--writable=${overlay}`);
      const expected = Buffer.from(place.disk);
      place.disk.copy(expected, 1024, 0, 512);
      t.true(await place.holds("disk.raw", expected), "the third sector is what the machine wrote");
      t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
    },
  );

  asFirst(
    `a disk that doesn't say what is waited for is told as failed, with its last words (${driver})`,
    async (t) => {
      const place = bootable(t, driver, "Kernel panic\r\n");
      if (!place) return;
      // An EFI system partition without a filesystem.
      place.disk[446 + 4] = 0xef;
      writeFileSync(place.image, place.disk);
      const words = ["boot", place.image, "--driver", driver, "--check"];
      // How long a machine takes until it says anything depends on what else runs: it is given more where it had not come so far.
      for (const seconds of ["4", "20", "60"]) {
        const { code: status, stderr } = await place.spindle([...words, "--accel", "tcg", "--timeout", seconds]);
        t.is(status, 8);
        if (!/Kernel panic/.test(stderr) && seconds !== "60") continue;
        t.regex(stderr, /did not say "login: " within [0-9]+ seconds\. The last that it said: .*Kernel panic/);
        t.notRegex(stderr, /--accel/);
        t.regex(stderr, /booting by BIOS: its EFI system partition has nothing to boot/);
        break;
      }
      // Where there is no KVM at all, QEMU says so and ends.
      const byKvm = await place.spindle([...words, "--accel", "kvm", "--marker", "never", "--timeout", "1"]);
      t.is(byKvm.code, 8);
      t.regex(byKvm.stderr, /Try it without KVM: --accel tcg/);
      const ended = await place.spindle([...words, "--", "-no-such-option"]);
      t.is(ended.code, 8);
      t.regex(ended.stderr, /machine ended before its serial console said .*no-such-option/);
      await nothingIsLeft(t, place);
    },
  );

  asFirst(`a boot that is ended by a signal takes its machine and its mount along (${driver})`, async (t) => {
    const place = bootable(t, driver, "wait");
    if (!place) return;
    const child = place.start(process.execPath, [
      spindleProgram(),
      "boot",
      place.image,
      "--driver",
      driver,
      "--check",
      "--marker",
      "never",
    ]);
    const machine = () =>
      spawnSync("pgrep", ["-P", `${child.pid}`, "-f", "qemu-system"], { encoding: "utf8" }).stdout.trim();
    t.true(await comesTrue(() => machine() !== "", 30_000));
    const pid = Number(machine());
    child.kill("SIGTERM");
    t.true(await comesTrue(() => child.exitCode !== null && !runs(pid), 20_000));
    t.is(child.exitCode, 8);
    await nothingIsLeft(t, place);
  });

  asFirst(`a boot that is killed takes its machine along, and the next one its mount (${driver})`, async (t) => {
    const place = bootable(t, driver, "wait");
    if (!place) return;
    const words = ["boot", place.image, "--driver", driver, "--check", "--marker", "never"];
    const child = place.start(process.execPath, [spindleProgram(), ...words]);
    const machine = () =>
      spawnSync("pgrep", ["-P", `${child.pid}`, "-f", "qemu-system"], { encoding: "utf8" }).stdout.trim();
    t.true(await comesTrue(() => machine() !== "", 30_000));
    const pid = Number(machine());
    child.kill("SIGKILL");
    t.true(await comesTrue(() => child.signalCode !== null && !runs(pid), 20_000));
    t.is((await place.spindle([...words, "--timeout", "1"])).code, 8);
    await nothingIsLeft(t, place);
  });
}

const efiCode = [
  ...[0x48, 0x8d, 0x35, 0x0f, 0, 0, 0], // lea rsi,[rip+15]: what is said, behind the code
  ...[0x66, 0xba, 0xf8, 0x03], // mov dx,3f8: COM1
  ...[0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8], // lodsb; test al,al; jz on; out dx,al; jmp lodsb
  ...[0xf4, 0xeb, 0xfd], // hlt, for ever
];

/** A program for UEFI on x86-64 (PE32+, Microsoft's "PE Format"), of one section. */
function efiProgram(says: string): Buffer {
  const file = Buffer.alloc(1024);
  file.write("MZ", 0);
  file.writeUInt32LE(64, 60);
  file.write("PE\0\0", 64);
  const fields: [number, number, number][] = [
    ...([
      [68, 2, 0x8664],
      [70, 2, 1],
      [84, 2, 240],
      [86, 2, 0x22e],
    ] as const), // x86-64, a section, optional header, an executable
    ...([
      [88, 2, 0x20b],
      [92, 4, 512],
      [104, 4, 4096],
      [108, 4, 4096],
    ] as const), // PE32+, size of code, where it begins
    ...([
      [120, 4, 4096],
      [124, 4, 512],
      [144, 4, 8192],
      [148, 4, 512],
    ] as const), // alignments, sizes of the image and headers
    ...([
      [156, 2, 10],
      [196, 4, 16],
    ] as const), // an EFI application; data directories, all empty
    ...([
      [336, 4, 512],
      [340, 4, 4096],
      [344, 4, 512],
      [348, 4, 512],
      [364, 4, 0x60000020],
    ] as const), // the section
  ].map(([at, length, value]) => [at, length, value]);
  for (const [at, length, value] of fields) file.writeUIntLE(value, at, length);
  file.write(".text", 328);
  Buffer.from(efiCode).copy(file, 512);
  file.write(`${says}\0`, 512 + efiCode.length, "latin1");
  return file;
}

const lacking = (): string | undefined => {
  if (!haveMachine) return "qemu-system-x86_64 is not installed (apt install qemu-system-x86)";
  if (!existsSync("/usr/share/OVMF/OVMF_CODE_4M.fd")) return "there is no UEFI (apt install ovmf)";
  const tools = ["sgdisk", "mformat"].find((name) => spawnSync(name, ["--version"]).error);
  return tools && `${tools} is not installed (apt install gdisk mtools)`;
};

asFirst(
  "a disk with an EFI system partition boots by UEFI, also where the loader is in its system's own folder",
  async (t) => {
    const reason = lacking();
    if (reason !== undefined) return void t.log(`skipped: ${reason}`);
    const place = new Workspace(t, person, "direct");
    const loader = join(place.folder, "grubx64.efi");
    writeFileSync(place.image, Buffer.alloc(place.disk.length));
    writeFileSync(loader, efiProgram("\r\nspindle login: "));
    // As Debian has it; the path is in a variable of the machine that it was installed on, and not in the image.
    const script = `sgdisk -n 1:2048:+8M -t 1:ef00 disk.img && mformat -i disk.img@@1M -T 16384 -h 2 -s 32 :: &&
    mmd -i disk.img@@1M ::EFI ::EFI/debian && mcopy -i disk.img@@1M grubx64.efi ::EFI/debian/`;
    const made = await place.run("sh", ["-c", script], undefined, { MTOOLS_SKIP_CHECK: "1" });
    t.is(made.code, 0, made.stderr);
    readFileSync(place.image).copy(place.disk);
    const words = ["boot", place.image, "--check", "--json", "--accel", "tcg", "--timeout", "120"];
    const { code: status, stdout, stderr } = await place.spindle(words);
    t.is(status, 0, stderr);
    t.like(JSON.parse(stdout), { firmware: "uefi", reached: true });
    await nothingIsLeft(t, place);
  },
);

asFirst("why an EFI system partition can't be read is said, and the disk is booted by BIOS", async (t) => {
  const place = bootable(t, "direct", "\r\nspindle login: ");
  if (!place) return;
  if (spawnSync("mformat", ["--version"]).error)
    return void t.log("skipped: mtools is not installed (apt install mtools)");
  place.disk[446 + 4] = 0xef;
  writeFileSync(place.image, place.disk);
  const script = `mformat -i disk.img@@1M -T 16384 -h 2 -s 32 :: && mmd -i disk.img@@1M ::EFI`;
  const made = await place.run("sh", ["-c", script], undefined, { MTOOLS_SKIP_CHECK: "1" });
  t.is(made.code, 0, made.stderr);
  readFileSync(place.image).copy(place.disk);
  const volume = place.partition;
  // The fields of the boot sector: reserved sectors, tables, their sectors.
  const root = (volume.readUInt16LE(14) + volume[16]! * volume.readUInt16LE(22)) * 512;
  t.is(volume.toString("latin1", root, root + 11).trim(), "EFI");
  const damages: [damage: (bytes: Buffer) => void, reason: RegExp][] = [
    [
      (bytes) => bytes.writeUInt16LE(0xff00, root + 26),
      /disk\.img > partition 1: the directory entry .* cluster 65280/,
    ],
    [(bytes) => bytes.writeUInt16LE(0xffff, 22), /disk\.img > partition 1: the FAT boot sector at byte 0 /],
  ];
  for (const [damage, reason] of damages) {
    damage(volume);
    writeFileSync(place.image, place.disk);
    const { stderr } = await place.spindle(["boot", place.image, "--check", "--accel", "tcg", "--timeout", "1"]);
    t.regex(stderr, reason);
    t.regex(stderr, /booting by BIOS: its EFI system partition can't be read/);
  }
  await nothingIsLeft(t, place);
});
