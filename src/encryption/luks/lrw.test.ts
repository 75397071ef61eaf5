/**
 * LUKS 1 in the mode LRW, which cryptsetup had before XTS. It needs the kernel for that one, so the volume is put together here
 * ("LUKS On-Disk Format Specification" 1.2.3).
 */
import { pbkdf2Sync } from "node:crypto";
import test from "ava";
import { readFully } from "../../bytes/byte-source.js";
import { hashNamed } from "../../bytes/hash.js";
import { blockNumber, encryptLrw } from "../../bytes/lrw-test-tools.js";
import { mergeStripes } from "../../bytes/luks-stripes.js";
import { MemorySource } from "../../bytes/memory.js";
import { numbers } from "../../images/qemu-test-tools.js";
import { luks } from "./index.js";
import { password } from "./luks-test-tools.js";

const sector = 512;
const stripes = 4000;
const rounds = 10;
const next = numbers(5);
const noise = (length: number): Buffer => Buffer.from(Array.from({ length }, () => next(256)));

const encrypted = (plain: Buffer, keys: Buffer): Buffer =>
  Buffer.concat(
    Array.from({ length: plain.length / sector }, (_, nth) =>
      encryptLrw(plain.subarray(nth * sector, (nth + 1) * sector), keys, blockNumber(nth)),
    ),
  );

for (const length of [32, 48])
  test(`a volume in aes-lrw-benbi is read with its password: ${length * 8} bits`, (t) => {
    // Whatever stripes there are, they are those of some key.
    const material = noise(length * stripes);
    const key = mergeStripes(material, length, stripes, hashNamed("sha1")!);
    const [salt, digestSalt, plain] = [noise(32), noise(32), noise(64 * sector)];
    const slotSectors = Math.ceil(material.length / sector);
    const payload = 8 * (slotSectors + 1);
    const volume = Buffer.alloc(payload * sector);
    volume.write("LUKS\xba\xbe\x00\x01", "latin1");
    volume.write("aes", 8);
    volume.write("lrw-benbi", 40);
    volume.write("sha1", 72);
    volume.writeUInt32BE(payload, 104);
    volume.writeUInt32BE(length, 108);
    pbkdf2Sync(key, digestSalt, rounds, 20, "sha1").copy(volume, 112);
    digestSalt.copy(volume, 132);
    volume.writeUInt32BE(rounds, 164);
    for (let slot = 0, at = 208; slot < 8; slot++, at += 48) {
      volume.writeUInt32BE(slot === 0 ? 0x00ac71f3 : 0x0000dead, at);
      volume.writeUInt32BE(8 + slot * slotSectors, at + 40);
      volume.writeUInt32BE(stripes, at + 44);
    }
    volume.writeUInt32BE(rounds, 212);
    salt.copy(volume, 216);
    encrypted(material, pbkdf2Sync(password, salt, rounds, length, "sha1")).copy(volume, 8 * sector);
    const source = new MemorySource("volume", Buffer.concat([volume, encrypted(plain, key)]));
    const opened = luks.open(source, { password, remember: (_, compute) => compute() });
    t.is(opened.facts.cipher, "aes-lrw-benbi");
    for (const [position, size] of [
      [0, plain.length],
      [1000, 9000],
    ] as const) {
      const bytes = Buffer.alloc(size);
      t.is(readFully(opened.source, position, bytes), size);
      t.true(bytes.equals(plain.subarray(position, position + size)), `at ${position}`);
    }
  });
