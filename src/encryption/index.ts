import { bitlocker } from "./bitlocker/index.js";
import type { Encryption } from "./encryption.js";
import { luks } from "./luks/index.js";

/** The encryptions of whole volumes, in the order in which they are tried. */
export const encryptions: readonly Encryption[] = [luks, bitlocker];
