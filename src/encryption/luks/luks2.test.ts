/** LUKS 2: volumes that cryptsetup encrypted, and headers that are damaged, or lie. */
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { readFully } from "../../bytes/byte-source.js";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import { isDisk, isRefused, numbers, survivesDamage, testFolder } from "../../images/qemu-test-tools.js";
import type { PlainVolume } from "../encryption.js";
import { luks } from "./index.js";
import { cryptsetup, encrypt2, hasCryptsetup, jsonOf, password, quickPbkdf2, withJson } from "./luks-test-tools.js";

const MiB = 1 << 20;

/** Bytes that don't repeat. */
function noise(length: number): Buffer {
  const next = numbers(3);
  return Buffer.from(Array.from({ length }, () => next(256)));
}
const plain = noise(MiB);

/** As `encrypt2` leaves it: what was added is noise too. */
const isPlain = (volume: PlainVolume) => {
  const bytes = Buffer.alloc(plain.length);
  return readFully(volume.source, 0, bytes) === plain.length && bytes.equals(plain);
};

const open = (bytes: Uint8Array, secret: Uint8Array | undefined = password) =>
  luks.open(new MemorySource("volume", bytes), { password: secret, remember: (_, compute) => compute() });

/** One volume for the tests that change it. */
let shared: Buffer | undefined;
function volume(t: ExecutionContext): Buffer {
  shared ??= readFileSync(encrypt2(testFolder(t)(""), "volume", plain));
  return Buffer.from(shared);
}

const argon2 = (kind: string, memory: number, lanes: number, passes: number) => [
  ...["--pbkdf", kind, "--pbkdf-memory", `${memory}`, "--pbkdf-parallel", `${lanes}`],
  ...["--pbkdf-force-iterations", `${passes}`],
];
for (const [options, kind] of [
  [["--sector-size", "512", ...quickPbkdf2], "aes-xts-plain64"],
  [["--sector-size", "4096", ...argon2("argon2id", 32, 1, 4)], "aes-xts-plain64"],
  [
    ["--cipher", "aes-cbc-essiv:sha256", "--key-size", "256", "--sector-size", "1024", ...argon2("argon2i", 64, 4, 5)],
    "aes-cbc-essiv:sha256",
  ],
  [["--cipher", "aes-xts-plain", "--key-size", "256", "--hash", "sha512", ...quickPbkdf2], "aes-xts-plain"],
] as const)
  test(`what cryptsetup encrypted is read with its password: ${options.join(" ")}`, (t) => {
    if (!hasCryptsetup(t)) return;
    const path = encrypt2(testFolder(t)(""), "a", plain, options);
    const opened = open(readFileSync(path));
    t.true(isPlain(opened));
    t.is(opened.facts.cipher, kind);
    t.is(opened.facts.sectorSize, Number(/sector: (\d+)/.exec(cryptsetup(["luksDump", path]))?.[1]));
    // What follows the plain bytes was made by encrypting whatever was there: it is taken from the same sectors.
    const rest = Buffer.alloc(opened.source.size);
    readFully(opened.source, 0, rest);
    isDisk(t, { path, password }, rest, 4096);
    isRefused(t, "locked", { path, password: Buffer.from("else") }, path, "the password is wrong", "its one key slot");
  });

test("whichever key slot the password opens is used, and one that was made for another key is not", (t) => {
  if (!hasCryptsetup(t)) return;
  const folder = testFolder(t);
  const path = encrypt2(folder(""), "a", plain);
  const second = Buffer.from([1, 2, 0, 255, 10, 13, 10]);
  writeFileSync(folder("second"), second);
  cryptsetup(["luksAddKey", ...quickPbkdf2, "--key-file", "-", path, folder("second")]);
  for (const secret of [password, second]) t.true(isPlain(open(readFileSync(path), secret)));
  t.throws(() => open(readFileSync(path), second.subarray(0, 6)), { message: /any of its 2 key slots/ });
  t.throws(() => open(readFileSync(path), new Uint8Array()), { code: "locked" });
  // A slot that can't be tried keeps nobody from the other.
  for (const [member, value, problem] of [
    ["area.encryption", "cast6-xts-plain64", /cast6/],
    ["kdf.iterations", huge, /key slot 0 asks for 4294967295 rounds/],
  ] as const) {
    const bytes = changed(readFileSync(path), `keyslots.0.${member}`, value);
    t.true(isPlain(open(bytes, second)));
    t.throws(() => open(bytes), { code: "unsupported", message: problem });
  }
  writeFileSync(folder("third"), "third");
  cryptsetup([
    "luksAddKey",
    "--unbound",
    "--key-size",
    "512",
    ...quickPbkdf2,
    "--key-file",
    "-",
    path,
    folder("third"),
  ]);
  t.throws(() => open(readFileSync(path), Buffer.from("third")), { code: "locked" });
});

test("the second header is used where the first is damaged or older, and that is told", (t) => {
  if (!hasCryptsetup(t)) return;
  for (const at of [0, 3, 9, 80, 300, 450, 4100, 16383]) {
    const bytes = volume(t);
    bytes[at]! ^= 0x55;
    t.true(luks.recognises(new MemorySource("volume", bytes)), `byte ${at}`);
    const opened = open(bytes);
    t.true(isPlain(opened), `byte ${at}`);
    t.regex(String(opened.facts.header), /the second one was taken, since the first is damaged: at byte \d+/);
    bytes[16384 + at]! ^= 0x55;
    t.throws(() => open(bytes), { code: "corrupt", message: /volume: its LUKS header is damaged.*luksHeaderBackup/ });
  }
  const newer = withJson(volume(t), jsonOf(volume(t)), [16384], 99n);
  t.regex(String(open(newer).facts.header), /the first is older: number \d, not 99/);
  t.is(open(volume(t)).facts.header, undefined);
});

test("a second header that is left beneath a filesystem or a partition table isn't taken for encryption", (t) => {
  if (!hasCryptsetup(t)) return;
  for (const [position, text] of [
    [510, "\x55\xaa"],
    [1080, "\x53\xef"],
    [0, "XFSB"],
    [512, "LABELONE"],
  ] as const) {
    const bytes = volume(t);
    bytes.fill(0, 0, 16384).write(text, position, "latin1");
    t.false(luks.recognises(new MemorySource("volume", bytes)), text);
  }
});

/** A member of the header's JSON by its path, and what is put there; undefined takes it away. */
type Lie = readonly [path: string, value: unknown, code: string, message: RegExp];

const huge = 4294967295;
const pbkdf2 = { type: "pbkdf2", salt: Buffer.alloc(32).toString("base64") };
const argon2id = { type: "argon2id", time: 4, memory: 32, cpus: 1, salt: Buffer.alloc(32).toString("base64") };
const lies: readonly Lie[] = [
  ["segments.0.encryption", "cast6-xts-plain64", "unsupported", /encrypted with cast6.*cryptsetup/],
  ["segments.0.encryption", "blowfish-cbc-plain", "unsupported", /encrypted with blowfish/],
  ["segments.0.encryption", "aes", "unsupported", /encrypted with "aes"/],
  ["segments.0.encryption", "aes-xts-random", "unsupported", /mode xts-random/],
  ["segments.0.integrity", { type: "hmac(sha256)" }, "unsupported", /integrity \(hmac\(sha256\), dm-integrity\)/],
  ["segments.0.type", "linear", "unsupported", /the kind linear/],
  ["segments.0.offset", "0", "unsupported", /detached header/],
  ["segments.0.offset", "-1", "corrupt", /segments\.0\.offset in its JSON is "-1"/],
  ["segments.0.offset", "16384", "corrupt", /within the headers/],
  ["segments.0.offset", "99999999999", "corrupt", /should be from byte 99999999999 on.*truncated/],
  ["segments.0.offset", `${2 ** 60}`, "corrupt", /can't be/],
  ["segments.0.size", "99999999488", "corrupt", /99999999488 bytes.*truncated/],
  ["segments.0.size", "1000", "corrupt", /no whole sectors/],
  ["segments.0.sector_size", 768, "corrupt", /sector_size in its JSON is 768/],
  ["segments.0.sector_size", "512", "corrupt", /sector_size/],
  ["segments.0.iv_tweak", {}, "corrupt", /iv_tweak/],
  ["segments", {}, "unsupported", /tells of no data/],
  ["segments.1", { type: "crypt" }, "unsupported", /2 segments/],
  ["segments", [], "corrupt", /segments in its JSON is no object/],
  ["config.requirements", { mandatory: ["online-reencrypt-v2"] }, "unsupported", /encrypted anew/],
  ["config.requirements", { mandatory: ["tomorrow"] }, "unsupported", /doesn't know \(tomorrow\)/],
  ["digests", {}, "corrupt", /no digest/],
  ["digests.0.type", "sha", "unsupported", /digest of the kind sha/],
  ["digests.0.hash", "tiger", "unsupported", /hash tiger/],
  ["digests.0.hash", "shake256", "unsupported", /hash shake256/],
  ["keyslots.0.area.key_size", 1, "corrupt", /key_size in its JSON is 1/],
  ["digests.0.iterations", huge, "unsupported", /more than Spindle does/],
  ["digests.0.digest", "", "corrupt", /digest in its JSON has 0 bytes/],
  ["keyslots.0.key_size", 65, "corrupt", /key_size in its JSON is 65/],
  ["keyslots.0.key_size", 40, "unsupported", /key of 160 bits/],
  ["keyslots.0.type", "luks3", "unsupported", /slot of the kind luks3/],
  ["keyslots.0.af.stripes", huge, "corrupt", /stripes/],
  ["keyslots.0.af.stripes", 8000, "corrupt", /too little for 8000 stripes/],
  ["keyslots.0.af.hash", "md17", "unsupported", /hash md17/],
  ["keyslots.0.area.offset", "0", "corrupt", /where something else is/],
  ["keyslots.0.area.offset", "1048064", "corrupt", /into the data/],
  ["keyslots.0.area.size", "9999999999", "corrupt", /into the data/],
  ["keyslots.0.area.encryption", "cast6-xts-plain64", "unsupported", /cast6/],
  ["keyslots", {}, "corrupt", /no key slot that holds the key/],
  ["digests.0.keyslots", [], "corrupt", /no key slot that holds the key/],
  // Of each of the four hashes of which a key of 512 bits consists.
  ["keyslots.0.kdf", { ...pbkdf2, hash: "sha1", iterations: 2 ** 27 }, "unsupported", /more than Spindle does/],
  ["keyslots.0.kdf.iterations", huge, "unsupported", /4294967295 rounds of hashing.*more than Spindle does/],
  ["keyslots.0.kdf.iterations", 1e99, "corrupt", /iterations/],
  ["keyslots.0.kdf.salt", "", "corrupt", /salt in its JSON has 0 bytes/],
  ["keyslots.0.kdf.type", "scrypt", "unsupported", /with scrypt/],
  ["keyslots.0.kdf", { ...argon2id, memory: huge }, "unsupported", /4 passes over 4194304 MiB of memory/],
  ["keyslots.0.kdf", { ...argon2id, time: huge }, "unsupported", /4294967295 passes/],
  ["keyslots.0.kdf", { ...argon2id, memory: 4 }, "corrupt", /memory in its JSON is 4/],
  ["keyslots.0.kdf", { ...argon2id, cpus: 0 }, "corrupt", /cpus in its JSON is 0/],
  ["keyslots.0.kdf", undefined, "corrupt", /keyslots\.0\.kdf in its JSON is missing/],
  ["keyslots.0.kdf", argon2id, "locked", /the password is wrong/],
];

function changed(volume: Buffer, path: string, value: unknown): Buffer {
  const json = JSON.parse(jsonOf(volume)) as Record<string, unknown>;
  const names = path.split(".");
  const last = names.pop()!;
  let object = json;
  for (const name of names) object = object[name] as Record<string, unknown>;
  object[last] = value;
  return withJson(volume, JSON.stringify(json));
}

test("a header that tells what can't be, or what isn't known, is refused by name and at once", (t) => {
  if (!hasCryptsetup(t)) return;
  for (const [path, value, code, message] of lies) {
    const bytes = changed(volume(t), path, value);
    const started = performance.now();
    t.throws(() => open(bytes), { instanceOf: ImageError, code, message }, `${path} = ${JSON.stringify(value)}`);
    t.true(performance.now() - started < 3000, path);
    // Nobody is asked for a password that then is for nothing.
    if (code !== "locked") t.throws(() => open(bytes, undefined), { instanceOf: ImageError, code, message }, path);
  }
  const slots = Object.fromEntries(Array.from({ length: 33 }, (_, nth) => [nth, {}]));
  const many = changed(volume(t), "keyslots", slots);
  t.throws(() => open(many), { code: "corrupt", message: /keyslots in its JSON has 33 members/ });
  // The same place for two keys, and two for what only one slot is.
  const { keyslots } = JSON.parse(jsonOf(volume(t)));
  const twice = changed(volume(t), "keyslots.1", keyslots[0]);
  t.throws(() => open(twice), { code: "corrupt", message: /where something else is/ });
});

test("data that a header tells to be encrypted with nothing are as they are stored, once the key is known", (t) => {
  if (!hasCryptsetup(t)) return;
  const bytes = changed(volume(t), "segments.0.encryption", "cipher_null-ecb");
  const { source } = open(bytes);
  const read = Buffer.alloc(source.size);
  t.is(readFully(source, 0, read), read.length);
  t.true(read.equals(bytes.subarray(MiB)));
  t.throws(() => open(bytes, Buffer.from("else")), { code: "locked" });
});

test("without the password a LUKS 2 header is told, and nothing is computed", (t) => {
  if (!hasCryptsetup(t)) return;
  const bytes = changed(volume(t), "keyslots.0.kdf", { ...argon2id, memory: 2 ** 22, time: 10 });
  const refused = { code: "locked", message: /is encrypted \(LUKS 2, aes-xts-plain64\).*--password-file/ };
  t.throws(() => luks.open(new MemorySource("v", bytes), { remember: (_, compute) => compute() }), refused);
});

test("JSON that is none, or any bytes of it changed, is refused or opened; so is a volume that is cut off", (t) => {
  if (!hasCryptsetup(t)) return;
  const whole = volume(t);
  for (const json of ["", "{", "[]", "null", "0", '"x"', "[".repeat(12000), '{"segments":{"0":'.repeat(700)])
    t.throws(() => open(withJson(whole, json)), { instanceOf: ImageError }, json.slice(0, 20));
  const json = jsonOf(whole);
  survivesDamage(
    t,
    Buffer.from(json),
    (damaged) => {
      // Rounds of hashing are bounded, but a test has no minute for each.
      const text = damaged.toString("latin1").replace(/"iterations":\d{5,}/g, '"iterations":1000');
      open(withJson(whole, text));
      luks.open(new MemorySource("v", withJson(whole, text)), { remember: (_, compute) => compute() });
    },
    200,
  );
  for (const size of [0, 5, 511, 4095, 4096, 16384, 20000, 32768, 100_000, 500_000, MiB - 1, MiB, MiB + 511])
    t.throws(() => open(whole.subarray(0, size)), { instanceOf: ImageError }, `${size} bytes`);
  // All the rest of a file is the volume; a sector that is cut off isn't there.
  t.is(open(whole.subarray(0, 2 * MiB + 100)).source.size, MiB);
});

test("a volume in which encryption has begun and not ended is refused in words", (t) => {
  if (!hasCryptsetup(t)) return;
  const path = join(testFolder(t)(""), "a");
  writeFileSync(path, "");
  truncateSync(path, 4 * MiB);
  const sizes = ["--luks2-metadata-size", "16k", "--luks2-keyslots-size", "512k", "--reduce-device-size", "2M"];
  const words = ["reencrypt", "--encrypt", "--init-only", "--type", "luks2", ...sizes, ...quickPbkdf2];
  cryptsetup([...words, "--key-file", "-", path]);
  isRefused(t, "unsupported", { path, password }, path, "encrypted anew", "cryptsetup reencrypt");
});
