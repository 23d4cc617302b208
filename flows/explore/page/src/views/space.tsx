// The 3D view of a scene: what is drawn and in which colours, with its choices, legend and pictures.

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import {
  amount,
  BASE_STATION,
  CELLS,
  CROWN,
  OTHER_STATION,
  pathColour,
  STATUS_COLOURS,
  STATUSES,
  sourceOf,
} from "../colours";
import { loadCrowns } from "../crowns";
import type { Scene } from "../index";
import { countOf, firstOf } from "../links";
import { plural, quantile, shown } from "../numbers";
import { describe, rebuild } from "../paths";
import { colourOf, saveCanvasPng } from "../pictures";
import { cellAt, GROUP, loadRadioMap, metricsOf, pictureOf } from "../radiomap";
import type { Point } from "../rays";
import type { Field, SceneData, User } from "../scenedata";
import { type Surface, surfaceOf } from "../solids";
import { type Pointed, Stage } from "../stage";
import { type Building, TABLE } from "../store";
import { Card, Choice, change, type Loaded, Loading, Ramp, useLink, useLoaded, usePage, Waiting } from "../ui";
import { loadMotion, loadPaths, PATHS, userParts } from "../userdata";
import { colourOfKind, Key, materialsOf, said } from "./key";
import { FollowedNote, Located } from "./predictions";

/** The camera's place goes into the address when it has not moved for so many ms. */
const SETTLED = 200;
/** The choice of no users, or no crowns, in the scene. */
const HIDDEN = "none";

export default function Space(props: { scene: Scene; data?: SceneData; user?: User; fields: Field[] }) {
  const { scene, data, user, fields } = props;
  const { index, version, address } = usePage();
  const link = useLink();
  const canvas = useRef<HTMLCanvasElement>(null);
  const [stage, setStage] = useState<Stage | null>(null);
  const [broken, setBroken] = useState("");
  const [hover, setHover] = useState<Pointed | null>(null);
  const theme = useTheme();
  const loaded = useLoaded(() => loadBuildings(version, scene), [scene.id]);
  const buildings = loaded.value;
  const surfaces = useMemo(() => buildings?.map(surfaceOf) ?? [], [buildings]);
  const triangles = useMemo(() => trianglesOf(surfaces), [surfaces]);
  const several = countOf(index) > 1;
  const crowns = useLoaded(() => loadCrowns(version, scene), [scene.id]);
  const bare = address.query.get("crowns") === HIDDEN;
  const by = address.query.get("buildings") ?? "source";
  const field = fields.find(({ key }) => key === address.query.get("users"));
  const hidden = address.query.get("users") === HIDDEN;
  const range = useMemo(() => rangeOf(data, field), [data, field]);
  const metrics = useMemo(() => metricsOf(index), [index]);
  const metric = metrics.find(({ key }) => key === address.query.get("map"));
  const map = useLoaded(async () => (metric ? loadRadioMap(version, scene, metric) : null), [scene.id, metric]);
  const camera = address.query.get("camera");
  const looked = useRef<string | null>(null);
  const lines = address.query.get("rays") ?? "both";

  useEffect(() => {
    if (!canvas.current) return;
    let made: Stage;
    let later = 0;
    try {
      made = new Stage(
        canvas.current,
        index.attributes.tile_size_m,
        (number) => change({ user: String(number), t: null, path: null }),
        setHover,
        (now) => {
          // A wheel turns many times a second, which browsers do not let an address do.
          clearTimeout(later);
          later = window.setTimeout(() => {
            looked.current = now;
            change({ camera: now }, true);
          }, SETTLED);
        },
      );
    } catch (error) {
      setBroken(error instanceof Error ? error.message : String(error));
      return;
    }
    setStage(made);
    return () => {
      clearTimeout(later);
      made.dispose();
    };
  }, []);
  useEffect(() => {
    if (!stage) return;
    if (camera !== looked.current) stage.look(camera);
    looked.current = camera;
  }, [stage, camera]);
  useEffect(() => {
    const material = by === "material" ? materialsOf(index.attributes.recipe)[2].colour : "";
    stage?.setGround(material || colourOf("--ground"), colourOf("--soft"));
  }, [stage, by, theme]);
  useEffect(() => {
    if (!stage) return;
    const of = data?.link ?? 0;
    const stations = (data?.stations ?? [firstOf(index, scene)]).flatMap((station) => station ?? []);
    const byCell = field?.key === "serving";
    stage.setStations(
      stations.map((station) => {
        const own = station.number === of ? BASE_STATION : OTHER_STATION;
        const colour = byCell ? CELLS[station.number % CELLS.length] : own;
        return { ...station, colour, label: several ? String(station.number) : "", chosen: station.number === of };
      }),
    );
    stage.canvas.dataset.stations = JSON.stringify(stations.map(({ number, place }) => ({ number, place })));
  }, [stage, data, field]);
  useEffect(() => {
    const shown = bare ? null : crowns.value;
    const woods = (shown?.woods ?? []).map(({ rings, base, top }) =>
      surfaceOf({ polygons: [rings], base, height: top }),
    );
    stage?.setCrowns(shown?.trees ?? [], woods, CROWN);
    if (stage) stage.canvas.dataset.crowns = String((shown?.trees.length ?? 0) + woods.length);
  }, [stage, crowns.value, bare]);
  useEffect(() => {
    stage?.setMap(map.value ? pictureOf(map.value) : null);
    if (canvas.current) canvas.current.dataset.map = map.value?.metric.key ?? "";
  }, [stage, map.value]);
  useEffect(() => {
    if (!stage || !buildings) return;
    const highest = Math.max(1, ...buildings.map(({ height }) => height));
    const [wall, roof] = materialsOf(index.attributes.recipe);
    stage.setSolids(
      surfaces.map((surface, i) => {
        if (by === "material") return { ...surface, wallColour: wall.colour, roofColour: roof.colour };
        const { height, source } = buildings[i];
        const colour = by === "height" ? amount(height / highest) : sourceOf(source).colour;
        return { ...surface, wallColour: colour, roofColour: colour };
      }),
      colourOf("--edge"),
    );
  }, [stage, surfaces, by, theme]);
  useEffect(() => {
    if (!stage || !data) return;
    const markers = data.users.map((one) => ({
      place: one.place,
      status: one.status,
      colour: field ? fieldColour(field, field.of(one), range) : STATUS_COLOURS[one.status],
    }));
    stage.setUsers(markers, user?.number ?? null, colourOf("--ink"), hidden);
  }, [stage, data, field, hidden, user?.number, theme]);
  useEffect(() => {
    const located = data?.users.filter((one) => one.predicted) ?? [];
    stage?.setErrors(
      located
        .filter((one) => !hidden || one === user)
        .map((one) => ({ from: one.place, to: one.predicted ?? one.place, chosen: one === user })),
      colourOf("--mark"),
    );
  }, [stage, data, hidden, user?.number, theme]);
  useEffect(() => {
    stage?.setFollowed(lines === "paths" ? [] : (user?.followed ?? []), colourOf("--followed"));
    if (stage) stage.canvas.dataset.followed = JSON.stringify(user?.followed ?? []);
  }, [stage, user, lines, theme]);
  const rays = useRays(stage, scene, data?.base, user, triangles, loaded, lines !== "followed", theme);

  const keep = () => {
    if (!stage) return;
    const what = map.value && `${map.value.metric.label} at ${shown(map.value.height, 1, "m")} above ground`;
    const of = several && data ? `base station ${data.link}` : "";
    const note = [scene.id, scene.city, of, user && `user ${user.number}`, what].filter(Boolean).join(", ");
    const name = user ? `${scene.id}-user-${user.number}` : scene.id;
    saveCanvasPng(stage.picture(), name, index.attributes.attribution, note);
  };
  const hovered = hover && hover.user !== null ? data?.users[hover.user] : undefined;
  const cell = map.value && hover?.ground ? cellAt(map.value, ...hover.ground) : null;
  return (
    <Card title="In 3D" wide>
      <div class="maptools">
        {several && (
          <Choice
            label="Links of"
            value={String(link.number)}
            options={Array.from({ length: countOf(index) }, (_, number): [string, string] => [
              String(number),
              `base station ${number}${data && !data.stations[number] ? " (no place here)" : ""}`,
            ])}
            onChange={(value) => change({ bs: value === "0" ? null : value, path: null })}
          />
        )}
        <Choice
          label="Users by"
          value={hidden ? HIDDEN : (field?.key ?? "status")}
          options={[
            ["status", "status"],
            ...fields.map(({ key, label }): [string, string] => [key, label]),
            [HIDDEN, "not shown"],
          ]}
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
        {metrics.length > 0 && (
          <Choice
            label="Ground by"
            value={metric?.key ?? ""}
            options={[["", "nothing"], ...metrics.map(({ key, label }): [string, string] => [key, label])]}
            onChange={(value) => change({ map: value })}
          />
        )}
        {crowns.value && (
          <Choice
            label="Crowns"
            value={bare ? HIDDEN : ""}
            options={[
              ["", "shown"],
              [HIDDEN, "not shown"],
            ]}
            onChange={(value) => change({ crowns: value })}
          />
        )}
        {user?.followed && (
          <Choice
            label="Lines"
            value={lines}
            options={[
              ["both", "paths and followed waves"],
              ["paths", "paths"],
              ["followed", "followed waves"],
            ]}
            onChange={(value) => change({ rays: value === "both" ? null : value })}
          />
        )}
        <span class="tools">
          <button type="button" onClick={() => change({ camera: null }, true)}>
            From the south
          </button>
          <button type="button" onClick={() => stage && change({ camera: stage.top() }, true)}>
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
            <p class="hint" style={besides(hover, canvas.current)}>
              <strong>user {hovered.number}</strong>: {STATUSES[hovered.status]}
              <br />
              {shown(hovered.gain, 1, "dB")}, {shown(hovered.distance, 0, "m")}
              {!Number.isNaN(hovered.paths) && `, ${plural(hovered.paths, "path")}`}
            </p>
          )}
          {map.value && hover?.ground && cell !== null && (
            <p class="hint" style={besides(hover, canvas.current)}>
              {said(map.value, cell)}
              <br />
              {shown(hover.ground[0], 0)}, {shown(hover.ground[1], 0, "m")}
            </p>
          )}
        </div>
      )}
      {!buildings && <Waiting of={loaded} what="the buildings" parts={[index.buildings ? TABLE : "height"]} />}
      {buildings && (
        <Key
          buildings={buildings}
          by={by}
          data={data}
          field={field}
          range={range}
          map={map.value}
          crowns={bare ? null : crowns.value}
        />
      )}
      {crowns.error && (
        <p class="problem" role="alert">
          <strong>Cannot show the crowns.</strong> {crowns.error.message}
        </p>
      )}
      {index.attributes.vegetation && crowns.value === null && (
        <p class="note">The store did not keep the shapes of crowns, so none are drawn; build it again to see them.</p>
      )}
      {metric && !map.value && <Waiting of={map} what="the radio map" parts={[`${GROUP}/${metric.key}`]} />}
      {index.run && data?.link === 0 && <Located data={data} run={index.run.name} />}
      {index.run && data && data.link > 0 && (
        <p class="note">Predictions of the run {index.run.name} are of the links of base station 0.</p>
      )}
      {index.run && user?.followed && <FollowedNote user={user} run={index.run.name} />}
      {rays && <p class="note">{rays}</p>}
    </Card>
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
  base: Point | undefined,
  user: User | undefined,
  triangles: Float64Array,
  buildings: Loaded<Building[]>,
  wanted: boolean,
  theme: number,
): ComponentChildren {
  const { index, address } = usePage();
  const link = useLink();
  const path = Number(address.query.get("path") ?? Number.NaN);
  const step = Number(address.query.get("t") ?? 0);
  const stored = link.has("paths/gain");
  const ready = buildings.value !== undefined;
  const loaded: Loaded<{
    paths: Awaited<ReturnType<typeof loadPaths>>;
    motion: Awaited<ReturnType<typeof loadMotion>>;
  } | null> = useLoaded(async () => {
    if (!user) return null;
    const [paths, motion] = await Promise.all([
      loadPaths(link, scene, user.number),
      loadMotion(link, scene, user.number, firstOf(index, scene).place),
    ]);
    return { paths, motion };
  }, [user?.number, link]);
  const drawn = useMemo(() => {
    if (!user || !base || !ready || !loaded.value) return [];
    return loaded.value.paths.map((one) => ({
      ...rebuild(base, user.place, one, triangles),
      gain: one.gain,
      loss: one.loss,
      words: describe(one.interactions),
    }));
  }, [loaded.value, ready, triangles]);
  useEffect(() => {
    const [low, high] = gainsOf(drawn);
    const colour = pathColour(isDark());
    const rays = drawn.map(({ lines, whole, gain, loss }, i) => ({
      lines,
      whole,
      colour: colour(high > low ? Math.max(0, (gain - low) / (high - low)) : 1),
      chosen: i === path,
      under: loss > 0 ? CROWN : null,
    }));
    const motion = loaded.value?.motion;
    stage?.setRays(wanted ? rays : [], motion?.places ?? [], colourOf("--accent"));
    // For tests, and for whoever wants the vertices.
    if (stage)
      stage.canvas.dataset.paths = JSON.stringify(drawn.map(({ whole, lines, loss }) => ({ whole, lines, loss })));
  }, [stage, drawn, path, loaded.value, wanted, theme]);
  useEffect(() => {
    const place = loaded.value?.motion?.places[step] ?? null;
    stage?.setHere(place, colourOf("--ink"));
    if (stage && place) stage.canvas.dataset.place = place.join(",");
  }, [stage, loaded.value, step, theme]);
  if (!user) return "Click a user to see its paths and its channel.";
  if (!stored) return "This store keeps no paths (features.paths: false), so none are drawn.";
  if (loaded.error) return <span class="problem">{loaded.error.message}</span>;
  if (!drawn.length) {
    if (buildings.error) return "Without the buildings no paths can be drawn; they are listed below.";
    if (loaded.value && ready) return `User ${user.number} has no path.`;
    return <Loading what="the paths" parts={userParts(link, PATHS)} />;
  }
  const whole = drawn.filter((one) => one.whole).length;
  const losses = drawn.flatMap(({ loss }) => (loss > 0 ? [loss] : []));
  const [low, high] = gainsOf(drawn);
  return (
    <>
      <Ramp label="paths by gain" colour={pathColour(isDark())} low={shown(low, 0, "dB")} high={shown(high, 0, "dB")} />
      <br />
      {plural(drawn.length, "stored path")} of user {user.number}
      {countOf(index) > 1 && ` from base station ${link.number}`}. The store keeps directions and delays of paths, not
      where they bounced: {whole} {whole === 1 ? "is" : "are"} rebuilt whole, with bounces where they hit the buildings
      and lengths that equal the stored delays
      {whole < drawn.length && `; of ${drawn.length - whole} (dashed) only what leads away from both ends is known`}.
      {user &&
        stage &&
        stored &&
        loaded.value?.motion &&
        " Paths are those of the first snapshot; the line is where the user goes."}
      {losses.length > 0 &&
        ` ${losses.length === 1 ? "1 path goes" : `${losses.length} paths go`} through crowns (green), which take up to ${shown(Math.max(...losses), 1, "dB")}.`}
    </>
  );
}

/** Ends of the paths' scale of colours: 40 dB at most. */
function gainsOf(paths: { gain: number }[]): [number, number] {
  const high = Math.max(...paths.map(({ gain }) => gain));
  return [Math.max(Math.min(...paths.map(({ gain }) => gain)), high - 40), high];
}

const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark";

/** Where the words about what is pointed at stand: on the side that has room. */
function besides({ x, y }: Pointed, canvas: HTMLCanvasElement | null): Record<string, string> {
  const left = x > (canvas?.clientWidth ?? 0) / 2;
  return { left: `${x + (left ? -14 : 14)}px`, top: `${y + 10}px`, transform: left ? "translateX(-100%)" : "none" };
}

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

function fieldColour(field: Field, value: number, [low, high]: [number, number]): string {
  if (Number.isNaN(value)) return "#8a8f94";
  if (field.names) return colourOfKind(field, value);
  return amount(Math.min(1, Math.max(0, (value - low) / (high - low || 1))));
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
