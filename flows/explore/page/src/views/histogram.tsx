// Distribution of one measure over the scenes; a range that is brushed, or typed, filters all views.

import * as Plot from "@observablehq/plot";
import { brushX, format, nice, select } from "d3";
import { useLayoutEffect } from "preact/hooks";
import { formatRange, parseRange } from "../address";
import { type Measure, shownValue } from "../filters";
import type { Scene } from "../index";
import { plural } from "../numbers";
import { Card, change, usePage, useWidth } from "../ui";

const HEIGHT = 118;
const BINS = 25;
const MARGINS = { top: 6, right: 12, bottom: 24, left: 40 };

const shortCount = format("~s");

export function Histogram({ measure, scenes, chosen }: { measure: Measure; scenes: Scene[]; chosen: Scene[] }) {
  const { address } = usePage();
  const [element, width] = useWidth<HTMLDivElement>();
  const text = address.query.get(measure.key);
  const range = parseRange(text);
  useLayoutEffect(() => {
    if (!width || !element.current) return;
    const values = (some: Scene[]) => some.flatMap((scene) => shownValue(scene, measure) ?? []);
    const all = values(scenes);
    const share = measure.unit === "%";
    const [low, high] = all.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const domain = share ? [0, 100] : nice(low, high > low ? high : low + 1, BINS);
    // Bins are open on the right: the last one reaches past the largest value.
    const step = (domain[1] - domain[0]) / BINS;
    const edges = Array.from({ length: BINS + 1 }, (_, i) => domain[0] + i * step + (i === BINS ? 1e-6 * step : 0));
    const bars = (fill: string) =>
      Plot.binX({ y: "count", title: (bin: number[]) => plural(bin.length, "scene") }, {
        x: { value: (value: number) => value, thresholds: edges },
        fill,
      } as Plot.BinXInputs<Plot.RectYOptions>);
    const plot = Plot.plot({
      width,
      height: HEIGHT,
      marginTop: MARGINS.top,
      marginRight: MARGINS.right,
      marginBottom: MARGINS.bottom,
      marginLeft: MARGINS.left,
      style: { background: "none", fontSize: "12px" },
      x: { domain, label: null, ticks: Math.max(3, Math.floor(width / 70)) },
      y: { label: null, ticks: 3, tickFormat: (count: number) => (Number.isInteger(count) ? shortCount(count) : "") },
      ariaLabel: `${measure.label}: distribution over ${scenes.length} scenes`,
      marks: [
        Plot.rectY(all, bars("var(--faint)")),
        Plot.rectY(values(chosen), bars("var(--accent)")),
        Plot.ruleY([0]),
      ],
    }) as SVGSVGElement & Plot.Plot;
    const scale = plot.scale("x");
    const brush = brushX<unknown>()
      .extent([
        [MARGINS.left, MARGINS.top],
        [width - MARGINS.right, HEIGHT - MARGINS.bottom],
      ])
      .on("end", (event) => {
        if (!event.sourceEvent) return; // moved by the address
        const ends = event.selection as [number, number] | null;
        const limits = ends?.map((end) => Number(Number(scale?.invert?.(end)).toFixed(measure.digits)));
        change({ [measure.key]: limits ? formatRange(limits as [number, number]) : null });
      });
    const layer = select(plot)
      .append("g")
      .attr("class", "brush")
      .call(brush as never);
    if (range && scale) {
      const ends = range.map((end) => scale.apply(Math.min(Math.max(end, domain[0]), domain[1])));
      layer.call(brush.move as never, ends as never);
    }
    element.current.replaceChildren(plot);
    return () => plot.remove();
  }, [width, scenes, chosen, text]);
  const end = (i: 0 | 1) => (range && Number.isFinite(range[i]) ? String(range[i]) : "");
  const set = (i: 0 | 1) => (event: { currentTarget: HTMLInputElement }) => {
    const limits: [number, number] = [...(range ?? [-Infinity, Infinity])];
    const typed = event.currentTarget.value;
    limits[i] = typed === "" ? (i ? Infinity : -Infinity) : Number(typed);
    change({ [measure.key]: limits.some(Number.isFinite) ? formatRange(limits) : null });
  };
  const title = measure.unit ? `${measure.label} (${measure.unit})` : measure.label;
  return (
    <Card title={title} name={`histogram-${measure.key}`}>
      <div class="drawing" ref={element} />
      <p class="range">
        <label>
          from <input type="number" step="any" value={end(0)} onChange={set(0)} aria-label={`${title}, from`} />
        </label>{" "}
        <label>
          to <input type="number" step="any" value={end(1)} onChange={set(1)} aria-label={`${title}, to`} />
        </label>
        {range && (
          <button type="button" onClick={() => change({ [measure.key]: null })}>
            all
          </button>
        )}
      </p>
    </Card>
  );
}
