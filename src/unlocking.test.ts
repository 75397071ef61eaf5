/** Encrypted disks and partitions, wherever they are, with their password and without, by every command. */
import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { NotYet } from "./bytes/byte-source.js";
import { LocalChunkCache } from "./bytes/local-cache.js";
import { openLayers, reopenLayers } from "./chain.js";
import { spindle } from "./commands/image-files-test-tools.js";
import {
  cryptsetup,
  encrypt2,
  hasCryptsetup,
  jsonOf,
  passphrase,
  password,
  withJson,
} from "./encryption/luks/luks-test-tools.js";
import { ImageError } from "./errors.js";
import { hasTools, run } from "./filesystems/image-test-tools.js";
import { haveQemu, isDisk, isRefused, opened, qemuImg, testFolder, wholeDisk } from "./images/qemu-test-tools.js";
import { buildTree, openFiles, openFound, openImage, openWritable } from "./open.js";
import { noise, packingFolder, packs } from "./packed/packed-test-tools.js";
import { Progress } from "./packed/progress.js";
import { readVolumes } from "./volumes/index.js";

const MiB = 1 << 20;
const wrong = Buffer.from("sesame");

/** A filesystem with a file `note`, which holds `text`. */
function filesystem(folder: string, name: string, text: string): Buffer {
  const path = join(folder, name);
  writeFileSync(join(folder, "note"), text);
  writeFileSync(path, "");
  truncateSync(path, MiB);
  run("mke2fs", ["-q", "-F", "-b", "1024", "-L", name, path]);
  run("debugfs", ["-w", "-R", `write ${join(folder, "note")} note`, path]);
  return readFileSync(path);
}

interface Made {
  readonly path: (name: string) => string;
  readonly plain: Buffer;
  readonly volume: string;
}

/** A disk that is encrypted as a whole, and the file `password`; undefined, with the reason told, without the tools. */
function made(t: ExecutionContext): Made | undefined {
  if (!hasTools(t, "e2fsprogs, qemu-utils", "mke2fs", "debugfs", "qemu-img") || !hasCryptsetup(t)) return undefined;
  const path = testFolder(t);
  const volume = encrypt2(path(""), "volume", filesystem(path(""), "plain", "within"));
  writeFileSync(path("password"), `${passphrase}\n`);
  return { path, volume, plain: wholeDisk({ path: volume, password }) };
}

/** A GPT disk with these partitions, each of whole MiB. */
function partitioned(path: string, parts: readonly Uint8Array[]): void {
  writeFileSync(path, "");
  truncateSync(path, (parts.reduce((sum, { length }) => sum + length, 0) / MiB + 2) * MiB);
  execFileSync("sfdisk", ["-q", "--no-reread", path], {
    input: `label: gpt\n${parts.map(({ length }) => `size=${length / MiB}M\n`).join("")}`,
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    stdio: ["pipe", "ignore", "pipe"],
  });
  const fd = openSync(path, "r+");
  let at = MiB;
  for (const part of parts) at += writeSync(fd, part, 0, part.length, at);
  closeSync(fd);
}

/**
 * A volume that `secret` opens, with content that cryptsetup won't encrypt since it isn't a filesystem: the header tells of a
 * cipher that changes nothing.
 */
function holding(folder: string, name: string, content: Uint8Array, secret: Uint8Array = password): string {
  const path = encrypt2(folder, name, Buffer.alloc(MiB), undefined, secret);
  const header = readFileSync(path).subarray(0, MiB);
  const json = JSON.parse(jsonOf(header));
  json.segments["0"].encryption = "cipher_null-ecb";
  writeFileSync(path, Buffer.concat([withJson(header, JSON.stringify(json)), content]));
  return path;
}

test("an encrypted disk is its plain bytes in any container, and as it is stored without a password", (t) => {
  const here = made(t);
  if (!here) return;
  const { path, volume, plain } = here;
  const stored = readFileSync(volume);
  t.true(plain.subarray(0, MiB).equals(readFileSync(path("plain"))));
  qemuImg("convert", "-q", "-c", "-f", "raw", "-O", "qcow2", volume, path("a.qcow2"));
  qemuImg("convert", "-q", "-f", "raw", "-O", "vhdx", volume, path("a.vhdx"));
  execFileSync("gzip", ["-k", volume]);
  execFileSync("split", ["-b", "1000000", "-d", "-a", "3", "--numeric-suffixes=1", volume, path("s.raw.")]);
  isDisk(t, { path: path("a.qcow2"), password }, plain, 4096);
  for (const name of ["volume", "a.qcow2", "a.vhdx", "volume.gz", "s.raw.001"]) {
    t.true(wholeDisk({ path: path(name), password }).equals(plain), name);
    t.true(wholeDisk({ path: path(name) }).equals(stored), name);
    t.true(wholeDisk({ path: path(name), password, asStored: true }).equals(stored), name);
    isRefused(t, "locked", { path: path(name), password: wrong }, "the password is wrong");
  }
});

test("a disk that QEMU encrypted with LUKS 1 is its plain bytes", (t) => {
  if (!haveQemu) return void t.pass(t.log("skipped: qemu-img is not installed (Debian: qemu-utils)") as undefined);
  const path = testFolder(t);
  const plain = Buffer.from(Array.from({ length: MiB }, (_, at) => (at * 7 + (at >> 9)) & 0xff));
  writeFileSync(path("plain"), plain);
  writeFileSync(path("secret"), passphrase);
  const secret = ["--object", `secret,id=key,file=${path("secret")}`];
  const cheap = "key-secret=key,iter-time=10";
  // It measures its own time to choose the rounds of hashing, and gives up where the system counted none.
  for (
    let tries = 0;
    spawnSync("qemu-img", [...["create", "-q", "-f", "luks"], ...secret, "-o", cheap, path("a"), `${MiB}`]).status !==
    0;
    tries++
  )
    if (tries > 50) return t.fail("qemu-img makes no LUKS");
  const target = `driver=luks,key-secret=key,file.filename=${path("a")}`;
  qemuImg("convert", "-n", ...secret, "-f", "raw", "--target-image-opts", path("plain"), target);
  isDisk(t, { path: path("a"), password }, plain, 4096);
  opened({ path: path("a"), password }, ({ layers }) => t.is(layers[0]!.facts.version, 1));
});

test("every command sees the plain bytes with the password, and an image of them needs none", async (t) => {
  const here = made(t);
  if (!here) return;
  const { path, volume, plain } = here;
  const key = ["--password-file", path("password")];
  const ends = async (code: number, ...words: string[]) => {
    const done = await spindle(...words);
    t.is(done.code, code, `${words.join(" ")}: ${done.stderr}`);
    return done;
  };
  t.is((await ends(0, "cat", volume, "note", ...key)).text, "within");
  await ends(0, "restore", volume, path("restored"), ...key);
  t.true(readFileSync(path("restored")).equals(plain));
  await ends(0, "create", volume, path("plain.spin"), ...key);
  t.true(wholeDisk({ path: path("plain.spin") }).equals(plain));
  await ends(0, "create", volume, path("stored.spin"));
  t.true(wholeDisk({ path: path("stored.spin") }).equals(readFileSync(volume)));
  t.true(wholeDisk({ path: path("stored.spin"), password }).equals(plain));
  // A differential is one of what is stored, whether or not its base could be opened.
  await ends(0, "create", "--base", path("plain.spin"), path("stored.spin"), path("same.spin"), ...key);
  t.true(wholeDisk({ path: path("same.spin") }).equals(plain));
  await ends(0, "merge", path("stored.spin"), path("merged.spin"), ...key);
  t.true(wholeDisk({ path: path("merged.spin") }).equals(readFileSync(volume)));
  for (const name of ["plain.spin", "stored.spin"])
    t.regex((await ends(0, "verify", path(name), ...key)).text, /all sound\nsound/);
  const { stderr } = await ends(9, "ls", volume);
  t.regex(stderr, /volume: is encrypted \(LUKS 2, aes-xts-plain64\).*--password-file/);
  writeFileSync(path("wrong"), wrong);
  for (const command of ["ls", "info"]) await ends(9, command, volume, "--password-file", path("wrong"));
  t.regex((await ends(0, "info", volume)).text, /Format +raw\n[\s\S]*--password-file[\s\S]*encrypted with LUKS/);
  t.regex((await ends(0, "info", volume, ...key)).text, /Format +LUKS\n[\s\S]*cipher +aes-xts-plain64[\s\S]*: ext2/);
});

test("the files of the partitions that the password opens are shown, and the disk stays as it is stored", async (t) => {
  const here = made(t);
  if (!here || !hasTools(t, "fdisk", "sfdisk")) return;
  const { path, volume } = here;
  const open = filesystem(path(""), "open", "in the open");
  const other = encrypt2(
    path(""),
    "other",
    filesystem(path(""), "else", "elsewhere"),
    undefined,
    Buffer.from("another"),
  );
  partitioned(path("disk"), [open, readFileSync(volume), readFileSync(other)]);
  const names = (secret?: Uint8Array, volume?: string) => {
    const files = openFiles({ path: path("disk"), password: secret, volume });
    t.teardown(() => files.close());
    return files.found.filter(({ tree }) => tree).map(({ name }) => name);
  };
  t.deepEqual(names(), ["p1"]);
  t.deepEqual(names(password), ["p1", "p2"]);
  t.deepEqual(names(Buffer.from("another")), ["p1", "p3"]);
  t.throws(() => names(wrong), { code: "locked", message: /partition 2: the password is wrong/ });
  t.deepEqual(names(wrong, "1"), ["p1"]);
  t.throws(() => names(undefined, "p3"), { code: "locked", message: /partition 3: is encrypted \(LUKS 2/ });
  t.is((await spindle("cat", path("disk"), "p2/note", "--password-file", path("password"))).text, "within");
  t.true(wholeDisk({ path: path("disk"), password }).equals(readFileSync(path("disk"))));
  const found = openFound({ path: path("disk"), password });
  t.teardown(() => found.close());
  const [, second, third] = found.found;
  t.is(second!.encryption?.facts.cipher, "aes-xts-plain64");
  t.deepEqual([third!.encryption, third!.problem?.code, third!.unread?.type], [undefined, "locked", "crypto_LUKS"]);
});

test("another thread has the keys, and tries no password, right or wrong", (t) => {
  const here = made(t);
  if (!here || !hasTools(t, "fdisk", "sfdisk")) return;
  const { path, volume } = here;
  const other = encrypt2(
    path(""),
    "other",
    filesystem(path(""), "else", "elsewhere"),
    undefined,
    Buffer.from("another"),
  );
  partitioned(path("disk"), [readFileSync(volume), readFileSync(other)]);
  for (const name of ["volume", "disk"]) {
    const files = openFiles({ path: path(name), password });
    t.teardown(() => files.close());
    const data = structuredClone(files.treeData);
    // If it tried, it would be with these: the first would open nothing, and the second what was shut.
    const spec = { ...data.layers.spec, password: Buffer.from("another") };
    const layers = { ...data.layers, spec };
    const tree = buildTree({ ...data, layers }, new LocalChunkCache(MiB), 0);
    const note = tree.lookup(tree.root, Buffer.from("note"))!;
    const target = Buffer.alloc(6);
    tree.read(note, 0, target);
    t.is(target.toString(), "within", name);
    t.is(tree.lookup(tree.root, Buffer.from("p2")), undefined);
  }
});

test("what is written over the plain bytes is found again with the password, and never taken for the stored ones", (t) => {
  const here = made(t);
  if (!here) return;
  const { path, volume, plain } = here;
  const write = (overlay: string, secret: Uint8Array | undefined, word: string) => {
    const image = openWritable({ path: volume, password: secret }, path(overlay), 1);
    image.overlay.disk.write(5000, Buffer.from(word));
    image.overlay.disk.flush();
    image.close();
  };
  write("over-plain", password, "written");
  const expected = Buffer.from(plain);
  expected.write("written", 5000);
  isDisk(t, { path: path("over-plain"), password }, expected, 4096);
  isRefused(t, "locked", { path: path("over-plain") }, "--password-file");
  t.throws(() => write("over-plain", undefined, "x"), {
    code: "locked",
    message: /over-plain: was written over the plain/,
  });
  write("over-plain", password, "written");
  write("over-stored", undefined, "damaged");
  const stored = readFileSync(volume);
  stored.write("damaged", 5000);
  t.true(wholeDisk({ path: path("over-stored") }).equals(stored));
  t.throws(() => write("over-stored", password, "x"), { code: "mismatch", message: /Leave the password out/ });
});

test("what was written over the plain bytes is committed as an image of them", async (t) => {
  const here = made(t);
  if (!here) return;
  const { path, volume, plain } = here;
  await spindle("create", volume, path("stored.spin"));
  const image = openWritable({ path: path("stored.spin"), password }, path("overlay"), 1);
  image.overlay.disk.write(70_000, Buffer.from("written"));
  image.overlay.disk.flush();
  image.close();
  const done = await spindle("commit", path("overlay"), path("out.spin"), "--password-file", path("password"));
  t.is(done.code, 0, done.stderr);
  const expected = Buffer.from(plain);
  expected.write("written", 70_000);
  t.true(wholeDisk({ path: path("out.spin") }).equals(expected));
});

test("a key file that ends in a newline opens what was encrypted with all of it", async (t) => {
  if (!hasCryptsetup(t)) return;
  const path = testFolder(t);
  writeFileSync(path("key"), "first\nsecond\n");
  writeFileSync(path("volume"), "");
  truncateSync(path("volume"), 2 * MiB);
  cryptsetup([
    "luksFormat",
    "--type",
    "luks1",
    ...["--pbkdf-force-iterations", "1000", "--key-size", "256"],
    path("volume"),
    path("key"),
  ]);
  truncateSync(path("volume"), 4 * MiB);
  const { code, text, stderr } = await spindle("info", path("volume"), "--password-file", path("key"));
  t.is(code, 0, stderr);
  t.regex(text, /Format +LUKS/);
});

test("damage where the signature of an encryption would be is told by whoever reads there", (t) => {
  const path = testFolder(t);
  writeFileSync(path("short"), Buffer.alloc(100));
  t.is(
    opened({ path: path("short"), password }, ({ disk }) => disk.size),
    100,
  );
  t.throws(() => openFiles({ path: path("short"), password }), { instanceOf: ImageError, code: "unsupported" });
});

test("of an encrypted disk in a compressed file the partitions are known before its end is unpacked", (t) => {
  if (!hasTools(t, "bzip2, fdisk", "bzip2", "sfdisk") || !hasCryptsetup(t)) return;
  const path = testFolder(t);
  partitioned(path("plain"), [noise(4 * MiB)]);
  const plain = readFileSync(path("plain"));
  const volume = holding(path(""), "volume", plain);
  execFileSync("bzip2", ["-1", "-k", volume]);
  const image = openLayers({ path: path("volume.bz2"), password });
  t.teardown(() => image.close());
  t.deepEqual(readVolumes(image.disk).warnings, []);
  // Another thread, for which the unpacking stands still at the third MiB.
  const [{ packed, ...file }] = image.data.files as [(typeof image.data.files)[0]];
  const { content } = packed!;
  const stuck = Progress.create();
  stuck.publish(new Progress(content!.progress).count, 3 * MiB, 0);
  const files = [{ ...file, packed: { ...packed!, content: { ...content!, progress: stuck.memory } } }];
  const { disk } = reopenLayers({ ...image.data, files }, new LocalChunkCache(MiB), (_, position) => {
    throw new NotYet(position);
  });
  const { scheme, volumes, warnings } = readVolumes(disk);
  t.deepEqual([scheme, volumes.length, warnings], ["gpt", 1, []]);
  // The volume's data begin at its second MiB.
  t.deepEqual([disk.isFar?.(2 * MiB - 1), disk.isFar?.(2 * MiB)], [false, true]);
  t.throws(() => disk.read(disk.size - 512, Buffer.alloc(512)), { instanceOf: NotYet });
});

test("an encrypted volume within another is opened by whichever reading of the key file is its own", (t) => {
  const here = made(t);
  if (!here) return;
  const { path } = here;
  const [short, full] = [Buffer.from("key"), Buffer.from("key\n")];
  for (const [inner, outer] of [
    [short, full],
    [full, short],
    [full, full],
  ] as const) {
    const plain = filesystem(path(""), "within", "twice");
    const within = encrypt2(path(""), "inner", plain, undefined, inner);
    const volume = holding(path(""), "outer", readFileSync(within), outer);
    const files = openFiles({ path: volume, password: short, passwordInFull: full });
    t.teardown(() => files.close());
    // Another thread, whose passwords would open nothing if it tried them.
    const data = structuredClone(files.treeData);
    const spec = { ...data.layers.spec, password: wrong, passwordInFull: wrong };
    const again = buildTree({ ...data, layers: { ...data.layers, spec } }, new LocalChunkCache(MiB), 0);
    for (const tree of [files.tree, again]) {
      const target = Buffer.alloc(5);
      tree.read(tree.lookup(tree.root, Buffer.from("note"))!, 0, target);
      t.is(target.toString(), "twice");
    }
  }
});

test("an MBR that counts in sectors of 4 KiB is read as such where only encrypted volumes are in its partitions", (t) => {
  const here = made(t);
  if (!here) return;
  const { path, volume } = here;
  const stored = readFileSync(volume);
  const mbr = Buffer.alloc(MiB);
  mbr.writeUInt16LE(0xaa55, 510);
  mbr[446 + 4] = 0x83;
  mbr.writeUInt32LE(MiB / 4096, 446 + 8);
  mbr.writeUInt32LE(stored.length / 4096, 446 + 12);
  writeFileSync(path("disk"), Buffer.concat([mbr, stored]));
  const files = openFiles({ path: path("disk"), password });
  t.teardown(() => files.close());
  t.deepEqual([files.table.sectorSize, files.table.volumes[0]?.position], [4096, MiB]);
  t.is(files.found[0]?.tree?.label, "plain");
});

test("an MBR in sectors of 512 bytes that leads to an encrypted partition isn't taken to count in larger ones", (t) => {
  const path = packingFolder(t, Buffer.alloc(0));
  // Counted in 4 KiB the partition would begin at 1 MiB, where a filesystem is, too.
  const made = packs(
    t,
    path,
    "truncate -s 80M disk; mke2fs -q -F -t ext4 -E offset=1048576 disk 64m; truncate -s 4M luks; cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 luks - <<< secret; dd if=luks of=disk bs=64K count=8 seek=2 conv=notrunc status=none; printf 'label: dos\\nstart=256, size=16384, type=83' | sfdisk -q disk",
  );
  if (!made) return;
  const image = openImage({ path: path("disk") });
  t.is(image.table.sectorSize, 512);
  t.deepEqual(image.table.warnings, []);
  image.close();
});
