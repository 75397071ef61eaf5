import { closeSync, openSync } from "node:fs";
import test from "ava";
import { createTerminal, humanDuration, progressLine } from "./console.js";

function screen(isTTY: boolean) {
  return {
    isTTY,
    columns: 200,
    text: "",
    write(text: string) {
      this.text += text;
    },
  };
}

const moment = () => new Promise((resolve) => setTimeout(resolve, 350));

test("a result is words on stdout", (t) => {
  const stdout = screen(false);
  const stderr = screen(false);
  createTerminal({ json: false, stdout, stderr }).result({ size: 5 }, ({ size }) => `${size} bytes`);
  t.is(stdout.text, "5 bytes\n");
  t.is(stderr.text, "");
});

test("with --json a result is one document", (t) => {
  const stdout = screen(false);
  createTerminal({ json: true, stdout, stderr: screen(false) }).result({ size: 5, label: "\x1b[2J" }, () => "");
  t.deepEqual(JSON.parse(stdout.text), { size: 5, label: "\x1b[2J" });
  t.false(stdout.text.includes("\x1b"));
});

test("a label from an image can't steer the terminal", (t) => {
  const stdout = screen(true);
  createTerminal({ json: false, stdout, stderr: screen(true) }).result(
    "\x1b]0;x\x07\r\x7f\x9b2Jé\tü\n",
    (text) => text,
  );
  t.is(stdout.text, "\\x1b]0;x\\x07\\x0d\\x7f\\x9b2Jé\tü\n");
});

test("a note is a line on stderr", (t) => {
  const stderr = screen(false);
  createTerminal({ json: true, stdout: screen(false), stderr }).note("the base is elsewhere now");
  t.is(stderr.text, "the base is elsewhere now\n");
});

test("a bar appears on a terminal after a moment, and is gone at the end", async (t) => {
  const stderr = screen(true);
  const terminal = createTerminal({ json: false, stdout: screen(true), stderr });
  const bar = terminal.progress("Reading", 1 << 20);
  bar.update(0);
  t.is(stderr.text, "");
  await moment();
  bar.update(1 << 19, "ratio 2.0");
  t.regex(stderr.text, /Reading \[#{12}-{12}\] 50% {2}512 KiB of 1 MiB/);
  t.regex(stderr.text, /ratio 2\.0/);
  bar.stop();
  bar.stop();
  t.true(stderr.text.endsWith("\x1b[2K"));
  const before = stderr.text;
  bar.update(1 << 20);
  t.is(stderr.text, before);
});

test("a note takes the bar's line, and the bar comes back beneath", async (t) => {
  const stderr = screen(true);
  const terminal = createTerminal({ json: false, stdout: screen(true), stderr });
  const bar = terminal.progress("Checking", 100);
  await moment();
  bar.update(10);
  terminal.note("chunk 3 is damaged");
  t.true(stderr.text.endsWith("\x1b[2Kchunk 3 is damaged\n"));
  bar.update(20);
  t.regex(stderr.text, /damaged\n.*20%/s);
  terminal.close();
  t.true(stderr.text.endsWith("\x1b[2K"));
});

for (const [where, json, isTTY] of [
  ["with --json", true, true],
  ["where stderr is a file", false, false],
] as const)
  test(`no bar is drawn ${where}`, async (t) => {
    const stderr = screen(isTTY);
    const bar = createTerminal({ json, stdout: screen(true), stderr }).progress("Reading", 100);
    await moment();
    bar.update(50);
    bar.stop();
    t.is(stderr.text, "");
  });

test("a line of progress tells share, sizes, throughput, time left and words", (t) => {
  const state = { title: "Reading", done: 3 * 2 ** 30, total: 4 * 2 ** 30, rate: 2 ** 29, words: "ratio 2.1" };
  t.is(progressLine(state), "Reading [##################------] 75%  3 GiB of 4 GiB  512 MiB/s  2 s left  ratio 2.1");
  t.is(progressLine({ ...state, total: undefined }), "Reading  3 GiB  512 MiB/s  ratio 2.1");
  t.is(progressLine({ ...state, rate: 0, words: "" }), "Reading [##################------] 75%  3 GiB of 4 GiB");
});

test("100% is said only at the end, and of an empty disk", (t) => {
  const state = { title: "R", done: 99_999, total: 100_000, rate: 0, words: "" };
  t.regex(progressLine(state), / 99% /);
  t.regex(progressLine({ ...state, done: 100_000 }), / 100% /);
  t.regex(progressLine({ ...state, done: 0, total: 0 }), / 100% {2}0 B of 0 B/);
  t.regex(progressLine({ ...state, done: 200_000 }), / 100% /);
});

test("durations are told in the two units that matter", (t) => {
  t.is(humanDuration(0.2), "0 s");
  t.is(humanDuration(59.4), "59 s");
  t.is(humanDuration(59.6), "1 min 00 s");
  t.is(humanDuration(125), "2 min 05 s");
  t.is(humanDuration(12_000), "3 h 20 min");
});

test("parts of a long result are written as they are, until nobody reads them", async (t) => {
  const written: string[] = [];
  const stdout = {
    write(part: string | Uint8Array, done?: (error?: Error | null) => void) {
      if (written.length === 2) done?.(Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
      else {
        written.push(Buffer.from(part).toString("latin1"));
        done?.();
      }
    },
  };
  const terminal = createTerminal({ json: false, stdout, stderr: screen(false) });
  t.true(await terminal.write("a\n"));
  t.true(await terminal.write(Buffer.from([0xff, 0x1b])));
  t.false(await terminal.write("gone"));
  t.false(await terminal.write("gone"));
  t.deepEqual(written, ["a\n", "\xff\x1b"]);
});

test("a part that can't be written is a failure in words", async (t) => {
  const stdout = {
    write: (_: string | Uint8Array, done?: (error?: Error | null) => void) =>
      done?.(Object.assign(new Error("write ENOSPC"), { code: "ENOSPC" })),
  };
  const terminal = createTerminal({ json: false, stdout, stderr: screen(false) });
  await t.throwsAsync(terminal.write("x"), { message: /^writing to the standard output: no space is left/ });
});

test("a part goes to a file whole, and a full device is said", async (t) => {
  const fd = openSync("/dev/full", "w");
  t.teardown(() => closeSync(fd));
  const terminal = createTerminal({ json: false, stdout: { fd, write() {} }, stderr: screen(false) });
  await t.throwsAsync(terminal.write("x"), { message: /no space is left/ });
});
