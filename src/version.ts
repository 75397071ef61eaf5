import { readFileSync } from "node:fs";

/** Spindle's version, as package.json has it. This file is compiled to dist/src. */
export const version: string = (
  JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string }
).version;
