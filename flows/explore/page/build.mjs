// Bundles the page into ../static: `npm run build`. Fails where the licences of the packages are not known.

import { createHash } from "node:crypto";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
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
// A test compares this sum with the sources, so that no bundle is older than they are.
const sources = readdirSync(join(here, "src"), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => relative(here, join(entry.parentPath, entry.name)).replaceAll("\\", "/"));
const digest = createHash("sha256");
for (const name of [...sources, "package-lock.json"].sort())
  digest.update(`${name}\n`).update(readFileSync(join(here, name)));
const page = readFileSync(join(here, "src", "index.html"), "utf8");
const mark = `<meta name="sources" content="${digest.digest("hex")}">`;
writeFileSync(join(out, "index.html"), page.replace("</head>", `${mark}\n</head>`));
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
