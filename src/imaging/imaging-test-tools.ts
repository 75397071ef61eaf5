/** What the tests of this folder share: images of files, the command line in a process of its own, loop devices. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { openLayers } from "../chain.js";
import { type CreateOptions, createImage } from "./create.js";
import { type RestoreOptions, restoreDisk } from "./restore.js";
import { verifyLayers } from "./verify.js";

/** A folder of its own that goes with the test. */
export function workspace(t: ExecutionContext): (name: string) => string {
  const folder = mkdtempSync(join(tmpdir(), "spindle-imaging-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return (name) => join(folder, name);
}

export const create = (source: string, image: string, more: Partial<CreateOptions> = {}) =>
  createImage({ source, image, level: 1, threads: 1, force: false, tool: "test", ...more });

export async function restore(image: string, target: string, more: Partial<RestoreOptions> & { parent?: string } = {}) {
  const opened = openLayers({ path: image, parent: more.parent });
  try {
    return await restoreDisk(opened, { target, force: false, verify: false, threads: 1, ...more });
  } finally {
    opened.close();
  }
}

export async function verify(image: string, threads = 2) {
  const opened = openLayers({ path: image });
  try {
    return await verifyLayers(opened, threads);
  } finally {
    opened.close();
  }
}

/** The bytes of an image's disk, by a restore. */
export async function contentOf(image: string): Promise<Buffer> {
  const target = `${image}.restored`;
  await restore(image, target, { force: true });
  const bytes = readFileSync(target);
  rmSync(target);
  return bytes;
}

/** `spindle` in a process of its own. */
export function spindle(...words: string[]): ChildProcessWithoutNullStreams {
  const script = `import(${JSON.stringify(new URL("../cli.js", import.meta.url).href)})
    .then(({ main }) => main(process.argv.slice(1)))
    .then((code) => { process.exitCode = code; });`;
  return spawn(process.execPath, ["-e", script, "--", ...words]);
}

export interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export async function ended(child: ChildProcessWithoutNullStreams): Promise<Ended> {
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (part) => (stdout += String(part)));
  child.stderr.on("data", (part) => (stderr += String(part)));
  child.stdin.on("error", () => {});
  return await new Promise((resolve) => child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr })));
}

/** Waits until `what` is true. */
export async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Names in the folder of the file `path`. */
export const beside = (path: string) => readdirSync(join(path, "..")).sort();

export const root = process.getuid?.() === 0 ? undefined : "only root may do this";

/** Runs a tool; its output, or undefined if it failed. */
export function tool(name: string, ...words: string[]): string | undefined {
  const { status, stdout } = spawnSync(name, words, { encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
}

/** A loop device over `path`, which goes with the test; undefined, with the reason in the log, where none can be had. */
export function loopDevice(t: ExecutionContext, path: string, ...options: string[]): string | undefined {
  const device = root === undefined ? tool("losetup", "-f", "--show", ...options, path) : undefined;
  if (device === undefined) {
    t.log(`skipped: ${root ?? "losetup gives no loop device here"}`);
    t.pass();
    return undefined;
  }
  t.teardown(() => {
    // When the test has let go of it, another may have it.
    const over = tool("losetup", "-n", "-O", "BACK-FILE", device);
    if (over === path) tool("losetup", "-d", device);
  });
  return device;
}

/** A file of `size` bytes that don't repeat, from a seed. */
export function noise(size: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(size);
  let state = seed;
  for (let at = 0; at + 4 <= size; at += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes.writeUInt32LE(state, at);
  }
  return bytes;
}

export function write(path: string, bytes: Uint8Array): string {
  writeFileSync(path, bytes);
  return path;
}
