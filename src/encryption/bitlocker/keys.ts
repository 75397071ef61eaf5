/** From what the user gave to the key of the data: it opens a protector, whose master key opens that. */
import { createDecipheriv, createHash } from "node:crypto";
import { corrupt, locked, unsupported } from "../../errors.js";
import type { Secrets } from "../encryption.js";
import type { Metadata, Protector, Sealed } from "./metadata.js";
import { startupKeyOf, wordsOf } from "./secret.js";
import { stretch } from "./stretch.js";

const Kind = { clear: 0, startupKey: 0x200, recovery: 0x800, smartCard: 0x1000, password: 0x2000 } as const;
/** Protectors that are tried: each costs a second, and more than a few of a kind nobody has. */
const mostTried = 20;
/** Before a key that was sealed: what kind of entry it is, and of key. */
const keyHead = 12;
/** What keeps others out says how to come in. */
const howToGive = "Give it with --password-file FILE, or in the variable SPINDLE_PASSWORD.";

export interface OpenedKeys {
  /** Of the data. */
  readonly key: Buffer;
  readonly by: Protector;
}

/**
 * @param name of the volume, for messages. @param cipher for messages: `AES-XTS, 128 bits`
 * @throws ImageError `locked` when what was given opens no protector; `unsupported` when nothing that can be given would;
 *   `corrupt` where the metadata aren't those that were sealed
 */
export function openKeys(name: string, cipher: string, metadata: Metadata, secrets: Secrets): OpenedKeys {
  const found = masterKey(name, cipher, metadata, secrets);
  const damaged = (what: string) =>
    corrupt(`${name}: BitLocker's metadata at byte ${metadata.position}: ${what}. They were changed, or are damaged.`);
  const told = metadata.hash.sealed && opened(metadata.hash.sealed, found.master);
  const right = createHash("sha256").update(metadata.bytes).digest();
  if (!told?.subarray(keyHead).equals(right)) throw damaged("their SHA-256 is not the one that was sealed");
  const key = metadata.dataKey && opened(metadata.dataKey, found.master);
  if (!key || key.length <= keyHead || key.readUInt16LE(0) !== key.length)
    throw damaged("the key of the data can't be opened");
  if (key.readUInt16LE(8) !== metadata.method) throw damaged("the key of the data is of another cipher");
  return { key: key.subarray(keyHead), by: found.by };
}

interface Found {
  readonly master: Buffer;
  readonly by: Protector;
}

function masterKey(name: string, cipher: string, metadata: Metadata, secrets: Secrets): Found {
  const { protectors } = metadata;
  const of = (kind: number) => protectors.filter((protector) => protector.kind === kind);
  for (const by of of(Kind.clear)) {
    const master = by.clear && by.sealed && masterOf(by.sealed, by.clear);
    if (master) return { master, by };
  }
  const ways = [of(Kind.password), of(Kind.recovery), of(Kind.startupKey)];
  const usable = ways.flat().filter((by) => by.sealed && (by.kind === Kind.startupKey || by.salt));
  const encrypted = `${name}: is encrypted (BitLocker, ${cipher})`;
  if (usable.length === 0)
    throw unsupported(
      `${encrypted}, and opens only with its ${list(protectors)}. Spindle can't use that. On its own computer add a recovery password (manage-bde -protectors -add X: -RecoveryPassword), and make the image anew.`,
    );
  if (secrets.password === undefined) throw locked(`${encrypted}. It opens with its ${list(usable)}. ${howToGive}`);
  const secret = secrets.password;
  const startup = startupKeyOf(secret, (what) =>
    locked(`${name}: what was given for a password is a startup key file of BitLocker, but damaged: ${what}.`),
  );
  if (startup) {
    const by = of(Kind.startupKey).find(({ id }) => id === startup.id);
    if (!by?.sealed)
      throw locked(
        `${encrypted}. The startup key file that was given is of the protector ${startup.id}, which this volume doesn't have. It opens with its ${list(usable)}.`,
      );
    const master = masterOf(by.sealed, startup.key);
    if (master) return { master, by };
    throw locked(`${encrypted}. The startup key file that was given doesn't open its ${list([by])}.`);
  }
  const words = wordsOf(secret);
  const tries = usable.flatMap((by) => {
    const hash = by.kind === Kind.recovery ? words.recovery : by.kind === Kind.password ? words.password : undefined;
    return hash && by.salt && by.sealed ? [{ by, hash, salt: by.salt, sealed: by.sealed }] : [];
  });
  // What has the form of a recovery password hardly is any other.
  tries.sort((a, b) => Number(a.by.kind === Kind.password) - Number(b.by.kind === Kind.password));
  if (tries.length > mostTried)
    throw unsupported(`${encrypted}. It has ${tries.length} protectors, and Spindle tries ${mostTried} at most.`);
  for (const { by, hash, salt, sealed } of tries) {
    const kind = by.kind === Kind.recovery ? "recovery password" : "password";
    const remembered = `BitLocker ${kind} ${by.id} ${salt.toString("hex")}`;
    const master = masterOf(
      sealed,
      secrets.remember(remembered, () => stretch(hash, salt)),
    );
    if (master) return { master, by };
  }
  const mistyped = words.mistyped ? ` As a recovery password it can't be right: ${words.mistyped}.` : "";
  throw locked(
    `${encrypted}. The password is wrong.${mistyped} It opens with its ${list(usable)}. Give the right one with --password-file FILE.`,
  );
}

const masterOf = (sealed: Sealed, key: Uint8Array): Buffer | undefined => {
  const master = opened(sealed, key);
  return master?.length === keyHead + 32 && master.readUInt16LE(0) === master.length
    ? master.subarray(keyHead)
    : undefined;
};

/** What was sealed; undefined when this isn't its key, or it was changed. */
function opened({ nonce, tag, data }: Sealed, key: Uint8Array): Buffer | undefined {
  if (key.length !== 32) return undefined;
  const cipher = createDecipheriv("aes-256-ccm", key, nonce, { authTagLength: 16 });
  cipher.setAuthTag(tag);
  const plain = cipher.update(data);
  try {
    cipher.final();
    return plain;
  } catch {
    return undefined; // it tells of a wrong tag, and of nothing else
  }
}

/** `password (protector ID), TPM and PIN (protector ID)` */
function list(protectors: readonly Protector[]): string {
  const some = protectors.slice(0, mostTried).map(inWords);
  const more = protectors.length > mostTried ? `, and ${protectors.length - mostTried} more` : "";
  return some.length === 0 ? "protectors, of which there are none" : some.join(" or ") + more;
}

export const inWords = ({ kind, id }: Protector) => `${kindInWords(kind)} (protector ${id})`;

export function kindInWords(kind: number): string {
  if (kind === Kind.clear) return "clear key";
  if (kind === Kind.recovery) return "recovery password of 48 digits";
  if (kind === Kind.smartCard) return "smart card";
  if (kind === Kind.password) return "password";
  if (kind & ~0x700) return `protector of the kind 0x${kind.toString(16)}`;
  return ["TPM", "startup key file", "PIN"].filter((_, bit) => kind & (0x100 << bit)).join(" and ");
}
