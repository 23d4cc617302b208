// One user: channel over the array, its spectrum, paths, delays; over time for a user that moves.

import * as Plot from "@observablehq/plot";
import { useEffect, useMemo, useState } from "preact/hooks";
import { codeOfUser } from "../code";
import { amount, cyclic, STATUSES } from "../colours";
import type { Scene } from "../index";
import {
  binOfBeam,
  centred,
  decibel,
  delayProfile,
  type Grid,
  grid,
  magnitude,
  phase,
  SPEED_OF_LIGHT,
  shown,
  spectrum,
} from "../numbers";
import { describe, type Path } from "../paths";
import { locationError, type SceneData, type User } from "../scenedata";
import { Card, Chart, Code, change, type Loaded, useLoaded, usePage, Waiting } from "../ui";
import { isMoving, loadChannel, loadMotion, loadPaths, type Motion, type Snapshot } from "../userdata";
import { Polar } from "./polar";

/** The least width of a scale of colours, dB. */
const NARROW = 3;

const degrees = (radians: number) => (radians * 180) / Math.PI;

export function UserView({ scene, data, user }: { scene: Scene; data: SceneData; user: User }) {
  const { version, index, address } = usePage();
  const moving = isMoving(index);
  const step = moving ? Number(address.query.get("t") ?? 0) : null;
  const motion = useLoaded(() => loadMotion(version, scene, user.number, data.base), []);
  const channel = useLoaded(() => loadChannel(version, scene, user.number, step), [step]);
  const paths = useLoaded(() => loadPaths(version, scene, user.number), []);
  const kinds = index.attributes.trajectory?.kinds ?? {};
  return (
    <section class="user">
      <h2>
        User {user.number}: {STATUSES[user.status]}
      </h2>
      <dl class="facts">
        <Fact name="Path gain" value={shown(user.gain, 1, "dB")} />
        <Fact name="Distance" value={shown(user.distance, 1, "m")} />
        <Fact name="Position (x, y, z)" value={`${user.place.map((value) => shown(value, 1)).join(", ")} m`} />
        <Fact name="Best beam" value={user.beam < 0 ? "none" : String(user.beam)} />
        {!Number.isNaN(user.paths) && <Fact name="Paths found" value={shown(user.paths, 0)} />}
        {!Number.isNaN(user.spread) && <Fact name="RMS delay spread" value={shown(1e9 * user.spread, 1, "ns")} />}
        {user.predicted && <Fact name="Location error of the model" value={shown(locationError(user), 1, "m")} />}
        {user.kind >= 0 && <Fact name="Kind" value={kinds[String(user.kind)] ?? String(user.kind)} />}
      </dl>
      {moving && <TimeSlider motion={motion} step={step ?? 0} />}
      <div class="grid">
        <ChannelCards channel={channel} scene={scene} user={user} step={step} />
        <KeptCards scene={scene} data={data} user={user} />
        <PathCards paths={paths} channel={channel} scene={scene} user={user} stored={version.has("paths/gain")} />
      </div>
      <Code of={`user ${user.number}`} {...codeOfUser(index, version.base, scene, user.number, step ?? 0)} />
    </section>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function TimeSlider({ motion, step }: { motion: Loaded<Motion | null>; step: number }) {
  const [playing, setPlaying] = useState(false);
  const steps = motion.value?.time.length ?? 1;
  useEffect(() => {
    if (!playing) return;
    const next = setTimeout(() => change({ t: String((step + 1) % steps) }, true), 250);
    return () => clearTimeout(next);
  }, [playing, step, steps]);
  if (!motion.value) return <Waiting of={motion} what="where the user moves" />;
  const { time, places, speeds } = motion.value;
  const words = `${shown(1e3 * time[step], 2, "ms")} of ${shown(1e3 * time[steps - 1], 2, "ms")}`;
  return (
    <div class="slider">
      <button type="button" onClick={() => setPlaying(!playing)} aria-pressed={playing}>
        {playing ? "Stop" : "Play"}
      </button>
      <label>
        Time{" "}
        <input
          type="range"
          min={0}
          max={steps - 1}
          value={step}
          aria-valuetext={words}
          onInput={(event) => change({ t: event.currentTarget.value }, true)}
        />
      </label>
      <span>
        snapshot {step}: {words}, {shown(speeds[step], 1, "m/s")}, at{" "}
        {places[step].map((value) => shown(value, 1)).join(", ")} m
      </span>
    </div>
  );
}

function ChannelCards(props: { channel: Loaded<Snapshot>; scene: Scene; user: User; step: number | null }) {
  const { channel, scene, user, step } = props;
  const snapshot = channel.value?.channel;
  const grids = useMemo(
    () => snapshot && { magnitude: magnitude(snapshot), phase: phase(snapshot), spectrum: spectrum(snapshot) },
    [snapshot],
  );
  if (!snapshot || !grids) {
    return (
      <Card title="Channel">
        <Waiting of={channel} what="the channel" />
      </Card>
    );
  }
  if (grids.magnitude.data.every(Number.isNaN)) {
    return (
      <Card title="Channel">
        {user.status === 2 ? (
          <p class="note">The channel is 0: this user is in outage.</p>
        ) : (
          <p class="problem" role="alert">
            <strong>The channel is 0</strong> although this user has paths: validate the store.
          </p>
        )}
      </Card>
    );
  }
  const name = `${scene.id}-user-${user.number}`;
  const { columns, rows } = snapshot;
  const beam = user.beam >= 0 && !step ? binOfBeam(user.beam, columns, rows) : null;
  return (
    <>
      <Card
        title="Channel: |csi|"
        name={`${name}-magnitude`}
        note={step === null ? undefined : "In the middle of the band."}
      >
        <Heat
          values={grids.magnitude}
          unit="dB"
          label="power gain of every antenna"
          axes={["antenna x", "antenna y"]}
        />
      </Card>
      <Card title="Channel: phase" name={`${name}-phase`}>
        <Heat values={grids.phase} unit="°" label="phase of every antenna" axes={["antenna x", "antenna y"]} cyclic />
      </Card>
      <Card
        title="Spatial spectrum"
        name={`${name}-spectrum`}
        note={
          beam
            ? `|DFT|², zero in the middle. The mark is the codebook's best beam, ${user.beam}, whose index is the bin's negated.`
            : "|DFT|², zero in the middle."
        }
      >
        <Heat
          values={grids.spectrum}
          unit="dB"
          label="spatial spectrum"
          axes={["kx", "ky"]}
          offset={[-Math.floor(columns / 2), -Math.floor(rows / 2)]}
          depth={50}
          mark={beam ? [centred(beam[0], columns), centred(beam[1], rows)] : undefined}
        />
      </Card>
    </>
  );
}

/** Predictions of the run for users of which they were kept, next to the truth. */
function KeptCards({ scene, data, user }: { scene: Scene; data: SceneData; user: User }) {
  const { index, version } = usePage();
  const kept = data.kept.find((one) => one.user === user.number);
  const truth = useLoaded(async () => (kept?.occupancy ? version.read("occupancy", scene.row) : null), []);
  if (!kept) return null;
  const { columns, rows } = index.attributes.array;
  const [width, height] = [kept.spectrum.length, kept.spectrum[0].length];
  const whole = width === columns && height === rows;
  const half = [Math.floor(width / 2), Math.floor(height / 2)];
  const spectrum = grid(width, height, (x, y) =>
    // Rounded in the file: what is 0 there is far below the scale.
    decibel(Math.max(1e-6, kept.spectrum[(x - half[0] + width) % width][(y - half[1] + height) % height])),
  );
  let [best, most] = [0, -Infinity];
  kept.spectrum.forEach((line, kx) => {
    line.forEach((value, ky) => {
      if (value > most) [best, most] = [((width - kx) % width) * height + ((height - ky) % height), value];
    });
  });
  const mark = binOfBeam(best, width, height);
  const patches = kept.occupancy;
  const side = patches?.length ?? 0;
  const name = `${scene.id}-user-${user.number}`;
  const saw = `The model saw ${shown(100 * (1 - data.masked), 0)} % of the channel.`;
  return (
    <>
      <Card
        title={`Spectrum predicted by ${index.run?.name}`}
        name={`${name}-predicted`}
        note={`${saw} ${whole ? `Its strongest beam is ${best}, marked; the codebook's best is ${user.beam}.` : `Its spectrum has ${width} × ${height} bins.`}`}
      >
        <Heat
          values={spectrum}
          unit="dB above the mean"
          label="predicted spectrum"
          axes={["kx", "ky"]}
          offset={[-half[0], -half[1]]}
          depth={50}
          mark={[centred(mark[0], width), centred(mark[1], height)]}
        />
      </Card>
      {patches && (
        <Card
          title={`Built patches predicted by ${index.run?.name}`}
          name={`${name}-occupancy`}
          note="North is up. Patches that the model saw are left empty."
        >
          <Heat
            values={grid(side, side, (x, y) => patches[y][x] ?? Number.NaN)}
            unit="probability"
            range={[0, 1]}
            label="predicted occupancy"
            axes={["patch to the east", "patch to the south"]}
          />
        </Card>
      )}
      {patches && (
        <Card title="Built patches: the truth" name={`${name}-built`}>
          {truth.value ? (
            <Heat
              values={grid(side, side, (x, y) => truth.value?.data[y * side + x] ?? Number.NaN)}
              unit="built"
              range={[0, 1]}
              label="occupancy"
              axes={["patch to the east", "patch to the south"]}
            />
          ) : (
            <Waiting of={truth} what="the occupancy" />
          )}
        </Card>
      )}
    </>
  );
}

/** A grid in colours, with its axes and scale. */
function Heat(props: {
  values: Grid;
  unit: string;
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
          label: unit,
          width: Math.min(240, width - 20),
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

function PathCards(props: {
  paths: Loaded<Path[]>;
  channel: Loaded<Snapshot>;
  scene: Scene;
  user: User;
  stored: boolean;
}) {
  const { paths, channel, scene, user, stored } = props;
  const { address } = usePage();
  const name = `${scene.id}-user-${user.number}`;
  const chosen = Number(address.query.get("path") ?? Number.NaN);
  const wideband = channel.value?.wideband;
  const taps = wideband ? delayProfile(wideband.parts, wideband.subcarriers, wideband.spacing) : [];
  const strongest = Math.max(...taps.map(({ power }) => power).filter((power) => !Number.isNaN(power)));
  const profile = wideband && (
    <Card
      title="Delay profile of the band"
      name={`${name}-band`}
      note="Inverse DFT over the subcarriers, at the array's first antenna."
    >
      <Chart
        label="power over delay"
        keys={[wideband]}
        make={() => ({
          height: 240,
          x: { label: "delay, ns", grid: true },
          y: { label: "power, dB", grid: true, domain: [strongest - 60, strongest + 3], clamp: true },
          marks: [
            Plot.lineY(taps, {
              x: (tap) => 1e9 * tap.delay,
              y: "power",
              stroke: "var(--accent)",
              strokeWidth: 2,
            }),
          ],
        })}
      />
    </Card>
  );
  if (!stored) {
    return (
      <>
        {profile}
        <Card title="Paths">
          <p class="note">This store keeps no paths (features.paths: false).</p>
        </Card>
      </>
    );
  }
  if (!paths.value) {
    return (
      <Card title="Paths">
        <Waiting of={paths} what="the paths" />
      </Card>
    );
  }
  if (!paths.value.length) {
    return (
      <Card title="Paths">
        <p class="note">No path leads to this user.</p>
      </Card>
    );
  }
  const rows = paths.value.map((path, number) => ({ ...path, number }));
  const floor = Math.min(...rows.map(({ gain }) => gain)) - 5;
  const [first, last] = [Math.min(...rows.map(({ delay }) => delay)), Math.max(...rows.map(({ delay }) => delay))];
  const margin = Math.max(10, 0.03e9 * (last - first));
  const moves = rows.some(({ doppler }) => doppler !== 0);
  return (
    <>
      <Card title="Delay profile" name={`${name}-delays`}>
        <Chart
          label="gain of every path over its delay"
          keys={[paths.value, chosen]}
          make={() => ({
            height: 260,
            marginLeft: 48,
            x: { label: "delay, ns", grid: true, domain: [1e9 * first - margin, 1e9 * last + margin] },
            y: { label: "path gain, dB", grid: true, domain: [floor, Math.max(...rows.map(({ gain }) => gain)) + 3] },
            marks: [
              Plot.ruleX(rows, {
                x: (path) => 1e9 * path.delay,
                y1: floor,
                y2: "gain",
                stroke: "var(--accent)",
                strokeOpacity: 0.6,
              }),
              Plot.dot(rows, {
                x: (path) => 1e9 * path.delay,
                y: "gain",
                fill: (path) => (path.number === chosen ? "var(--mark)" : "var(--accent)"),
                r: (path: { number: number }) => (path.number === chosen ? 6 : 3.5),
                symbol: (path) => (path.interactions.length ? "diamond" : "circle"),
                title: (path) => `path ${path.number}: ${describe(path.interactions)}, ${shown(path.gain, 1, "dB")}`,
              }),
            ],
            r: { type: "identity" },
            symbol: { type: "identity" },
            color: { type: "identity" },
          })}
        />
      </Card>
      <Card
        title="Directions of the paths"
        name={`${name}-directions`}
        note="Seen from above, north is up; the further out, the stronger the path. Circles leave the base station, triangles arrive at the user."
      >
        <Polar paths={paths.value} chosen={chosen} />
      </Card>
      <Card title={`Paths (${rows.length} stored of ${shown(user.paths, 0)} found)`} wide>
        <section class="table paths" aria-label="Paths">
          <table>
            <thead>
              <tr>
                {[
                  "Path",
                  "Gain, dB",
                  "Phase, °",
                  "Delay, ns",
                  "Length, m",
                  "Departure zenith, °",
                  "azimuth, °",
                  "Arrival zenith, °",
                  "azimuth, °",
                ].map((label, i) => (
                  <th key={`${label}${i}`} class="number">
                    {label}
                  </th>
                ))}
                {moves && <th class="number">Doppler, Hz</th>}
                <th>Interactions from the base station on</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((path) => (
                <tr key={path.number} class={path.number === chosen ? "chosen" : ""}>
                  <td class="number">
                    <button
                      type="button"
                      class="link"
                      aria-label={`Show path ${path.number} in the scene`}
                      aria-pressed={path.number === chosen}
                      onClick={() => change({ path: path.number === chosen ? null : String(path.number) })}
                    >
                      {path.number}
                    </button>
                  </td>
                  <td class="number">{shown(path.gain, 1)}</td>
                  <td class="number">{shown(path.phase, 0)}</td>
                  <td class="number">{shown(1e9 * path.delay, 1)}</td>
                  <td class="number">{shown(path.delay * SPEED_OF_LIGHT, 1)}</td>
                  {[path.departure, path.arrival].flatMap(({ zenith, azimuth }, end) => [
                    <td key={`z${end}`} class="number">
                      {shown(degrees(zenith), 1)}
                    </td>,
                    <td key={`a${end}`} class="number">
                      {shown(degrees(azimuth), 1)}
                    </td>,
                  ])}
                  {moves && <td class="number">{shown(path.doppler, 0)}</td>}
                  <td>{describe(path.interactions)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      </Card>
      {profile}
    </>
  );
}
