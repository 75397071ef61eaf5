import { mountHelper } from "../dist/program/mount-helper.js";

process.exitCode = await mountHelper(process.argv.slice(2));
