// Grids in colours: channels, spectra, maps of patches.

import * as Plot from "@observablehq/plot";
import { amount, cyclic } from "../colours";
import type { Grid } from "../numbers";
import { Chart } from "../ui";

/** The least width of a scale of colours, dB. */
const NARROW = 3;

/** A grid in colours, with its axes and scale. */
export function Heat(props: {
  values: Grid;
  unit?: string;
  label: string;
  axes: [string, string];
  offset?: [number, number];
  /** Ends of the scale, instead of those of the values. */
  range?: [number, number];
  /** How far below its maximum the scale goes, in the unit. */
  depth?: number;
  cyclic?: boolean;
  mark?: [number, number];
}) {
  const { values, unit, label, axes, offset = [0, 0], depth, mark } = props;
  const { columns, rows, data } = values;
  const finite = data.filter((value) => !Number.isNaN(value));
  const high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  const low = Math.max(
    finite.reduce((a, b) => Math.min(a, b), Infinity),
    depth ? high - depth : -Infinity,
  );
  // Rounding errors of a constant are no pattern.
  const middle = (low + high) / 2;
  const spread: [number, number] = high - low < NARROW ? [middle - NARROW / 2, middle + NARROW / 2] : [low, high];
  const domain = props.cyclic ? [-180, 180] : (props.range ?? spread);
  const [x, y] = offset;
  const bounds = { x1: x - 0.5, y1: y - 0.5, x2: x + columns - 0.5, y2: y + rows - 0.5 };
  return (
    <Chart
      label={label}
      keys={[values, props.cyclic, mark?.join()]}
      make={(width) => ({
        height: Math.round((width - 60) * Math.min(1.2, Math.max(0.12, rows / columns))) + 62,
        marginTop: 24,
        marginLeft: 44,
        marginRight: 16,
        marginBottom: 38,
        x: { label: axes[0], domain: [bounds.x1, bounds.x2], ticks: Math.min(8, columns), tickFormat: "d" },
        // Rows of the panel count downwards.
        y: { label: axes[1], domain: [bounds.y2, bounds.y1], ticks: Math.min(8, rows), tickFormat: "d" },
        color: {
          type: "linear",
          domain,
          clamp: true,
          interpolate: (props.cyclic ? cyclic : amount) as never,
          legend: true,
          label: unit ? `${label}, ${unit}` : label,
          width: Math.min(280, width - 20),
          // Room for half a number at either end.
          marginLeft: 16,
          marginRight: 16,
        },
        marks: [
          Plot.raster(data, {
            width: columns,
            height: rows,
            ...bounds,
            fill: (value: number) => value,
            imageRendering: "pixelated",
          }),
          ...(mark
            ? [
                Plot.dot([mark], { symbol: "square", r: 9, stroke: "#fff", strokeWidth: 4 }),
                Plot.dot([mark], { symbol: "square", r: 9, stroke: "#d4150c", strokeWidth: 2 }),
              ]
            : []),
          Plot.frame({ stroke: "currentColor", strokeOpacity: 0.4 }),
        ],
      })}
    />
  );
}
