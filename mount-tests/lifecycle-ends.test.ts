import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { comesToFail, comesTrue, drivers, people, runs, serialFor, Workspace } from "./helpers.js";

/** Kills a mount's server, and before it the watchdog, which would take the dead mount away. */
async function becomesStale(t: ExecutionContext, place: Workspace, pid: number): Promise<void> {
  for (const watchdog of place.processes().filter((each) => each !== pid)) process.kill(watchdog, "SIGKILL");
  process.kill(pid, "SIGKILL");
  t.true(await comesTrue(() => !runs(pid)));
  // A request on its way when the connection ends fails otherwise: what comes to stay is asked for.
  t.true(await comesToFail(() => place.list(), /Transport endpoint is not connected/));
}

for (const driver of drivers)
  for (const person of people) {
    const serial = serialFor(person);
    const by = `(${driver}, ${person.title})`;
    const workspace = (t: ExecutionContext, names = {}) => new Workspace(t, person, driver, names);

    serial(`a mount in the background answers as soon as the command returns ${by}`, async (t) => {
      const place = workspace(t);
      const { pid, driver: used } = await place.mount();
      t.is(used, driver);
      t.deepEqual(await place.list(), ["disk.raw", "p1.raw"]);
      t.true(await place.holds("disk.raw", place.disk));
      t.true(await place.holds("p1.raw", place.partition));
      t.true(runs(pid));
    });

    serial(`unmount returns when the serving process is gone, and leaves no process ${by}`, async (t) => {
      const place = workspace(t);
      const { pid } = await place.mount();
      const { code, stdout } = await place.spindle(["unmount", place.mountpoint, "--json"]);
      t.false(runs(pid));
      t.is(code, 0);
      t.deepEqual(JSON.parse(stdout), { mountpoint: place.mountpoint, state: "unmounted", pid });
      t.false(place.isMounted);
      t.deepEqual(await place.list(), []);
      t.true(await comesTrue(() => place.processes().length === 0));
    });

    for (const [title, command] of [
      ["umount(8)", ["umount"]],
      ["fusermount3 -u", ["fusermount3", "-u"]],
    ] as const)
      serial(`${title} ends the serving process ${by}`, async (t) => {
        const place = workspace(t);
        const { pid } = await place.mount();
        const { code, stderr } = await place.run(command[0], [...command.slice(1), place.mountpoint]);
        t.is(code, 0, stderr);
        t.true(await comesTrue(() => !runs(pid)));
        t.deepEqual(await place.list(), []);
        t.true(await comesTrue(() => place.processes().length === 0));
      });

    for (const signal of ["SIGTERM", "SIGHUP", "SIGINT"] as const)
      serial(`${signal} to the server in the background unmounts ${by}`, async (t) => {
        const place = workspace(t);
        const { pid } = await place.mount();
        process.kill(pid, signal);
        t.true(await comesTrue(() => !runs(pid)));
        t.false(place.isMounted);
        t.deepEqual(await place.list(), []);
        t.true(await comesTrue(() => place.processes().length === 0));
      });

    serial(`Ctrl-C in the foreground unmounts, with exit code 0 ${by}`, async (t) => {
      const place = workspace(t);
      const { child, outcome } = await place.mountInForeground();
      t.true(await place.holds("disk.raw", place.disk));
      process.kill(-child.pid!, "SIGINT");
      const { code, stderr } = await outcome;
      t.is(code, 0, stderr);
      t.deepEqual(await place.list(), []);
      t.true(await comesTrue(() => place.processes().length === 0));
    });

    serial(`a server in the foreground ends with exit code 0 when somebody else unmounts ${by}`, async (t) => {
      const place = workspace(t);
      const { outcome } = await place.mountInForeground();
      t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
      const { code, stderr } = await outcome;
      t.is(code, 0, stderr);
    });

    serial(`SIGTERM with a file open takes the mount away and serves the file until it is closed ${by}`, async (t) => {
      const place = workspace(t);
      const { pid } = await place.mount();
      const reader = place.start("sh", [
        "-c",
        'exec < "$1"; echo open; while [ ! -e "$2" ]; do sleep 0.05; done; tail -c 1024 | cksum',
        "sh",
        join(place.mountpoint, "disk.raw"),
        join(place.folder, "go"),
      ]);
      let said = "";
      reader.stdout!.on("data", (data: Buffer) => {
        said += data.toString();
      });
      t.true(await comesTrue(() => said.includes("open")));
      process.kill(pid, "SIGTERM");
      t.true(await comesTrue(() => !place.isMounted));
      t.true(runs(pid));
      await place.run("touch", [join(place.folder, "go")]);
      t.true(await comesTrue(() => !runs(pid)));
      const { stdout } = await place.run("sh", ["-c", 'tail -c 1024 "$1" | cksum', "sh", place.image]);
      t.is(said, `open\n${stdout}`);
    });

    serial(`kill -9 of the server while eight readers run: the mount is gone within two seconds ${by}`, async (t) => {
      const place = workspace(t);
      const { pid } = await place.mount();
      const loop = 'i=0; while dd if="$1" of=/dev/null bs=64k iflag=direct 2>/dev/null; do echo; done';
      let rounds = 0;
      const readers = [...Array(8)].map(() =>
        place.start("sh", ["-c", loop, "sh", join(place.mountpoint, "disk.raw")]),
      );
      for (const reader of readers) reader.stdout!.on("data", () => rounds++);
      t.true(await comesTrue(() => rounds >= 8));
      process.kill(pid, "SIGKILL");
      t.true(await comesTrue(() => !place.isMounted, 2000));
      t.deepEqual(await place.list(), []);
      t.true(await comesTrue(() => readers.every(({ exitCode }) => exitCode !== null)));
      t.true(await comesTrue(() => place.processes().length === 0));
    });

    serial(
      `kill -9 leaves nothing at a mount point with spaces, backslashes and commas in its name ${by}`,
      async (t) => {
        const place = workspace(t, { mountpoint: "a b\\040 ,c\"'$d\té#", image: "my, disk\\1 é.img" });
        const { pid } = await place.mount();
        t.true(await place.holds("disk.raw", place.disk));
        process.kill(pid, "SIGKILL");
        t.true(await comesTrue(() => !place.isMounted));
        t.deepEqual(await place.list(), []);
        const again = await place.mount();
        t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
        t.false(runs(again.pid));
      },
    );

    serial(`a server that dies before it has told its watchdog about the mount leaves nothing ${by}`, async (t) => {
      const place = workspace(t);
      const preload = join(place.folder, "die.cjs");
      writeFileSync(
        preload,
        `const { Socket } = require("net");
         const { write } = Socket.prototype;
         Socket.prototype.write = function (data, ...rest) {
           if (/^[0-9]+ [0-9]+:[0-9]+\\n$/.test(data)) process.kill(process.pid, "SIGKILL");
           return write.call(this, data, ...rest);
         };`,
      );
      const { code, stderr } = await place.spindle(place.mountArguments("--foreground"), person, {
        NODE_OPTIONS: `--require ${preload}`,
      });
      t.is(code, null, stderr);
      t.true(await comesTrue(() => !place.isMounted && place.processes().length === 0));
      t.deepEqual(await place.list(), []);
    });

    serial(`a stale mount is cleaned by unmount, which says so ${by}`, async (t) => {
      const place = workspace(t);
      const { pid } = await place.mount();
      await becomesStale(t, place, pid);
      const { code, stdout, stderr } = await place.spindle(["unmount", place.mountpoint]);
      t.is(code, 0, stderr);
      t.regex(stdout, /the server had died/);
      t.deepEqual(await place.list(), []);
    });

    serial(`a mount at the place of a stale one takes that away, says so, and answers ${by}`, async (t) => {
      const place = workspace(t);
      await becomesStale(t, place, (await place.mount()).pid);
      const { code, stdout, stderr } = await place.spindle(place.mountArguments("--json"));
      t.is(code, 0, stderr);
      t.regex(stderr, /mnt: the server of the mount that was there had died; it is taken away\n$/);
      const { pid } = JSON.parse(stdout) as { pid: number };
      t.true(await place.holds("disk.raw", place.disk));
      t.is(place.mounts, 1, "none is left beneath");
      t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
      t.false(runs(pid));
      t.deepEqual(await place.list(), []);
    });

    serial(`the watchdog holds no descriptor but its pipe and /dev/null, in a session of its own ${by}`, async (t) => {
      const place = workspace(t);
      const { pid } = await place.mount();
      const [watchdog] = place.processes().filter((each) => each !== pid);
      const { stdout } = await place.run("ls", ["-l", `/proc/${watchdog}/fd`], people[0]);
      const targets = stdout
        .split("\n")
        .filter((line) => line.includes("->"))
        .map((line) => line.split(" -> ")[1]);
      t.regex(targets[0]!, /^(socket|pipe):/);
      t.deepEqual(targets.slice(1), ["/dev/null", "/dev/null"]);
      const sessions = await place.run("ps", ["-o", "sid=", "-p", `${pid},${watchdog}`]);
      t.deepEqual(sessions.stdout.split("\n").map(Number).filter(Boolean).sort(), [pid, watchdog!].sort());
    });
  }
