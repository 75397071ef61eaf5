/** A place whose overlay lies on a device that takes as long as a test wants to make anything durable. */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, symlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { type DriverName, loopMount, type MountedJson, people, Workspace } from "./helpers.js";

const MiB = 1024 * 1024;

export class SlowPlace extends Workspace {
  readonly expected = Buffer.from(this.disk);
  /** A link to the overlay's folder, which is another path to it. */
  readonly otherOverlay = join(this.folder, "link", "work.overlay");
  readonly overlay = join(this.folder, "slow", "work.overlay");
  private readonly device = join(this.folder, "slow");

  private constructor(t: ExecutionContext, driver: DriverName) {
    super(t, people.find(({ uid }) => uid === 0)!, driver);
  }

  /** Undefined where no loop device can be had. */
  static make(t: ExecutionContext, driver: DriverName): SlowPlace | undefined {
    const place = new SlowPlace(t, driver);
    const file = join(place.folder, "device");
    const fd = openSync(file, "w");
    ftruncateSync(fd, 64 * MiB);
    closeSync(fd);
    mkdirSync(place.device);
    symlinkSync("slow", join(place.folder, "link"));
    spawnSync("mkfs.ext4", ["-q", "-F", file]);
    if (loopMount("-o", "loop", file, place.device).status !== 0) {
      t.log("skipped: no loop device can be had");
      return undefined;
    }
    t.teardown(() => spawnSync("umount", ["-l", place.device]));
    t.teardown(() => place.goesOn());
    return place;
  }

  /** Mounts, and writes what isn't flushed yet when from now on nothing can be. */
  async mountAndWrite(t: ExecutionContext, overlay = this.overlay): Promise<MountedJson> {
    const mounted = await this.mount(`--writable=${overlay}`);
    const bytes = randomBytes(MiB);
    const fd = openSync(join(this.mountpoint, "disk.raw"), "r+");
    writeSync(fd, bytes, 0, MiB, 2 * MiB);
    closeSync(fd);
    bytes.copy(this.expected, 2 * MiB);
    const frozen = spawnSync("fsfreeze", ["--freeze", this.device], { encoding: "utf8" });
    t.is(frozen.status, 0, frozen.stderr);
    return mounted;
  }

  /** The device does what it was told to. */
  goesOn(): void {
    spawnSync("fsfreeze", ["--unfreeze", this.device]);
  }

  /** Whether an image has what was written, and all else as it was. */
  async isImageOfIt(image: string): Promise<boolean> {
    const raw = join(this.folder, "restored.raw");
    const { code, stderr } = await this.spindle(["restore", image, raw]);
    if (code !== 0) throw new Error(stderr);
    return readFileSync(raw).equals(this.expected);
  }
}
