import { spawnSync } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { comesTrue, drivers, people, runs, serialFor, spindleProgram, Workspace } from "./helpers.js";

for (const driver of drivers)
  for (const person of people) {
    const serial = serialFor(person);
    const by = `(${driver}, ${person.title})`;
    const workspace = (t: ExecutionContext) => new Workspace(t, person, driver);

    serial(`a busy mount is refused, naming the process and the file it holds ${by}`, async (t) => {
      const place = workspace(t);
      const { pid } = await place.mount();
      const reader = place.start("sh", [
        "-c",
        'exec 3< "$1"; echo; exec sleep 100',
        "sh",
        join(place.mountpoint, "p1.raw"),
      ]);
      await new Promise((done) => reader.stdout!.once("data", done));
      const refused = await place.spindle(["unmount", place.mountpoint]);
      t.is(refused.code, 7);
      t.true(refused.stderr.includes(`process ${reader.pid} (`), refused.stderr);
      t.true(refused.stderr.includes(`open file ${place.mountpoint}/p1.raw`), refused.stderr);
      t.true(refused.stderr.includes(`spindle unmount --lazy ${place.mountpoint}`));
      t.true(await place.holds("disk.raw", place.disk));
      reader.kill("SIGKILL");
      t.true(await comesTrue(() => !runs(reader.pid!)));
      t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
      t.false(runs(pid));
    });

    serial(`a process that only stands in the mount's folder is named too ${by}`, async (t) => {
      const place = workspace(t);
      await place.mount();
      const visitor = place.start("sh", ["-c", 'cd "$1" && echo && exec sleep 100', "sh", place.mountpoint]);
      await new Promise((done) => visitor.stdout!.once("data", done));
      const { code, stderr } = await place.spindle(["unmount", place.mountpoint]);
      t.is(code, 7);
      t.true(stderr.includes(`process ${visitor.pid} (sleep: working folder ${place.mountpoint})`), stderr);
    });

    serial(`an unmount that stands in the mount itself is told that nobody else does ${by}`, async (t) => {
      const place = workspace(t);
      await place.mount();
      const child = place.start("sh", [
        "-c",
        'cd "$3" && exec "$1" "$2" unmount "$3"',
        "sh",
        process.execPath,
        spindleProgram(),
        place.mountpoint,
      ]);
      let stderr = "";
      child.stderr!.on("data", (data: Buffer) => {
        stderr += data.toString();
      });
      t.is(await new Promise((done) => child.on("close", done)), 7);
      t.true(stderr.includes(`process ${child.pid} (this command itself: working folder ${place.mountpoint})`), stderr);
      t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
    });

    serial(`a lazy unmount of a busy mount tells that the server still serves ${by}`, async (t) => {
      const place = workspace(t);
      const { pid } = await place.mount();
      const reader = place.start("sh", [
        "-c",
        'exec 3< "$1"; echo; exec sleep 100',
        "sh",
        join(place.mountpoint, "p1.raw"),
      ]);
      await new Promise((done) => reader.stdout!.once("data", done));
      const { code, stdout } = await place.spindle(["unmount", "--lazy", "--json", place.mountpoint]);
      t.is(code, 0);
      t.deepEqual(JSON.parse(stdout), { mountpoint: place.mountpoint, state: "serving", pid });
      t.false(place.isMounted);
      t.true(runs(pid));
      reader.kill("SIGKILL");
      t.true(await comesTrue(() => !runs(pid)));
    });

    serial(`a second mount at the same place is refused and the first goes on ${by}`, async (t) => {
      const place = workspace(t);
      const { pid } = await place.mount();
      const { code, stderr } = await place.spindle(place.mountArguments());
      t.is(code, 7);
      t.true(stderr.includes(`process ${pid}`), stderr);
      t.true(await place.holds("disk.raw", place.disk));
      // By another name it is the same place.
      symlinkSync(place.mountpoint, join(place.folder, "link"));
      t.is((await place.spindle(["mount", place.image, join(place.folder, "link"), "--driver", driver])).code, 7);
      t.is((await place.spindle(["unmount", join(place.folder, "link")])).code, 0);
      t.false(runs(pid));
    });

    serial(
      `a mount that can't be made says why, exits with a code for it and leaves nothing mounted ${by}`,
      async (t) => {
        const place = workspace(t);
        const file = join(place.folder, "file");
        writeFileSync(file, "");
        mkdirSync(join(place.mountpoint, "in"));
        const inside = join(place.mountpoint, "in", "disk.img");
        writeFileSync(inside, place.disk);
        for (const [parameters, code, words] of [
          [["mount", join(place.folder, "none.img"), place.mountpoint], 3, /none\.img/],
          [["mount", place.image, join(place.folder, "none")], 3, /no such folder.*mkdir/],
          [["mount", place.image, file], 2, /not a folder/],
          [["mount", inside, place.mountpoint], 2, /beneath the mount point/],
          [place.mountArguments("-o", "rw"), 2, /never writes to an image/],
          [place.mountArguments("-o", "suid"), 2, /nosuid always/],
          [place.mountArguments("-o", "dev"), 2, /nodev always/],
          [place.mountArguments("-o", "no_such_option"), undefined, /./],
          [place.mountArguments("--foreground", "-o", "no_such_option"), undefined, /./],
          [place.mountArguments("--parent", place.image), 2, /parent/],
          [["mount", place.folder, place.mountpoint], 2, /folder/],
        ] as const) {
          const outcome = await place.spindle([
            ...parameters,
            ...(parameters.includes("--driver") ? [] : ["--driver", driver]),
          ]);
          if (code === undefined) t.not(outcome.code, 0);
          else t.is(outcome.code, code, `${parameters.join(" ")}: ${outcome.stderr}`);
          t.not(outcome.code, 70, outcome.stderr);
          t.regex(outcome.stderr, words);
          t.false(place.isMounted, parameters.join(" "));
          t.true(await comesTrue(() => place.processes().length === 0), parameters.join(" "));
        }
      },
    );

    for (const [title, moment] of [
      ["before it mounts", "process.argv[1]?.endsWith('background-server.js')"],
      ["after it has mounted", "false"],
    ] as const)
      serial(
        `a server that dies ${title} is reported with its last words, and nothing stays mounted ${by}`,
        async (t) => {
          const place = workspace(t);
          const preload = join(place.folder, "die.cjs");
          writeFileSync(
            preload,
            `const die = () => { require("fs").writeSync(2, "out of luck\\n"); process.kill(process.pid, "SIGKILL"); };
           if (${moment}) die();
           if (process.argv[1]?.endsWith("background-server.js")) process.send = die;`,
          );
          const { code, stderr } = await place.spindle(place.mountArguments(), person, {
            NODE_OPTIONS: `--require ${preload}`,
          });
          t.is(code, 8);
          t.regex(stderr, /SIGKILL.*out of luck/s);
          t.true(await comesTrue(() => !place.isMounted && place.processes().length === 0));
          t.deepEqual(await place.list(), []);
        },
      );

    serial(`unmount tells a folder without a mount, and a mount of somebody else, from its own ${by}`, async (t) => {
      const place = workspace(t);
      const nothing = await place.spindle(["unmount", place.mountpoint]);
      t.is(nothing.code, 3);
      t.regex(nothing.stderr, /nothing is mounted there/);
      const other = await place.spindle(["unmount", "/proc"]);
      t.is(other.code, 2);
      t.regex(other.stderr, /proc of proc, not Spindle's/);
    });

    serial(`the log goes where --log says, and mounting again appends to it ${by}`, async (t) => {
      const place = workspace(t);
      const log = join(place.folder, "my.log");
      const { log: told } = await place.mount("--log", log);
      t.is(told, log);
      await place.spindle(["unmount", place.mountpoint]);
      appendFileSync(log, "a line of before\n");
      await place.mount("--log", log);
      const { stdout } = await place.run("cat", [log]);
      t.is(stdout, "a line of before\n");
      rmSync(log);
    });

    serial(`the options of -o show in the mount's own ${by}`, async (t) => {
      const place = workspace(t);
      await place.mount("-o", "ro,noexec,fsname=my backup", "-o", "nofail,x-systemd.automount,noatime");
      const { stdout } = await place.run("findmnt", ["-n", "-o", "SOURCE,FSTYPE,OPTIONS", "--raw", place.mountpoint]);
      const [source, type, options] = stdout.trim().split(" ");
      t.is(source, "my\\x20backup");
      t.is(type, "fuse.spindle");
      for (const option of ["ro", "nosuid", "nodev", "noexec", "noatime"])
        t.true(options!.split(",").includes(option), options);
    });
  }

const [root, user] = people;
for (const driver of drivers) {
  const rootOnly = serialFor(root, user);

  rootOnly(`root unmounts a user's mount and waits for its server (${driver})`, async (t) => {
    const place = new Workspace(t, user!, driver);
    const { pid } = await place.mount();
    const { code, stderr } = await place.spindle(["unmount", place.mountpoint], root);
    t.is(code, 0, stderr);
    t.false(runs(pid));
    t.deepEqual(await place.list(), []);
  });

  rootOnly(`a user can't unmount root's mount, and is told so (${driver})`, async (t) => {
    const place = new Workspace(t, root!, driver);
    const { pid } = await place.mount();
    spawnSync("chmod", ["755", place.folder]);
    const { code, stderr } = await place.spindle(["unmount", place.mountpoint], user);
    t.is(code, 8, stderr);
    t.true(runs(pid));
    t.true(await place.holds("disk.raw", place.disk));
  });

  rootOnly(`a user is told why a folder of somebody else, or allow_other, is refused to him (${driver})`, async (t) => {
    const place = new Workspace(t, user!, driver);
    const folder = join(place.folder, "root's");
    mkdirSync(folder, { mode: 0o755 });
    const others = ["mount", place.image, folder, "--as", "disk", "--driver", driver];
    const elsewhere = await place.spindle(others);
    t.is(elsewhere.code, 8, elsewhere.stderr);
    t.regex(elsewhere.stderr, /that they may write to|no write access to mountpoint/);
    if (/^\s*user_allow_other\s*$/m.test(existsSync("/etc/fuse.conf") ? readFileSync("/etc/fuse.conf", "utf8") : ""))
      return t.log("not all: /etc/fuse.conf lets users pass allow_other");
    const allowing = await place.spindle(place.mountArguments("-o", "allow_other"));
    t.is(allowing.code, 8, allowing.stderr);
    t.regex(allowing.stderr, /Add the line user_allow_other to/);
    t.false(place.isMounted);
    return undefined;
  });

  rootOnly(`a loop device over a file of the mount is named, with what to do (${driver})`, async (t) => {
    const place = new Workspace(t, root!, driver);
    await place.mount();
    const { stdout } = await place.run("losetup", ["-r", "-f", "--show", join(place.mountpoint, "p1.raw")]);
    const device = stdout.trim();
    if (!device.startsWith("/dev/loop")) {
      t.log("skipped: no loop device is to be had here");
      return t.pass();
    }
    t.true(await comesTrue(() => spawnSync("cmp", ["-s", device, join(place.mountpoint, "p1.raw")]).status === 0));
    const { code, stderr } = await place.spindle(["unmount", place.mountpoint]);
    spawnSync("losetup", ["-d", device]);
    t.is(code, 7, stderr);
    t.true(stderr.includes(`loop device ${device} is over ${place.mountpoint}/p1.raw (losetup -d ${device})`), stderr);
    t.true(await comesTrue(() => !spawnSync("losetup", ["-a"]).stdout.includes(place.mountpoint)));
    t.is((await place.spindle(["unmount", place.mountpoint])).code, 0);
    return undefined;
  });
}
