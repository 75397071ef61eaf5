import { mountHelper } from "../dist/src/mount-helper.js";

process.exitCode = await mountHelper(process.argv.slice(2));
