#!/usr/bin/env node
const argv = process.argv.slice(2);
// mount.fuse3(8) calls it so for the type fuse.spindle: an image's path where a command belongs.
const isCalledByMount = argv.length === 4 && argv[0].startsWith("/") && argv[2] === "-o";

process.exitCode = isCalledByMount
  ? await (await import("../dist/program/mount-helper.js")).mountHelper(argv)
  : await (await import("../dist/program/cli.js")).main(argv);
