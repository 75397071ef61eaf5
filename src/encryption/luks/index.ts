/**
 * LUKS, the encryption of Linux, of both versions: ../../bytes/luks1.ts reads the headers of the first, which qcow2 has
 * inside too.
 */

import { type ByteSource, readExactly, Slice } from "../../bytes/byte-source.js";
import { DecryptedSource } from "../../bytes/decrypted.js";
import { Luks1Header } from "../../bytes/luks1.js";
import type { Encryption, PlainVolume, Secrets } from "../encryption.js";
import { hasFirst, placeOfSecond } from "./header2.js";
import { detachedHeader, openLuks2 } from "./luks2.js";

export const luks: Encryption = {
  name: "LUKS",
  recognises: (source) => hasFirst(source) || (!isOverwritten(source) && placeOfSecond(source) !== undefined),
  open(source, secrets) {
    const version = hasFirst(source) ? readExactly(source, 6, 2, "the LUKS header").readUInt16BE() : 2;
    return version === 1 ? openLuks1(source, secrets) : openLuks2(source, secrets);
  },
};

/**
 * Whether what is in the first header's place tells of a later use of the volume, so that a second header is but a rest: a
 * boot sector, the superblock of ext or XFS, the label of LVM.
 */
function isOverwritten(source: ByteSource): boolean {
  const start = readExactly(source, 0, Math.min(2048, source.size), "the first bytes");
  if (start.length < 2048) return true;
  return (
    start.readUInt16BE(510) === 0x55aa ||
    start.readUInt16LE(1080) === 0xef53 ||
    start.toString("latin1", 0, 4) === "XFSB" ||
    [0, 512, 1024, 1536].some((at) => start.toString("latin1", at, at + 8) === "LABELONE")
  );
}

function openLuks1(source: ByteSource, secrets: Secrets): PlainVolume {
  const header = new Luks1Header(source, source.name);
  const { cipher, mode, hash, uuid, payload, keyLength, slots } = header;
  header.checkCipher();
  if (payload === 0 || payload >= source.size) throw detachedHeader(source.name);
  const key = secrets.remember(`${source.name}: key of LUKS ${uuid}`, () => header.open(secrets.password));
  const data = new Slice(source.name, source, payload, source.size - payload);
  return {
    source: new DecryptedSource(data, header.cipherOf(key)),
    facts: { version: 1, cipher: `${cipher}-${mode}`, keyBits: keyLength * 8, hash, uuid, keySlots: slots.length },
  };
}
