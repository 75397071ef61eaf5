import { type SectorCipher, sectorCipher } from "../bytes/sector-cipher.js";
import { locked } from "../errors.js";
import type { Surroundings } from "../format.js";

export const oldQemuAesInWords =
  "AES, as older versions of QEMU did it: a wrong password gives wrong bytes and is not noticed";

/**
 * The encryption that QEMU once had for qcow and qcow2, as crypto/block-qcow.c has it: AES-128-CBC with the password's
 * first 16 bytes as the key, and the number of the sector on the disk as the vector. Nothing tells a wrong password.
 *
 * @throws ImageError `locked` without a password.
 */
export function oldQemuAes(name: string, around: Surroundings): SectorCipher {
  const password = around.options?.password;
  if (password === undefined)
    throw locked(
      `${name}: is encrypted (AES, as older versions of QEMU did it). Give its password with --password-file FILE, or in the variable SPINDLE_PASSWORD.`,
    );
  const key = Buffer.alloc(16);
  key.set(password.subarray(0, key.length));
  return sectorCipher("aes", "cbc-plain64", key);
}
