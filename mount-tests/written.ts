/** A mount that is written to, and what its disk has to hold then. */
import { createHash } from "node:crypto";
import { closeSync, existsSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { type DriverName, drivers, type MountedJson, type Person, Workspace } from "./helpers.js";

const MiB = 1024 * 1024;
/** Where the test disk's partition begins. */
export const partitionAt = MiB;

/** The ways in which what is written comes from the kernel: past its page cache or through it. */
export const ways: readonly Way[] = drivers.flatMap((driver) => [
  { driver, words: [], title: driver },
  ...(driver === "direct" ? [{ driver, words: ["--page-cache"], title: `${driver} with --page-cache` }] : []),
]);

export interface Way {
  readonly driver: DriverName;
  readonly words: readonly string[];
  readonly title: string;
}

export class Written extends Workspace {
  readonly expected = Buffer.from(this.disk);
  readonly overlay = join(this.folder, "work.overlay");
  private before = sha256(this.disk);

  constructor(
    t: ExecutionContext,
    person: Person,
    private readonly way: Way,
  ) {
    super(t, person, way.driver);
  }

  override mount(...more: string[]): Promise<MountedJson> {
    return super.mount(...this.way.words, ...more);
  }

  /** Makes the image and its partition larger, by a hole; what is expected of all its bytes then isn't known any more. */
  grow(size: number): void {
    const sectors = Buffer.alloc(4);
    sectors.writeUInt32LE((size - partitionAt) / 512);
    const fd = openSync(this.image, "r+");
    ftruncateSync(fd, size);
    writeSync(fd, sectors, 0, 4, 446 + 12);
    closeSync(fd);
    this.before = sha256(readFileSync(this.image));
  }

  file = (name: string) => join(this.mountpoint, name);

  /** Runs a program that must succeed. */
  async works(t: ExecutionContext, command: string, ...parameters: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(command, parameters);
    t.is(code, 0, `${command} ${parameters.join(" ")}: ${stderr}`);
    return stdout;
  }

  /** Writes through dd, with options of its own; remembers what the disk has to hold. */
  async dd(t: ExecutionContext, name: string, position: number, bytes: Buffer, ...options: string[]): Promise<void> {
    const source = join(this.folder, "source");
    writeFileSync(source, bytes);
    const conv = options.some((option) => option.startsWith("conv=")) ? [] : ["conv=notrunc"];
    await this.works(
      t,
      "dd",
      "status=none",
      `if=${source}`,
      `of=${this.file(name)}`,
      `bs=${Math.min(4096, bytes.length)}`,
      "oflag=seek_bytes",
      `seek=${position}`,
      ...conv,
      ...options,
    );
    bytes.copy(this.expected, (name === "disk.raw" ? 0 : partitionAt) + position);
  }

  async isAsExpected(t: ExecutionContext, message: string): Promise<void> {
    t.true(await this.holds("disk.raw", this.expected), `disk.raw ${message}`);
    t.true(await this.holds("p1.raw", this.expected.subarray(partitionAt)), `p1.raw ${message}`);
  }

  async ends(t: ExecutionContext): Promise<void> {
    const { code, stderr } = await this.spindle(["unmount", this.mountpoint]);
    t.is(code, 0, stderr);
    t.is(sha256(readFileSync(this.image)), this.before, "the image never changes");
  }

  log(log: string): string {
    return existsSync(log) ? readFileSync(log, "utf8") : "";
  }
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
