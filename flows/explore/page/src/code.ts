// Lines of Python that read exactly what a view shows.

import type { Index, Scene } from "./index";

/** Where readers find the store: as it was named on the command line, or the address that this page reads. */
function place(index: Index, base: URL): { store: string; data: string } {
  const local = index.data === "data/";
  return { store: local ? index.store : base.href, data: local ? "" : `${base.href}data.zarr` };
}

const opened = (index: Index, base: URL, group = "", link = 0) => {
  const { store, data } = place(index, base);
  const grouped = (name: string) => (name ? `, group="${name}"` : "");
  // The links of other base stations are in groups of their own.
  const own = [link ? `bs/${link}` : "", group].filter(Boolean).join("/");
  if (data) return `xr.open_zarr("${data}"${grouped(own)})`;
  return `wavecity.open_store("${store}"${grouped(group)}${named(link)})`;
};

const imports = (index: Index, base: URL) => (place(index, base).data ? "import xarray as xr" : "import wavecity");

/** The option of readers for another base station than the first. */
const named = (link: number) => (link ? `, bs=${link}` : "");

/** Row numbers in few characters: `[0, *range(4, 9)]`. */
export function rowsText(rows: number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < rows.length; ) {
    let end = i;
    while (rows[end + 1] === rows[end] + 1) end++;
    parts.push(end - i > 1 ? `*range(${rows[i]}, ${rows[end] + 1})` : rows.slice(i, end + 1).join(", "));
    i = end + 1;
  }
  return `[${parts.join(", ")}]`;
}

export function codeOfScenes(index: Index, base: URL, scenes: Scene[]): { xarray: string; torch: string } {
  const { store } = place(index, base);
  const rows = rowsText(scenes.map((scene) => scene.row).sort((a, b) => a - b));
  const splits = [...new Set(scenes.map((scene) => scene.split))];
  const all = scenes.length === index.layout.scenes;
  return {
    xarray: [
      imports(index, base),
      "",
      `data = ${opened(index, base)}`,
      ...(all ? [] : [`data = data.isel(scene=${rows})  # ${scenes.length} scenes`]),
      "print(data.path_gain.where(~data.outage).compute().median())",
    ].join("\n"),
    torch: [
      "import numpy as np",
      "import torch",
      "import wavecity",
      "",
      `users = torch.utils.data.ConcatDataset([`,
      ...splits.map((split) => `    wavecity.ChannelDataset("${store}", split="${split}"),`),
      "])",
      ...(all
        ? []
        : [
            "scene = np.concatenate([part.scene_index for part in users.datasets])",
            `users = torch.utils.data.Subset(users, np.flatnonzero(np.isin(scene, ${rows})))`,
          ]),
    ].join("\n"),
  };
}

export function codeOfScene(
  index: Index,
  base: URL,
  scene: Scene,
  map: string | null,
  link: number,
): { xarray: string; torch: string } {
  const { store } = place(index, base);
  return {
    xarray: [
      imports(index, base),
      "",
      `scene = ${opened(index, base, "", link)}.isel(scene=${scene.row})  # ${scene.id}`,
      `users = scene.isel(user=slice(${scene.users}))  # the rest is padding`,
      "print(users.csi, users.path_gain, users.user_position)",
      ...(index.arrays.includes("paths/gain")
        ? [`paths = ${opened(index, base, "paths", link)}.isel(scene=${scene.row}, user=slice(${scene.users}))`]
        : []),
      ...(map
        ? [
            `radio_map = ${opened(index, base, "radio_map")}["${map}"].isel(scene=${scene.row})`,
            "print(radio_map)  # row 0 is north; nan inside buildings",
          ]
        : []),
    ].join("\n"),
    torch: [
      "import numpy as np",
      "import torch",
      "import wavecity",
      "",
      `users = wavecity.ChannelDataset("${store}", split="${scene.split}", include_outage=True${named(link)})`,
      `users = torch.utils.data.Subset(users, np.flatnonzero(users.scene_index == ${scene.row}))  # ${scene.id}`,
    ].join("\n"),
  };
}

export function codeOfUser(
  index: Index,
  base: URL,
  scene: Scene,
  user: number,
  step: number,
  link: number,
): { xarray: string; torch: string } {
  const { store } = place(index, base);
  const chosen = `scene=${scene.row}, user=${user}`;
  const moving = index.arrays.includes("trajectory/csi");
  return {
    xarray: [
      imports(index, base),
      "",
      `user = ${opened(index, base, "", link)}.isel(${chosen})  # user ${user} of ${scene.id}`,
      "csi = user.csi.compute()  # complex64 (x, y)",
      ...(moving
        ? [
            `moving = ${opened(index, base, "trajectory", link)}.isel(${chosen}, time=${step})`,
            "wideband = moving.csi.compute()",
          ]
        : []),
      ...(index.arrays.includes("paths/gain")
        ? [
            `paths = ${opened(index, base, "paths", link)}.isel(${chosen})`,
            "delay = paths.delay.where(paths.gain != 0).compute()",
          ]
        : []),
    ].join("\n"),
    torch: [
      "import numpy as np",
      "import wavecity",
      "",
      `users = wavecity.ChannelDataset("${store}", split="${scene.split}", include_outage=True${named(link)})`,
      `[number] = np.flatnonzero((users.scene_index == ${scene.row}) & (users.user_index == ${user}))`,
      `csi = users[number]["csi"]  # user ${user} of ${scene.id}`,
    ].join("\n"),
  };
}
