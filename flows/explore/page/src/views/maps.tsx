// The world with its cities, and a city with its tiles.

import { geoNaturalEarth1, geoPath, mean, select, type ZoomTransform, zoom, zoomIdentity } from "d3";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { feature } from "topojson-client";
import type { GeometryCollection, Topology } from "topojson-specification";
import land from "world-atlas/land-110m.json";
import { link } from "../address";
import { amount, type Category, OUTCOMES, SPLITS, sourceOf, UNKNOWN } from "../colours";
import { MEASURES, type Measure, shownValue } from "../filters";
import type { Scene } from "../index";
import { plural, quantile, shown } from "../numbers";
import { Card, Choice, change, Legend, Ramp, usePage, useWidth } from "../ui";

const LAND = feature(land as unknown as Topology, (land as unknown as Topology).objects.land as GeometryCollection);

interface Colouring {
  key: string;
  measure?: Measure;
  of: (scene: Scene) => string;
  legend: Category[];
  range: [number, number];
}

const KINDS: Record<string, { label: string; of: (scene: Scene) => Category }> = {
  status: { label: "outcome", of: ({ status }) => ({ label: status, colour: OUTCOMES[status] ?? UNKNOWN }) },
  split: { label: "split", of: ({ split }) => ({ label: split || "none", colour: SPLITS[split] ?? UNKNOWN }) },
  height: { label: "height source", of: ({ source }) => sourceOf(source) },
};

/** How scenes are coloured: by a measure, or a kind. */
function useColouring(scenes: Scene[], standard: string): Colouring {
  const { address } = usePage();
  const key = address.query.get("by") ?? standard;
  return useMemo(() => {
    const measure = MEASURES.find((one) => one.key === key);
    if (measure) {
      const values = scenes.flatMap((scene) => shownValue(scene, measure) ?? []);
      // A single odd scene would take the colour from all others.
      const range: [number, number] = [quantile(values, 0.02), quantile(values, 0.98)];
      const width = range[1] - range[0] || 1;
      const of = (scene: Scene) => {
        const value = shownValue(scene, measure);
        return value === null ? UNKNOWN : amount(Math.min(1, Math.max(0, (value - range[0]) / width)));
      };
      return { key, measure, of, legend: [], range };
    }
    const kind = KINDS[key] ?? KINDS.status;
    const legend = [...new Map(scenes.map((scene) => [kind.of(scene).label, kind.of(scene)])).values()];
    return { key, of: (scene) => kind.of(scene).colour, legend, range: [0, 1] };
  }, [scenes, key]);
}

function ColourChoice({ colouring }: { colouring: Colouring }) {
  const { measure, range, legend } = colouring;
  return (
    <div class="maptools">
      <Choice
        label="Colour by"
        value={colouring.key}
        options={[
          ...Object.entries(KINDS).map(([key, { label }]): [string, string] => [key, label]),
          ...MEASURES.map(({ key, label }): [string, string] => [key, label.toLowerCase()]),
        ]}
        onChange={(value) => change({ by: value })}
      />
      {measure ? (
        <Ramp
          label=""
          colour={amount}
          low={shown(range[0], measure.digits, measure.unit)}
          high={shown(range[1], measure.digits, measure.unit)}
        />
      ) : (
        <Legend entries={legend} />
      )}
    </div>
  );
}

/** How a drawing is enlarged, as the address has it: the factor, and what is in the middle as shares of both sides. */
function zoomText({ k, x, y }: ZoomTransform, width: number, height: number): string | null {
  if (k === 1) return null;
  return [k, (width / 2 - x) / k / width, (height / 2 - y) / k / height].map((value) => value.toFixed(3)).join(",");
}

function zoomOf(text: string | null, width: number, height: number): ZoomTransform {
  const [k, x, y] = (text ?? "").split(",").map(Number);
  if (![k, x, y].every(Number.isFinite) || k < 1) return zoomIdentity;
  return zoomIdentity
    .translate(width / 2, height / 2)
    .scale(k)
    .translate(-x * width, -y * height);
}

/** Wheel, drag, two fingers and buttons move and enlarge a drawing. */
function useZoom(width: number, height: number, most: number) {
  const { address } = usePage();
  const svg = useRef<SVGSVGElement>(null);
  const [transform, setTransform] = useState<ZoomTransform>(zoomIdentity);
  const text = address.query.get("zoom");
  const said = useRef<string | null>(null);
  const behaviour = useMemo(
    () =>
      zoom<SVGSVGElement, unknown>()
        .scaleExtent([1, most])
        .translateExtent([
          [0, 0],
          [width, height],
        ])
        .extent([
          [0, 0],
          [width, height],
        ])
        // One finger moves the page.
        .filter((event) => !event.button && !(event.touches?.length === 1 && event.type !== "touchend"))
        .on("zoom", (event) => setTransform(event.transform))
        .on("end", (event) => {
          const now = zoomText(event.transform, width, height);
          if (now === said.current) return; // moved by the address
          said.current = now;
          change({ zoom: now }, true);
        }),
    [width, height, most],
  );
  useLayoutEffect(() => {
    if (!svg.current || !width) return;
    const drawing = select(svg.current);
    drawing.call(behaviour);
    said.current = text;
    behaviour.transform(drawing, zoomOf(text, width, height));
    return () => void drawing.on(".zoom", null);
  }, [behaviour, width]);
  useLayoutEffect(() => {
    if (!svg.current || !width || text === said.current) return;
    said.current = text;
    behaviour.transform(select(svg.current), zoomOf(text, width, height));
  }, [text]);
  const by = (factor: number) => svg.current && behaviour.scaleBy(select(svg.current), factor);
  const buttons = (
    <span class="zoom">
      <button type="button" onClick={() => by(1.6)} aria-label="Enlarge the map">
        +
      </button>
      <button type="button" onClick={() => by(1 / 1.6)} aria-label="Shrink the map">
        −
      </button>
      <button type="button" onClick={() => change({ zoom: null }, true)}>
        whole
      </button>
    </span>
  );
  return { svg, transform, buttons };
}

export function WorldMap({ scenes, chosen }: { scenes: Scene[]; chosen: Scene[] }) {
  const { index, address } = usePage();
  const colouring = useColouring(scenes, "gain");
  const [element, width] = useWidth<HTMLDivElement>();
  const height = Math.round(width * 0.52);
  const { svg, transform, buttons } = useZoom(width, height, 60);
  const projection = useMemo(
    () =>
      geoNaturalEarth1().fitExtent(
        [
          [2, 2],
          [width - 2, height - 2],
        ],
        { type: "Sphere" },
      ),
    [width, height],
  );
  const outline = useMemo(() => {
    const path = geoPath(projection);
    return { sphere: path({ type: "Sphere" }) ?? "", land: path(LAND) ?? "" };
  }, [projection]);
  const cities = useMemo(() => {
    const by = Map.groupBy(chosen, (scene) => scene.city);
    return index.cities.flatMap((city) => {
      const own = by.get(city.name);
      if (!own || city.latitude === null || city.longitude === null) return [];
      return [{ ...city, own, place: projection([city.longitude, city.latitude]) ?? [0, 0] }];
    });
  }, [chosen, projection]);
  const labels = cities.length ? placed(cities, transform, width) : new Set<string>();
  return (
    <Card
      title="Cities"
      name="world"
      note="Choose a city; the wheel or two fingers enlarge the map, dragging moves it."
    >
      <ColourChoice colouring={colouring} />
      <div ref={element}>
        {width > 0 && (
          <svg ref={svg} class="drawing map" width={width} height={height} viewBox={`0 0 ${width} ${height}`}>
            <title>Cities of the dataset</title>
            <g transform={transform.toString()}>
              <path class="sea" d={outline.sphere} />
              <path class="land" d={outline.land} stroke-width={0.6 / transform.k} />
            </g>
            {cities.map(({ name, country, own, place }) => {
              const [x, y] = transform.apply(place as [number, number]);
              const { measure } = colouring;
              const average = measure && mean(own, (scene) => shownValue(scene, measure) ?? Number.NaN);
              const words = `${name}${country && `, ${country}`}: ${plural(own.length, "scene")}${
                measure ? `, ${measure.label.toLowerCase()} ${shown(average, measure.digits, measure.unit)}` : ""
              }`;
              return (
                <a key={name} href={link(address, "city", name)} aria-label={words} class="city">
                  <title>{words}</title>
                  <circle cx={x} cy={y} r={radius(own.length)} fill={cityColour(own, colouring, average)} />
                  {labels.has(name) && (
                    <text x={x + radius(own.length) + 4} y={y + 4}>
                      {name}
                    </text>
                  )}
                </a>
              );
            })}
          </svg>
        )}
      </div>
      {buttons}
      {cities.length < index.cities.length && chosen.some((scene) => scene.latitude === null) && (
        <p class="note">Cities without coordinates are only in the table.</p>
      )}
    </Card>
  );
}

const radius = (scenes: number) => Math.min(16, 4 + 1.2 * Math.log2(1 + scenes));

/** Colour of a city: of its mean, or of the kind that most of its scenes have. */
function cityColour(own: Scene[], colouring: Colouring, average: number | undefined): string {
  const { measure, range } = colouring;
  if (measure) {
    if (average === undefined || Number.isNaN(average)) return UNKNOWN;
    return amount(Math.min(1, Math.max(0, (average - range[0]) / (range[1] - range[0] || 1))));
  }
  const counts = Map.groupBy(own, colouring.of);
  return [...counts].sort((a, b) => b[1].length - a[1].length)[0][0];
}

/** Names of the cities, largest first, that fit without covering each other. */
function placed(
  cities: { name: string; own: Scene[]; place: number[] }[],
  transform: ZoomTransform,
  width: number,
): Set<string> {
  const boxes: [number, number, number, number][] = [];
  const names = new Set<string>();
  for (const { name, own, place } of [...cities].sort((a, b) => b.own.length - a.own.length)) {
    const [x, y] = transform.apply(place as [number, number]);
    const left = x + radius(own.length) + 2;
    const box: [number, number, number, number] = [left, y - 8, left + 7.2 * name.length, y + 8];
    if (box[2] > width || boxes.some((other) => overlap(box, other))) continue;
    boxes.push(box, [x - radius(own.length), y - radius(own.length), left, y + radius(own.length)]);
    names.add(name);
  }
  return names;
}

const overlap = (a: number[], b: number[]) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

const METRES_PER_DEGREE = 111_195;

export function CityMap({ city, scenes, chosen }: { city: string; scenes: Scene[]; chosen: Scene[] }) {
  const { index, address } = usePage();
  const colouring = useColouring(scenes, "status");
  const [element, width] = useWidth<HTMLDivElement>();
  const height = Math.max(260, Math.min(560, Math.round(width * 0.7)));
  const { svg, transform, buttons } = useZoom(width, height, 40);
  const size = index.attributes.tile_size_m;
  const layout = useMemo(() => layoutOf(scenes, size, width, height), [scenes, width, height]);
  const shownRows = useMemo(() => new Set(chosen.map((scene) => scene.row)), [chosen]);
  if (!scenes.some((scene) => scene.latitude !== null)) {
    return (
      <Card title="Tiles">
        <p class="note">The scenes of this city have no coordinates; the table lists them.</p>
      </Card>
    );
  }
  const bar = niceLength(90 / (layout.scale * transform.k));
  const pixels = bar * layout.scale * transform.k;
  const overlapping = layout.places.size > 1;
  const crossed = scenes.some((scene) => scene.status === "quarantined");
  return (
    <Card
      title={`Tiles of ${city}`}
      name={`tiles-${city}`}
      note={`Choose a tile to see its scene${crossed ? "; crossed ones are quarantined" : ""}.`}
    >
      <ColourChoice colouring={colouring} />
      <div ref={element}>
        {width > 0 && (
          <svg ref={svg} class="drawing map plain" width={width} height={height} viewBox={`0 0 ${width} ${height}`}>
            <title>Tiles of {city}</title>
            <rect class="ground" width={width} height={height} />
            <g transform={transform.toString()}>
              {scenes.map((scene) => {
                const place = layout.places.get(scene.row);
                if (!place) return null;
                const side = size * layout.scale;
                const [x, y] = [place[0] - side / 2, place[1] - side / 2];
                const words = describe(scene, colouring.measure);
                return (
                  <a
                    key={scene.row}
                    href={link(address, "scene", scene.id)}
                    aria-label={words}
                    class={shownRows.has(scene.row) ? "tile" : "tile out"}
                  >
                    <title>{words}</title>
                    <rect
                      x={x}
                      y={y}
                      width={side}
                      height={side}
                      fill={colouring.of(scene)}
                      stroke-width={(overlapping ? 1 : 2) / transform.k}
                    />
                    {scene.status === "quarantined" && (
                      <path
                        d={`M${x},${y}l${side},${side}m0,${-side}l${-side},${side}`}
                        class="cross"
                        stroke-width={1.5 / transform.k}
                      />
                    )}
                  </a>
                );
              })}
            </g>
            <g class="scale" transform={`translate(${width - pixels - 16}, ${height - 14})`}>
              <path d={`M0,-5v5h${pixels}v-5`} fill="none" />
              <text x={pixels / 2} y={-8} text-anchor="middle">
                {bar >= 1000 ? `${bar / 1000} km` : `${bar} m`}
              </text>
            </g>
            <g class="scale" transform={`translate(20, 32)`}>
              <path d="M0,0v-18m-5,6l5,-6l5,6" fill="none" />
              <text y={14} text-anchor="middle">
                N
              </text>
            </g>
          </svg>
        )}
      </div>
      {buttons}
    </Card>
  );
}

function describe(scene: Scene, measure?: Measure): string {
  if (scene.status !== "done") return `${scene.id}: ${scene.status}, ${scene.reason || "reason not known"}`;
  const value = measure
    ? `, ${measure.label.toLowerCase()} ${shown(shownValue(scene, measure), measure.digits, measure.unit)}`
    : "";
  return `${scene.id}: ${scene.split}, ${plural(scene.users, "user")}${value}`;
}

/** Places of tiles in pixels, and pixels per metre, so that all of them fit. */
function layoutOf(scenes: Scene[], size: number, width: number, height: number) {
  const points = scenes.flatMap(({ row, latitude, longitude }) =>
    latitude === null || longitude === null ? [] : [{ row, latitude, longitude }],
  );
  const middle = mean(points, ({ latitude }) => latitude) ?? 0;
  const along = METRES_PER_DEGREE * Math.cos((middle * Math.PI) / 180);
  const metres = points.map(({ row, latitude, longitude }) => ({
    row,
    x: longitude * along,
    y: -latitude * METRES_PER_DEGREE,
  }));
  const ends = (key: "x" | "y") => {
    const values = metres.map((place) => place[key]);
    return [
      values.reduce((a, b) => Math.min(a, b), Infinity) - size,
      values.reduce((a, b) => Math.max(a, b), -Infinity) + size,
    ];
  };
  const [[left, right], [top, bottom]] = [ends("x"), ends("y")];
  const scale = Math.min(width / (right - left), height / (bottom - top), 0.5);
  const [dx, dy] = [(width - scale * (right - left)) / 2, (height - scale * (bottom - top)) / 2];
  const places = new Map(
    metres.map(({ row, x, y }) => [row, [dx + (x - left) * scale, dy + (y - top) * scale] as const]),
  );
  return { places, scale };
}

/** A round length in m near the given one. */
function niceLength(metres: number): number {
  const power = 10 ** Math.floor(Math.log10(metres));
  return ([5, 2, 1].find((factor) => factor * power <= metres) ?? 1) * power;
}
