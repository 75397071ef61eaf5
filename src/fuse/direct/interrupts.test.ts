/** Workers over a socket whose packets are requests and replies; the test is the kernel at the other end. */
import { closeSync, read, writeSync } from "node:fs";
import { constants } from "node:os";
import { promisify } from "node:util";
import test from "ava";
import { socketPair } from "../../libc.js";
import type { MountPlan } from "../driver.js";
import { Crew } from "./crew.js";
import { opcodes } from "./protocol.js";
import { readIn, requestBytes, u64 } from "./test-messages.js";

const { EINTR } = constants.errno;

async function serving() {
  const [kernel, server] = socketPair(true);
  const tree = {
    module: new URL("./interrupts.test-tree.js", import.meta.url).href,
    exported: "buildTree",
    data: undefined,
  };
  const lines: string[] = [];
  const plan = { tree, cacheBytes: 0, chunkSize: 0, log: (line: string) => lines.push(line) } as unknown as MountPlan;
  const crew = new Crew(plan, 2);
  await crew.built;
  crew.serve(server, { fillsZeros: false, pastCache: false });
  const send = (unique: bigint, opcode: number, body: Buffer) => {
    const bytes = requestBytes(opcode, 5n, body);
    bytes.writeBigUInt64LE(unique, 8);
    writeSync(kernel, bytes);
  };
  return {
    lines,
    read: (unique: bigint, position: bigint) => send(unique, opcodes.READ, readIn(position, 512)),
    interrupt: (unique: bigint) => send(unique + 1n, opcodes.INTERRUPT, u64(unique)),
    /** The next reply: whom it is for, and its error. */
    async reply() {
      const bytes = Buffer.alloc(65536);
      const { bytesRead } = await promisify(read)(kernel, bytes, 0, bytes.length, null);
      return [bytes.readBigUInt64LE(8), 0 - bytes.readInt32LE(4), bytesRead - 16];
    },
    async end() {
      closeSync(kernel);
      await crew.ended;
      closeSync(server);
    },
  };
}

const moment = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds));

test("a request that waits for its bytes is answered with EINTR when it is interrupted, early or late; others wait on", async (t) => {
  const kernel = await serving();
  kernel.read(10n, 4096n);
  kernel.read(12n, 5000n);
  kernel.read(14n, 0n);
  t.deepEqual(await kernel.reply(), [14n, 0, 512], "what is there is served meanwhile");
  await moment(300); // both are put off by now, and tried again
  kernel.interrupt(12n);
  t.deepEqual(await kernel.reply(), [12n, EINTR, 0]);
  // Told while a worker has it at hand still.
  kernel.read(16n, 6000n);
  kernel.interrupt(16n);
  t.deepEqual(await kernel.reply(), [16n, EINTR, 0]);
  kernel.interrupt(14n); // answered long ago
  kernel.interrupt(10n);
  t.deepEqual(await kernel.reply(), [10n, EINTR, 0]);
  kernel.read(18n, 100n);
  t.deepEqual(await kernel.reply(), [18n, 0, 512], "nothing else was sent");
  await kernel.end();
  t.deepEqual(kernel.lines, []);
});
