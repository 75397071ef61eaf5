/** Serves the test tree through the direct driver until it is unmounted: `node direct-serve.js MOUNTPOINT [allow_other]`. */
import { direct } from "../src/fuse/direct/index.js";
import { testTreeSpec } from "./trees.js";

const [mountpoint, ...options] = process.argv.slice(2);
try {
  const server = await direct.mount({
    mountpoint: mountpoint!,
    options: {
      allowOther: options.includes("allow_other"),
      fsname: "odd,name\\here",
      others: options.filter((option) => option !== "allow_other"),
    },
    tree: testTreeSpec(),
    workers: 3,
    cacheBytes: 0,
    chunkSize: 0,
    log: (line) => console.error(line),
  });
  process.on("SIGTERM", () => server.unmount());
  process.on("SIGUSR2", () => console.log(JSON.stringify(server.counters())));
  console.log("mounted");
  await server.finished;
  console.log(JSON.stringify(server.counters()));
} catch (error) {
  console.log(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
