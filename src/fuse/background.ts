/**
 * A server of its own process: started by startInBackground(), it says once over the IPC channel that the mount answers,
 * or why it can't be, and then lives on without its starter.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type ErrorCode, ImageError, system } from "../errors.js";
import { setsid } from "../libc.js";
import type { Waiting } from "../packed/waiting.js";
import { keepDescriptorsFromChildren } from "./descriptors.js";
import { mountAt, ourType } from "./mounts.js";
import { newName, remove, runtimeFolder } from "./registry.js";
import { type MountRequest, serveRequest } from "./request.js";
import type { Mounted } from "./service.js";
import { unmountAt } from "./unmounting.js";

type Report =
  /** A line, or how far something is that has to be waited for: `done` undefined when that has ended. */
  | { readonly note: string }
  | { readonly waitingFor: string; readonly done: number | undefined; readonly total: number | undefined }
  | { readonly mounted: Mounted }
  | { readonly failed: { readonly code: ErrorCode; readonly message: string } };

/** Bytes of log after which a mount writes no more: images can be damaged in very many places. */
const largestLog = 16 * 1024 * 1024;
/** Lines of the log that are quoted when a server dies before it reports. */
const quotedLines = 5;
const serverFile = fileURLToPath(new URL("./background-server.js", import.meta.url));
/** Milliseconds that a server gets to end after it has reported that it can't mount. */
const endPatience = 5000;

/**
 * Starts a server and returns when its mount answers; `waiting` is told what that takes long for.
 * @throws ImageError as the server met it, or with the last lines of its log when it died; nothing is mounted then
 */
export async function startInBackground(
  given: Omit<MountRequest, "log">,
  logPath?: string,
  waiting?: Waiting,
): Promise<Mounted> {
  const log = logPath ?? join(runtimeFolder(), `${newName()}.log`);
  const before = mountAt(given.mountpoint)?.id;
  let fd: number;
  try {
    fd = openSync(log, logPath === undefined ? "wx" : "a", 0o600);
  } catch (error) {
    throw system(`opening the log ${log}`, error);
  }
  keepDescriptorsFromChildren();
  const child = spawn(process.execPath, [serverFile, given.image.path, given.mountpoint], {
    // It leaves the command's process group when it has mounted, and not before: where systemd or autofs mounts on demand,
    // the kernel lets none but the group that it asked touch the mount point.
    detached: false,
    stdio: ["ignore", fd, fd, "ipc"],
    cwd: "/",
    serialization: "advanced",
  });
  closeSync(fd);
  const hear = waiting && listener(waiting);
  const report = await new Promise<Exclude<Report, Word> | { died: string }>((done) => {
    child.on("message", (message) => {
      const said = message as Report;
      if ("note" in said || "waitingFor" in said) hear?.(said);
      else done(said);
    });
    child.on("error", (error) => done({ died: error.message }));
    child.on("exit", (code, signal) => done({ died: signal ? `killed by ${signal}` : `exit code ${code}` }));
    child.send({ ...given, log } satisfies MountRequest, () => {});
  });
  if ("mounted" in report) {
    if (child.connected) child.disconnect();
    child.unref();
    return report.mounted;
  }
  if (!(await endsWithin(child, endPatience))) child.kill("SIGKILL");
  try {
    const lines = readFileSync(log, "utf8").trim().split("\n").slice(-quotedLines).join(" | ");
    if ("failed" in report)
      throw new ImageError(report.failed.code, report.failed.message + (lines ? `. The log says: ${lines}` : ""));
    const left = mountAt(given.mountpoint);
    if (left?.type === ourType && left.id !== before) await unmountAt(given.mountpoint, true).catch(() => {});
    throw new ImageError(
      "system",
      `${given.image.path}: the server of the mount ended before it answered (${report.died}). ${lines ? `Its last words: ${lines}` : "It wrote nothing."}`,
    );
  } finally {
    if (logPath === undefined) remove(log);
    if (child.connected) child.disconnect();
  }
}

type Word = Extract<Report, { note: string } | { waitingFor: string }>;

/** Passes on what the server says while it opens the image. */
function listener(waiting: Waiting): (word: Word) => void {
  let bar: ReturnType<Waiting["progress"]> | undefined;
  return (word) => {
    if ("note" in word) return waiting.note(word.note);
    if (word.done !== undefined) {
      bar ??= waiting.progress(word.waitingFor, word.total);
      return bar.update(word.done);
    }
    bar?.stop();
    bar = undefined;
  };
}

/** The server's side: it opens the image in one go, and can't hear meanwhile that its starter was ended. */
function teller(send: (word: Word) => void): Waiting {
  const starter = process.ppid;
  let last = 0;
  return {
    note: (note) => send({ note }),
    progress: (waitingFor, total) => ({
      update(done) {
        if (process.ppid !== starter)
          throw new ImageError("system", "the command that asked for the mount was ended before it was made");
        if (performance.now() - last < 100) return;
        last = performance.now();
        send({ waitingFor, done, total });
      },
      stop: () => send({ waitingFor, done: undefined, total }),
    }),
  };
}

function endsWithin(child: ChildProcess, patience: number): Promise<boolean> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return Promise.resolve(true);
  return new Promise((done) => {
    const timer = setTimeout(() => done(false), patience);
    child.once("exit", () => {
      clearTimeout(timer);
      done(true);
    });
  });
}

/** Writes lines with their time to stderr, which is the log file. */
function logger(): (line: string) => void {
  let full = false;
  return (line) => {
    try {
      if (full) return;
      full = fstatSync(2).size > largestLog;
      process.stderr.write(
        `${new Date().toISOString()} ${full ? "This log is full; nothing more is written to it." : line}\n`,
      );
    } catch {
      // a full disk must not end the mount
    }
  };
}

/** The program of the server's process: a request comes over the IPC channel, and is served to its end. */
export async function serveInBackground(): Promise<void> {
  const log = logger();
  process.stderr.on("error", () => {});
  const aborting = new AbortController();
  let reported = false;
  const report = (what: Report) =>
    new Promise<void>((done) => {
      reported = true;
      if (!process.connected) return done();
      process.send!(what, () => {
        if (process.connected) process.disconnect();
        done();
      });
    });
  // The command was ended before it heard from us: nobody knows of this mount.
  process.on("disconnect", () => {
    if (!reported) aborting.abort();
  });
  const request = await new Promise<MountRequest>((done) =>
    process.once("message", (message) => done(message as MountRequest)),
  );
  process.title = `spindle mount ${request.image.path} ${request.mountpoint}`;
  try {
    const ready = (mounted: Mounted) => {
      // A session of its own: it outlives the terminal.
      setsid();
      void report({ mounted });
    };
    const waiting = teller((word) => {
      if (process.connected) process.send!(word);
    });
    await serveRequest(request, log, ready, aborting.signal, waiting);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    if (reported) log(error.message);
    await report({ failed: { code: error.code, message: error.message } });
    process.exitCode = 1;
    return;
  }
  if (process.connected) process.disconnect();
  // A log without a line in it is of no use to anybody.
  if (request.log?.startsWith(`${runtimeFolder()}/`) && fstatSync(2).size === 0) remove(request.log);
}
