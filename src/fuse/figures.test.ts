import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { askFigures, tellFigures } from "./figures.js";

const user = process.getuid?.() ?? 0;

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), "spindle-figures-"));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

/** A socket whose other end does what a test wants. */
async function peer(t: ExecutionContext, act: (socket: Socket) => void): Promise<string> {
  const path = join(folder(t), "s.sock");
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    socket.on("error", () => {});
    open.add(socket);
    act(socket);
  });
  await new Promise<void>((done) => server.listen(path, done));
  t.teardown(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return path;
}

test("figures are those of the moment of asking, and for the owner alone", async (t) => {
  const path = join(folder(t), "s.sock");
  let reads = 1;
  const teller = await tellFigures(path, () => ({ reads: reads++, bytesRead: 2 ** 52 }));
  t.is(statSync(path).mode & 0o777, 0o600);
  t.deepEqual(await askFigures(path, user), { reads: 1, bytesRead: 2 ** 52 });
  t.deepEqual(await askFigures(path, user), { reads: 2, bytesRead: 2 ** 52 });
  teller.close();
  t.is(typeof (await askFigures(path, user)), "string");
});

test("a folder whose path is too long for a socket's has one all the same", async (t) => {
  if (process.platform !== "linux") {
    t.log("skipped: only Linux leads to an open folder by a short path");
    t.pass();
    return;
  }
  const deep = join(folder(t), "a".repeat(100), "b".repeat(100));
  mkdirSync(deep, { recursive: true });
  const path = join(deep, "s.sock");
  const teller = await tellFigures(path, () => ({ reads: 7 }));
  t.deepEqual(await askFigures(path, user), { reads: 7 });
  teller.close();
});

test("the mode of other files is as it was", async (t) => {
  const path = join(folder(t), "s.sock");
  const before = process.umask();
  const teller = await tellFigures(path, () => ({}));
  t.is(process.umask(), before);
  teller.close();
});

for (const [what, act, words] of [
  ["says nothing", () => {}, "its server did not answer within 2 seconds"],
  [
    "says more and more",
    (socket: Socket) => {
      const more = () => socket.writable && socket.write(Buffer.alloc(65536, "["), more);
      more();
    },
    "its server's answer is not understood",
  ],
  ["says what is no JSON", (socket: Socket) => socket.end("reads: 1"), "its server's answer is not understood"],
  ["says null", (socket: Socket) => socket.end("null"), "its server's answer is not understood"],
  ["says words", (socket: Socket) => socket.end('{"reads":"many"}'), "its server's answer is not understood"],
  ["hangs up", (socket: Socket) => socket.destroy(), "its server's answer is not understood"],
] as const)
  test(`a process that ${what} is no reason to wait or to believe`, async (t) => {
    t.is(await askFigures(await peer(t, act), user), words);
  });

test("words among the numbers are left out", async (t) => {
  const path = await peer(t, (socket) => socket.end('{"reads":3,"image":"/etc/shadow","errors":null,"x":1e999}'));
  t.deepEqual(await askFigures(path, user), { reads: 3 });
});

test("what is no socket, or not the owner's, is not connected to", async (t) => {
  const place = folder(t);
  const path = join(place, "real.sock");
  const teller = await tellFigures(path, () => ({ reads: 1 }));
  writeFileSync(join(place, "file.sock"), "{}");
  symlinkSync(path, join(place, "link.sock"));
  t.is(await askFigures(join(place, "none.sock"), user), "its server has no socket to ask at");
  for (const name of ["file.sock", "link.sock"])
    t.is(await askFigures(join(place, name), user), "what should be its server's socket is something else");
  t.is(await askFigures(path, user + 1), "what should be its server's socket is something else");
  teller.close();
});

test("a socket that can't be made is an error in words", async (t) => {
  const place = folder(t);
  await t.throwsAsync(
    tellFigures(join(place, "none", "s.sock"), () => ({})),
    { message: /making the socket .*none/ },
  );
});
