/**
 * LUKS, the encryption of Linux, of both versions: ../../bytes/luks1.ts reads the headers of the first, which qcow2 has
 * inside too.
 */

import { type ByteSource, readExactly, Slice } from "../../bytes/byte-source.js";
import { DecryptedSource } from "../../bytes/decrypted.js";
import { Luks1Header } from "../../bytes/luks1.js";
import { unsupported } from "../../errors.js";
import type { Encryption, PlainVolume, Secrets } from "../encryption.js";

const magic = "LUKS\xba\xbe";

export const luks: Encryption = {
  name: "LUKS",
  recognises: (source) => begins(source, magic),
  open: openLuks1,
};

function begins(source: ByteSource, signature: string): boolean {
  if (source.size < 512) return false;
  return readExactly(source, 0, signature.length, "the signature").toString("latin1") === signature;
}

function openLuks1(source: ByteSource, secrets: Secrets): PlainVolume {
  const header = new Luks1Header(source, source.name);
  const { cipher, mode, hash, uuid, payload, keyLength, slots } = header;
  header.checkCipher();
  if (payload === 0 || payload >= source.size)
    throw unsupported(
      `${source.name}: holds a LUKS header and none of the data, which are in another place (a detached header). Spindle opens volumes that have both.`,
    );
  const key = secrets.remember(`${source.name}: key of LUKS ${uuid}`, () => header.open(secrets.password));
  const data = new Slice(source.name, source, payload, source.size - payload);
  return {
    source: new DecryptedSource(data, header.cipherOf(key)),
    facts: { version: 1, cipher: `${cipher}-${mode}`, keyBits: keyLength * 8, hash, uuid, keySlots: slots.length },
  };
}
