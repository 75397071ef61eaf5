/** What every command that shows files of an image lets the user say about its filesystems. */
import type { ImageSpec } from "../chain.js";
import type { Option } from "./command.js";
import { wholeNumber } from "./numbers.js";

export interface ViewingArguments {
  codepage?: string;
  session?: string;
}

export const viewingOptions = {
  codepage: { value: "N", describe: "The code page of short names on FAT, for example 850 (default 437)" },
  session: { value: "N", describe: "Of a multi-session disc (ISO 9660) show this session; the first has number 1" },
} satisfies Record<string, Option>;

/** @throws ImageError `usage` */
export const viewingOf = (given: ViewingArguments): Pick<ImageSpec, "codePage" | "session"> => ({
  codePage: wholeNumber(given.codepage, "--codepage", 1, 65535),
  session: wholeNumber(given.session, "--session", 1, 99),
});
