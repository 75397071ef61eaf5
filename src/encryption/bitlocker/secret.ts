/** What a user may give to open a BitLocker volume, told apart by its form. */
import { createHash } from "node:crypto";
import { protectorId, Role, readEntries, Type } from "./entries.js";

/** Hashes of which keys are made, 32 bytes each, and what kept there from being one. */
export interface Words {
  readonly password: Buffer | undefined;
  readonly recovery: Buffer | undefined;
  /** Why what looks like a recovery password isn't one, as a sentence's end. */
  readonly mistyped: string | undefined;
}

/** The content of a file that Windows wrote for one protector: `ID.BEK`. */
export interface StartupKey {
  /** The protector's. */
  readonly id: string;
  readonly key: Buffer;
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest();

export function wordsOf(secret: Uint8Array): Words {
  const password = textOf(secret);
  const groups = /^\s*\d{6}([- ]?\d{6}){7}\s*$/.test(password ?? "") ? password!.match(/\d{6}/g)! : undefined;
  const wrong = groups?.findIndex((group) => Number(group) % 11 !== 0 || Number(group) / 11 > 0xffff) ?? -1;
  return {
    password: password === undefined ? undefined : sha256(sha256(Buffer.from(password, "utf16le"))),
    recovery: groups && wrong < 0 ? recoveryOf(groups) : undefined,
    mistyped:
      groups && wrong >= 0
        ? `group ${wrong + 1} (${groups[wrong]}) is mistyped: 11 divides it not, or it is over 720885`
        : undefined,
  };
}

/** Each group of digits is a number of 16 bits, times 11. */
function recoveryOf(groups: readonly string[]): Buffer {
  const key = Buffer.alloc(16);
  for (const [nth, group] of groups.entries()) key.writeUInt16LE(Number(group) / 11, nth * 2);
  return sha256(key);
}

function textOf(secret: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(secret);
  } catch {
    return undefined; // it isn't UTF-8, and so nothing that anybody typed
  }
}

/**
 * The key in a file `ID.BEK` (libbde's "BitLocker Drive Encryption (BDE) format", section "BitLocker External Key (BEK)
 * file"); undefined for what isn't such a file.
 * @throws what `damaged` makes of a sentence without a subject
 */
export function startupKeyOf(given: Uint8Array, damaged: (what: string) => Error): StartupKey | undefined {
  if (given.length < 48) return undefined;
  const size = Buffer.from(given.subarray(0, 4)).readUInt32LE(0);
  // A newline at the end of what is given as a password is taken off before; here it was a part of the key.
  const lost = size - given.length === 1 ? "\n" : size - given.length === 2 ? "\r\n" : "";
  const bytes = Buffer.concat([given, Buffer.from(lost)]);
  if (bytes.length !== size || bytes.readUInt32LE(4) !== 1 || bytes.readUInt32LE(8) !== 48) return undefined;
  const entry = readEntries(bytes.subarray(48), damaged).find(
    ({ role, type }) => role === Role.startupKey && type === Type.externalKey,
  );
  if (!entry || entry.data.length < 24) throw damaged("no startup key is in it");
  const key = readEntries(entry.data.subarray(24), damaged)
    .find(({ type }) => type === Type.key)
    ?.data.subarray(4);
  if (key?.length !== 32) throw damaged(`its key has ${key?.length ?? 0} bytes, not 32`);
  return { id: protectorId(entry.data), key };
}
