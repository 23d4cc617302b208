// Radio maps: what a receiver would have anywhere on the open ground of a scene, as a picture of the ground.

import { interpolateMagma, interpolateViridis, rgb } from "d3";
import { type Category, cyclic, STATUS_COLOURS, UNKNOWN } from "./colours";
import type { Index, Scene } from "./index";
import { quantile } from "./numbers";
import type { Version } from "./store";

export const GROUP = "radio_map";

export interface Metric {
  key: string;
  label: string;
  unit: string;
  digits: number;
  /** From a stored value to what is shown. */
  of: (value: number) => number;
  /** Whether a stored value says that no path arrives; other metrics of the store say it where this one cannot. */
  silent?: (value: number) => boolean;
  /** Colour of the share of the scale; amounts have their ends in the values, others here. */
  colour: (share: number) => string;
  range?: [number, number];
  /** Kinds of values instead of a scale. */
  kinds?: Category[];
}

const same = (value: number) => value;

/** The metrics that a store has. */
export function metricsOf(index: Index): Metric[] {
  const floor = index.attributes.recipe?.solver?.gain_floor ?? -200;
  const { columns, rows } = index.attributes.array;
  const amount = { unit: "", digits: 0, of: same, colour: interpolateViridis };
  const all: Metric[] = [
    {
      ...amount,
      key: "path_gain",
      label: "path gain",
      unit: "dB",
      silent: (value) => value <= floor,
      colour: interpolateMagma,
    },
    {
      ...amount,
      key: "los",
      label: "line of sight",
      range: [0, 1],
      colour: (share) => STATUS_COLOURS[share > 0.5 ? 0 : 1],
      kinds: [
        { colour: STATUS_COLOURS[0], label: "line of sight" },
        { colour: STATUS_COLOURS[1], label: "none" },
      ],
    },
    { ...amount, key: "delay_spread", label: "RMS delay spread", unit: "ns", digits: 1 },
    { ...amount, key: "angle_spread", label: "azimuth spread of departure", unit: "°", digits: 1 },
    { ...amount, key: "n_paths", label: "number of paths", silent: (value) => value === 0 },
    {
      ...amount,
      key: "best_beam",
      label: "best beam, horizontal index",
      of: (value) => Math.floor(value / rows),
      silent: (value) => value < 0,
      // The first beam is next to the last.
      colour: cyclic,
      range: [0, columns],
    },
  ];
  return all.filter(({ key }) => index.arrays.includes(`${GROUP}/${key}`));
}

export interface RadioMap {
  metric: Metric;
  /** Values by rows as stored, the first in the north; NaN inside buildings. */
  data: ArrayLike<number>;
  rows: number;
  columns: number;
  /** Of a cell, and of the receivers above ground, m. */
  spacing: number;
  height: number;
  /** Whether no path arrives at a cell. */
  silent: boolean[];
  /** Ends of the scale of colours. */
  range: [number, number];
  /** Of the cells outside buildings: how many, and how many of them have a path. */
  open: number;
  heard: number;
  median: number;
}

export async function loadRadioMap(version: Version, scene: Scene, metric: Metric): Promise<RadioMap> {
  const name = `${GROUP}/${metric.key}`;
  const [{ data, shape }, attributes] = await Promise.all([version.read(name, scene.row), version.attributes(name)]);
  const [rows, columns] = shape;
  // A spread of 0 is one of a single path, or of none.
  const knows = metric.silent || metric.kinds ? metric : (metricsOf(version.index).find((one) => one.silent) ?? metric);
  const known = knows === metric ? data : (await version.read(`${GROUP}/${knows.key}`, scene.row)).data;
  const silent = Array.from(known, (value) => knows.silent?.(value) ?? false);
  const open = Array.from(data, Number).filter((value) => !Number.isNaN(value));
  const heard = Array.from(data, metric.of).filter((value, cell) => !Number.isNaN(value) && !silent[cell]);
  // A few odd cells would take the colours from all others.
  const range = metric.range ?? (heard.length ? [quantile(heard, 0.02), quantile(heard, 0.98)] : [0, 1]);
  return {
    metric,
    data,
    rows,
    columns,
    spacing: Number(attributes.spacing_m ?? version.index.attributes.tile_size_m / columns),
    height: Number(attributes.receiver_height_m ?? Number.NaN),
    range: [range[0], range[1] > range[0] ? range[1] : range[0] + 1],
    silent,
    open: open.length,
    heard: heard.length,
    median: quantile(heard, 0.5),
  };
}

/** The cell at a place of the scene, m east and north of its middle; null outside and inside buildings. */
export function cellAt({ data, rows, columns, spacing }: RadioMap, east: number, north: number): number | null {
  const [column, row] = [Math.floor(east / spacing + columns / 2), Math.floor(rows / 2 - north / spacing)];
  if (column < 0 || column >= columns || row < 0 || row >= rows) return null;
  const cell = row * columns + column;
  return Number.isNaN(data[cell]) ? null : cell;
}

/** The map as a picture with a pixel for each cell; cells inside buildings are transparent. */
export function pictureOf({ metric, data, silent, rows, columns, range }: RadioMap): ImageData {
  const picture = new ImageData(columns, rows);
  const [low, high] = range;
  const colours = Array.from({ length: 256 }, (_, i) => rgb(metric.colour(i / 255)));
  const grey = rgb(UNKNOWN); // lighter than users in outage, who stand on it
  for (let cell = 0; cell < rows * columns; cell++) {
    const value = data[cell];
    if (Number.isNaN(value)) continue;
    const share = Math.min(1, Math.max(0, (metric.of(value) - low) / (high - low)));
    const { r, g, b } = silent[cell] ? grey : colours[Math.round(255 * share)];
    picture.data.set([r, g, b, 255], 4 * cell);
  }
  return picture;
}
