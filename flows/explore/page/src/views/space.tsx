// The 3D view of a scene: what is drawn and in which colours, with its choices, legend and pictures.

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { amount, BASE_STATION, type Category, pathColour, STATUS_COLOURS, STATUSES, sourceOf } from "../colours";
import type { Scene } from "../index";
import { plural, quantile, shown } from "../numbers";
import { describe, rebuild } from "../paths";
import { colourOf, saveCanvasPng } from "../pictures";
import { baseOf, boresightOf, type Field, locationError, type SceneData, type User } from "../scenedata";
import { type Surface, surfaceOf } from "../solids";
import { Stage } from "../stage";
import type { Building } from "../store";
import { Card, Choice, change, Legend, type Loaded, Ramp, useLoaded, usePage, Waiting } from "../ui";
import { loadMotion, loadPaths } from "../userdata";

const MATERIALS = { wall: "#9fb3c4", roof: "#c9a27e" };

export default function Space(props: { scene: Scene; data?: SceneData; user?: User; fields: Field[] }) {
  const { scene, data, user, fields } = props;
  const { index, version, address } = usePage();
  const canvas = useRef<HTMLCanvasElement>(null);
  const [stage, setStage] = useState<Stage | null>(null);
  const [broken, setBroken] = useState("");
  const [hover, setHover] = useState<{ user: number; x: number; y: number } | null>(null);
  const theme = useTheme();
  const loaded = useLoaded(() => loadBuildings(version, scene), [scene.id]);
  const buildings = loaded.value;
  const surfaces = useMemo(() => buildings?.map(surfaceOf) ?? [], [buildings]);
  const triangles = useMemo(() => trianglesOf(surfaces), [surfaces]);
  const base = baseOf(index, scene);
  const by = address.query.get("buildings") ?? "source";
  const field = fields.find(({ key }) => key === address.query.get("users"));
  const range = useMemo(() => rangeOf(data, field), [data, field]);

  useEffect(() => {
    if (!canvas.current) return;
    let made: Stage;
    try {
      made = new Stage(
        canvas.current,
        index.attributes.tile_size_m,
        (number) => change({ user: String(number), t: null, path: null }),
        (number, x, y) => setHover(number === null ? null : { user: number, x, y }),
      );
    } catch (error) {
      setBroken(error instanceof Error ? error.message : String(error));
      return;
    }
    setStage(made);
    return () => made.dispose();
  }, []);
  useEffect(() => {
    stage?.setGround(colourOf("--ground"), colourOf("--soft"));
    stage?.setBase(base, boresightOf(index));
  }, [stage, theme]);
  useEffect(() => {
    if (!stage || !buildings) return;
    const highest = Math.max(1, ...buildings.map(({ height }) => height));
    stage.setSolids(
      surfaces.map((surface, i) => {
        const colour =
          by === "height"
            ? amount(buildings[i].height / highest)
            : by === "material"
              ? ""
              : sourceOf(buildings[i].source).colour;
        return { ...surface, wallColour: colour || MATERIALS.wall, roofColour: colour || MATERIALS.roof };
      }),
      colourOf("--edge"),
    );
  }, [stage, surfaces, by, theme]);
  useEffect(() => {
    if (!stage || !data) return;
    const markers = data.users.map((one) => ({
      place: one.place,
      status: one.status,
      colour: field ? fieldColour(field.of(one), range) : STATUS_COLOURS[one.status],
    }));
    stage.setUsers(markers, user?.number ?? null, colourOf("--ink"));
  }, [stage, data, field, user?.number, theme]);
  useEffect(() => {
    const located = data?.users.filter((one) => one.predicted) ?? [];
    stage?.setErrors(
      located.map((one) => ({ from: one.place, to: one.predicted ?? one.place, chosen: one === user })),
      colourOf("--mark"),
    );
  }, [stage, data, user?.number, theme]);
  const rays = useRays(stage, scene, user, triangles, buildings !== undefined, theme);

  const keep = () => {
    if (!stage) return;
    const note = [scene.id, scene.city, user && `user ${user.number}`].filter(Boolean).join(", ");
    const name = user ? `${scene.id}-user-${user.number}` : scene.id;
    saveCanvasPng(stage.picture(), name, index.attributes.attribution, note);
  };
  const hovered = hover && data?.users[hover.user];
  return (
    <Card title="In 3D" wide>
      <div class="maptools">
        <Choice
          label="Users by"
          value={field?.key ?? "status"}
          options={[["status", "status"], ...fields.map(({ key, label }): [string, string] => [key, label])]}
          onChange={(value) => change({ users: value === "status" ? null : value })}
        />
        <Choice
          label="Buildings by"
          value={by}
          options={[
            ["source", "source of height"],
            ["height", "height"],
            ["material", "material"],
          ]}
          onChange={(value) => change({ buildings: value === "source" ? null : value })}
        />
        <span class="tools">
          <button type="button" onClick={() => stage?.home()}>
            From the south
          </button>
          <button type="button" onClick={() => stage?.top()}>
            From above
          </button>
          <button type="button" onClick={keep} aria-label="Download the 3D view as PNG">
            PNG
          </button>
        </span>
      </div>
      {broken ? (
        <p class="problem" role="alert">
          <strong>This browser cannot draw in 3D.</strong> {broken}. The users are listed below.
        </p>
      ) : (
        <div class="stage">
          <canvas
            ref={canvas}
            tabIndex={0}
            aria-label={`Scene ${scene.id} in 3D: arrow keys turn it, plus and minus zoom`}
          />
          {hovered && hover && (
            <p class="hint" style={{ left: `${hover.x + 14}px`, top: `${hover.y + 10}px` }}>
              <strong>user {hovered.number}</strong>: {STATUSES[hovered.status]}
              <br />
              {shown(hovered.gain, 1, "dB")}, {shown(hovered.distance, 0, "m")}
              {!Number.isNaN(hovered.paths) && `, ${plural(hovered.paths, "path")}`}
            </p>
          )}
        </div>
      )}
      {!buildings && <Waiting of={loaded} what="the buildings" />}
      {buildings && <Key buildings={buildings} by={by} data={data} field={field} range={range} />}
      {index.run && data && <Located data={data} run={index.run.name} />}
      {rays && <p class="note">{rays}</p>}
    </Card>
  );
}

/** What the lines of the predictions are. */
function Located({ data, run }: { data: SceneData; run: string }) {
  const errors = data.users.map(locationError).filter((error) => !Number.isNaN(error));
  if (!errors.length)
    return <p class="note">The run {run} has no predictions of this scene: it is of no test split.</p>;
  return (
    <p class="note">
      Predictions of the run {run}: lines lead from {plural(errors.length, "user")} to where the model locates them,
      seeing {shown(100 * (1 - data.masked), 0)} % of the channel; median error {shown(quantile(errors, 0.5), 1, "m")}.
    </p>
  );
}

/** Buildings of the version's tables; of a store without any, the blocks of its height map. */
async function loadBuildings(version: ReturnType<typeof usePage>["version"], scene: Scene): Promise<Building[]> {
  const { index } = version;
  if (index.buildings) return version.buildings(scene.row);
  if (!version.has("height") || index.attributes.imported?.height === false) return [];
  const { data, shape } = await version.read("height", scene.row);
  const [rows, columns] = shape;
  const cell = index.attributes.tile_size_m / columns;
  const half = index.attributes.tile_size_m / 2;
  const blocks: Building[] = [];
  for (let row = 0; row < rows; row++) {
    for (let start = 0; start < columns; ) {
      const height = data[row * columns + start];
      let end = start + 1;
      while (end < columns && data[row * columns + end] === height) end++;
      if (height > 0) {
        const [west, east] = [start * cell - half, end * cell - half];
        const [north, south] = [half - row * cell, half - (row + 1) * cell];
        const ring: [number, number][] = [
          [west, south],
          [east, south],
          [east, north],
          [west, north],
        ];
        blocks.push({ scene: scene.id, osm: "", height, base: 0, source: "height map", polygons: [[ring]] });
      }
      start = end;
    }
  }
  return blocks;
}

/** Draw the paths of the chosen user; what is known of them, in words. */
function useRays(
  stage: Stage | null,
  scene: Scene,
  user: User | undefined,
  triangles: Float64Array,
  ready: boolean,
  theme: number,
): ComponentChildren {
  const { version, index, address } = usePage();
  const base = baseOf(index, scene);
  const path = Number(address.query.get("path") ?? Number.NaN);
  const step = Number(address.query.get("t") ?? 0);
  const stored = version.has("paths/gain");
  const loaded: Loaded<{
    paths: Awaited<ReturnType<typeof loadPaths>>;
    motion: Awaited<ReturnType<typeof loadMotion>>;
  } | null> = useLoaded(async () => {
    if (!user) return null;
    const [paths, motion] = await Promise.all([
      loadPaths(version, scene, user.number),
      loadMotion(version, scene, user.number, base),
    ]);
    return { paths, motion };
  }, [user?.number]);
  const drawn = useMemo(() => {
    if (!user || !ready || !loaded.value) return [];
    return loaded.value.paths.map((one) => ({
      ...rebuild(base, user.place, one, triangles),
      gain: one.gain,
      words: describe(one.interactions),
    }));
  }, [loaded.value, ready, triangles]);
  useEffect(() => {
    const [low, high] = gainsOf(drawn);
    const colour = pathColour(isDark());
    const rays = drawn.map(({ lines, whole, gain }, i) => ({
      lines,
      whole,
      colour: colour(high > low ? Math.max(0, (gain - low) / (high - low)) : 1),
      chosen: i === path,
    }));
    const motion = loaded.value?.motion;
    stage?.setRays(rays, motion?.places ?? [], colourOf("--accent"));
    // For tests, and for whoever wants the vertices.
    if (stage) stage.canvas.dataset.paths = JSON.stringify(drawn.map(({ whole, lines }) => ({ whole, lines })));
  }, [stage, drawn, path, loaded.value, theme]);
  useEffect(() => {
    const place = loaded.value?.motion?.places[step] ?? null;
    stage?.setHere(place, colourOf("--ink"));
    if (stage && place) stage.canvas.dataset.place = place.join(",");
  }, [stage, loaded.value, step, theme]);
  if (!user) return "Click a user to see its paths and its channel.";
  if (!stored) return "This store keeps no paths (features.paths: false), so none are drawn.";
  if (loaded.error) return <span class="problem">{loaded.error.message}</span>;
  if (!drawn.length) return loaded.value && ready ? `User ${user.number} has no path.` : "Loading the paths …";
  const whole = drawn.filter((one) => one.whole).length;
  const [low, high] = gainsOf(drawn);
  return (
    <>
      <Ramp label="paths by gain" colour={pathColour(isDark())} low={shown(low, 0, "dB")} high={shown(high, 0, "dB")} />
      <br />
      {plural(drawn.length, "stored path")} of user {user.number}. The store keeps directions and delays of paths, not
      where they bounced: {whole} {whole === 1 ? "is" : "are"} rebuilt whole, with bounces where they hit the buildings
      and lengths that equal the stored delays
      {whole < drawn.length && `; of ${drawn.length - whole} (dashed) only what leads away from both ends is known`}.
      {user &&
        stage &&
        stored &&
        loaded.value?.motion &&
        " Paths are those of the first snapshot; the line is where the user goes."}
    </>
  );
}

function Key(props: { buildings: Building[]; by: string; data?: SceneData; field?: Field; range: [number, number] }) {
  const { buildings, by, data, field, range } = props;
  const { index } = usePage();
  const radio = index.attributes.recipe?.radio ?? {};
  const counts = [...Map.groupBy(buildings, ({ source }) => source)].map(([source, own]): Category => {
    const { colour, label } = sourceOf(source);
    return { colour, label: `${label}: ${own.length} (${shown((100 * own.length) / buildings.length, 0)} %)` };
  });
  const materials: Category[] = [
    { colour: MATERIALS.wall, label: `walls: ${radio.wall_material ?? "not stated"}` },
    { colour: MATERIALS.roof, label: `roofs: ${radio.roof_material ?? "not stated"}` },
  ];
  return (
    <div class="keys">
      <div>
        <h4>{plural(buildings.length, "building")}</h4>
        {by === "height" && (
          <Ramp
            label="height"
            colour={amount}
            low="0 m"
            high={shown(Math.max(...buildings.map(({ height }) => height)), 0, "m")}
          />
        )}
        <Legend entries={by === "height" ? [] : by === "material" ? materials : counts} />
      </div>
      <div>
        <h4>{data ? plural(data.users.length, "user") : "Users"}</h4>
        {field && (
          <Ramp
            label={field.label}
            colour={amount}
            low={shown(range[0], field.digits, field.unit)}
            high={shown(range[1], field.digits, field.unit)}
          />
        )}
        <Legend
          entries={STATUSES.map((label, status) => ({
            colour: field ? "var(--ink)" : STATUS_COLOURS[status],
            label: `${label}: ${data?.users.filter((one) => one.status === status).length ?? 0}`,
            shape: ["●", "◆", "▲"][status],
          }))}
        />
        <Legend entries={[{ colour: BASE_STATION, label: "base station, and where its panel faces", shape: "▲" }]} />
      </div>
    </div>
  );
}

/** Ends of the paths' scale of colours: 40 dB at most. */
function gainsOf(paths: { gain: number }[]): [number, number] {
  const high = Math.max(...paths.map(({ gain }) => gain));
  return [Math.max(Math.min(...paths.map(({ gain }) => gain)), high - 40), high];
}

const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark";

function trianglesOf(surfaces: Surface[]): Float64Array {
  const total = surfaces.reduce((sum, { walls, roofs }) => sum + walls.length + roofs.length, 0);
  const result = new Float64Array(total);
  let place = 0;
  for (const { walls, roofs } of surfaces) {
    result.set(walls, place);
    result.set(roofs, place + walls.length);
    place += walls.length + roofs.length;
  }
  return result;
}

function rangeOf(data: SceneData | undefined, field: Field | undefined): [number, number] {
  if (!data || !field) return [0, 1];
  const values = data.users.map(field.of).filter((value) => !Number.isNaN(value));
  return [quantile(values, 0.03), quantile(values, 0.97)];
}

function fieldColour(value: number, [low, high]: [number, number]): string {
  return Number.isNaN(value) ? "#8a8f94" : amount(Math.min(1, Math.max(0, (value - low) / (high - low || 1))));
}

/** A number that changes when the page's colours do. */
function useTheme(): number {
  const [count, setCount] = useState(0);
  useEffect(() => {
    const listener = () => setCount((value) => value + 1);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", listener);
    window.addEventListener("themechange", listener);
    return () => {
      dark.removeEventListener("change", listener);
      window.removeEventListener("themechange", listener);
    };
  }, []);
  return count;
}
