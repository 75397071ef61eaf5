/** Booting a small Debian from a mounted image with an overlay, beside booting it from the raw file itself. */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { add, row, type Section, spindleCreate, warm } from "./measure.js";
import { BenchError, type Cost, run, spindle, start } from "./programs.js";
import { spindleServer } from "./servers.js";

export interface BootPlan {
  readonly folder: string;
  readonly runs: number;
  /** A raw disk to boot in place of one that is made. */
  readonly disk: string | undefined;
  note(line: string): void;
}

/** What the serial console says when the system is up. */
const marker = /login: /;
/** Seconds that a boot may take. */
const patience = 600;
const MiB = 1024 ** 2;
const size = 1024 * MiB;

/** Program or file, and the Debian package it comes in. */
const needed: readonly [string, string][] = [
  ["mmdebstrap", "mmdebstrap"],
  ["grub-mkimage", "grub-common"],
  ["qemu-system-x86_64", "qemu-system-x86"],
];
const modules = "/usr/lib/grub/i386-pc";

export async function measureBoot({ folder, runs, disk, note }: BootPlan): Promise<Section> {
  const place = join(folder, "boot");
  mkdirSync(place, { recursive: true });
  const raw = disk ?? (await makeDebian(place, note));
  const image = join(place, "debian.spin");
  await run(...spindleCreate(raw, image));
  const server = spindleServer("direct", image, true);
  const time = row("boot to the login prompt", "s", "lower", 1.1);
  // On a machine that does other things too this is what can be compared.
  const processor = row("  processor time, with the server's", "s", "lower");
  const [plain, mounted] = ["raw file", "spindle"] as const;
  const copy = join(place, "copy.raw");
  for (let round = 0; round < runs; round++) {
    await run("cp", "--sparse=always", raw, copy);
    await warm(copy);
    const fromFile = await boot(copy);
    add(time, plain, fromFile.wall);
    add(processor, plain, fromFile.cpu);
    rmSync(copy);
    await warm(image);
    const { file, unmount } = await server.mount(place, statSync(raw).size);
    try {
      const served = await boot(file);
      const { stdout } = await run(process.execPath, spindle, "status", "--json", dirname(file));
      add(time, mounted, served.wall);
      add(processor, mounted, served.cpu + processorTime((JSON.parse(stdout) as { pid: number }).pid));
    } finally {
      await unmount();
    }
    const seconds = (name: string) => time.runs[name]!.at(-1)!.toFixed(1);
    note(`boot, run ${round + 1} of ${runs}: ${plain} ${seconds(plain)} s, ${mounted} ${seconds(mounted)} s`);
  }
  return {
    title: "Booting from a mounted image with an overlay",
    method:
      "A machine of QEMU without KVM, 512 MiB, one processor, the disk on virtio: from its start until its serial console says " +
      `"login: ". ${disk ?? "Debian 12 with systemd, cloud kernel, ext4"}. The raw file is a fresh copy for each run, and the ` +
      "mount and its overlay are fresh; file and image in the page cache.",
    contenders: [plain, mounted],
    reference: plain,
    rows: [time, processor],
  };
}

/** Seconds that a process, with all its threads, has used (proc_pid_stat(5), fields 14 and 15). */
function processorTime(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** Of Linux, whatever its timer does (time(7), USER_HZ). */
const ticksPerSecond = 100;

/** Boots until the marker comes. @returns seconds on the clock, and of processor time */
async function boot(file: string): Promise<Cost> {
  const drive = `if=none,id=disk,format=raw,discard=unmap,file=${file.replaceAll(",", ",,")}`;
  const begun = performance.now();
  const machine = start([
    ...["qemu-system-x86_64", "-accel", "tcg", "-m", "512", "-machine", "q35", "-nodefaults", "-display", "none"],
    ...["-serial", "stdio", "-device", "virtio-blk-pci,drive=disk", "-drive", drive],
  ]);
  let said = "";
  let words = "";
  machine.stderr!.on("data", (text: Buffer) => {
    words += text.toString();
  });
  const closed = new Promise<void>((done) => machine.once("close", () => done()));
  const reached = await new Promise<boolean>((done) => {
    const timer = setTimeout(() => done(false), patience * 1000);
    const finish = (is: boolean) => {
      clearTimeout(timer);
      done(is);
    };
    machine.stdout!.on("data", (text: Buffer) => {
      said = (said + text.toString("latin1")).slice(-4096);
      if (marker.test(said)) finish(true);
    });
    void closed.then(() => finish(false));
  });
  const took = (performance.now() - begun) / 1000;
  const cpu = reached ? processorTime(machine.pid!) : 0;
  machine.kill("SIGTERM");
  await closed;
  if (!reached) throw new BenchError(`${file} did not boot: ${words.trim()} ${said.trim().slice(-500)}`);
  return { wall: took, cpu };
}

/** Debian's present stable for PCs, bootable by BIOS. Some 100 MB come from Debian's mirror. */
async function makeDebian(place: string, note: BootPlan["note"]): Promise<string> {
  if (process.getuid?.() !== 0)
    throw new BenchError("boot: only root can make a Debian disk; name a bootable raw disk with --boot-disk FILE", 2);
  const absent: string[] = [];
  for (const [program, from] of needed) await run(program, "--version").catch(() => absent.push(from));
  await run("test", "-e", join(modules, "boot.img")).catch(() => absent.push("grub-pc-bin"));
  if (absent.length > 0) throw new BenchError(`not found. Install with: apt-get install ${absent.join(" ")}`, 2);
  note("making a disk with Debian, which takes a minute or two");
  const [root, disk, core] = ["root", "debian.raw", "core.img"].map((name) => join(place, name)) as [
    string,
    string,
    string,
  ];
  await run(
    ...["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory"],
    ...["--include=linux-image-cloud-amd64,systemd-sysv,udev", "--aptopt=APT::Install-Recommends false"],
    ...["bookworm", root],
  );
  const folder = join(root, "boot");
  const named = (start: string) => `/boot/${readdirSync(folder).find((name) => name.startsWith(start))}`;
  mkdirSync(join(folder, "grub"));
  writeFileSync(
    join(folder, "grub/grub.cfg"),
    `linux ${named("vmlinuz-")} root=LABEL=root console=ttyS0\ninitrd ${named("initrd.img-")}\nboot\n`,
  );
  writeFileSync(join(root, "etc/fstab"), "LABEL=root / ext4 defaults 0 1\n");
  await run("truncate", "-s", `${size}`, disk);
  await run("bash", "-c", 'sfdisk --quiet "$1" <<< "start=1MiB, type=83, bootable"', "bash", disk);
  const volume = `${size / MiB - 1}m`;
  await run("mke2fs", "-q", "-F", "-t", "ext4", "-d", root, "-L", "root", "-E", `offset=${MiB}`, disk, volume);
  rmSync(root, { recursive: true });
  // GRUB's first sector loads what begins at the second, as both come.
  await run(
    ...["grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "(hd0,msdos1)/boot/grub"],
    ...["biosdisk", "part_msdos", "ext2", "linux", "normal"],
  );
  const into = [`of=${disk}`, "conv=notrunc", "status=none"];
  await run("dd", `if=${join(modules, "boot.img")}`, ...into, "bs=440", "count=1");
  await run("dd", `if=${core}`, ...into, "bs=512", "seek=1");
  return disk;
}
