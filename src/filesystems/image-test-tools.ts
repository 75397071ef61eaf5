/** Tests only: images made by a filesystem's own tools, and what a folder holds in the words of a walk. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";

const environment = { ...process.env, LC_ALL: "C.UTF-8", TZ: "UTC", PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

/** What `tool` prints; its failure is the test's failure, with what it said. */
export function run(tool: string, given: readonly string[], extra: Record<string, string> = {}): string {
  return execFileSync(tool, given, {
    encoding: "utf8",
    env: { ...environment, ...extra },
    stdio: "pipe",
    maxBuffer: 2 ** 28,
  });
}

/** Whether all `tools` are installed; if not, the test says so and is to return. */
export function hasTools(t: ExecutionContext, packages: string, ...tools: string[]): boolean {
  for (const tool of tools) {
    try {
      run("sh", ["-c", `command -v ${tool}`]);
    } catch {
      t.log(`skipped: ${tool} is not installed (Debian: ${packages})`);
      t.pass();
      return false;
    }
  }
  return true;
}

/** A folder that goes away with the test. */
export function scratchFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), "spindle-fs-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** An empty sparse file. */
export function sparseFile(folder: string, name: string, size: number): string {
  const path = join(folder, name);
  closeSync(openSync(path, "w"));
  truncateSync(path, size);
  return path;
}

/** `/path` → `size sha256`, `directory` or `-> target`, for everything in a folder: what a walk of its image has to find. */
export function contentsOf(folder: string, path = ""): Map<string, string> {
  const contents = new Map<string, string>();
  for (const name of readdirSync(join(folder, path)).sort()) {
    const child = `${path}/${name}`;
    const stat = lstatSync(join(folder, child));
    if (stat.isDirectory()) {
      contents.set(child, "directory");
      for (const [key, value] of contentsOf(folder, child)) contents.set(key, value);
    } else if (stat.isSymbolicLink()) contents.set(child, `-> ${readlinkSync(join(folder, child))}`);
    else {
      const hash = createHash("sha256")
        .update(readFileSync(join(folder, child)))
        .digest("hex");
      contents.set(child, `${stat.size} ${hash}`);
    }
  }
  return contents;
}

/** Bytes that don't repeat, the same on every run. */
export function noise(size: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(size);
  let state = seed * 2654435761;
  for (let at = 0; at < size; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}
