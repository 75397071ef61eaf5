/** Images for the commands that read files, and what the commands say. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { main } from "../cli.js";
import type { Terminal } from "./terminal.js";

export function scratch(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), "spindle-commands-"));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Runs `spindle` with these words. */
export async function spindle(...argv: string[]) {
  const parts: Buffer[] = [];
  let stderr = "";
  const code = await main(argv, undefined, {
    stdout: {
      write(part: string | Uint8Array, done?: () => void) {
        parts.push(Buffer.from(part));
        done?.();
      },
    },
    stderr: { write: (text: string | Uint8Array) => (stderr += text) },
  });
  const stdout = Buffer.concat(parts);
  return { code, stdout, text: stdout.toString(), stderr };
}

/** A terminal that keeps what is written. */
export function quietTerminal(json = false): Terminal & { output: string; notes: string[] } {
  return {
    json,
    exitCode: 0,
    interactive: false,
    output: "",
    notes: [],
    async write(part) {
      this.output += Buffer.from(part).toString("latin1");
      return true;
    },
    result() {},
    note(line) {
      this.notes.push(line);
    },
    progress: () => ({ update() {}, stop() {} }),
  };
}
