/** How the tests run. Files that take long begin first: one that began last would run alone at the end. */
const long = [
  "mount-tests/files-view",
  "mount-tests/images",
  "mount-tests/writable",
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
  sortTestFiles: (a, b) => rank(a) - rank(b) || (a < b ? -1 : 1),
};
