/**
 * Several who have a disk open at once, through one file or through two that share its bytes: what one writes the others see,
 * nobody's bytes are lost, and nobody waits for ever. Through both drivers, by root and by a normal user.
 */
import { spawnSync } from "node:child_process";
import { people, serialFor } from "./helpers.js";
import { partitionAt, Written, ways } from "./written.js";

const MiB = 1024 * 1024;
const root = people.find(({ uid }) => uid === 0);
const havePython = spawnSync("python3", ["--version"]).error === undefined;
const haveFio = spawnSync("fio", ["--version"]).status === 0;

for (const way of ways)
  for (const person of people) {
    const serial = serialFor(person);
    const { driver } = way;
    const as = `through ${way.title}, as ${person.title}`;

    serial(`two who write the same sectors through both files at once both come to an end, ${as}`, async (t) => {
      const place = new Written(t, person, way);
      await place.mount("--writable", "--workers", "4");
      const program = `
        const { openSync, writeSync } = require("node:fs");
        const [path, base] = process.argv.slice(1);
        const fd = openSync(path, "r+");
        const bytes = Buffer.alloc(512, base === "0" ? 1 : 2);
        for (let n = 0; n < 5000; n++) writeSync(fd, bytes, 0, 512, Number(base) + ((n * 7) % 64) * 512);`;
      await Promise.all(
        [1, 2].flatMap(() => [
          place.works(t, "timeout", "60", process.execPath, "-e", program, place.file("disk.raw"), `${partitionAt}`),
          place.works(t, "timeout", "60", process.execPath, "-e", program, place.file("p1.raw"), "0"),
        ]),
      );
      const [disk, part] = ["disk.raw", "p1.raw"].map((name) => place.file(name)) as [string, string];
      await place.works(t, "cmp", "-n", `${64 * 512}`, "-i", `${partitionAt}:0`, disk, part);
      await place.ends(t);
    });

    serial(`what one writes, those see at once who have the same file open to read or mapped, ${as}`, async (t) => {
      if (!havePython) return void t.log("skipped: there is no python3");
      const place = new Written(t, person, way);
      await place.mount("--writable", "--workers", "4");
      // Of fuse-native's files there are no shared mappings.
      const program = `
import mmap, os, sys
path, shared = sys.argv[1], sys.argv[2] == "true"
def opened(flags): return os.open(path, flags)
reader, direct = opened(os.O_RDONLY), opened(os.O_RDONLY | os.O_DIRECT)
writers = [opened(os.O_RDWR), opened(os.O_WRONLY), opened(os.O_RDWR | os.O_SYNC)]
if shared: view, written = mmap.mmap(reader, 4194304, access=mmap.ACCESS_READ), mmap.mmap(writers[0], 4194304)
page = mmap.mmap(-1, 4096)
for n in range(3000):
    at = (n * 7919) % 4000000
    one = os.urandom(1 + n % 5000)
    before = os.pread(reader, 8192, at)
    if shared: assert view[at:at + 8192] == written[at:at + 8192] == before, n
    assert os.pwrite(writers[n % 3], one, at) == len(one)
    after = one + before[len(one):]
    assert os.pread(reader, 8192, at) == after, n
    assert os.pread(writers[0], 8192, at) == after, n
    if shared: assert view[at:at + 8192] == after, n
    start = at - at % 4096
    assert os.preadv(direct, [page], start) == 4096
    assert page[at - start:] == after[:4096 - (at - start)], n
    if shared and n % 7 == 0:
        assert written[at:at + 8192] == after, n
        written[at:at + 3] = b"abc"
        for fd in reader, writers[0]: assert os.pread(fd, 3, at) == b"abc", n
        assert view[at:at + 3] == b"abc", n
`;
      const words = [place.file("p1.raw"), `${driver === "direct"}`];
      await place.works(t, "timeout", "120", "python3", "-c", program, ...words);
      await place.ends(t);
    });

    serial(`what a program writes without waiting for it, those see who read meanwhile, ${as}`, async (t) => {
      if (!havePython || !haveFio) return void t.log("skipped: python3 or fio is not installed");
      const place = new Written(t, person, way);
      await place.mount("--writable", "--workers", "4");
      // The kernel forgets others' pages before such writes, and the readers read them again before they are done.
      const program = `
import mmap, os, subprocess, sys, threading
path, shared, fio = sys.argv[1], sys.argv[2] == "true", sys.argv[3:]
size = 1 << 20
reader, direct, writer = (os.open(path, flags) for flags in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECT, os.O_RDWR))
view = mmap.mmap(writer, size) if shared else None
ended = threading.Event()
def read():
    while not ended.is_set(): os.pread(reader, size, 0)
def look():
    while not ended.is_set(): view[0:size:512]
threads = [threading.Thread(target=target) for target in ([read, read, look] if shared else [read, read])]
for thread in threads: thread.start()
try: subprocess.run(fio, check=True, timeout=60, stdout=subprocess.DEVNULL)
finally:
    ended.set()
    for thread in threads: thread.join()
page = mmap.mmap(-1, size)
assert os.preadv(direct, [page], 0) == size
read = os.pread(reader, size, 0)
stale = [at for at in range(0, size, 4096) if read[at:at + 4096] != page[at:at + 4096]]
assert not stale, ("read", stale)
stale = [at for at in range(0, size, 4096) if shared and view[at:at + 4096] != page[at:at + 4096]]
assert not stale, ("mapped", stale)
`;
      const fio = [
        ...["fio", "--name=apart", `--filename=${place.file("p1.raw")}`, "--rw=randwrite", "--bs=4k", "--size=1M"],
        ...[
          "--ioengine=libaio",
          "--direct=1",
          "--time_based",
          "--runtime=2",
          "--refill_buffers",
          "--allow_file_create=0",
        ],
      ];
      // Few, whose replies wait until others forgot; and more than the kernel sends at a time.
      for (const depth of [16, 400]) {
        const words = [place.file("p1.raw"), `${driver === "direct"}`, ...fio, `--iodepth=${depth}`];
        await place.works(t, "timeout", "120", "python3", "-c", program, ...words);
      }
      await place.ends(t);
    });

    serial(`many who write at once, through two files and within the same blocks, lose nothing, ${as}`, async (t) => {
      const place = new Written(t, person, way);
      await place.mount(`--writable=${place.overlay}`, "--workers", "4");
      const writers = 6;
      // Each has every sixth stretch of 700 bytes: blocks are completed by one while others write into them.
      const stretch = 700;
      const program = `
        const { openSync, writeSync } = require("node:fs");
        const [path, base, writer, start] = process.argv.slice(1);
        const fd = openSync(path, "r+");
        // All at once, if they have all been started by then.
        while (Date.now() < start);
        for (let at = writer * ${stretch}; at + ${stretch} <= 4 * 1048576; at += ${writers * stretch})
          writeSync(fd, Buffer.alloc(${stretch}, 1 + Number(writer)), 0, ${stretch}, Number(base) + at);`;
      for (let at = 0; at + stretch <= 4 * MiB; at += stretch)
        place.expected.fill(1 + ((at / stretch) % writers), partitionAt + at, partitionAt + at + stretch);
      const beginning = Date.now() + 1000;
      await Promise.all(
        Array.from({ length: writers }, (_, writer) =>
          place.works(
            t,
            ...[process.execPath, "-e", program],
            // Of one file's writers the kernel has each wait for the one before.
            ...(writer % 2 ? [place.file("p1.raw"), "0"] : [place.file("disk.raw"), `${partitionAt}`]),
            ...[`${writer}`, `${beginning}`],
          ),
        ),
      );
      await place.isAsExpected(t, "while it is mounted");
      await place.ends(t);
      await place.mount(`--writable=${place.overlay}`);
      await place.isAsExpected(t, "after a remount");
      await place.ends(t);
    });

    // Of root's mount the one is a face of the disk, which in it begins at 1 MiB.
    const [one, before] = person === root ? (["disk.vdi", MiB] as const) : (["disk.raw", 0] as const);
    serial(`p1.raw and ${one} while both are open, written and read in turn, ${as}`, async (t) => {
      if (!havePython) return void t.log("skipped: there is no python3");
      const place = new Written(t, person, way);
      await place.mount("--writable", "--face", "vdi");
      const shared = driver === "direct";
      const program = `
import mmap, os, sys
disk, part, base, shared = os.open(sys.argv[1], os.O_RDWR), os.open(sys.argv[2], os.O_RDWR), int(sys.argv[3]), sys.argv[4] == "true"
def same(at, length):
    assert os.pread(disk, length, base + at) == os.pread(part, length, at), at
for n in range(2000):
    at = (n * 7919) % 1000000
    same(at, 5000)
    one = os.urandom(1 + n % 3000)
    (one_fd, one_base, other_fd, other_base) = (disk, base, part, 0) if n % 2 else (part, 0, disk, base)
    os.pwrite(one_fd, one, one_base + at)
    assert os.pread(other_fd, len(one), other_base + at) == one, n
    same(at - at % 4096, 8192)
if shared:
    view = mmap.mmap(disk, base + 1024 * 1024)
    for n in range(200):
        at = 4096 * n
        os.pwrite(part, bytes([n % 251]) * 4096, at)
        assert view[base + at] == n % 251 and view[base + at + 4095] == n % 251, n
        view[base + at:base + at + 5] = b"abcde"
        view.flush(base + at, 4096)
        assert os.pread(part, 5, at) == b"abcde", n
else:
    try:
        mmap.mmap(disk, 4096)
        raise SystemExit("a shared mapping was allowed")
    except OSError as error:
        assert error.errno == 19, error
    start = mmap.mmap(disk, 4096, flags=mmap.MAP_PRIVATE, offset=base - 1048576)
    assert start[510:512] == b"\\x55\\xaa"
`;
      await place.works(
        t,
        "python3",
        "-c",
        program,
        place.file(one),
        place.file("p1.raw"),
        `${before + partitionAt}`,
        `${shared}`,
      );
      await place.ends(t);
    });
  }
