// Bundles the page into ../static: `npm run build`. Fails where the licences of the packages are not known.

import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { build } from "esbuild";

const here = import.meta.dirname;
const out = join(here, "..", "static");
for (const name of readdirSync(out)) rmSync(join(out, name));
const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx" },
  outdir: out,
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  minify: true,
  metafile: true,
  jsx: "automatic",
  jsxImportSource: "preact",
  // Names with a hash: a browser may keep them for good.
  chunkNames: "[name]-[hash]",
  legalComments: "none",
  loader: { ".json": "json" },
  define: { "process.env.NODE_ENV": '"production"' },
});
copyFileSync(join(here, "src", "index.html"), join(out, "index.html"));
copyFileSync(join(here, "src", "icon.svg"), join(out, "icon.svg"));

// Licences of what is in the bundle.
const packages = new Set();
for (const input of Object.keys(metafile.inputs)) {
  const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (match) packages.add(match[1]);
}
const notices = [...packages].sort().map((folder) => {
  const about = JSON.parse(readFileSync(join(here, folder, "package.json"), "utf8"));
  const file = readdirSync(join(here, folder)).find((name) => /^licen[cs]e(\.|$)/i.test(name));
  const text = file
    ? readFileSync(join(here, folder, file), "utf8").trim()
    : existsSync(dirname(folder))
      ? `Licence: ${about.license}`
      : "";
  if (!about.license) throw new Error(`${about.name}: no licence`);
  return `${about.name} ${about.version} (${about.license})\n${"-".repeat(60)}\n${text}\n`;
});
notices.push(
  `Coastlines: Natural Earth (https://www.naturalearthdata.com), public domain, in the TopoJSON of world-atlas.\n`,
);
writeFileSync(join(out, "LICENCES.txt"), `Software in this page\n\n${notices.join("\n\n")}`);
