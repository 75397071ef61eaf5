/** Which files an image may make Spindle open by naming them. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { readFully } from "./bytes/byte-source.js";
import { type ImageSpec, openLayers } from "./chain.js";
import { ImageError } from "./errors.js";

/** A folder with a file `secret` in it, and a folder `in` for images. */
function places(t: ExecutionContext): { path: (name: string) => string; secret: string } {
  const root = mkdtempSync(join(tmpdir(), "spindle-reach-"));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  mkdirSync(join(root, "in"));
  writeFileSync(join(root, "secret"), Buffer.alloc(65536, "secret"));
  return { path: (name) => join(root, "in", name), secret: join(root, "secret") };
}

/** The smallest qcow2 of 64 KiB that names a base, and a format for it, or a data file. */
function qcow2({ base, format, dataFile }: { base?: string; format?: string; dataFile?: string }): Buffer {
  const file = Buffer.alloc(3 * 65536);
  file.writeUInt32BE(0x514649fb, 0);
  file.writeUInt32BE(3, 4);
  file.writeUInt32BE(16, 20);
  file.writeBigUInt64BE(65536n, 24);
  file.writeUInt32BE(1, 36);
  file.writeBigUInt64BE(65536n, 40);
  if (dataFile !== undefined) file.writeUInt32BE(4, 76);
  file.writeUInt32BE(104, 100);
  let at = 104;
  for (const [type, text] of [
    [0xe2792aca, format],
    [0x44415441, dataFile],
  ] as const) {
    if (text === undefined) continue;
    file.writeUInt32BE(type, at);
    file.writeUInt32BE(text.length, at + 4);
    file.write(text, at + 8);
    at += 8 + Math.ceil(text.length / 8) * 8;
  }
  at += 8;
  if (base !== undefined) {
    file.writeBigUInt64BE(BigInt(at), 8);
    file.writeUInt32BE(base.length, 16);
    file.write(base, at);
  }
  // With a data file its first cluster is the disk's.
  if (dataFile !== undefined) {
    file.writeBigUInt64BE(0x8000000000000000n + 131072n, 65536);
    file.writeBigUInt64BE(0x8000000000000000n, 131072);
  }
  return file;
}

const flat = (file: string) => `# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\nRW 128 FLAT "${file}" 0\n`;

function start(spec: ImageSpec): string {
  const opened = openLayers(spec);
  try {
    const bytes = Buffer.alloc(6);
    readFully(opened.disk, 0, bytes);
    return bytes.toString();
  } finally {
    opened.close();
  }
}

function refused(t: ExecutionContext, spec: ImageSpec, ...words: (string | RegExp)[]): void {
  const error = t.throws(() => start(spec), { instanceOf: ImageError })!;
  for (const word of words)
    t.true(
      typeof word === "string" ? error.message.includes(word) : word.test(error.message),
      `${word}: ${error.message}`,
    );
}

for (const [what, name, make] of [
  ["data file of a qcow2", "a.qcow2", (file: string) => qcow2({ dataFile: file })],
  ["flat extent of a VMDK", "a.vmdk", (file: string) => Buffer.from(flat(file))],
] as const)
  test(`the ${what} is taken from the image's folder only, unless the paths are trusted`, (t) => {
    const { path, secret } = places(t);
    const image = path(name);
    const elsewhere = [secret, "../secret", "/proc/self/../self/../../etc/passwd", "link"];
    symlinkSync("../secret", path("link"));
    for (const file of elsewhere) {
      writeFileSync(image, make(file));
      refused(t, { path: image }, image, "not in its folder", "--trust-paths");
    }
    for (const file of [secret, "../secret", "link"]) {
      writeFileSync(image, make(file));
      t.is(start({ path: image, trustPaths: true }), "secret", file);
    }
    for (const file of ["beside", "./beside", "../in/beside", path("beside")]) {
      writeFileSync(path("beside"), Buffer.alloc(65536, "beside"));
      writeFileSync(image, make(file));
      t.is(start({ path: image }), "beside", file);
    }
    for (const [file, word] of [
      ["fifo", "neither a file nor a block device"],
      [".", /is a folder|not in its folder/],
      ["nothing", "which is not there"],
    ] as const) {
      if (file === "fifo") t.is(spawnSync("mkfifo", [path(file)]).status, 0);
      writeFileSync(image, make(file));
      refused(t, { path: image }, word);
    }
  });

test("a raw base is taken from the image's folder, from where the user says, or where the paths are trusted", (t) => {
  const { path, secret } = places(t);
  const image = path("a.qcow2");
  writeFileSync(path("beside"), Buffer.alloc(65536, "beside"));
  symlinkSync("../secret", path("link"));
  for (const format of ["raw", undefined]) {
    for (const base of [
      secret,
      "../secret",
      "link",
      `file:${secret}`,
      `json:{"driver":"raw","file":{"driver":"file","filename":"${secret}"}}`,
    ]) {
      writeFileSync(image, qcow2({ base, format }));
      refused(
        t,
        { path: image },
        image,
        "secret".slice(base === "link" ? 6 : 0),
        "raw disk that is not in its folder",
        "--parent",
      );
      t.is(start({ path: image, trustPaths: true }), "secret", base);
      t.is(start({ path: image, parent: secret }), "secret", base);
    }
    for (const base of ["beside", path("beside")]) {
      writeFileSync(image, qcow2({ base, format }));
      t.is(start({ path: image }), "beside");
    }
  }
});

test("a base that is no raw disk may be anywhere, and has to be what it is recorded as", (t) => {
  const { path, secret } = places(t);
  const [image, middle] = [path("a.qcow2"), `${secret}.qcow2`];
  writeFileSync(middle, qcow2({}));
  for (const format of ["qcow2", undefined]) {
    writeFileSync(image, qcow2({ base: middle, format }));
    t.is(start({ path: image }), "\0".repeat(6));
  }
  // A base whose own raw base is beside it, and one whose isn't.
  writeFileSync(middle, qcow2({ base: "secret", format: "raw" }));
  t.is(start({ path: image }), "secret");
  writeFileSync(middle, qcow2({ base: "/etc/passwd", format: "raw" }));
  refused(t, { path: image }, middle, "/etc/passwd", "--parent /etc/passwd");
  for (const format of ["qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels"]) {
    writeFileSync(image, qcow2({ base: secret, format }));
    refused(t, { path: image }, image, secret);
  }
});

test("pipes, devices that act, folders and servers are no bases, and nothing waits for them", (t) => {
  const { path } = places(t);
  const image = path("a.qcow2");
  t.is(spawnSync("mkfifo", [path("fifo")]).status, 0);
  for (const [base, word] of [
    ["fifo", "neither a file nor a block device"],
    ["/dev/zero", "neither a file nor a block device"],
    ["/dev/tty", "neither a file nor a block device"],
    [".", "is a folder"],
    ["nbd://10.0.0.1/disk", "not a file on this computer"],
    ["https://example.com/disk", "not a file on this computer"],
    ["fd:3", "not a file on this computer"],
    ['json:{"driver":"raw","file":{"driver":"nbd","host":"h"}}', "option that Spindle doesn't know"],
    ['json:{"driver":"raw","file":{"driver":"https","filename":"https://example.com"}}', "not a file on this computer"],
    ["/proc/self/environ", "not in its folder"],
  ] as const)
    for (const trustPaths of [false, true]) {
      if (trustPaths && base.startsWith("/proc")) continue;
      writeFileSync(image, qcow2({ base, format: "raw" }));
      refused(t, { path: image, trustPaths }, image, word);
    }
});
