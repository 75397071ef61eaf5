/** The program of a process that serves a mount for a command which doesn't wait for its end. */
import { serveInBackground } from "./background.js";

await serveInBackground();
