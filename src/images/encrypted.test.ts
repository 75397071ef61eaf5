/** Encrypted images as QEMU makes them: LUKS within qcow2, and the AES that qcow and qcow2 once had. */
import { readFileSync, writeFileSync } from "node:fs";
import test from "ava";
import { Luks1Header } from "../bytes/luks1.js";
import { MemorySource } from "../bytes/memory.js";
import { ImageError } from "../errors.js";
import { qcow2 } from "./qcow2/reader.js";
import {
  haveQemu,
  isDisk,
  isRefused,
  needsQemu,
  opened,
  patched,
  qemuImg,
  qemuIo,
  readSome,
  shuffledWrites,
  survivesDamage,
  testFolder,
  wholeDisk,
} from "./qemu-test-tools.js";

const MiB = 1 << 20;
const size = 3 * MiB + 512;
/** Longer than the 16 bytes of which the old AES made its key, and with letters of more than a byte. */
const passphrase = "Grüße aus dem Keller, 7×7";
const password = new TextEncoder().encode(passphrase);

/** Makes an encrypted image and writes to it all over; returns what QEMU then reads from it. */
function make(path: (name: string) => string, name: string, format: string, options: string, parent?: string): Buffer {
  writeFileSync(path("secret"), passphrase);
  const secret = ["--object", `secret,id=key,file=${path("secret")}`];
  const backing = parent === undefined ? [] : ["-b", parent, "-F", "qcow2"];
  const words = [
    "create",
    "-q",
    "-f",
    format,
    ...secret,
    "-o",
    `${options},encrypt.key-secret=key`,
    ...backing,
    path(name),
    `${size}`,
  ];
  // It measures its own time to choose the rounds of hashing, and gives up where the system counted none.
  for (let tries = 0; ; tries++)
    try {
      qemuImg(...words);
      break;
    } catch (error) {
      if (tries > 50 || !/CPU usage/.test((error as Error).message)) throw error;
    }
  const unlocked = `driver=${format},encrypt.key-secret=key,file.filename=${path(name)}`;
  qemuIo(unlocked, undefined, shuffledWrites(7, size, 14), undefined, secret);
  qemuImg("convert", ...secret, "--image-opts", unlocked, "-O", "raw", path("raw"));
  return readFileSync(path("raw"));
}

const luks = "encrypt.format=luks,encrypt.iter-time=10";
for (const [format, options, kind] of [
  ["qcow2", luks, "aes-xts-plain64"],
  ["qcow2", `${luks},encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha512,cluster_size=4k`, "aes-xts-plain64"],
  ["qcow2", `${luks},encrypt.cipher-alg=aes-192,encrypt.hash-alg=ripemd160,cluster_size=2M`, "aes-xts-plain64"],
  [
    "qcow2",
    `${luks},encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1`,
    "aes-cbc-essiv:sha256",
  ],
  ["qcow2", `${luks},encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain`, "aes-cbc-plain"],
  ["qcow2", `${luks},encrypt.cipher-mode=ecb`, "aes-ecb"],
  ["qcow2", `${luks},encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256`, "aes-xts-essiv:sha256"],
  ["qcow2", `${luks},encrypt.cipher-alg=serpent-256`, "serpent-xts-plain64"],
  ["qcow2", `${luks},encrypt.cipher-alg=serpent-192`, "serpent-xts-plain64"],
  ["qcow2", `${luks},encrypt.cipher-alg=twofish-128,encrypt.cipher-mode=ecb`, "twofish-ecb"],
  [
    "qcow2",
    `${luks},encrypt.cipher-alg=serpent-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain64`,
    "serpent-cbc-plain64",
  ],
  ["qcow2", `${luks},encrypt.cipher-alg=twofish-128`, "twofish-xts-plain64"],
  [
    "qcow2",
    `${luks},encrypt.cipher-alg=twofish-256,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256`,
    "twofish-cbc-essiv:sha256",
  ],
  ["qcow2", `${luks},extended_l2=on`, "aes-xts-plain64"],
  ["qcow2", `${luks},compat=0.10`, "aes-xts-plain64"],
  ["qcow2", "encrypt.format=aes", "AES"],
  ["qcow2", "encrypt.format=aes,extended_l2=on", "AES"],
  ["qcow2", "encrypt.format=aes,cluster_size=512", "AES"],
  ["qcow", "encrypt.format=aes", "AES"],
] as const)
  test(`an encrypted image is read with its password: ${format}, ${options}`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    const expected = make(path, "a", format, options);
    isDisk(t, { path: path("a"), password }, expected, 4096);
    opened({ path: path("a"), password }, ({ layers }) =>
      t.true(String(layers[0]!.facts.encryption).includes(kind), String(layers[0]!.facts.encryption)),
    );
    isRefused(t, "locked", { path: path("a") }, path("a"), "is encrypted", "--password-file");
    if (kind !== "AES") {
      const wrong = new TextEncoder().encode("else");
      isRefused(t, "locked", { path: path("a"), password: wrong }, path("a"), "the password is wrong", "one key slot");
    }
  });

test("an encrypted image over another, and a snapshot within it", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  make(path, "base", "qcow2", luks);
  // QEMU is told each image's secret: the base is opened through its own options.
  const secret = ["--object", `secret,id=key,file=${path("secret")}`];
  const base = wholeDisk({ path: path("base"), password });
  const before = make(path, "top", "qcow2", `${luks},cluster_size=4k`);
  qemuImg(
    "snapshot",
    ...secret,
    "--image-opts",
    "-c",
    "then",
    `driver=qcow2,encrypt.key-secret=key,file.filename=${path("top")}`,
  );
  const unlocked = `driver=qcow2,encrypt.key-secret=key,file.filename=${path("top")}`;
  qemuIo(unlocked, undefined, shuffledWrites(9, size, 8), undefined, secret);
  qemuImg("convert", ...secret, "--image-opts", unlocked, "-O", "raw", path("raw"));
  isDisk(t, { path: path("top"), password }, readFileSync(path("raw")), 4096);
  isDisk(t, { path: path("top"), password, snapshot: "then" }, before, 4096);
  // A child without clusters of its own shows its base alone.
  qemuImg("create", "-q", "-u", "-f", "qcow2", "-b", "base", "-F", "qcow2", path("child"), `${size}`);
  isDisk(t, { path: path("child"), password }, base);
  isRefused(t, "locked", { path: path("child") }, path("child"), path("base"), "is encrypted");
});

test("a cipher and a version that aren't known are refused in words", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  make(path, "a", "qcow2", `${luks},encrypt.cipher-alg=cast5-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain64`);
  isRefused(t, "unsupported", { path: path("a"), password }, path("a"), "encrypted with cast5", "qemu-img convert");
});

/** Where a key slot keeps what, in the LUKS header; the slots begin at byte 208. */
const At = {
  version: 6,
  cipher: 8,
  hash: 72,
  keyBytes: 108,
  rounds: 164,
  slot: 208,
  slotRounds: 212,
  material: 248,
  stripes: 252,
};

test("a LUKS header that can't be is refused at once, however many rounds it asks for", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  make(path, "a", "qcow2", luks);
  const image = readFileSync(path("a"));
  const place = image.indexOf(Buffer.from([0x05, 0x37, 0xbe, 0x77])) + 8;
  const header = Number(image.readBigUInt64BE(place));
  const lies: [Record<number, number[]>, "corrupt" | "unsupported", string][] = [
    [{ [header]: [0] }, "corrupt", "begin with LUKS"],
    [{ [header + At.version]: [0, 2] }, "unsupported", "version 2"],
    [{ [header + At.hash]: [0x7a] }, "unsupported", "hash zha256"],
    [{ [header + At.keyBytes]: [0xff, 0xff, 0xff, 0xff] }, "corrupt", "key of 4294967295 bytes"],
    [{ [header + At.rounds]: [0xff, 0xff, 0xff, 0xff] }, "unsupported", "more than Spindle does"],
    [{ [header + At.slotRounds]: [0xff, 0xff, 0xff, 0xff] }, "unsupported", "4294967295 rounds of hashing with sha256"],
    // 2^27 rounds, of each of the four hashes of which a key of 512 bits consists.
    [
      { [header + At.slotRounds]: [8, 0, 0, 0], [header + At.hash]: [...Buffer.from("sha1\0\0")] },
      "unsupported",
      "more than",
    ],
    [{ [header + At.slot]: [0, 0, 0xde, 0xad] }, "corrupt", "has no key slot"],
    [{ [header + At.slotRounds]: [0, 0, 0, 0] }, "corrupt", "0 rounds"],
    [{ [header + At.slot]: [1] }, "corrupt", "neither used nor free"],
    [{ [header + At.material]: [0xff] }, "corrupt", "should have its key"],
    [{ [header + At.stripes]: [0xff] }, "corrupt", "stripes"],
    [{ [place]: [0xff] }, "corrupt", "truncated"],
    [{ [place + 8]: [0xff] }, "corrupt", "truncated"],
    [{ [place - 1]: [8] }, "corrupt", "no LUKS header"],
  ];
  for (const [changes, code, word] of lies) isRefused(t, code, { path: patched(path("a"), changes), password }, word);
  writeFileSync(path("cut"), image.subarray(0, header + 1000));
  isRefused(t, "corrupt", { path: path("cut"), password }, path("cut"), "truncated");
});

test("a LUKS header with any bytes changed is refused, or asks for bounded work", (t) => {
  if (!haveQemu) return void needsQemu(t);
  const path = testFolder(t);
  make(path, "a", "qcow2", luks);
  const image = readFileSync(path("a"));
  const place = image.indexOf(Buffer.from([0x05, 0x37, 0xbe, 0x77])) + 8;
  const header = Number(image.readBigUInt64BE(place));
  const bytes = Buffer.from(image.subarray(header, header + 300_000));
  survivesDamage(t, Buffer.from(bytes.subarray(0, 592)), (damaged) => {
    const copy = Buffer.from(bytes);
    damaged.copy(copy);
    new Luks1Header(new MemorySource("hostile", copy), "hostile");
  });
  // Without a password nothing is computed, and nothing is read but headers.
  const error = t.throws(() => readSome(qcow2, image), { instanceOf: ImageError });
  t.is((error as ImageError).code, "locked");
});
