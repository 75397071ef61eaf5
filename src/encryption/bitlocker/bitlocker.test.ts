/** BitLocker volumes that were made by the other way round, of kinds of which no images may be kept: see the tools. */
import test, { type ExecutionContext } from "ava";
import { readFully } from "../../bytes/byte-source.js";
import { MemorySource } from "../../bytes/memory.js";
import { sectorCipher } from "../../bytes/sector-cipher.js";
import { type ErrorCode, ImageError } from "../../errors.js";
import type { PlainVolume, Secrets } from "../encryption.js";
import {
  At,
  encryptSector,
  given,
  idOf,
  type Kind,
  type Made,
  makeVolume,
  noise,
  size,
  startupFile,
  stretched,
} from "./bitlocker-test-tools.js";
import { bitlocker } from "./index.js";

const name = "disk > volume 1";

function openVolume(image: Buffer, secrets: Secrets = given()): PlainVolume {
  return bitlocker.open(new MemorySource(name, image, 70_000), secrets);
}

/** Compares all, at once and in pieces that cut sectors and edges. */
function isPlain(t: ExecutionContext, { image, plain }: Made, secrets?: Secrets): PlainVolume {
  const volume = openVolume(image, secrets);
  const { source } = volume;
  t.is(source.size, plain.length);
  const all = Buffer.alloc(size);
  readFully(source, 0, all);
  const different = all.findIndex((byte, at) => byte !== plain[at]);
  t.is(different, -1, `byte ${different} differs`);
  for (let at = 0, length = 1; at < size; at += length, length = (length * 7 + 1023) % 30_011) {
    const target = Buffer.alloc(Math.min(length, size - at), 0xee);
    readFully(source, at, target);
    if (!target.equals(plain.subarray(at, at + target.length))) t.fail(`${length} bytes at ${at}`);
  }
  t.is(source.read(size, Buffer.alloc(1)), 0);
  return volume;
}

function isRefused(t: ExecutionContext, code: ErrorCode, words: RegExp, image: Buffer, secrets?: Secrets): void {
  const error = t.throws(() => openVolume(image, secrets), { instanceOf: ImageError });
  t.is(error?.code, code, error?.message);
  t.regex(error?.message ?? "", words);
  t.true(error?.message.startsWith(`${name}: `), error?.message);
}

for (const [method, cipher, keyBits] of [
  [0x8000, "AES-CBC with Elephant diffuser", 128],
  [0x8001, "AES-CBC with Elephant diffuser", 256],
  [0x8002, "AES-CBC", 128],
  [0x8003, "AES-CBC", 256],
  [0x8004, "AES-XTS", 128],
  [0x8005, "AES-XTS", 256],
] as const)
  for (const sectorSize of [512, 4096])
    test(`a volume is read: ${cipher}, ${keyBits} bits, sectors of ${sectorSize} bytes`, (t) => {
      const { facts } = isPlain(t, makeVolume({ method, sectorSize }));
      t.like(facts, { cipher, keyBits, sectorSize, label: "A label of 2026", state: "encrypted" });
      t.is(JSON.stringify(JSON.parse(JSON.stringify(facts))), JSON.stringify(facts));
    });

test("vectors go on behind 2^32, in bytes and in sectors", (t) => {
  const sector = noise(4096, "one");
  for (const [method, mode, length] of [
    [0x8003, "cbc-eboiv", 32],
    [0x8005, "xts-large64", 64],
  ] as const) {
    const key = noise(length, "key");
    for (const position of [0x100000000 - 4096, 0x100000000 * 4096 - 4096]) {
      const two = Buffer.concat([0, 4096].map((more) => encryptSector(method, key, sector, position + more)));
      sectorCipher("aes", mode, key, 4096).decrypt(two, position / 512);
      t.true(two.equals(Buffer.concat([sector, sector])), `${mode} at ${position}`);
    }
  }
});

test("a volume of Windows Vista has its first 8 KiB plain, and its first sector put right", (t) => {
  const { facts } = isPlain(t, makeVolume({ version: 1, method: 0x8000 }));
  t.is(facts.version, "Windows Vista");
});

test("BitLocker To Go is known by its GUID, and FAT without it is none", (t) => {
  const made = makeVolume({ toGo: true, method: 0x8002 });
  t.true(bitlocker.recognises(new MemorySource(name, made.image)));
  t.is(isPlain(t, made).facts.toGo, true);
  const fat = Buffer.from(made.image);
  fat.fill(0, 424, 440);
  t.false(bitlocker.recognises(new MemorySource(name, fat)));
  t.false(bitlocker.recognises(new MemorySource(name, made.image.subarray(0, 511))));
});

test("the size of sectors that the first one doesn't tell, as of exFAT, is taken from the metadata", (t) => {
  for (const sectorSize of [512, 4096]) {
    const made = makeVolume({ sectorSize });
    made.image.writeUInt16LE(0, 11);
    t.is(isPlain(t, made).facts.sectorSize, sectorSize);
  }
});

test("what lies behind the boundary of a volume that is half encrypted is plain as it is", (t) => {
  for (const state of [3, 5])
    for (const encrypted of [0x82000 - 512, 0x80000 + 512, 0xf0000, 0x10000, 512])
      t.like(isPlain(t, makeVolume({ state, encrypted })).facts, {
        state: "encrypted up to a boundary",
        encryptedSize: encrypted,
      });
});

test("of a volume that is encrypted in any order each chunk is read as its bit tells", (t) => {
  const some = (count: number, isSet: (nth: number) => boolean) =>
    Array.from({ length: count }, (_, nth) => isSet(nth));
  for (const header of [true, false]) {
    const chunks = [some(8, (nth) => nth % 3 > 0), [header], some(8, (nth) => nth !== 4)];
    t.is(isPlain(t, makeVolume({ chunks })).facts.state, "some parts encrypted");
  }
  const made = makeVolume({ chunks: [some(8, () => true), [true], some(8, (nth) => nth < 3)] });
  made.image[At.conversion[0]]! ^= 1;
  isPlain(t, made);
  made.image[At.conversion[1]]! ^= 1;
  isRefused(t, "corrupt", /which parts of the volume are encrypted.*Let Windows finish/, made.image);
});

test("what the table of what is encrypted doesn't reach is never taken for plain, told how large the volume is or not", (t) => {
  const all = [Array<boolean>(8).fill(true), [true], Array<boolean>(8).fill(true)];
  isPlain(t, makeVolume({ chunks: all, encrypted: 0 }));
  for (const encrypted of [0, size])
    isRefused(
      t,
      "corrupt",
      new RegExp(`what is encrypted ends at byte ${At.moved + 0x2000}, and the volume at ${size}`),
      makeVolume({ chunks: all.slice(0, 2), encrypted }).image,
    );
});

test("a volume that was decrypted needs no key, and has its first sectors elsewhere all the same", (t) => {
  t.is(isPlain(t, makeVolume({ state: 1, encrypted: 0, protectors: [] })).facts.state, "decrypted");
});

test("each kind of secret opens its protector, whichever comes first", (t) => {
  const recovery = "000011-000022-720885-111111-222222-333333-444444-555555";
  for (const protectors of [
    ["password", "recovery", "tpm", "startup"],
    ["tpm", "startup", "recovery", "password"],
  ] as const) {
    const made = makeVolume({ protectors });
    const file = startupFile();
    for (const [secret, kind] of [
      ["a password, π", "password"],
      [recovery, "recovery"],
      [recovery.replaceAll("-", ""), "recovery"],
      [`${recovery}\n`, "recovery"],
      [file, "startup"],
      // What reads passwords takes a newline off.
      [file.subarray(0, -1), "startup"],
    ] as const)
      t.regex(String(openVolume(made.image, given(secret)).facts.openedWith), new RegExp(`protector ${idOf(kind)}`));
  }
});

test("what has the form of a recovery password is tried as a password, too", (t) => {
  const digits = "000011-000022-000033-000044-000055-000066-000077-000088";
  const { image } = makeVolume({ protectors: ["recovery", "password"] });
  const remember = (what: string) => (what.includes("recovery") ? Buffer.alloc(32) : stretched.password);
  const { facts } = openVolume(image, { password: Buffer.from(digits), remember });
  t.is(facts.openedWith, `password (protector ${idOf("password")})`);
});

test("what is made of a password is asked for once a protector, by a name that tells its salt", (t) => {
  const names: string[] = [];
  const { image } = makeVolume({ protectors: ["recovery", "password"] });
  const remember = (what: string) => {
    names.push(what);
    return stretched.password;
  };
  openVolume(image, { password: Buffer.from("x"), remember });
  const salt = Buffer.alloc(16, "password").toString("hex");
  t.deepEqual(names, [`BitLocker password ${idOf("password")} ${salt}`]);
});

test("whoever can't open a volume is told what would", (t) => {
  const all: Kind[] = ["tpm", "password", "recovery", "startup"];
  const { image } = makeVolume({ protectors: all });
  const wrong: Secrets = { password: Buffer.from("wrong"), remember: () => Buffer.alloc(32) };
  const ways = ["password", "recovery password of 48 digits", "startup key file"];
  const named = new RegExp(ways.map((way, nth) => `${way} \\(protector ${idOf(all[nth + 1]!)}\\)`).join(" or "));
  isRefused(t, "locked", named, image);
  isRefused(t, "locked", /AES-XTS, 128 bits.*--password-file FILE.*SPINDLE_PASSWORD/, image);
  isRefused(t, "locked", named, image, wrong);
  isRefused(t, "locked", /The password is wrong/, image, wrong);
  const mistyped = Buffer.from("000011-000022-000034-000044-000055-000066-000077-000088");
  isRefused(t, "locked", /group 3 \(000034\) is mistyped/, image, { ...wrong, password: mistyped });
  const large = Buffer.from("000011-000022-000033-000044-000055-000066-000077-720896");
  isRefused(t, "locked", /group 8 \(720896\) is mistyped/, image, { ...wrong, password: large });
  isRefused(
    t,
    "locked",
    /startup key file that was given is of the protector .*02, /,
    makeVolume({ protectors: ["password"] }).image,
    given(startupFile()),
  );
  isRefused(t, "locked", /startup key file that was given doesn't open/, image, given(startupFile(Buffer.alloc(32))));
  isRefused(t, "locked", /its key has 31 bytes/, image, given(startupFile(Buffer.alloc(31))));
  isRefused(t, "locked", /The password is wrong/, image, given(Buffer.from([0xff, 0xfe, 0x00])));
  const sealed = makeVolume({ protectors: ["tpm"] }).image;
  for (const secret of [undefined, "some"])
    isRefused(
      t,
      "unsupported",
      new RegExp(`only with its TPM and PIN \\(protector ${idOf("tpm")}\\)`),
      sealed,
      given(secret),
    );
  isRefused(t, "unsupported", /protectors, of which there are none/, makeVolume({ protectors: [] }).image);
});

test("many protectors are refused and not tried for minutes", (t) => {
  const { image } = makeVolume({ protectors: Array<Kind>(21).fill("password") });
  const never: Secrets = { password: Buffer.from("x"), remember: () => t.fail("it was tried") as never };
  isRefused(t, "unsupported", /21 protectors, and Spindle tries 20 at most/, image, never);
});

test("where BitLocker keeps its own the plain volume has holes", (t) => {
  const { source } = openVolume(makeVolume().image);
  t.deepEqual(source.extentAt?.(At.metadata[0] + 10), { hole: true, length: 0x10000 - 10 });
  t.deepEqual(source.extentAt?.(At.metadata[0] - 10), { hole: false, length: 10 });
  t.is(source.extentAt?.(At.moved)?.hole, true);
});

test("a cipher that isn't known, and a conversion that was cut off, are refused by name", (t) => {
  isRefused(t, "unsupported", /the method 0x8006.*only that drive decrypts/, makeVolume({ method: 0x8006 }).image);
  isRefused(t, "unsupported", /state 2\).*Let Windows finish/, makeVolume({ state: 2 }).image);
  isRefused(t, "unsupported", /state 3\).*Let Windows finish/, makeVolume({ state: 3, encrypted: 0 }).image);
});
