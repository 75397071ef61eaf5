/**
 * The figures of a running mount: a Unix socket beside its registration, where the serving process writes them as one JSON
 * document to whoever connects, and reads nothing. Its main thread answers, which never touches the mount, so asking
 * waits for no image and no worker. The folder lets its owner in alone; so does the socket, should the folder be open.
 */
import { closeSync, lstatSync, openSync } from "node:fs";
import { connect, createServer } from "node:net";
import { basename, dirname } from "node:path";
import { system } from "../errors.js";

/** Figures by name, as Server.counters() has them. */
export type Figures = Readonly<Record<string, number>>;

/** Bytes of an answer at most: another user's process may be at the other end. */
const largestAnswer = 64 * 1024;
/** Milliseconds that a serving process gets to answer: one that is busy beyond measure, or stopped, is told as such. */
const patience = 2000;
/** Bytes of a socket's path that the system takes: sun_path of unix(7), less its end. */
const longestPath = process.platform === "darwin" ? 103 : 107;

export interface Teller {
  /** Nobody can connect any more. The socket's file is left to the registry. */
  close(): void;
}

/**
 * Tells `figures()` to whoever connects to the socket `path`, until closed. It doesn't keep the process alive.
 * @throws ImageError `system` when the socket can't be made
 */
export async function tellFigures(path: string, figures: () => Figures): Promise<Teller> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    // Whoever connects and doesn't read must not hold it open for ever.
    socket.setTimeout(patience, () => socket.destroy());
    socket.end(`${JSON.stringify(figures())}\n`);
  });
  server.unref();
  try {
    await withShortPath(path, (short) => {
      // The socket is made within listen(): before anybody could set its mode, it has the right one.
      const mask = process.umask(0o177);
      try {
        server.listen(short);
      } finally {
        process.umask(mask);
      }
      return new Promise<void>((done, fail) => server.once("listening", done).once("error", fail));
    });
  } catch (error) {
    throw system(`making the socket ${path}`, error);
  }
  server.on("error", () => {});
  return { close: () => void server.close() };
}

/**
 * The figures that are told at the socket `path` of user `owner`, or a sentence why there are none. Comes back within
 * two seconds or so, whatever is at the other end.
 */
export async function askFigures(path: string, owner: number): Promise<Figures | string> {
  try {
    const stat = lstatSync(path);
    if (!stat.isSocket() || stat.uid !== owner) return "what should be its server's socket is something else";
    const text = await withShortPath(path, answerAt);
    return text === undefined ? `its server did not answer within ${patience / 1000} seconds` : figuresIn(text);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "ENOENT"
      ? "its server has no socket to ask at"
      : `its server can't be asked (${code ?? (error as Error).message})`;
  }
}

/** All that is written to who connects; undefined when it doesn't end in time. */
function answerAt(path: string): Promise<string | undefined> {
  return new Promise((done, fail) => {
    const parts: Buffer[] = [];
    let length = 0;
    const socket = connect(path);
    const timer = setTimeout(() => finish(undefined), patience);
    const finish = (text: string | undefined) => {
      clearTimeout(timer);
      socket.destroy();
      done(text);
    };
    socket.on("data", (part) => {
      parts.push(part);
      length += part.length;
      if (length > largestAnswer) finish("");
    });
    socket.on("end", () => finish(Buffer.concat(parts).toString("utf8")));
    socket.on("error", (error) => {
      clearTimeout(timer);
      fail(error);
    });
  });
}

function figuresIn(text: string): Figures | string {
  try {
    const value: unknown = JSON.parse(text);
    const rows = Object.entries(value as Record<string, unknown>).filter(
      (row): row is [string, number] => typeof row[1] === "number" && Number.isFinite(row[1]),
    );
    if (rows.length > 0) return Object.fromEntries(rows);
  } catch {
    // falls through to the one sentence
  }
  return "its server's answer is not understood";
}

/** Runs `act` with a path to `path` that is short enough for a socket: through its open folder where it is too long itself. */
async function withShortPath<T>(path: string, act: (short: string) => Promise<T>): Promise<T> {
  if (Buffer.byteLength(path) <= longestPath || process.platform !== "linux") return await act(path);
  const folder = openSync(dirname(path), "r");
  try {
    return await act(`/proc/self/fd/${folder}/${basename(path)}`);
  } finally {
    closeSync(folder);
  }
}
