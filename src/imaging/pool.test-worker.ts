import { usage } from "../errors.js";
import { serveJobs } from "./pool.js";

/** Answers a job with twice its number, or does what its word says. */
serveJobs<{ times: number }, number | string, number>(({ times }) => (job) => {
  if (job === "refuse") throw usage("the job can't be meant");
  if (job === "bug") throw new TypeError("a bug");
  if (job === "die") process.exit(3);
  return Number(job) * times;
});
