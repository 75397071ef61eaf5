/**
 * Joins the compiled program's some 150 modules into few files, in dist/program: each process and each thread of a mount
 * loads what it needs at its start, and most of that time went by with finding and reading modules one by one. Packages
 * stay where npm installs them. The form of the code stays, so that a stack tells where an error comes from.
 *
 * A file begins where the program does (`begins`), where a command is loaded, and wherever a module starts a thread or a
 * process by `new URL("….js", import.meta.url)`. All files lie side by side, so these are given the file's name there.
 */
import { readFileSync, rmSync } from "node:fs";
import { dirname, join, posix, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type Plugin } from "esbuild";

/** What bin/ loads, in src. */
const begins = ["cli.js", "mount-helper.js"];
const start = /new URL\("(\.{1,2}\/[^"]+\.js)", import\.meta\.url\)/g;

/** `fuse/direct/worker.js` is `fuse.direct.worker` among the files side by side. */
const nameOf = (module: string) => module.replace(/\.js$/, "").replaceAll("/", ".");

/** The modules by which threads and processes start, of those that `modules` import, themselves or through others. */
function findStarts(source: string, modules: readonly string[]): Set<string> {
  const starts = new Set(modules);
  const seen = new Set<string>();
  const pending = [...modules];
  for (let module = pending.pop(); module !== undefined; module = pending.pop()) {
    if (seen.has(module)) continue;
    seen.add(module);
    const text = readFileSync(join(source, module), "utf8");
    const at = (found: string) => posix.join(posix.dirname(module as string), found);
    for (const [, found] of text.matchAll(start)) starts.add(at(found!));
    for (const [, found] of text.matchAll(/"(\.{1,2}\/[^"\n]+\.js)"/g)) pending.push(at(found!));
  }
  return starts;
}

/** @param source folder of the compiled modules @param target folder of the bundle, made anew */
export async function bundle(source: string, target: string): Promise<void> {
  const starts = findStarts(source, begins);
  const sideBySide: Plugin = {
    name: "side by side",
    setup({ onLoad }) {
      onLoad({ filter: /\.js$/ }, ({ path }) => {
        const folder = relative(source, dirname(path)).split(sep).join("/");
        if (folder.startsWith("..")) return undefined;
        const text = readFileSync(path, "utf8");
        const contents = text.replace(
          start,
          (_, found: string) => `new URL("./${nameOf(posix.join(folder, found))}.js", import.meta.url)`,
        );
        return { contents, loader: "js" };
      });
    },
  };
  rmSync(target, { recursive: true, force: true });
  await build({
    entryPoints: [...starts].map((module) => ({ in: join(source, module), out: nameOf(module) })),
    outdir: target,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node20",
    packages: "external",
    chunkNames: "[name]-[hash]",
    plugins: [sideBySide],
    logLevel: "warning",
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  // Compiled, this file is dist/scripts/bundle.js.
  const compiled = fileURLToPath(new URL("..", import.meta.url));
  await bundle(join(compiled, "src"), join(compiled, "program"));
}
