/** The end of a mount that was written to: who comes next waits until all of it is durable. */
import { type ChildProcess, spawnSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { end } from "../src/fuse/ending.js";
import { formerServerEnds } from "../src/fuse/former-server.js";
import { umount2 } from "../src/libc.js";
import { settings } from "../src/settings.js";
import { comesTrue, drivers, finished, people, runs, serialFor, spindleProgram, Workspace } from "./helpers.js";
import { SlowPlace } from "./slow-device.js";

const root = people.find(({ uid }) => uid === 0);
const asRoot = serialFor(root);
const { endPatience, flushPatience } = settings;
const haveMachine = spawnSync("qemu-system-x86_64", ["--version"]).status === 0;
const isGoing = ({ exitCode, signalCode }: ChildProcess) => exitCode === null && signalCode === null;

for (const driver of drivers) {
  for (const [next, when] of [
    ["the next mount", "before it knows"],
    ["the next mount", "while it flushes"],
    ["commit", "while it flushes"],
    ["boot", "while it flushes"],
  ] as const)
    asRoot(
      `after umount(8) ${next} waits until the server has let go of the overlay, ${when} (${driver})`,
      async (t) => {
        if (next === "boot" && !haveMachine) return void t.log("skipped: qemu-system-x86_64 is not installed");
        const place = SlowPlace.make(t, driver);
        if (!place) return;
        const { pid } = await place.mountAndWrite(t);
        if (when === "before it knows") process.kill(pid, "SIGSTOP");
        t.teardown(() => runs(pid) && process.kill(pid, "SIGCONT"));
        // What umount(8) does in the end; before, it asks the mount for its attributes.
        t.is(umount2(place.mountpoint, 0), 0);
        const image = join(place.folder, "image.spin");
        const command = {
          "the next mount": place.mountArguments(`--writable=${place.overlay}`),
          // By another path.
          commit: ["commit", "link/work.overlay", image],
          boot: ["boot", place.image, "--driver", driver, `--writable=${place.otherOverlay}`, "--", "-no-such-option"],
        }[next];
        const child = place.start(process.execPath, [spindleProgram(), ...command]);
        const again = finished(child);
        const words = new RegExp(`waiting for process ${pid}, which served it until it was unmounted`);
        let said = "";
        child.stderr!.on("data", (data: Buffer) => {
          said += data.toString();
        });
        t.true(await comesTrue(() => words.test(said) || !isGoing(child), 60_000));
        t.true(runs(pid) && isGoing(child), said);
        process.kill(pid, "SIGCONT");
        place.goesOn();
        const { code, stderr } = await again;
        if (next === "boot") {
          t.is(code, 8);
          t.regex(stderr, /no-such-option/);
        } else t.is(code, 0, stderr);
        if (next === "commit") t.true(await place.isImageOfIt(image));
        if (next !== "the next mount") return;
        t.true(await place.holds("disk.raw", place.expected));
        place.unmountPlainly(t);
      },
    );

  asRoot(`unmount waits longer for a server that flushes than for another, and not for ever (${driver})`, async (t) => {
    const place = SlowPlace.make(t, driver);
    if (!place) return;
    const { pid: reading } = await place.mount();
    process.kill(reading, "SIGSTOP");
    t.teardown(() => runs(reading) && process.kill(reading, "SIGCONT"));
    const patience = (endPatience: number, flushPatience: number) =>
      Object.assign(settings, { endPatience, flushPatience });
    t.teardown(() => patience(endPatience, flushPatience));
    patience(100, 3000);
    await t.throwsAsync(end(place.mountpoint, false), { message: /did not end within 0\.1 seconds/ });
    process.kill(reading, "SIGCONT");
    const { pid } = await place.mountAndWrite(t);
    await t.throwsAsync(end(place.mountpoint, false), { message: /did not end within 3 seconds/ });
    t.true(runs(pid));
    place.goesOn();
    t.true(await comesTrue(() => !runs(pid)));
    const again = await place.mountAndWrite(t);
    patience(100, 60_000);
    const ended = end(place.mountpoint, false);
    setTimeout(() => place.goesOn(), 1000);
    t.deepEqual(await ended, { mountpoint: place.mountpoint, state: "unmounted", pid: again.pid });
  });

  asRoot(`unmount says so when the server ended before all was durable (${driver})`, async (t) => {
    const place = SlowPlace.make(t, driver);
    if (!place) return;
    const { pid, log } = await place.mountAndWrite(t);
    const unmount = place.start(process.execPath, [spindleProgram(), "unmount", place.mountpoint]);
    const outcome = finished(unmount);
    t.true(await comesTrue(() => place.mounts === 1, 60_000));
    process.kill(pid, "SIGKILL");
    place.goesOn();
    const { code, stderr } = await outcome;
    t.is(code, 8);
    t.true(stderr.includes(`process ${pid} that served it ended before all that was written was durable`), stderr);
    t.true(stderr.includes(log), stderr);
    // What wasn't is as after any crash: the overlay is there, and the next mount as ever.
    await place.mount(`--writable=${place.overlay}`);
    t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
  });

  asRoot(
    `a server that still has open files of a mount taken away lazily isn't waited for long (${driver})`,
    async (t) => {
      const place = new Workspace(t, root!, driver);
      const overlay = join(place.folder, "o");
      const { pid } = await place.mount(`--writable=${overlay}`);
      const fd = openSync(join(place.mountpoint, "disk.raw"), "r");
      t.is((await place.spindle(["unmount", "--lazy", place.mountpoint])).code, 0);
      Object.assign(settings, { endPatience: 100 });
      t.teardown(() => Object.assign(settings, { endPatience }));
      await formerServerEnds(overlay);
      t.true(runs(pid));
      closeSync(fd);
      Object.assign(settings, { endPatience });
      await formerServerEnds(overlay);
      t.false(runs(pid));
    },
  );
}
