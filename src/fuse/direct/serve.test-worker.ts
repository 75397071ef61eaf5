/** The worker of serve.test.ts: a tree with one file, `file`, and a name, `die`, that ends the thread. */
import { parentPort, workerData } from "node:worker_threads";
import type { FileSystem } from "../../filesystems/filesystem.js";
import { FailureLog } from "../errno.js";
import { Session } from "./handlers.js";
import { Reply, Request } from "./protocol.js";
import { serve } from "./serve.js";
import { type SharedState, WorkerState } from "./state.js";

const time = { seconds: 0, nanoseconds: 0 };
const contents = Buffer.from("contents");
const tree: FileSystem = {
  type: "test",
  label: "",
  root: 0,
  statistics: { blockSize: 1, blocks: 1, freeBlocks: 0, files: 1, freeFiles: 0, nameLength: 255 },
  attributes: (file) => ({
    kind: file === 0 ? "directory" : "file",
    mode: 0o444,
    inode: file,
    links: 1,
    owner: 0,
    group: 0,
    size: contents.length,
    allocated: 0,
    accessed: time,
    modified: time,
    changed: time,
  }),
  lookup: (_directory, wanted) => (Buffer.from(wanted).toString() === "die" ? process.exit(5) : 3),
  list: () => [],
  read: (_file, position, target) => contents.copy(target, 0, position),
  readLink: () => contents,
};

const { server, state } = workerData as { server: number; state: SharedState };
const session = new Session(tree, new FailureLog((line) => parentPort!.postMessage(line)));
const own = new WorkerState(state, 0);
serve(server, session, new Request(65536), new Reply(1024 * 1024), own, () => {});
own.end();
