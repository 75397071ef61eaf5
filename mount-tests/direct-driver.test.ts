/**
 * The direct driver over real mounts of the computed tree of trees.ts. The server is a process of its own, and reading is
 * done by other programs wherever they show more than Node does.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, chownSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { lstat, open, readdir, readFile, readlink, stat, statfs } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { ExecutionContext } from "ava";
import { direct } from "../src/fuse/direct/index.js";
import type { MountPlan } from "../src/fuse/driver.js";
import { parseMountinfo } from "../src/fuse/mounts.js";
import { ENXIO, errno, lseek, SEEK_DATA, SEEK_HOLE } from "../src/libc.js";
import { comesTrue, type Person, people, serialFor } from "./helpers.js";
import { big, damaged, digest, isHole, many, pattern, type TestTreeData, testTreeSpec } from "./trees.js";

const run = promisify(execFile);
const { EIO } = constants.errno;
const KiB = 1024;
const MiB = 1024 * KiB;
const isRoot = process.getuid?.() === 0;
const root = people.find(({ uid }) => uid === 0);
const user = people.find(({ uid }) => uid !== 0)!;

const compiled = fileURLToPath(new URL("..", import.meta.url));

/** `direct-serve.js` in a copy of the compiled code that every user can read; made once. */
let copied: string | undefined;
function serverProgram(): string {
  if (!copied) {
    const folder = mkdtempSync(join(tmpdir(), "spindle-direct-"));
    process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
    chmodSync(folder, 0o755);
    for (const name of ["src", "mount-tests"])
      cpSync(join(compiled, name), join(folder, "dist", name), { recursive: true });
    for (const name of ["koffi", "@koromix"])
      cpSync(join(compiled, "../node_modules", name), join(folder, "node_modules", name), {
        recursive: true,
        dereference: true,
      });
    cpSync(join(compiled, "../package.json"), join(folder, "package.json"));
    spawnSync("chmod", ["-R", "a+rX", folder]);
    copied = join(folder, "dist/mount-tests/direct-serve.js");
  }
  return copied;
}

class Mounted {
  readonly folder = mkdtempSync(join(tmpdir(), "spindle-direct-mount-"));
  readonly mountpoint = join(this.folder, "mnt");
  output = "";
  private child: ChildProcess | undefined;
  private ended: Promise<unknown> = Promise.resolve();

  constructor(readonly person: Person) {
    mkdirSync(this.mountpoint);
    chmodSync(this.folder, 0o755);
    chownSync(this.mountpoint, person.uid, person.gid);
  }

  /** Starts the server and waits until it has mounted, or ended. */
  async start(...options: string[]): Promise<this> {
    this.child = spawn(process.execPath, [serverProgram(), this.mountpoint, ...options], {
      stdio: ["ignore", "pipe", "pipe"],
      cwd: "/",
      ...(isRoot ? { uid: this.person.uid, gid: this.person.gid } : {}),
    });
    this.child.stdout!.on("data", (data: Buffer) => {
      this.output += data.toString();
    });
    this.child.stderr!.on("data", (data: Buffer) => {
      this.output += data.toString();
    });
    this.ended = new Promise((done) => this.child!.on("close", done));
    await Promise.race([comesTrue(() => this.output.includes("\n")), this.ended]);
    return this;
  }

  path(name: string): string {
    return join(this.mountpoint, name);
  }

  /** Asks the server to unmount; true when its process has ended in order. */
  async stop(): Promise<boolean> {
    this.child?.kill("SIGTERM");
    await Promise.race([this.ended, new Promise((done) => setTimeout(done, 10_000).unref())]);
    return this.child?.exitCode === 0;
  }

  remove(): void {
    this.child?.kill("SIGKILL");
    if (isMounted(this.mountpoint))
      spawnSync(
        ...((isRoot ? ["umount", ["-l", this.mountpoint]] : ["fusermount3", ["-u", "-z", this.mountpoint]]) as [
          string,
          string[],
        ]),
      );
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const isMounted = (path: string) =>
  parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8")).some(({ mountpoint }) => mountpoint === path);

/** A test for root and for a normal user, who alone may look into a mount without allow_other. */
function forEach(title: string, body: (t: ExecutionContext, mount: Mounted) => Promise<void>, options: string[] = []) {
  for (const person of people)
    serialFor(person)(`${title}, as ${person.title}`, async (t) => {
      const mount = new Mounted(person);
      t.teardown(() => mount.remove());
      await mount.start(...options);
      if (!mount.output.startsWith("mounted")) t.fail(mount.output);
      else await body(t, mount);
    });
}

/** Runs a program as the mount's owner. */
async function as(mount: Mounted, program: string, ...parameters: string[]) {
  const { uid, gid } = mount.person;
  return run(program, parameters, {
    cwd: "/",
    encoding: "buffer",
    maxBuffer: 64 * MiB,
    ...(isRoot ? { uid, gid } : {}),
  });
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

forEach("files read right through the page cache, by mmap and by O_DIRECT", async (t, mount) => {
  const path = mount.path("digest.bin");
  t.is((await as(mount, "sha256sum", path)).stdout.toString().slice(0, 64), digest());
  const mapped =
    "import mmap,sys,hashlib\nf=open(sys.argv[1],'rb')\nm=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)\nprint(hashlib.sha256(m).hexdigest())";
  const python = spawnSync("python3", ["--version"]).error === undefined;
  if (python) t.is((await as(mount, "/usr/bin/env", "python3", "-c", mapped, path)).stdout.toString().trim(), digest());
  else t.log("skipped: mmap, for want of python3");
  for (const size of ["4K", "1M", "16M"]) {
    const { stdout } = await as(mount, "dd", `if=${path}`, "iflag=direct", `bs=${size}`, "status=none");
    t.is(sha256(stdout), digest(), `blocks of ${size}`);
  }
  t.true(await mount.stop());
  t.false(isMounted(mount.mountpoint));
});

forEach(
  "damage is an error for its 64 KiB alone, whatever is read ahead, and the file keeps its size",
  async (t, mount) => {
    const script = `
import os, sys, mmap
fd = os.open(sys.argv[1], os.O_RDONLY | int(sys.argv[2]))
size = os.fstat(fd).st_size
page = mmap.mmap(-1, 4096)
out = []
for at in range(0, size, 4096):
    want = min(4096, size - at)
    try:
        got = os.preadv(fd, [page], at)
        if got != want: print('short', at, got)
    except OSError as e:
        if e.errno != 5: print(at, e)
        out.append(at)
print(out[0], out[-1], len(out), os.fstat(fd).st_size == size)
`;
    const path = mount.path("damaged.bin");
    const { from, length, size, message } = damaged;
    const expected = `${from} ${from + length - 4096} ${length / 4096} True`;
    const O_DIRECT = process.arch === "arm64" ? 0o200000 : 0o40000;
    if (spawnSync("python3", ["--version"]).error === undefined) {
      for (const flag of [0, O_DIRECT])
        t.is(
          (await as(mount, "/usr/bin/env", "python3", "-c", script, path, String(flag))).stdout.toString().trim(),
          expected,
        );
    } else t.log("skipped: page by page, for want of python3");
    // Large reads return what lies before the damage, and all of what lies behind it.
    const failed = await t.throwsAsync(as(mount, "cat", path));
    t.true((failed as unknown as { stdout: Buffer }).stdout.equals(pattern(0, from)));
    const { stdout } = await as(mount, "tail", "-c", String(size - from - length), path);
    t.true(stdout.equals(pattern(from + length, size - from - length)));
    const direct = await t.throwsAsync(as(mount, "dd", `if=${path}`, "iflag=direct", "bs=4M", "status=none"));
    t.true((direct as unknown as { stdout: Buffer }).stdout.equals(pattern(0, from)));
    t.is(mount.output.split(message).length - 1, 1, "one line of the log");
  },
);

forEach("a file that ends before its size, and a bug, are errors with a line in the log", async (t, mount) => {
  await t.throwsAsync(as(mount, "cat", mount.path("short.bin")), { message: /Input\/output error/ });
  await t.throwsAsync(as(mount, "cat", mount.path("bug.bin")), { message: /Input\/output error/ });
  t.is((await as(mount, "stat", "-c", "%s", mount.path("short.bin"))).stdout.toString().trim(), "8192");
  t.regex(mount.output, /end at 5000, though its size is 8192/);
  t.regex(mount.output, /a bug in the tree\n +at/);
});

forEach("a killed worker's request fails at once, and the mount goes on, many times over", async (t, mount) => {
  const path = mount.path("killer.bin");
  for (let round = 0; round < 15; round++) {
    await t.throwsAsync(as(mount, "dd", `if=${path}`, "bs=4096", "iflag=direct", "status=none"), {
      message: /Input\/output error/,
    });
  }
  t.is((await as(mount, "sha256sum", mount.path("digest.bin"))).stdout.toString().slice(0, 64), digest());
  t.regex(mount.output, /worker \d stopped and is replaced; the request that it held was answered/);
  t.true(await mount.stop());
  t.regex(mount.output, /"workersReplaced":15\b/);
});

forEach("a folder of 200,000 entries lists each of them once, whoever reads it and how", async (t, mount) => {
  const expected = Array.from({ length: many }, (_, index) => `entry-${String(index).padStart(6, "0")}`);
  const both = await Promise.all([
    as(mount, "ls", "-f", mount.path("many")),
    as(mount, "find", mount.path("many"), "-mindepth", "1", "-printf", "%f\n"),
  ]);
  for (const { stdout } of both) {
    const listed = stdout
      .toString()
      .split("\n")
      .filter((name) => name !== "" && name !== "." && name !== "..");
    t.is(listed.length, many);
    t.deepEqual(new Set(listed), new Set(expected));
  }
  const { stdout } = await as(mount, "stat", "-c", "%s %i", mount.path("many/entry-123456"));
  t.is(stdout.toString().trim(), `123456 ${123456 + 1000 + 10}`);
  await t.throwsAsync(as(mount, "stat", mount.path("many/entry-200000")), { message: /No such file/ });
});

forEach("attributes, links, extended attributes and statistics are the tree's", async (t, mount) => {
  const { stdout } = await as(
    mount,
    "stat",
    "-c",
    "%a %u %g %s %b %i %h %.9X %.9Y %.9Z %.9W %F",
    mount.path("big.bin"),
  );
  const blocks = big.size / 2 / 512;
  t.is(
    stdout.toString().trim(),
    `644 1234 4321 ${big.size} ${blocks} 12 1 1000000000.123456789 -86399.500000000 5000000000.000000001 777.999999999 regular file`,
  );
  t.is((await as(mount, "readlink", mount.path("link"))).stdout.toString(), "sub/inner.txt\n");
  t.is((await as(mount, "cat", mount.path("link"))).stdout.toString(), "hello from the tree\n");
  const note =
    "import os,sys\np=sys.argv[1]\nprint(os.listxattr(p), os.getxattr(p,'user.note'), len(os.getxattr(p,'user.other')))";
  if (spawnSync("python3", ["--version"]).error === undefined)
    t.is(
      (await as(mount, "/usr/bin/env", "python3", "-c", note, mount.path("hello.txt"))).stdout.toString(),
      "['user.note', 'user.other'] b'a note' 2000\n",
    );
  else t.log("skipped: extended attributes, for want of python3");
  t.is(
    (await as(mount, "stat", "-f", "-c", "%b %f %a %S %c %d", mount.path("."))).stdout.toString(),
    "1000 250 250 4096 300 7\n",
  );
  await t.throwsAsync(as(mount, "touch", mount.path("new")), { message: /Read-only file system/ });
  t.regex(
    readFileSync("/proc/mounts", "utf8"),
    new RegExp(`odd,name\\\\134here ${mount.mountpoint} fuse.spindle ro,nosuid,nodev`),
  );
});

forEach("a busy mount that is unmounted stays readable for who has it open, then its server ends", async (t, mount) => {
  const script = `exec 3<"$1"; echo open; read line; sha256sum <&3`;
  const { uid, gid } = mount.person;
  const reader = spawn("sh", ["-c", script, "sh", mount.path("digest.bin")], { ...(isRoot ? { uid, gid } : {}) });
  let output = "";
  reader.stdout.on("data", (data: Buffer) => {
    output += data.toString();
  });
  t.true(await comesTrue(() => output.includes("open")));
  const stopped = mount.stop();
  t.true(await comesTrue(() => !isMounted(mount.mountpoint)));
  reader.stdin.end("go\n");
  t.true(await stopped);
  t.true(await comesTrue(() => output.includes(digest())));
});

serialFor(root)("a loop device over a file of the mount has its bytes", async (t) => {
  const mount = new Mounted(people[0]!);
  t.teardown(() => mount.remove());
  await mount.start();
  for (const mode of ["off", "on"]) {
    const { stdout } = await run("losetup", ["-r", "-f", "--show", `--direct-io=${mode}`, mount.path("big.bin")]);
    const device = stdout.trim();
    try {
      // 24 MiB from the middle: data, a hole, data, and their edges.
      const bytes = await as(mount, "dd", `if=${device}`, "bs=1M", "skip=4", "count=24", "status=none");
      const expected = pattern(4 * MiB, 24 * MiB);
      for (let at = 0; at < expected.length; at += MiB) if (isHole(4 * MiB + at)) expected.fill(0, at, at + MiB);
      t.is(sha256(bytes.stdout), sha256(expected), `direct-io ${mode}`);
    } finally {
      await run("losetup", ["-d", device]);
    }
  }
  t.true(await mount.stop());
});

const plan = (
  mountpoint: string,
  lines: string[],
  changes: Partial<MountPlan> = {},
  data: TestTreeData = {},
): MountPlan => ({
  mountpoint,
  options: { allowOther: false, fsname: "test", others: [] },
  tree: testTreeSpec(data),
  workers: 2,
  cacheBytes: 0,
  chunkSize: 0,
  log: (line) => lines.push(line),
  ...changes,
});

/** A mount served by this process: only asynchronous reads are allowed in it. */
async function here(t: ExecutionContext, data: TestTreeData = {}) {
  const folder = mkdtempSync(join(tmpdir(), "spindle-direct-here-"));
  const lines: string[] = [];
  const server = await direct.mount(plan(folder, lines, {}, data));
  t.teardown(async () => {
    server.unmount();
    await server.finished;
    rmSync(folder, { recursive: true });
  });
  return { folder, lines, server };
}

serialFor(people[0])("holes are found where they are, and the end is ENXIO", async (t) => {
  const { folder } = await here(t);
  const file = await open(join(folder, "big.bin"));
  // lseek blocks this thread; that is all right as long as the workers don't need it.
  const { period, size } = big;
  t.is(lseek(file.fd, 0, SEEK_HOLE), period / 2);
  t.is(lseek(file.fd, period / 2, SEEK_DATA), period);
  t.is(lseek(file.fd, period / 2 + 12345, SEEK_HOLE), period / 2 + 12345);
  t.is(lseek(file.fd, 5, SEEK_DATA), 5);
  t.is(lseek(file.fd, size - 1, SEEK_DATA), -1);
  t.is(errno(), ENXIO);
  t.is(lseek(file.fd, size, SEEK_HOLE), -1);
  t.is(errno(), ENXIO);
  const { blocks } = await file.stat();
  t.is(blocks * 512, size / 2);
  await file.close();
});

serialFor(people[0])("Node's own file functions see the tree, and counters count", async (t) => {
  const { folder, server, lines } = await here(t, { noAttributes: true });
  t.is(await readFile(join(folder, "hello.txt"), "utf8"), "hello from the tree\n");
  t.is((await readdir(join(folder, "sub"))).join(), "inner.txt");
  t.is(await readlink(join(folder, "link")), "sub/inner.txt");
  t.true((await lstat(join(folder, "link"))).isSymbolicLink());
  t.is((await stat(folder)).ino, 87);
  t.is((await statfs(folder)).blocks, 1000);
  const file = await open(join(folder, "damaged.bin"));
  const error = await t.throwsAsync(file.read(Buffer.alloc(10), 0, 10, damaged.from));
  t.is((error as NodeJS.ErrnoException).errno, -EIO);
  await file.close();
  t.deepEqual(lines, [damaged.message]);
  const counters = server.counters();
  t.true(counters.requests! > 5 && counters.reads! >= 1 && counters.bytesRead! >= 20 && counters.errors! >= 1);
  t.is(counters.workersReplaced, 0);
  t.is(counters.readaheadRaised, isRoot ? 1 : 0);
});

serialFor(people[0])("requests behind one that waits are answered by the other workers", async (t) => {
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const { folder } = await here(t, { gate });
  let slowIsDone = false;
  const slow = readFile(join(folder, "slow.bin")).then(() => {
    slowIsDone = true;
  });
  await readFile(join(folder, "digest.bin"));
  t.false(slowIsDone);
  Atomics.store(gate, 0, 1);
  Atomics.notify(gate, 0);
  await slow;
});

serialFor(people[0])("a tree that can't be built mounts nothing and throws its own error", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "spindle-direct-fail-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const damage = await t.throwsAsync(direct.mount(plan(folder, [], {}, { failsWith: "x.spin: the index is damaged" })));
  t.is(damage?.message, "x.spin: the index is damaged");
  t.is(damage?.name, "ImageError");
  await t.throwsAsync(direct.mount(plan(folder, [], {}, { exits: true })), { message: /exit code 9/ });
  t.false(isMounted(folder));
});

serialFor(people[0])("a worker that runs out of memory is replaced like any other", async (t) => {
  const { folder, lines, server } = await here(t);
  await t.throwsAsync(readFile(join(folder, "hog.bin")), { code: "EIO" });
  t.is(await readFile(join(folder, "hello.txt"), "utf8"), "hello from the tree\n");
  t.true(server.counters().workersReplaced! >= 1);
  t.regex(lines.join("\n"), /memory limit/);
});

serialFor(people[0])("workers that can't be started again end the mount instead of spinning", async (t) => {
  const { folder, lines, server } = await here(t, { builds: new Int32Array(new SharedArrayBuffer(4)), mostBuilds: 2 });
  await t.throwsAsync(readFile(join(folder, "killer.bin")), { code: "EIO" });
  await server.finished;
  t.false(isMounted(folder));
  t.regex(lines.at(-1)!, /stopped 10 times in a row .*Unmounting/);
  t.true(lines.length < 50);
});

serialFor(people[0])("a mount that is refused says why and leaves no thread behind", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "spindle-direct-fail-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const options = { allowOther: false, fsname: "x", others: ["wombat"] };
  await t.throwsAsync(direct.mount(plan(folder, [], { options })), { message: /-o wombat.*no such option/ });
  await t.throwsAsync(direct.mount(plan(join(folder, "absent"), [])), { message: /absent/ });
  t.false(isMounted(folder));
});

serialFor(user)("allow_other refused by /etc/fuse.conf tells the line to add", async (t) => {
  if (/^\s*user_allow_other\s*$/m.test(readFileSync("/etc/fuse.conf", "utf8"))) {
    t.log("skipped: /etc/fuse.conf permits it");
    t.pass();
    return;
  }
  const mount = new Mounted(user);
  t.teardown(() => mount.remove());
  await mount.start("allow_other");
  t.regex(mount.output, /Add the line user_allow_other to \/etc\/fuse.conf/);
  t.false(isMounted(mount.mountpoint));
});

serialFor(user)("without fusermount3 a normal user is told the package", async (t) => {
  const mount = new Mounted(user);
  t.teardown(() => mount.remove());
  const empty = dirname(serverProgram());
  const { uid, gid } = user;
  const found = spawnSync(process.execPath, [serverProgram(), mount.mountpoint], {
    env: { PATH: empty },
    encoding: "utf8",
    ...(isRoot ? { uid, gid } : {}),
  });
  t.regex(found.stdout, /apt install fuse3/);
  t.is(found.status, 1);
});
