/** How the tests run. */
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Where the mount tests put the program so that every user can read it: once for all files, by the first that wants it. */
const installation = join(tmpdir(), `spindle-installation-${process.pid}`);
const remove = () => rmSync(installation, { recursive: true, force: true });
// A run that was killed may have left one, and had this number.
remove();
process.on("exit", remove);

/** Files that take long begin first: one that began last would run alone at the end. */
const long = [
  "mount-tests/files-view",
  "mount-tests/images",
  "mount-tests/writable",
  "mount-tests/writable-ends",
  "mount-tests/lifecycle-ends",
  "mount-tests/lifecycle-refusals",
  "mount-tests/containers",
  "mount-tests/ntfs-3g",
  "mount-tests/ext-kernel",
  "src/filesystems/hostile",
  "src/imaging/create",
  "src/imaging/merge",
  "src/images/hostile",
  "src/images/spin/reader",
].map((name) => `/${name}.test.js`);

const rank = (path) => {
  const at = long.findIndex((name) => path.endsWith(name));
  return at < 0 ? long.length : at;
};

export default {
  timeout: "5m",
  workerThreads: false,
  environmentVariables: { SPINDLE_TEST_INSTALLATION: installation },
  sortTestFiles: (a, b) => rank(a) - rank(b) || (a < b ? -1 : 1),
};
