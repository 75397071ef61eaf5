/** What LUKS 1 and 2 do alike with key slots: how much work they may ask for. It is to be hard to guess, and not to hang. */
import { corrupt, type ImageError, unsupported } from "../errors.js";
import type { Hash } from "./hash.js";

/**
 * Most work that all key slots of a header may ask for together, in rounds of hashing, or in KiB of memory times passes over
 * it. That is what 32 slots ask for, as many as there are, where cryptsetup made each for two seconds (its default) of the
 * quickest processors: 16 million rounds, or 16 passes over 1 GiB. On others it is about ten minutes, when no slot or only
 * the last is the password's. A header may ask for centuries.
 */
export const mostWork = 2 ** 29;

/** Of PBKDF2, which goes through its rounds for each hash that its result of `length` bytes consists of. */
export const pbkdf2Work = (rounds: number, length: number, hash: Hash): number =>
  rounds * Math.ceil(length / hash.length);

/**
 * The key that the first of `slots` gives, of those for which there is work left; and the first of the others.
 * @param key undefined where the slot isn't the password's
 */
export function firstKey<Slot>(
  slots: readonly Slot[],
  workOf: (slot: Slot) => number,
  key: (slot: Slot) => Uint8Array | undefined,
): { readonly key?: Uint8Array; readonly leftOut?: Slot } {
  let left = mostWork;
  let leftOut: Slot | undefined;
  for (const slot of slots) {
    const work = workOf(slot);
    if (work > left) {
      leftOut ??= slot;
      continue;
    }
    left -= work;
    const found = key(slot);
    if (found) return { key: found };
  }
  return { leftOut };
}

/** @param what as a sentence's part: `key slot 1 asks for …` */
export const tooMuchWork = (name: string, what: string): ImageError =>
  unsupported(
    `${name}: ${what} to make a key of a password: alone, or with the slots before it, more than Spindle does. If it is not the work of somebody who wishes you ill, open it with cryptsetup.`,
  );

export const noSlots = (name: string): ImageError =>
  corrupt(
    `${name}: no password opens it: its LUKS header has no key slot that holds the key of the data. They were erased, or it is damaged. Put back a copy of it that cryptsetup luksHeaderBackup made.`,
  );
