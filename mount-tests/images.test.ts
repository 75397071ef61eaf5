/** Whole images through the mount: every byte of full images, differentials and chains, holes, damage, huge disks. */
import { spawnSync } from "node:child_process";
import { randomFillSync } from "node:crypto";
import {
  chmodSync,
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { openLayers } from "../src/chain.js";
import { settings } from "../src/settings.js";
import { drivers, loopMount, people, serialFor, Workspace } from "./helpers.js";

const MiB = 1024 * 1024;
const chunkSize = 65536;
const size = 96 * MiB;
/** What the mount shows of the test disk: each file's place in the disk and its length. */
const files = [
  ["disk.raw", 0, size],
  ["p1.raw", 2048 * 512, 61440 * 512],
  ["p2.raw", 63488 * 512, 100000 * 512],
] as const;

/** Compares with the source by threads that read at random, each through its own descriptor. */
const randomReader = `
import os, random, sys, threading
mounted, source = sys.argv[1], sys.argv[2]
start, size, rounds = int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
wrong = []
def expected(fd, length, at):
    return os.pread(fd, max(0, min(length, size - at)), start + at)
def reader(seed):
    rng = random.Random(seed)
    a, b = os.open(mounted, os.O_RDONLY), os.open(source, os.O_RDONLY)
    for _ in range(rounds):
        at = rng.randrange(size + 5000)
        length = rng.choice([1, 511, 4096, 65536, 65537, rng.randrange(1, 1 << 20)])
        if os.pread(a, length, at) != expected(b, length, at): wrong.append((at, length))
threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(wrong)
sys.exit(1 if wrong else 0)
`;

/** Tells data and holes of a file as the system has them: [start, end] of each stretch of data. */
const dataStretches = `
import json, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size, at, found = os.fstat(fd).st_size, 0, []
while at < size:
    try: data = os.lseek(fd, at, os.SEEK_DATA)
    except OSError: break
    at = os.lseek(fd, data, os.SEEK_HOLE)
    found.append([data, at])
print(json.dumps([size, os.fstat(fd).st_blocks, found]))
`;

/** A GPT disk of two partitions with data, zeros and holes in them. */
function makeDisk(path: string): void {
  const fd = openSync(path, "w+", 0o644);
  ftruncateSync(fd, size);
  const script = "label: gpt\nstart=2048, size=61440, type=uefi\nstart=63488, size=100000, type=linux\n";
  const made = spawnSync("sfdisk", ["-q", path], {
    input: script,
    env: { ...process.env, PATH: `${process.env.PATH}:/sbin:/usr/sbin` },
  });
  if (made.status !== 0) throw new Error(String(made.stderr ?? made.error));
  for (const at of [1, 1.5, 7, 31, 40.25, 63.9, 64, 80]) {
    const bytes = Buffer.alloc(at === 40.25 ? 3 * MiB : 300_000);
    randomFillSync(bytes);
    writeSync(fd, bytes, 0, bytes.length, Math.floor(at * MiB) + (at === 7 ? 4096 : 0));
  }
  writeSync(fd, "text that packs well ".repeat(400_000), 20 * MiB);
  closeSync(fd);
}

/** Changes some bytes in place: data over data, data over a hole, zeros over data. */
function change(path: string, round: number): void {
  const fd = openSync(path, "r+");
  writeSync(fd, `round ${round}`, 7 * MiB + round * 100_000);
  writeSync(fd, Buffer.alloc(50_000, round + 1), 0, 50_000, (10 + round) * MiB);
  writeSync(fd, Buffer.alloc(200_000), 0, 200_000, 41 * MiB + round * 200_000);
  closeSync(fd);
}

async function spindle(t: ExecutionContext, place: Workspace, ...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await place.spindle(words);
  t.is(code, 0, stderr);
  return stdout;
}

/** Five states of a disk, and the chain of images that were made of them. */
interface Chain {
  readonly folder: string;
  readonly sources: readonly string[];
  readonly images: readonly string[];
}
let made: Promise<Chain> | undefined;

/** Made once: the tests read them, and change copies only. */
function chainOfFive(t: ExecutionContext, place: Workspace): Promise<Chain> {
  made ??= (async () => {
    const folder = mkdtempSync(join(tmpdir(), "spindle-images-"));
    chmodSync(folder, 0o755);
    const states = [0, 1, 2, 3, 4];
    const sources = states.map((state) => join(folder, `source${state}.raw`));
    const images = states.map((state) => join(folder, `layer${state}.spin`));
    for (const state of states) {
      if (state === 0) makeDisk(sources[0]!);
      else {
        spawnSync("cp", ["--sparse=always", sources[state - 1]!, sources[state]!]);
        change(sources[state]!, state);
      }
      const base = state === 0 ? [] : ["--base", images[state - 1]!];
      const { code, stderr } = await place.spindle(["create", sources[state]!, images[state]!, ...base], people[0]);
      t.is(code, 0, stderr);
    }
    return { folder, sources, images };
  })();
  return made;
}

/** The image of 16 TiB of zeros, made once; undefined where the test has said that it can't be. */
let huge: string | undefined;

async function hugeImage(t: ExecutionContext, place: Workspace): Promise<string | undefined> {
  if (huge !== undefined) return huge;
  const { folder } = await chainOfFive(t, place);
  // tmpfs holds a file of this size, which ext4 doesn't.
  const memory = join(place.folder, "memory");
  const mounted = spawnSync("sh", [
    "-c",
    `mkdir ${memory} && mount -t tmpfs -o size=64m none ${memory} && truncate -s 16T ${memory}/huge.raw`,
  ]);
  if (mounted.status !== 0) {
    t.log("skipped: no tmpfs can be mounted here");
    t.pass();
    return undefined;
  }
  try {
    const image = join(folder, "huge.spin");
    const made = JSON.parse(await spindle(t, place, "create", join(memory, "huge.raw"), image, "--json"));
    t.is(made.size, 16 * 2 ** 40);
    t.log(
      `the image of 16 TiB of zeros takes ${(made.fileSize / MiB).toFixed(0)} MiB and ${made.seconds.toFixed(1)} s`,
    );
    huge = image;
  } finally {
    spawnSync("umount", [memory]);
  }
  return huge;
}

test.after.always(async () => {
  const chain = await made?.catch(() => undefined);
  if (chain) rmSync(chain.folder, { recursive: true, force: true });
});

async function equalsSource(t: ExecutionContext, place: Workspace, source: string): Promise<void> {
  const mounted = (name: string) => join(place.mountpoint, name);
  for (const [name, start, length] of files) {
    // The partitions are places in the disk: what is read wrong inside it shows there.
    const rounds = start === 0 ? 150 : 50;
    const words = ["-c", randomReader, mounted(name), source, `${start}`, `${length}`, `${rounds}`];
    const reader = await place.run("python3", words);
    t.is(reader.code, 0, reader.stdout + reader.stderr);
  }
  const sum = async (command: string) => {
    const { code, stdout, stderr } = await place.run("sh", ["-c", command]);
    t.is(code, 0, stderr);
    return stdout.split(" ")[0];
  };
  for (const [name, start, length] of files)
    t.is(
      await sum(`sha256sum ${mounted(name)}`),
      await sum(`dd if=${source} bs=512 skip=${start / 512} count=${length / 512} status=none | sha256sum`),
    );
}

for (const driver of drivers)
  for (const person of people) {
    const serial = serialFor(person);
    const by = `(${driver}, ${person.title})`;

    serial(`every byte of a full image, a differential and a chain of five is the source's ${by}`, async (t) => {
      const place = new Workspace(t, person, driver);
      const { sources, images } = await chainOfFive(t, place);
      for (const state of [0, 1, 4]) {
        await spindle(t, place, "mount", images[state]!, place.mountpoint, "--as", "disk", "--driver", driver);
        await equalsSource(t, place, sources[state]!);
        place.unmountPlainly(t);
      }
    });

    serial(
      `a chunk that was edited gives an input/output error in its own range and one line in the log ${by}`,
      async (t) => {
        const place = new Workspace(t, person, driver);
        const { sources, images } = await chainOfFive(t, place);
        const source = sources[1]!;
        const [base, top] = [0, 1].map((layer) => join(place.folder, basename(images[layer]!))) as [string, string];
        copyFileSync(images[0]!, base);
        copyFileSync(images[1]!, top);
        // The chunk at 41 MiB lies in the base, in random bytes: one bit of its frame is turned.
        const damaged = 41.5 * MiB;
        const needle = readFileSync(source).subarray(damaged + 1000, damaged + 1032);
        const bytes = readFileSync(base);
        const at = bytes.indexOf(needle);
        t.true(at > 0);
        bytes[at]! ^= 1;
        writeFileSync(base, bytes);

        const mounted = await spindle(
          t,
          place,
          "mount",
          top,
          place.mountpoint,
          "--as",
          "disk",
          "--driver",
          driver,
          "--json",
        );
        const { log } = JSON.parse(mounted) as { log: string };
        const disk = join(place.mountpoint, "disk.raw");
        const readable = async (position: number, length: number) => {
          const code = `import os,sys; fd=os.open(sys.argv[1],0); b=b""
while len(b) < ${length}:
    part = os.pread(fd, ${length}-len(b), ${position}+len(b))
    if not part: break
    b += part
s=os.open(sys.argv[2],0); sys.exit(0 if b == os.pread(s, ${length}, ${position}) else 3)`;
          return place.run("python3", ["-c", code, disk, source]);
        };
        // A reader that comes along in order, with readahead on, up to the damage and from behind it on.
        t.is((await readable(40 * MiB, damaged - 40 * MiB)).code, 0);
        t.is((await readable(damaged + chunkSize, 2 * MiB)).code, 0);
        for (const inside of [damaged, damaged + 4096, damaged + chunkSize - 1]) {
          const { code, stderr } = await readable(inside, 1);
          t.is(code, 1);
          t.regex(stderr, /Input\/output error/);
        }
        t.is((await readable(damaged - 1, 1)).code, 0);
        const lines = readFileSync(log, "utf8")
          .split("\n")
          .filter((line) => line.includes("is damaged"));
        t.is(lines.length, 1);
        t.true(lines[0]!.includes(base));
        t.true(lines[0]!.includes(`chunk ${damaged / chunkSize} `));
        t.true(lines[0]!.includes(`disk bytes ${damaged} to ${damaged + chunkSize - 1}`));
        await spindle(t, place, "unmount", place.mountpoint);
        const { code, stdout } = await place.spindle(["verify", top]);
        t.is(code, 5);
        t.true(stdout.includes(`disk bytes ${damaged} to ${damaged + chunkSize - 1}`));
      },
    );
  }

const asRoot = serialFor(people[0]);

for (const driver of drivers) {
  asRoot(`holes of the disk are holes of disk.raw and of the partitions (${driver})`, async (t) => {
    const place = new Workspace(t, people[0]!, driver);
    const { sources, images } = await chainOfFive(t, place);
    const source = sources[0]!;
    await spindle(t, place, "mount", images[0]!, place.mountpoint, "--as", "disk", "--driver", driver);
    // A chunk is a hole when all of it is zeros: the expectation comes from the source's bytes.
    const bytes = readFileSync(source);
    const expected = (start: number, end: number) => {
      const found: [number, number][] = [];
      for (let at = Math.floor(start / chunkSize) * chunkSize; at < end; at += chunkSize) {
        if (!bytes.subarray(at, at + chunkSize).some((byte) => byte !== 0)) continue;
        const [from, to] = [Math.max(at, start) - start, Math.min(at + chunkSize, end) - start];
        const last = found.at(-1);
        if (last && last[1] === from) last[1] = to;
        else found.push([from, to]);
      }
      const stored = found.reduce((sum, [from, to]) => sum + to - from, 0);
      // The fuse-native package doesn't know SEEK_HOLE: the system then says that all is data.
      return [end - start, Math.ceil(stored / 512), driver === "direct" ? found : [[0, end - start]]];
    };
    for (const [name, start, length] of files) {
      const { stdout, stderr } = await place.run("python3", ["-c", dataStretches, join(place.mountpoint, name)]);
      t.is(stderr, "");
      t.deepEqual(JSON.parse(stdout), expected(start, start + length));
    }
    // What copies a sparse file copies no zeros, and what maps it into memory reads the same bytes.
    const copy = join(place.folder, "copy.raw");
    await place.run("cp", ["--sparse=auto", join(place.mountpoint, "disk.raw"), copy]);
    t.true(readFileSync(copy).equals(bytes));
    const mapped = `import mmap,sys,hashlib; f=open(sys.argv[1],"rb"); print(hashlib.sha256(mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)).hexdigest())`;
    const viaMemory = await place.run("python3", ["-c", mapped, join(place.mountpoint, "disk.raw")]);
    const direct = await place.run("sh", [
      "-c",
      `dd if=${place.mountpoint}/disk.raw iflag=direct bs=1M status=none | sha256sum; sha256sum < ${source}`,
    ]);
    const [first, second] = direct.stdout.split("\n").map((line) => line.split(" ")[0]);
    t.deepEqual([viaMemory.stdout.trim(), first], [second, second]);
  });

  asRoot(`a kernel mount of a partition through a loop device shows its files (${driver})`, async (t) => {
    const place = new Workspace(t, people[0]!, driver);
    const tree = join(place.folder, "tree");
    const source = join(place.folder, "disk.raw");
    const made = await place.run("sh", [
      "-c",
      `mkdir ${tree} && cp -r /usr/share/doc/bash /usr/share/perl5 ${tree} 2>/dev/null; echo hello > ${tree}/hello
    truncate -s 80M ${source} && echo start=2048 | sfdisk -q --label gpt ${source} && mke2fs -q -t ext4 -d ${tree} -E offset=1048576 ${source} 64M`,
    ]);
    t.is(made.code, 0, made.stderr);
    const image = join(place.folder, "image.spin");
    await spindle(t, place, "create", source, image);
    await spindle(t, place, "mount", image, place.mountpoint, "--as", "disk", "--driver", driver);
    const inner = join(place.folder, "inner");
    mkdirSync(inner);
    const { status, stderr } = loopMount("-o", "loop,ro", join(place.mountpoint, "p1.raw"), inner);
    t.is(status, 0, stderr);
    const script = `diff -r ${tree} ${inner} --exclude=lost+found; code=$?; umount ${inner}; exit $code`;
    const compared = await place.run("sh", ["-c", script]);
    t.is(compared.code, 0, compared.stdout + compared.stderr);
  });

  asRoot(`a disk of 16 TiB opens as a small one does, and its server stays small (${driver})`, async (t) => {
    const place = new Workspace(t, people[0]!, driver);
    const image = await hugeImage(t, place);
    if (image === undefined) return;
    const opened = openLayers({ path: image });
    t.deepEqual(opened.disk.extentAt(0), { hole: true, length: 16 * 2 ** 40 });
    opened.close();
    // What a server takes grows with its threads: it has the most that a machine gets unasked (settings.mostUsualWorkers).
    const workers = `${settings.mostUsualWorkers}`;
    const words = ["--as", "disk", "--driver", driver, "--workers", workers, "--json"];
    const { pid } = JSON.parse(await spindle(t, place, "mount", image, place.mountpoint, ...words)) as {
      pid: number;
    };
    const reader = `import os,sys; fd=os.open(sys.argv[1],0)
assert os.fstat(fd).st_size == 2**44 and os.fstat(fd).st_blocks == 0
for i in range(2000): assert os.pread(fd, 4096, (i * 2**33 + i * 4096) % 2**44) == bytes(4096)`;
    const read = await place.run("python3", ["-c", reader, join(place.mountpoint, "disk.raw")]);
    t.is(read.code, 0, read.stderr);
    const resident = Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
    t.log(`the server has ${resident.toFixed(0)} MiB resident`);
    t.true(resident < 150);
  });
}
