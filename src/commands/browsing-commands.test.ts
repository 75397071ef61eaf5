/** The commands on real images, against the tools that people know. */
import { execFileSync } from "node:child_process";
import { linkSync, mkdirSync, readFileSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { scratch, spindle } from "./image-files-test-tools.js";

process.env.TZ = "UTC";
const environment = { ...process.env, LC_ALL: "C", TZ: "UTC" };
const run = (program: string, words: string[], cwd?: string) =>
  execFileSync(program, words, { cwd, env: environment, encoding: "latin1", maxBuffer: 2 ** 26 });

interface Sample {
  readonly folder: string;
  readonly image: string;
}

/** A folder, and an ext4 image of it; undefined, with the reason logged, where mke2fs is missing. */
function sample(t: ExecutionContext): Sample | undefined {
  const root = scratch(t);
  const folder = join(root, "folder");
  mkdirSync(join(folder, "a/b/c"), { recursive: true });
  mkdirSync(join(folder, ".hidden"));
  writeFileSync(join(folder, "a/small"), "small\n");
  writeFileSync(join(folder, "a/b/large"), Buffer.alloc(3_000_001, "0123456789"));
  writeFileSync(join(folder, "a/b/c/ümlaut"), "ü");
  writeFileSync(Buffer.from(`${folder}/a/\xff\n\\odd`, "latin1"), "odd");
  writeFileSync(join(folder, "set-id"), "x", { mode: 0o755 });
  run("chmod", ["6755", join(folder, "set-id")]);
  writeFileSync(join(folder, "sparse"), "begin");
  truncateSync(join(folder, "sparse"), 50_000_000);
  symlinkSync("../small", join(folder, "a/b/link"));
  symlinkSync("/a/small", join(folder, "absolute"));
  linkSync(join(folder, "a/small"), join(folder, "a/b/again"));
  utimesSync(join(folder, "a/small"), 1_000_000_000, 1_000_000_000);
  const image = join(root, "image");
  writeFileSync(image, "");
  truncateSync(image, 64 * 1024 * 1024);
  try {
    run("mke2fs", ["-q", "-F", "-t", "ext4", "-b", "4096", "-d", folder, image]);
  } catch (error) {
    t.log(`skipped: no image was made: ${(error as Error).message}`);
    t.pass();
    return undefined;
  }
  return { folder, image };
}

/** Sizes of folders and the total are the filesystem's own. */
const comparable = (text: string) =>
  text
    .replace(/^total .*\n/gm, "")
    .replace(/^(d\S+ +\d+ \d+ \d+) +\d+/gm, "$1")
    .replace(/^(-\S+|l\S+) +(\d+) (\d+) (\d+) +/gm, "$1 $2 $3 $4 ");

test("ls -lR is that of GNU ls", async (t) => {
  const made = sample(t);
  if (!made) return;
  const expected = run("ls", ["-lnR"], made.folder).replace(/^\.(\/?.*):$/gm, (_, path) => `${path || "/"}:`);
  const { stdout, code } = await spindle("ls", "-lR", made.image);
  t.is(code, 0);
  const listed = stdout
    .toString("latin1")
    .replace(/^drwx------ .* lost\+found\n/m, "")
    .replace(/\n\/lost\+found:\ntotal \d+\n/, "");
  t.is(comparable(listed), comparable(expected));
});

test("find is that of find(1)", async (t) => {
  const made = sample(t);
  if (!made) return;
  for (const words of [
    [],
    ["-type", "f"],
    ["-type", "d,l"],
    ["-name", "*a*"],
    ["-iname", "S*"],
    ["-maxdepth", "2"],
    ["-path", "*/b/*"],
    ["-mtime", "+1000"],
    ["-type", "f", "-mtime", "-1"],
    ["-newer", "2001-09-10", "-type", "f"],
  ]) {
    const theirs = words.map((word) => (word === "-newer" ? "-newermt" : word));
    const expected = run("find", [".", ...theirs, "-print0"], made.folder)
      .split("\0")
      .map((path) => path.replace(/^\.\/?/, "/"));
    const { stdout } = await spindle("find", made.image, ...words, "-print0");
    const found = stdout.toString("latin1").split("\0");
    t.deepEqual(found.filter((path) => !path.startsWith("/lost+found")).sort(), expected.sort(), words.join(" "));
    const twoDashes = words.map((word) => word.replace(/^-(?=[a-z])/, "--"));
    t.deepEqual((await spindle("find", made.image, ...twoDashes, "--print0")).stdout, stdout, twoDashes.join(" "));
  }
  const large = await spindle("find", made.image, "-type", "f", "-size", "+2M");
  t.deepEqual(large.text.trim().split("\n").sort(), ["/a/b/large", "/sparse"]);
  t.is((await spindle("find", made.image, "-size", "-3", "-type", "f")).text.split("\n").length, 3);
});

test("sha256sum -c agrees with hash, whatever the names", async (t) => {
  const made = sample(t);
  if (!made) return;
  for (const [algorithm, program] of [
    ["sha256", "sha256sum"],
    ["md5", "md5sum"],
    ["blake2b512", "b2sum"],
  ] as const) {
    const { stdout, code } = await spindle("hash", "--algorithm", algorithm, made.image);
    t.is(code, 0);
    const sums = join(made.folder, "..", "sums");
    writeFileSync(sums, stdout);
    t.notThrows(() => run(program, ["-c", "--strict", "--quiet", sums], made.folder));
    t.is(stdout.toString("latin1").trimEnd().split("\n").length, 7);
  }
});

test("cat writes files one after the other, holes as zeros, links followed within the image", async (t) => {
  const made = sample(t);
  if (!made) return;
  const { stdout, code } = await spindle("cat", made.image, "absolute", "/a/b/link", "sparse", "a/\\xff\\n\\\\odd");
  t.is(code, 0);
  const sparse = readFileSync(join(made.folder, "sparse"));
  t.true(stdout.equals(Buffer.concat([Buffer.from("small\nsmall\n"), sparse, Buffer.from("odd")])));
  const failed = await spindle("cat", made.image, "a", "nope", "a/small");
  t.is(failed.code, 2);
  t.is(failed.text, "small\n");
  t.is(failed.stderr, "spindle: a: it is a folder, not a file.\nspindle: nope: the image has no such file or folder\n");
  t.like(JSON.parse((await spindle("cat", "--json", made.image, "a/small")).text), { files: [{ text: "small\n" }] });
});

test("stat tells what stat(1) tells", async (t) => {
  const made = sample(t);
  if (!made) return;
  const paths = ["a", "a/small", "a/b/link", "set-id", "sparse"];
  const { files } = JSON.parse((await spindle("stat", "--json", made.image, ...paths)).text);
  for (const [index, path] of paths.entries()) {
    const [mode, links, owner, group, size, modified] = run("stat", ["-c", "%a %h %u %g %s %.9Y", path], made.folder)
      .trim()
      .split(" ");
    const one = files[index];
    t.is(one.mode, mode!.padStart(4, "0"));
    t.is(one.links, Number(links));
    t.is(one.owner, Number(owner));
    t.is(one.group, Number(group));
    if (one.kind !== "directory") t.is(one.size, Number(size));
    // mke2fs keeps whole seconds in some versions.
    t.is(Math.floor(Date.parse(one.modified) / 1000), Math.floor(Number(modified)));
  }
  t.like(files[4].layout, { dataExtents: 1, holes: 1 });
  t.regex((await spindle("stat", made.image, "a/b/link")).text, /File: a\/b\/link -> ..\/small\n/);
});

test("cp copies a whole image as it was", async (t) => {
  const made = sample(t);
  if (!made) return;
  const target = join(made.folder, "..", "copy");
  const { code, text, stderr } = await spindle("cp", "--json", made.image, "/", target);
  t.is(code, 0);
  const result = JSON.parse(text);
  t.like(result, { files: 6, symlinks: 2, hardLinks: 1, failed: [] });
  // The image's root and lost+found are root's.
  if (process.getuid?.() === 0) t.is(stderr, "");
  else t.deepEqual(result.notKept, [{ what: "owner", why: "EPERM", files: 2, first: "/lost+found" }]);
  t.notThrows(() => run("diff", ["-r", "--no-dereference", "-x", "lost+found", made.folder, target]));
  const list = (folder: string) =>
    run("find", [".", "-name", "lost+found", "-prune", "-o", "-printf", "%p %m %U %G %n %Ts %l\\0"], folder)
      .split("\0")
      .sort();
  t.deepEqual(
    list(target).filter((line) => !line.startsWith(". ")),
    list(made.folder).filter((line) => !line.startsWith(". ")),
  );
  const again = await spindle("cp", made.image, "a/small", join(target, "a"));
  t.is(again.code, 2);
  t.regex(again.stderr, /^spindle: a\/small: is in the target already; pass --force/);
  t.is((await spindle("cp", "--force", made.image, "a/small", join(target, "new name"))).code, 0);
  t.is(readFileSync(join(target, "new name"), "utf8"), "small\n");
  t.is((await spindle("cp", made.image, "a", "set-id", join(target, "nowhere"))).code, 2);
});

test("tree draws and counts", async (t) => {
  const made = sample(t);
  if (!made) return;
  t.is(
    (await spindle("tree", made.image, "/a/b")).text,
    "/a/b\n├── again\n├── c\n│   └── ümlaut\n├── large\n└── link -> ../small\n\n1 folder, 4 files\n",
  );
  t.is((await spindle("tree", "-d", "-L", "1", made.image)).text, "/\n├── a\n└── lost+found\n\n2 folders, 0 files\n");
});

test("every command has a JSON form", async (t) => {
  const made = sample(t);
  if (!made) return;
  for (const [words, key] of [
    [["ls", made.image], "entries"],
    [["tree", made.image], "entries"],
    [["find", made.image], "files"],
    [["hash", made.image], "files"],
    [["stat", made.image], "files"],
  ] as const) {
    const result = JSON.parse((await spindle(...words, "--json")).text);
    t.true(result[key].length > 0);
    t.deepEqual(result.problems, []);
  }
  const { entries } = JSON.parse((await spindle("ls", "--json", made.image, "a")).text);
  t.like(entries[2], { name: "\ufffd\n\\odd", nameBytes: "ff0a5c6f6464", kind: "file" });
  const { filesystems } = JSON.parse((await spindle("info", "--json", made.image)).text);
  t.like(filesystems, [{ name: "disk", filesystem: { type: "ext4", warnings: [] } }]);
});

test("a reader that goes away ends a command quietly", (t) => {
  const made = sample(t);
  if (!made) return;
  const program = `import(${JSON.stringify(new URL("../cli.js", import.meta.url).href)}).then(async ({ main }) => {
    process.exitCode = await main(process.argv.slice(1));
  })`;
  const script = `node -e "$1" cat "$2" sparse sparse sparse | head -c 3; echo " \${PIPESTATUS[0]}"`;
  t.is(run("bash", ["-c", script, "bash", program, made.image]), "beg 0\n");
});

test("every command that tells paths as JSON tells the same ones", async (t) => {
  const made = sample(t);
  if (!made) return;
  for (const start of ["/a", "a"]) {
    const paths: string[][] = [];
    for (const [words, key] of [
      [["find", made.image, start, "--type", "f"], "files"],
      [["hash", made.image, start], "files"],
      [["ls", "-R", made.image, start], "entries"],
    ] as const) {
      const result = JSON.parse((await spindle(...words, "--json")).text);
      const files = result[key].filter(({ kind }: { kind?: string }) => (kind ?? "file") === "file");
      paths.push(files.map(({ path }: { path: string }) => path).sort());
    }
    t.deepEqual(paths[1], paths[0]);
    t.deepEqual(paths[2], paths[0]);
    t.true(paths[0]!.includes(`${start}/b/large`));
  }
});

/** A disk of 4 MiB with two partitions, given as type, first sector and what is written there. */
function disk(t: ExecutionContext, ...parts: { type: number; at: number; bytes: Buffer }[]): string {
  const bytes = Buffer.alloc(4 << 20);
  for (const [index, { type, at, bytes: content }] of parts.entries()) {
    bytes[446 + 16 * index + 4] = type;
    bytes.writeUInt32LE(at, 446 + 16 * index + 8);
    bytes.writeUInt32LE(2048, 446 + 16 * index + 12);
    content.copy(bytes, at * 512);
  }
  bytes.write("\x55\xaa", 510, "latin1");
  const path = join(scratch(t), "disk");
  writeFileSync(path, bytes);
  return path;
}

test("a disk whose partitions aren't read is refused with what they are, by exit code 4", async (t) => {
  const xfs = Buffer.alloc(512);
  xfs.write("XFSB");
  xfs.write("ro\not", 108);
  const image = disk(
    t,
    { type: 0x83, at: 2048, bytes: xfs },
    { type: 0x83, at: 4096, bytes: Buffer.from(`LABELONE${"\0".repeat(16)}LVM2 001`) },
  );
  const { code, stderr } = await spindle("ls", image);
  t.is(code, 4);
  t.true(
    stderr.includes('p1 is an XFS filesystem "ro\\not", p2 is a physical volume of LVM. Mount it with --as disk'),
    stderr,
  );
  t.regex((await spindle("ls", "--volume", "2", image)).stderr, /reads in 2: p2 is a physical volume of LVM\. Mount/);
  const info = JSON.parse((await spindle("info", "--json", image)).text);
  t.is(info.filesystems[1].unread.type, "LVM2_member");
});

test("a filesystem from the first sector on is shown where the partitions beside it hold nothing known", async (t) => {
  const made = sample(t);
  if (!made) return;
  const bytes = readFileSync(made.image);
  readFileSync(disk(t, { type: 0x83, at: 2048, bytes: Buffer.alloc(0) })).copy(bytes, 0, 0, 512);
  writeFileSync(made.image, bytes);
  t.is((await spindle("cat", made.image, "/a/small")).text, "small\n");
});

test("--volume takes the label that the partition table gives, where no filesystem is called so", async (t) => {
  const made = sample(t);
  if (!made) return;
  run("tune2fs", ["-L", "inner", made.image]);
  const path = `${made.image}.gpt`;
  writeFileSync(path, "");
  truncateSync(path, 130 << 20);
  const table = "label: gpt\nstart=1MiB,size=62MiB,name=inner\nstart=65MiB,size=64MiB,name=outer\n";
  execFileSync("sfdisk", ["-q", path], { input: table, stdio: ["pipe", "ignore", "ignore"] });
  run("dd", [`if=${made.image}`, `of=${path}`, "bs=1M", "seek=65", "conv=notrunc,sparse", "status=none"]);
  for (const label of ["inner", "outer"])
    t.is((await spindle("cat", path, "/a/small", "--volume", label)).text, "small\n", label);
  t.is((await spindle("ls", path, "--volume", "other")).code, 2);
});

test("an MBR of a disk with sectors of 4 KiB is read as such, though a raw image doesn't tell of them", async (t) => {
  const made = sample(t);
  if (!made) return;
  const path = `${made.image}.4k`;
  const mbr = readFileSync(disk(t, { type: 0x83, at: 256, bytes: Buffer.alloc(0) })).subarray(0, 512);
  mbr.writeUInt32LE(64 * 256, 446 + 12);
  writeFileSync(path, Buffer.concat([mbr, Buffer.alloc((1 << 20) - 512), readFileSync(made.image)]));
  t.is((await spindle("cat", path, "/a/small")).text, "small\n");
  const { volumes } = JSON.parse((await spindle("info", "--json", path)).text);
  t.is(volumes.sectorSize, 4096);
  t.regex(volumes.warnings.join(), /taken to count in sectors of 4096 bytes/);
});
